/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that make their own pool a device's current one, allocate from whichever is current, and destroy their pool with blocks left in it: a
 * block may be in a pool that is just being destroyed, or gone by the time that anybody asks. When all is freed, nothing is charged but the
 * context. */
// run: SOFTSLICE_VRAM=4GiB
#include <pthread.h>

#include "../pool_helper.h"

enum { THREADS = 8, TURNS = 1000 };

static CUcontext context;

static void *walk(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;
    CUstream stream[2];

    t_cuda(cuCtxSetCurrent(context));
    for (int i = 0; i < 2; i++)
        t_cuda(cuStreamCreate(&stream[i], CU_STREAM_NON_BLOCKING));
    for (int turn = 0; turn < TURNS; turn++) {
        CUmemoryPool pool = t_pool(0);
        CUdeviceptr own = t_draw(pool, (1 + (unsigned)rand_r(&seed) % 100) * T_MIB, stream[0]), other;

        if (rand_r(&seed) % 2)
            t_cuda(cuDeviceSetMemPool(0, pool));
        other = t_draw(NULL, (1 + (unsigned)rand_r(&seed) % 100) * T_MIB, stream[1]);
        t_cuda(cuMemPoolDestroy(pool));
        if (other)
            t_cuda(cuMemFreeAsync(other, stream[0]));
        if (own)
            t_cuda(cuMemFreeAsync(own, stream[1]));
    }
    for (int i = 0; i < 2; i++)
        t_cuda(cuStreamSynchronize(stream[i]));
    return NULL;
}

int main(void)
{
    context = t_context(0);
    uint64_t alone = t_used(0);
    pthread_t thread[THREADS];
    CUmemoryPool pool;

    for (uintptr_t i = 0; i < THREADS; i++)
        t_check(pthread_create(&thread[i], NULL, walk, (void *)(i + 1)) == 0, "pthread_create");
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    t_cuda(cuCtxSynchronize());
    t_cuda(cuDeviceGetDefaultMemPool(&pool, 0));
    t_cuda(cuMemPoolTrimTo(pool, 0));
    t_equal(t_used(0), alone);
    /* A block that was in a pool on its way out is in the driver's figure and charged to nobody, until it is undone; who read that reads again. */
    for (uint64_t end = t_now_ms() + 20000; t_total() - t_free() != alone && t_now_ms() < end; usleep(10000))
        continue;
    t_equal(t_total() - t_free(), alone);
    return 0;
}
