/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemFreeAsync: R4, the pool keeps it until it is trimmed */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2 SOFTSIM_POOL_CHUNK=33554432
#include "snippet.h"

static void snippet(void)
{
    CUmemoryPool pool;
    CUdeviceptr block;

    t_cuda(cuDeviceGetDefaultMemPool(&pool, 0));
    t_cuda(cuMemAllocAsync(&block, 3 * T_MIB, NULL));
    t_cuda(CALL(cuMemFreeAsync)(block, NULL));
    t_cuda(cuCtxSynchronize());
    t_cuda(cuMemPoolTrimTo(pool, 0));
    EXPECT(0);
}
