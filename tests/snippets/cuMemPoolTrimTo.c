/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemPoolTrimTo: R4, what is trimmed is given back */
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
    t_cuda(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &all));
    t_cuda(cuMemAllocFromPoolAsync(&block, T_GIB, pool, NULL));
    t_cuda(cuMemFreeAsync(block, NULL));
    t_cuda(cuCtxSynchronize());
    EXPECT(T_GIB);
    t_cuda(CALL(cuMemPoolTrimTo)(pool, 0));
    EXPECT(0);
}
