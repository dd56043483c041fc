/* SPDX-License-Identifier: Apache-2.0 */
/* A random walk over every way to take device memory, on two GPUs and several threads, with granularity, context size and pool chunks drawn by
 * lot, while the budgets are changed below them. After every thousand operations all threads rest, the budgets are what they were, and on each GPU
 * must hold: what the GPU has in use <= what the ledger says <= the same + what is loose (struct object) + SLACK, and the GPU is never over the budget
 * but by what is UNTOLD.
 * MODEL_OPERATIONS is how many; MODEL_SEED which. Arguments are the families that take part, none: all. */
// timeout: 600
// run: SOFTSIM_RANDOMISE=1 SOFTSIM_GPUS=2 SOFTSIM_MEM=32G SOFTSLICE_TENANT=model SOFTSLICE_VRAM=0=2GiB,1=3GiB SOFTSIM_MODULE_BYTES=3145728
// run: SOFTSIM_RANDOMISE=7 SOFTSIM_GPUS=2 SOFTSIM_MEM=32G SOFTSLICE_TENANT=model SOFTSLICE_VRAM=0=6GiB,1=2GiB -- linear pitch managed async pool virtual graph
#include <pthread.h>

#include "../cuda_helper.h"
#include "model.h"
#include "set_helper.h"

/* Beside what is loose: one granule for each table of small arrays. */
#define SLACK (64 * T_MIB)

enum { THREADS = 4, ROUND = 1000, CHANGES = 4 /* of a budget, in a round */ };

static pthread_barrier_t resting, going;
static bool ended;

static uint64_t budget_of(unsigned gpu)
{
    return t_bytes_of_limit(gpu ? "1=" : "0=");
}

static void set_budget(unsigned gpu, uint64_t bytes)
{
    CUuuid uuid;

    t_cuda(cuDeviceGetUuid(&uuid, (int)gpu));
    t_equal(t_set_vram((const uint8_t *)uuid.bytes, bytes), 0);
}

/* Down to nothing and up again, never above what it began with. */
static void change_budget(struct walker *walker)
{
    unsigned gpu = (unsigned)roll(walker, GPUS);

    set_budget(gpu, roll(walker, 4) ? budget_of(gpu) : 1 + roll(walker, budget_of(gpu)));
}

static void *walk(void *argument)
{
    struct walker *walker = argument;

    for (;;) {
        for (unsigned i = 0; i < ROUND / THREADS; i++) {
            if (roll(walker, ROUND) < CHANGES)
                change_budget(walker);
            model_step(walker);
        }
        model_rest(walker);
        pthread_barrier_wait(&resting);
        pthread_barrier_wait(&going);
        if (__atomic_load_n(&ended, __ATOMIC_ACQUIRE))
            break;
    }
    model_end(walker);
    return NULL;
}

/* What the ledger says, as a program is told: the GPUs are far larger than the budgets, so nothing else bounds it. */
static uint64_t charged(void)
{
    size_t free_bytes, total;

    t_cuda(cuMemGetInfo(&free_bytes, &total));
    return total - free_bytes;
}

static void compare(unsigned long done, const struct walker *walkers)
{
    for (unsigned gpu = 0; gpu < GPUS; gpu++) {
        uint64_t budget = budget_of(gpu), loose = 0;

        set_budget(gpu, budget);
        have_read(look[gpu]);
        uint64_t physical = t_used(gpu), ledger = charged();
        for (unsigned i = 0; i < THREADS; i++)
            loose += walkers[i].loose[gpu];
        t_check(physical <= budget + untold, "GPU %u after %lu operations: %llu bytes in use, the budget is %llu", gpu, done,
                (unsigned long long)physical, (unsigned long long)budget);
        /* Over the budget, nothing is free: that tells of so much only. */
        t_check((physical < budget ? physical : budget) <= ledger,
                "GPU %u after %lu operations: %llu bytes in use, only %llu charged (%lld less)", gpu, done,
                (unsigned long long)physical, (unsigned long long)ledger, (long long)(physical - ledger));
        t_check(ledger <= physical + loose + SLACK,
                "GPU %u after %lu operations: %llu bytes in use and %llu loose, but %llu charged", gpu, done,
                (unsigned long long)physical, (unsigned long long)loose, (unsigned long long)ledger);
    }
}

int main(int argc, char **argv)
{
    unsigned long operations = getenv("MODEL_OPERATIONS") ? strtoul(getenv("MODEL_OPERATIONS"), NULL, 10) : 40000, done = 0;
    unsigned seed = getenv("MODEL_SEED") ? (unsigned)strtoul(getenv("MODEL_SEED"), NULL, 10) : (unsigned)getpid();
    static struct walker walkers[THREADS];
    pthread_t thread[THREADS];

    if (getenv("TEST_EMULATED"))
        operations = 4000; /* an emulator came to hold 12 GB in ten times as many */
    printf("MODEL_SEED=%u\n", seed);
    for (unsigned gpu = 0; gpu < GPUS; gpu++)
        look[gpu] = t_context((int)gpu);
    model_choose(argc - 1, argv + 1);
    pthread_barrier_init(&resting, NULL, THREADS + 1);
    pthread_barrier_init(&going, NULL, THREADS + 1);
    for (unsigned i = 0; i < THREADS; i++)
        model_begin(&walkers[i], seed + i * 7919); /* all before one walks: that one may leave no room for the others' contexts */
    for (unsigned i = 0; i < THREADS; i++)
        t_check(pthread_create(&thread[i], NULL, walk, &walkers[i]) == 0, "pthread_create");
    while (done < operations) {
        pthread_barrier_wait(&resting);
        done += ROUND;
        compare(done, walkers);
        if (done >= operations)
            __atomic_store_n(&ended, true, __ATOMIC_RELEASE);
        pthread_barrier_wait(&going);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    model_tell(walkers, THREADS);
    return 0;
}
