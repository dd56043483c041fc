/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts end while other threads allocate in them, and primary contexts while others retain them: no charge outlives what it was for, and
 * none is missing. */
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_CONTEXT_BYTES=300M -- context
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_CONTEXT_BYTES=300M -- context free
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_CONTEXT_BYTES=300M -- reset
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_CONTEXT_BYTES=300M -- retain
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_CONTEXT_BYTES=300M -- first
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_CONTEXT_BYTES=300M -- crossing
#include <pthread.h>

#include "../cuda_helper.h"

#define THREADS 3
#define ROUNDS  200
#define RETAINS 1000

static pthread_barrier_t barrier;
static CUcontext shared;
static bool done, frees;

/* Allocate in the shared context until it is no more. */
static void *allocate(void *unused)
{
    (void)unused;
    for (;;) {
        CUdeviceptr p;

        pthread_barrier_wait(&barrier);
        if (done)
            return NULL;
        cuCtxSetCurrent(shared);
        for (int i = 0; i < 256 && cuMemAlloc(&p, i % 2 ? 4 * T_MIB : 700 * T_KIB) == CUDA_SUCCESS; i++)
            if (frees)
                cuMemFree(p);
        pthread_barrier_wait(&barrier);
    }
}

/* What is told to be in use is what the GPU says. */
static void holds_what_is(void)
{
    t_equal(t_used(0), t_bytes("SOFTSIM_CONTEXT_BYTES", 0));
    t_equal(t_total() - t_free(), t_used(0));
}

static void settled(void)
{
    CUcontext context;

    t_equal(t_used(0), 0);
    t_cuda(cuCtxCreate(&context, NULL, 0, 0));
    holds_what_is();
    t_cuda(cuCtxDestroy(context));
}

static void ended(bool primary)
{
    pthread_t threads[THREADS];

    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++)
        t_check(pthread_create(&threads[i], NULL, allocate, NULL) == 0, "no thread");
    for (int i = 0; i < ROUNDS; i++) {
        if (primary)
            t_cuda(cuDevicePrimaryCtxRetain(&shared, 0));
        else
            t_cuda(cuCtxCreate(&shared, NULL, 0, 0));
        pthread_barrier_wait(&barrier);
        t_cuda(primary ? cuDevicePrimaryCtxReset(0) : cuCtxDestroy(shared));
        pthread_barrier_wait(&barrier);
    }
    done = true;
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    settled();
}

static void *retain(void *unused)
{
    for (int i = 0; i < RETAINS; i++) {
        CUcontext context;
        CUdeviceptr p;

        t_cuda(cuDevicePrimaryCtxRetain(&context, 0));
        t_cuda(cuCtxSetCurrent(context));
        t_cuda(cuMemAlloc(&p, T_MIB));
        t_cuda(cuMemFree(p));
        t_cuda(cuDevicePrimaryCtxRelease(0));
    }
    return unused;
}

static void retained(void)
{
    pthread_t threads[THREADS];
    CUcontext context;

    for (int i = 0; i < THREADS; i++)
        t_check(pthread_create(&threads[i], NULL, retain, NULL) == 0, "no thread");
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    settled();
    t_cuda(cuDevicePrimaryCtxRetain(&context, 0));
    t_cuda(cuCtxSetCurrent(context));
    holds_what_is();
}

/* What the first context took stays for the others, which took nothing. */
static void first_ended(void)
{
    CUcontext a = t_context(0), b = t_context(0), primary;

    holds_what_is();
    t_cuda(cuCtxDestroy(a));
    t_cuda(cuCtxSetCurrent(b));
    holds_what_is();
    t_cuda(cuDevicePrimaryCtxRetain(&primary, 0));
    t_cuda(cuCtxDestroy(b));
    t_cuda(cuCtxSetCurrent(primary));
    holds_what_is();
    t_cuda(cuDevicePrimaryCtxRelease(0));
    settled();
}

static CUcontext own[THREADS];

/* Make and end a context in turns, against the other threads'. */
static void *alternate(void *number)
{
    int i = *(const int *)number;

    for (int round = 0; round < RETAINS; round++) {
        pthread_barrier_wait(&barrier);
        if ((round + i) % 2 == 0)
            t_cuda(cuCtxCreate(&own[i], NULL, 0, 0));
        else if (own[i])
            t_cuda(cuCtxDestroy(own[i]));
        if ((round + i) % 2)
            own[i] = NULL;
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static void crossing(void)
{
    static const int number[THREADS] = {0, 1, 2};
    pthread_t threads[THREADS];

    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++)
        t_check(pthread_create(&threads[i], NULL, alternate, (void *)&number[i]) == 0, "no thread");
    for (int round = 0; round < RETAINS; round++) {
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier);
        t_cuda(cuCtxSetCurrent(own[round % 2]));
        holds_what_is();
        pthread_barrier_wait(&barrier);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
    t_check(argc > 1, "what is to end?");
    t_cuda(cuInit(0));
    frees = argc > 2;
    if (strcmp(argv[1], "retain") == 0)
        retained();
    else if (strcmp(argv[1], "first") == 0)
        first_ended();
    else if (strcmp(argv[1], "crossing") == 0)
        crossing();
    else
        ended(strcmp(argv[1], "reset") == 0);
    return 0;
}
