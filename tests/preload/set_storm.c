/* SPDX-License-Identifier: Apache-2.0 */
/* The tenant's limit moves up and down, below what is in use too, while eight processes allocate and free. What is granted is never above the limit in
 * force at some moment of the call, or of one that was under way with it; and the next call of everybody sees a change. STORM_SECONDS is how long. */
// timeout: 120
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=storm SOFTSIM_CONTEXT_BYTES=40M SOFTSLICE_LOG=off
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=storm SOFTSIM_CONTEXT_BYTES=40M SOFTSLICE_LOG=off SOFTSLICE_HEADROOM=64MiB
#include <pthread.h>
#include <sys/mman.h>

#include "../cuda_helper.h"
#include "set_helper.h"

enum { PROCESSES = 8, THREADS = 4, HELD = 16, LIMITS = 1 << 16 };

static struct shared {
    pthread_barrier_t barrier;
    bool stop;
    /* limit[i] was asked for when `begun` became i + 1, and held at the latest when `done` did. */
    uint64_t begun, done, limit[LIMITS];
    uint64_t call[PROCESSES * THREADS]; /* `done` when the thread's call began; 0: it is in none */
    int64_t granted;                    /* bytes that somebody holds */
    uint64_t grants, refusals, shrinks; /* the last: below what was held */
    uint64_t fault_granted, fault_limit;
} * shared;
static uint64_t contexts, headroom, granule;
static CUcontext context;

static uint64_t load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Begin a call: the first of the limits that it, or one that is under way, may have seen. */
static uint64_t begin_call(unsigned self)
{
    uint64_t first = load(&shared->done);

    __atomic_store_n(&shared->call[self], first, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < PROCESSES * THREADS; i++) {
        uint64_t other = load(&shared->call[i]);

        first = other ? smaller(first, other) : first;
    }
    return first - 1;
}

/* What is held now was granted while one of the limits from `first` on was in force. */
static void check_grant(uint64_t granted, uint64_t first)
{
    uint64_t end = load(&shared->begun), most = 0, none = 0;

    t_check(end - first < LIMITS, "a call outlasted %d changes", LIMITS);
    for (uint64_t i = first; i < end; i++) {
        uint64_t limit = load(&shared->limit[i % LIMITS]);

        most = limit > most ? limit : most;
    }
    if (granted + contexts + headroom > most &&
        __atomic_compare_exchange_n(&shared->fault_granted, &none, granted + contexts + headroom, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST)) {
        shared->fault_limit = most;
        __atomic_store_n(&shared->stop, true, __ATOMIC_SEQ_CST);
    }
}

struct block {
    CUdeviceptr pointer;
    uint64_t size;
};

static void drop(struct block *block)
{
    if (!block->pointer)
        return;
    __atomic_fetch_sub(&shared->granted, (int64_t)block->size, __ATOMIC_SEQ_CST); /* before it is gone */
    t_cuda(cuMemFree(block->pointer));
    block->pointer = 0;
}

static void *allocate(void *argument)
{
    unsigned self = (unsigned)(uintptr_t)argument, seed = self * 7919 + (unsigned)getpid();
    struct block held[HELD] = {{0, 0}};

    t_cuda(cuCtxSetCurrent(context));
    while (!__atomic_load_n(&shared->stop, __ATOMIC_RELAXED)) {
        struct block *block = &held[(unsigned)rand_r(&seed) % HELD];

        if (block->pointer) {
            drop(block);
            continue;
        }
        /* Never so small that it shares a granule. */
        block->size = granule * (1 + (unsigned)rand_r(&seed) % 24);
        uint64_t first = begin_call(self);
        block->pointer = t_alloc(block->size - (unsigned)rand_r(&seed) % (granule / 2));
        if (block->pointer)
            check_grant((uint64_t)__atomic_add_fetch(&shared->granted, (int64_t)block->size, __ATOMIC_SEQ_CST), first);
        __atomic_store_n(&shared->call[self], 0, __ATOMIC_SEQ_CST);
        __atomic_fetch_add(block->pointer ? &shared->grants : &shared->refusals, 1, __ATOMIC_RELAXED);
    }
    for (unsigned i = 0; i < HELD; i++)
        drop(&held[i]);
    return NULL;
}

/* What there is to be had of `limit` besides contexts. */
static uint64_t room(uint64_t limit)
{
    return (limit - contexts - headroom) / granule * granule;
}

static uint64_t fill(CUdeviceptr *block, uint64_t most)
{
    uint64_t count = 0;

    while (count < most && (block[count] = t_alloc(granule)))
        count++;
    return count;
}

