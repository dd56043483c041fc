/* SPDX-License-Identifier: Apache-2.0 */
/* The random walk of model.c, by several processes of one tenant, some of which are killed in the middle of it and come again. After each round
 * all rest, and on each GPU must hold: what the GPU has in use <= what the ledger says <= the same + what is loose (struct object) + SLACK, and
 * the GPU is never over the budget but by what is UNTOLD. At the end, with all gone, nothing is left. */
// timeout: 120
// unemulated: starts itself again, which needs the kernel to know the foreign architecture
// run: SOFTSIM_RANDOMISE=1 SOFTSIM_GPUS=2 SOFTSIM_MEM=32G SOFTSLICE_TENANT=walk SOFTSLICE_VRAM=0=8GiB,1=9GiB SOFTSIM_MODULE_BYTES=3145728
// run: SOFTSIM_RANDOMISE=3 SOFTSIM_GPUS=2 SOFTSIM_MEM=32G SOFTSLICE_TENANT=walk SOFTSLICE_VRAM=0=9GiB,1=7GiB SOFTSIM_RELEASE_DELAY_MS=RANDOM:0:300
#include <fcntl.h>
#include <sys/mman.h>

#include "../cuda_helper.h"
#include "model.h"

#define SLACK   (64 * T_MIB) /* for each member: a granule for each table of small arrays */
#define WAIT_MS 20000

enum { MEMBERS = 4, STEPS = 1000 };

static struct shared {
    unsigned round;
    struct {
        unsigned done;
        uint64_t loose[GPUS];
    } member[MEMBERS];
} * shared;

static void short_sleep(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void map_shared(void)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s/shared", getenv("TEST_TMP"));
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    t_check(fd >= 0 && ftruncate(fd, sizeof(*shared)) == 0, "%s: %s", path, strerror(errno));
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    t_check(shared != MAP_FAILED, "mmap: %s", strerror(errno));
    close(fd);
}

