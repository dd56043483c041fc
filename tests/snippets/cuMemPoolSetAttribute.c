/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemPoolSetAttribute: R4, what the threshold keeps stays charged, and makes room for others */
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
    t_cuda(CALL(cuMemPoolSetAttribute)(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &all));
    t_cuda(cuMemAllocFromPoolAsync(&block, 2 * T_GIB, pool, NULL));
    t_cuda(cuMemFreeAsync(block, NULL));
    t_cuda(cuCtxSynchronize());
    EXPECT(2 * T_GIB);
    t_cuda(cuMemAlloc_v2(&block, 3 * T_GIB));
    EXPECT(3 * T_GIB);
}