/* Only this thread is left: each change holds for the very next call. */
static void see_changes(void)
{
    static const uint64_t limit[] = {512, 1024, 448, 777, 512};
    static CUdeviceptr block[1024];
    uint64_t count = 0;

    for (unsigned i = 0; i < sizeof(limit) / sizeof(*limit); i++) {
        uint64_t bytes = limit[i] * T_MIB, fits;

        t_equal(t_set_vram(NULL, bytes), 0);
        fits = room(bytes) / granule;
        if (count > fits) {
            t_check(!t_alloc(granule), "granted %llu MiB over the new limit",
                    (unsigned long long)((count - fits) * granule / T_MIB));
            t_equal(t_total(), bytes);
            t_equal(t_free(), 0);
            for (; count > fits; count--) {
                t_check(!t_alloc(granule), "granted over the new limit");
                t_cuda(cuMemFree(block[count - 1]));
            }
            t_check(!t_alloc(granule), "granted over the new limit");
            t_cuda(cuMemFree(block[--count]));
        }
        t_equal(t_total(), bytes);
        t_equal(t_free() / granule, fits - count);
        count += fill(block + count, 1024 - count);
        t_equal(count, fits);
    }
    while (count)
        t_cuda(cuMemFree(block[--count]));
}

static void process(unsigned number)
{
    pthread_t thread[THREADS];

    context = t_context(0);
    pthread_barrier_wait(&shared->barrier);
    pthread_barrier_wait(&shared->barrier);
    for (uintptr_t i = 0; i < THREADS; i++)
        t_check(!pthread_create(&thread[i], NULL, allocate, (void *)(i + number * THREADS)), "pthread_create");
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    pthread_barrier_wait(&shared->barrier);
    if (number == 0 && !shared->fault_granted)
        see_changes();
    pthread_barrier_wait(&shared->barrier);
    _exit(0);
}

static void set(uint64_t limit)
{
    shared->limit[shared->begun % LIMITS] = limit;
    __atomic_fetch_add(&shared->begun, 1, __ATOMIC_SEQ_CST);
    t_equal(t_set_vram(NULL, limit), 0);
    __atomic_fetch_add(&shared->done, 1, __ATOMIC_SEQ_CST);
}

/* Up and down, by little and by much. */
static void storm(uint64_t end)
{
    unsigned seed = (unsigned)getpid();

    while (t_now_ms() < end && !__atomic_load_n(&shared->stop, __ATOMIC_RELAXED)) {
        uint64_t limit = contexts + headroom + (uint64_t)((unsigned)rand_r(&seed) % 700) * T_MIB;

        shared->shrinks += limit < contexts + headroom + (uint64_t)__atomic_load_n(&shared->granted, __ATOMIC_SEQ_CST);
        set(limit);
        nanosleep(&(struct timespec){.tv_nsec = (unsigned)rand_r(&seed) % 4 * 500000}, NULL);
    }
    __atomic_store_n(&shared->stop, true, __ATOMIC_SEQ_CST);
}

int main(void)
{
    const char *seconds = getenv("STORM_SECONDS");
    pthread_barrierattr_t between_processes;
    pid_t child[PROCESSES];

    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    t_check(shared != MAP_FAILED, "mmap");
    contexts = PROCESSES * t_bytes("SOFTSIM_CONTEXT_BYTES", 0);
    headroom = getenv("SOFTSLICE_HEADROOM") ? 64 * T_MIB : 0;
    granule = t_granule();
    pthread_barrierattr_init(&between_processes);
    pthread_barrierattr_setpshared(&between_processes, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&shared->barrier, &between_processes, PROCESSES + 1);
    for (unsigned i = 0; i < PROCESSES; i++) {
        if ((child[i] = t_fork()) == 0)
            process(i);
    }
    pthread_barrier_wait(&shared->barrier);
    set(T_GIB);
    pthread_barrier_wait(&shared->barrier);
    storm(t_now_ms() + 1000 * strtoull(seconds ? seconds : "3", NULL, 10));
    pthread_barrier_wait(&shared->barrier);
    pthread_barrier_wait(&shared->barrier);
    for (unsigned i = 0; i < PROCESSES; i++)
        t_join(child[i]);
    printf("%llu changes, %llu of them below what was held; %llu grants, %llu refusals\n", (unsigned long long)shared->done,
           (unsigned long long)shared->shrinks, (unsigned long long)shared->grants, (unsigned long long)shared->refusals);
    t_check(!shared->fault_granted, "%llu bytes were granted where at most %llu were allowed",
            (unsigned long long)shared->fault_granted, (unsigned long long)shared->fault_limit);
    t_check(shared->shrinks && shared->grants && shared->refusals, "there was no storm");
    return 0;
}
