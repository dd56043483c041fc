/* SPDX-License-Identifier: Apache-2.0 */
/* cuDeviceSetMemPool: R4, blocks come from the pool that is current */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUmemPoolProps props = pool_on_gpu(0);
    cuuint64_t all = UINT64_MAX;
    CUmemoryPool pool;
    CUdeviceptr block;

    t_cuda(cuMemPoolCreate(&pool, &props));
    t_cuda(CALL(cuDeviceSetMemPool)(0, pool));
    t_cuda(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &all));
    t_cuda(cuMemAllocAsync(&block, T_GIB, NULL));
    EXPECT(T_GIB);
    t_cuda(cuMemFreeAsync(block, NULL));
    t_cuda(cuCtxSynchronize());
    t_cuda(cuMemPoolTrimTo(pool, 0));
    EXPECT(0);
}