static int member(unsigned number)
{
    static struct walker walker;
    CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};

    walker.seed = (unsigned)getpid() * 7919;
    t_cuda(cuInit(0));
    for (unsigned gpu = 0; gpu < GPUS; gpu++) {
        CUresult result;

        while ((result = cuCtxCreate(&look[gpu], NULL, 0, (int)gpu)) == CUDA_ERROR_OUT_OF_MEMORY) {
            /* Until another one gives back; so this one sits rounds out. */
            __atomic_store_n(&shared->member[number].done, __atomic_load_n(&shared->round, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
            short_sleep();
        }
        t_cuda(result);
        props.location.id = (int)gpu;
        t_cuda(cuMemPoolCreate(&walker.pool[gpu], &props));
    }
    for (;;) {
        unsigned round = __atomic_load_n(&shared->round, __ATOMIC_ACQUIRE);

        if (round == UINT32_MAX)
            break;
        if (round == shared->member[number].done) {
            short_sleep();
            continue;
        }
        for (unsigned i = 0; i < STEPS; i++)
            model_step(&walker);
        model_rest(&walker);
        for (unsigned gpu = 0; gpu < GPUS; gpu++) {
            have_read(look[gpu]);
            shared->member[number].loose[gpu] = walker.loose[gpu];
        }
        __atomic_store_n(&shared->member[number].done, round, __ATOMIC_RELEASE);
    }
    model_end(&walker);
    return 0;
}

static pid_t start(unsigned number)
{
    char name[2] = {(char)('0' + number), 0};

    memset(&shared->member[number], 0, sizeof(shared->member[number]));
    return t_again(name);
}

static uint64_t charged(unsigned gpu)
{
    size_t free_bytes, total;

    t_cuda(cuCtxSetCurrent(look[gpu]));
    t_cuda(cuMemGetInfo(&free_bytes, &total));
    return total - free_bytes;
}

/* The dead are counted until the driver shows them gone, which may be later than they are. */
static void compare(unsigned round)
{
    for (unsigned gpu = 0; gpu < GPUS; gpu++) {
        uint64_t budget = gpu ? t_bytes_of_limit("1=") : t_bytes_of_limit("0="), loose = 0, physical, ledger, began = t_now_ms();

        for (unsigned i = 0; i < MEMBERS; i++)
            loose += shared->member[i].loose[gpu];
        for (;;) {
            have_read(look[gpu]);
            ledger = charged(gpu);
            physical = t_used(gpu);
            t_check(physical <= budget + untold, "GPU %u in round %u: %llu bytes in use, the budget is %llu", gpu, round,
                    (unsigned long long)physical, (unsigned long long)budget);
            if ((physical < budget ? physical : budget) <= ledger && ledger <= physical + loose + MEMBERS * SLACK)
                break;
            t_check(t_now_ms() - began < WAIT_MS, "GPU %u in round %u: %llu bytes in use and %llu loose, but %llu charged", gpu,
                    round, (unsigned long long)physical, (unsigned long long)loose, (unsigned long long)ledger);
            short_sleep();
        }
    }
}

int main(int argc, char **argv)
{
    unsigned rounds = getenv("MODEL_ROUNDS") ? (unsigned)atoi(getenv("MODEL_ROUNDS")) : 20;
    unsigned seed = getenv("MODEL_SEED") ? (unsigned)atoi(getenv("MODEL_SEED")) : (unsigned)getpid();
    uint64_t most[GPUS] = {0};
    pid_t pid[MEMBERS];

    map_shared();
    model_choose(0, NULL);
    if (argc > 1)
        return member((unsigned)(argv[1][0] - '0'));
    printf("MODEL_SEED=%u\n", seed);
    for (unsigned gpu = 0; gpu < GPUS; gpu++)
        look[gpu] = t_context((int)gpu);
    uint64_t alone[GPUS] = {charged(0), charged(1)};
    for (unsigned i = 0; i < MEMBERS; i++)
        pid[i] = start(i);
    for (unsigned round = 1; round <= rounds; round++) {
        __atomic_store_n(&shared->round, round, __ATOMIC_RELEASE);
        unsigned killed = rand_r(&seed) % 3, done = 0;
        uint64_t kill_at = t_now_ms() + rand_r(&seed) % 60, began = t_now_ms();

        while (done < MEMBERS) {
            for (unsigned gpu = 0; gpu < GPUS; gpu++) {
                uint64_t used = t_used(gpu);
                most[gpu] = used > most[gpu] ? used : most[gpu];
            }
            short_sleep();
            if (killed && t_now_ms() >= kill_at) {
                unsigned i = (unsigned)rand_r(&seed) % MEMBERS;
                kill(pid[i], SIGKILL);
                t_check(waitpid(pid[i], NULL, 0) == pid[i], "waitpid: %s", strerror(errno));
                pid[i] = start(i);
                killed--;
            }
            done = 0;
            for (unsigned i = 0; i < MEMBERS; i++) {
                done += __atomic_load_n(&shared->member[i].done, __ATOMIC_ACQUIRE) == round;
                int status;
                t_check(waitpid(pid[i], &status, WNOHANG) == 0, "a member ended");
            }
            t_check(t_now_ms() - began < 60000, "round %u does not end", round);
        }
        compare(round);
    }
    __atomic_store_n(&shared->round, UINT32_MAX, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < MEMBERS; i++)
        t_join(pid[i]);
    for (unsigned gpu = 0; gpu < GPUS; gpu++) {
        printf("GPU %u: at most %llu MiB of %llu MiB were seen in use\n", gpu, (unsigned long long)(most[gpu] / T_MIB),
               (unsigned long long)((gpu ? t_bytes_of_limit("1=") : t_bytes_of_limit("0=")) / T_MIB));
        for (uint64_t began = t_now_ms(); t_now_ms() - began < WAIT_MS && charged(gpu) != alone[gpu];)
            short_sleep();
        t_equal(charged(gpu), alone[gpu]);
        t_equal(t_used(gpu), alone[gpu]);
    }
    return 0;
}
