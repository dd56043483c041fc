/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemSetMemPool: R4, blocks come from the pool that is current */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUmemLocation here = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
    CUmemPoolProps props = pool_on_gpu(0);
    cuuint64_t all = UINT64_MAX;
    CUmemoryPool pool;
    CUdeviceptr block;

    t_cuda(cuMemPoolCreate(&pool, &props));
    t_cuda(CALL(cuMemSetMemPool)(&here, CU_MEM_ALLOCATION_TYPE_PINNED, pool));
    t_cuda(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &all));
    t_cuda(cuMemAllocAsync(&block, T_GIB, NULL));
    EXPECT(T_GIB);
}
