/* SPDX-License-Identifier: Apache-2.0 */
/* Eight processes of eight threads race for one tenant's budget: what is granted never exceeds it, neither by their own count nor by the GPU's,
 * and once they have settled all of it can be had. RACE_SECONDS is how long. */
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=race SOFTSIM_CONTEXT_BYTES=40M -- large
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=race SOFTSIM_CONTEXT_BYTES=40M -- mixed
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=race SOFTSIM_CONTEXT_BYTES=40M -- small
#include <pthread.h>
#include <sys/mman.h>

#include "../cuda_helper.h"

enum { PROCESSES = 8, THREADS = 8, HELD = 128 };

static struct shared {
    pthread_barrier_t barrier;
    int64_t granted; /* bytes that somebody holds */
    int64_t most;
    uint64_t grants, refusals;
    bool stop;
} * shared;
static const size_t *sizes;
static unsigned size_count;
static CUcontext context;

static void count(int64_t bytes)
{
    int64_t now = __atomic_add_fetch(&shared->granted, bytes, __ATOMIC_SEQ_CST);
    int64_t most = __atomic_load_n(&shared->most, __ATOMIC_RELAXED);

    while (now > most && !__atomic_compare_exchange_n(&shared->most, &most, now, true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        ;
}

static void *racer(void *argument)
{
    struct {
        CUdeviceptr pointer;
        size_t size;
    } held[HELD] = {{0, 0}};
    unsigned seed = (unsigned)(uintptr_t)argument * 7919u + (unsigned)getpid();

    t_cuda(cuCtxSetCurrent(context));
    while (!__atomic_load_n(&shared->stop, __ATOMIC_RELAXED)) {
        unsigned slot = (unsigned)rand_r(&seed) % HELD;
        if (held[slot].pointer) {
            count(-(int64_t)held[slot].size); /* before it is gone, as it is counted after it was had */
            t_cuda(cuMemFree(held[slot].pointer));
            held[slot].pointer = 0;
            continue;
        }
        held[slot].size = sizes[(unsigned)rand_r(&seed) % size_count];
        held[slot].pointer = t_alloc(held[slot].size);
        if (held[slot].pointer) {
            count((int64_t)held[slot].size);
            __atomic_fetch_add(&shared->grants, 1, __ATOMIC_RELAXED);
        } else {
            __atomic_fetch_add(&shared->refusals, 1, __ATOMIC_RELAXED);
        }
    }
    for (unsigned slot = 0; slot < HELD; slot++)
        if (held[slot].pointer) {
            count(-(int64_t)held[slot].size);
            t_cuda(cuMemFree(held[slot].pointer));
        }
    return NULL;
}

/* Only this thread of this process is left: 2 MiB after 2 MiB, all that is not context. */
static void fill(void)
{
    uint64_t room = t_bytes("SOFTSLICE_VRAM", 0) - PROCESSES * t_bytes("SOFTSIM_CONTEXT_BYTES", 0), blocks = 0;

    t_equal(t_used(0), PROCESSES * t_bytes("SOFTSIM_CONTEXT_BYTES", 0));
    t_equal(t_free(), room);
    while (t_alloc(2 * T_MIB))
        blocks++;
    t_equal(blocks, room / (2 * T_MIB));
}

static void process(int number)
{
    pthread_t thread[THREADS];

    context = t_context(0);
    pthread_barrier_wait(&shared->barrier);
    for (uintptr_t i = 0; i < THREADS; i++)
        t_check(!pthread_create(&thread[i], NULL, racer, (void *)(i + (uintptr_t)number * THREADS)), "pthread_create");
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    pthread_barrier_wait(&shared->barrier);
    if (number == 0)
        fill();
    pthread_barrier_wait(&shared->barrier);
    _exit(0);
}

int main(int argc, char **argv)
{
    static const size_t large[] = {2 << 20, 3 << 20, 8 << 20, 64 << 20}, small[] = {512, 4 << 10, 64 << 10, 1 << 20},
                        mixed[] = {512, 64 << 10, 1 << 20, 2 << 20, 3 << 20, 100 << 20};
    const char *how = argc > 1 ? argv[1] : "large", *seconds = getenv("RACE_SECONDS");
    pthread_barrierattr_t between_processes;
    pid_t child[PROCESSES];
    uint64_t limit = t_bytes("SOFTSLICE_VRAM", 0), worst = 0, samples = 0;

    sizes = *how == 'l' ? large : *how == 's' ? small : mixed;
    size_count = *how == 'm' ? 6 : 4;
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    t_check(shared != MAP_FAILED, "mmap");
    pthread_barrierattr_init(&between_processes);
    pthread_barrierattr_setpshared(&between_processes, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&shared->barrier, &between_processes, PROCESSES + 1);
    for (int i = 0; i < PROCESSES; i++)
        if ((child[i] = t_fork()) == 0)
            process(i);

    pthread_barrier_wait(&shared->barrier);
    uint64_t end = t_now_ms() + 1000 * strtoull(seconds ? seconds : "3", NULL, 10);
    while (t_now_ms() < end) {
        uint64_t used = t_used(0);
        worst = used > worst ? used : worst;
        samples++;
    }
    __atomic_store_n(&shared->stop, true, __ATOMIC_SEQ_CST);
    pthread_barrier_wait(&shared->barrier);
    pthread_barrier_wait(&shared->barrier);
    for (int i = 0; i < PROCESSES; i++)
        t_join(child[i]);

    uint64_t contexts = PROCESSES * t_bytes("SOFTSIM_CONTEXT_BYTES", 0);
    printf("%llu grants, %llu refusals; most granted %lld of %llu; most on the GPU %llu of %llu in %llu samples\n",
           (unsigned long long)shared->grants, (unsigned long long)shared->refusals, (long long)shared->most,
           (unsigned long long)(limit - contexts), (unsigned long long)worst, (unsigned long long)limit,
           (unsigned long long)samples);
    t_check(shared->grants && (shared->refusals || *how == 's'), "there was no race");
    t_check((uint64_t)shared->most <= limit - contexts, "more was granted than the budget has");
    /* A small block may be tried in a slab that turns out to have no room for it; the granule that it brought goes back before anybody is
     * granted anything, at most one for each thread. */
    t_check(worst <= limit + (*how == 'l' ? 0 : PROCESSES * THREADS * t_granule()),
            "more was in use on the GPU than the budget has");
    return 0;
}
