/* SPDX-License-Identifier: Apache-2.0 */
/* The first live process of a tenant sets its limit; a joiner's smaller one binds the joiner alone, a larger one raises nothing; when all have
 * left, the next one sets it anew. Many threads that start CUDA at once join as one process. */
// unemulated: starts itself again, which needs the kernel to know the foreign architecture
// run: SOFTSLICE_TENANT=joining SOFTSIM_CONTEXT_BYTES=50M
#include <pthread.h>

#include "../cuda_helper.h"

enum { THREADS = 200 };

static pthread_barrier_t barrier;

static void *start(void *context_of_one)
{
    CUcontext context;

    pthread_barrier_wait(&barrier);
    t_cuda(cuInit(0));
    t_cuda(cuDevicePrimaryCtxRetain(&context, 0));
    t_cuda(cuCtxSetCurrent(context));
    if (context_of_one)
        *(CUcontext *)context_of_one = context;
    for (int i = 0; i < 20; i++) {
        CUdeviceptr p = t_alloc(T_MIB);
        t_check(p, "refused");
        t_cuda(cuMemFree(p));
    }
    return NULL;
}

/* In a process of its own: what it is told, and that it gets just that. */
static void joiner(uint64_t total, uint64_t others)
{
    uint64_t cost = t_bytes("SOFTSIM_CONTEXT_BYTES", 0), blocks = 0;
    pthread_t thread[THREADS];
    pthread_attr_t small;
    CUcontext context = NULL;

    if (t_thread_sanitizer())
        t_cuda(cuInit(0));
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 256 * 1024);
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        t_check(!pthread_create(&thread[i], &small, start, i ? NULL : &context), "pthread_create");
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    t_cuda(cuCtxSetCurrent(context));
    t_equal(t_total(), total);
    t_equal(t_free(), total - others - cost);
    while (t_alloc(2 * T_MIB))
        blocks++;
    t_equal(blocks, (total - others - cost) / (2 * T_MIB));
}

static void join_with(const char *vram, uint64_t total, uint64_t others)
{
    char arguments[64];

    setenv("SOFTSLICE_VRAM", vram, 1);
    snprintf(arguments, sizeof(arguments), "%llu,%llu", (unsigned long long)total, (unsigned long long)others);
    t_join(t_again(arguments));
}

int main(int argc, char **argv)
{
    uint64_t cost = t_bytes("SOFTSIM_CONTEXT_BYTES", 0);
    int hold[2], held[2];
    char byte;

    if (argc > 1 && *argv[1] == 'h') { /* hold a place, and some memory, until told to go */
        int fds[2];
        t_check(sscanf(argv[1], "h%d,%d", &fds[0], &fds[1]) == 2, "%s", argv[1]);
        t_context(0);
        t_check(t_alloc(100 * T_MIB), "refused");
        t_check(write(fds[1], "x", 1) == 1 && read(fds[0], &byte, 1) >= 0, "pipe");
        return 0;
    }
    if (argc > 1) {
        unsigned long long total, others;
        t_check(sscanf(argv[1], "%llu,%llu", &total, &others) == 2, "%s", argv[1]);
        joiner(total, others);
        return 0;
    }
    join_with("1GiB", T_GIB, 0);
    join_with("2GiB", 2 * T_GIB, 0); /* nobody was left: anew */

    char arguments[64];
    t_check(pipe(hold) == 0 && pipe(held) == 0, "pipe");
    snprintf(arguments, sizeof(arguments), "h%d,%d", hold[0], held[1]);
    setenv("SOFTSLICE_VRAM", "1GiB", 1);
    pid_t first = t_again(arguments);
    t_check(read(held[0], &byte, 1) == 1, "the first process");
    uint64_t others = cost + 100 * T_MIB;
    join_with("1GiB", T_GIB, others);
    join_with("4GiB", T_GIB, others);
    join_with("600MiB", 600 * T_MIB, others);
    join_with("1GiB", T_GIB, others);
    t_check(write(hold[1], "x", 1) == 1, "pipe");
    t_join(first);
    join_with("3GiB", 3 * T_GIB, 0);
    return 0;
}
