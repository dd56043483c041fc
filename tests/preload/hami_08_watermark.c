/* SPDX-License-Identifier: Apache-2.0 */
/* Number 8 of the ways in which HAMi-core failed: one high-water mark for all GPUs and pools of a process, which never fell, and frees that were
 * credited to whatever GPU was current, down to below zero. Here a hundred rounds on two GPUs, freed under the wrong one, end where they began. */
// run: SOFTSIM_GPUS=2 SOFTSIM_MEM=8G SOFTSIM_CONTEXT_BYTES=100M SOFTSLICE_VRAM=0=1GiB,1=2GiB
#include "../pool_helper.h"

enum { GPUS = 2 };

int main(void)
{
    static const size_t size[GPUS] = {600 << 20, 1500 << 20};
    CUcontext context[GPUS];
    CUstream stream[GPUS];
    CUdeviceptr block[GPUS];
    uint64_t before[GPUS];

    for (int gpu = 0; gpu < GPUS; gpu++) {
        context[gpu] = t_context(gpu);
        t_cuda(cuStreamCreate(&stream[gpu], CU_STREAM_NON_BLOCKING));
        before[gpu] = t_free();
    }
    for (int round = 0; round < 100; round++) {
        CUmemoryPool pool[GPUS] = {t_pool(0), t_pool(1)};

        for (int gpu = 0; gpu < GPUS; gpu++) {
            t_cuda(cuCtxSetCurrent(context[1 - gpu]));
            block[gpu] = t_draw(round & 1 ? pool[gpu] : NULL, size[gpu], stream[gpu]);
            t_check(block[gpu], "round %d: GPU %d is full of what was freed", round, gpu);
        }
        for (int gpu = 0; gpu < GPUS; gpu++) {
            t_cuda(cuCtxSetCurrent(context[1 - gpu]));
            t_cuda(cuMemFreeAsync(block[gpu], stream[gpu]));
            t_cuda(cuStreamSynchronize(stream[gpu]));
            t_cuda(cuMemPoolDestroy(pool[gpu]));
        }
        for (int gpu = 0; gpu < GPUS; gpu++) {
            t_cuda(cuCtxSetCurrent(context[gpu]));
            t_equal(t_free(), before[gpu]);
            t_at_rest((unsigned)gpu);
        }
    }
    return 0;
}
