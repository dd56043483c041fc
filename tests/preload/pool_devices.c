/* SPDX-License-Identifier: Apache-2.0 */
/* A pool's memory is charged to the GPU that it is on, whatever context is current when it is drawn, freed or given back. */
// run: SOFTSIM_GPUS=2 SOFTSIM_MEM=8G SOFTSIM_CONTEXT_BYTES=100M SOFTSLICE_VRAM=0=1GiB,1=2GiB
// run: SOFTSIM_GPUS=2 SOFTSIM_MEM=8G SOFTSIM_CONTEXT_BYTES=100M SOFTSLICE_VRAM=0=2GiB,1=1GiB
#include "../pool_helper.h"

enum { GPUS = 2, MOST = 200 };

static CUcontext context[GPUS];
static CUstream stream[GPUS];
static const size_t size = 32 << 20;

/* Both GPUs, each from a context of its own; then `current` is current. */
static void at_rest(int current)
{
    for (int gpu = 0; gpu < GPUS; gpu++) {
        t_cuda(cuCtxSetCurrent(context[gpu]));
        t_at_rest((unsigned)gpu);
    }
    t_cuda(cuCtxSetCurrent(context[current]));
}

/* All that fits on `gpu` while `current` is current. `used` is a stream of either. */
static void fill(int gpu, int current, CUmemoryPool pool, CUstream used)
{
    uint64_t other = t_used(1 - (unsigned)gpu);
    CUdeviceptr block[MOST];
    size_t count = 0;

    t_cuda(cuCtxSetCurrent(context[gpu]));
    uint64_t fits = t_free() / size;
    t_cuda(cuCtxSetCurrent(context[current]));
    while (count < MOST && (block[count] = t_draw(pool, size, used)))
        count++;
    t_equal(count, fits);
    t_equal(t_used(1 - (unsigned)gpu), other);
    at_rest(current);
    for (size_t i = 0; i < count; i++)
        t_cuda(cuMemFreeAsync(block[i], used));
    t_cuda(cuStreamSynchronize(used));
    at_rest(current);
    t_check(t_used((unsigned)gpu) < size * 4, "the blocks are still there");
}

int main(void)
{
    for (int gpu = 0; gpu < GPUS; gpu++) {
        context[gpu] = t_context(gpu);
        t_cuda(cuStreamCreate(&stream[gpu], CU_STREAM_NON_BLOCKING));
    }
    for (int gpu = 0; gpu < GPUS; gpu++)
        for (int current = 0; current < GPUS; current++) {
            CUmemoryPool own = t_pool(gpu), standard;

            fill(gpu, current, NULL, stream[gpu]);
            fill(gpu, current, own, stream[gpu]);
            fill(gpu, current, own, stream[1 - gpu]);
            t_cuda(cuDeviceGetDefaultMemPool(&standard, gpu)); /* named, and never seen made */
            fill(gpu, current, standard, stream[1 - gpu]);
            t_cuda(cuDeviceSetMemPool(gpu, own));
            fill(gpu, current, NULL, stream[gpu]);
            t_cuda(cuMemPoolDestroy(own));
        }
    for (int gpu = 0; gpu < GPUS; gpu++) { /* streams that are the current context's */
        fill(gpu, gpu, NULL, NULL);
        fill(gpu, gpu, NULL, CU_STREAM_LEGACY);
        fill(gpu, gpu, NULL, CU_STREAM_PER_THREAD);
    }

    /* What one GPU's pools keep is not given back for the other. */
    CUmemoryPool standard;
    t_cuda(cuDeviceGetDefaultMemPool(&standard, 1));
    t_keep_all(standard);
    CUdeviceptr block = t_draw(NULL, 300 << 20, stream[1]);
    t_cuda(cuMemFreeAsync(block, stream[1]));
    t_cuda(cuStreamSynchronize(stream[1]));
    uint64_t kept = t_reserved(standard);
    t_check(kept >= 300 << 20, "the pool did not keep its memory");
    t_cuda(cuCtxSetCurrent(context[0]));
    while (t_alloc(size))
        continue;
    t_equal(t_reserved(standard), kept);
    at_rest(0);
    return 0;
}
