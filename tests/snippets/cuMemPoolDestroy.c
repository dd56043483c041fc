/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemPoolDestroy: R4, it lives on until its last block is freed */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2 SOFTSIM_POOL_CHUNK=33554432
#include "snippet.h"

static void snippet(void)
{
    CUmemPoolProps props = pool_on_gpu(0);
    cuuint64_t all = UINT64_MAX;
    CUmemoryPool pool;
    CUdeviceptr block;

    t_cuda(cuMemPoolCreate(&pool, &props));
    t_cuda(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &all));
    t_cuda(cuMemAllocFromPoolAsync(&block, 3 * T_MIB, pool, NULL));
    t_cuda(CALL(cuMemPoolDestroy)(pool));
    EXPECT(2 * GRANULE); /* what it keeps beside the block goes at once */
    t_cuda(cuMemFreeAsync(block, NULL));
    t_cuda(cuCtxSynchronize());
    EXPECT(0);
}
