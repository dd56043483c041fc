/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemAllocFromPoolAsync_ptsz: R4, on the pool's own device */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2 SOFTSIM_POOL_CHUNK=33554432
#include "snippet.h"

static void snippet(void)
{
    CUmemPoolProps props = pool_on_gpu(1);
    CUmemoryPool pool;
    CUdeviceptr block;

    t_cuda(cuMemPoolCreate(&pool, &props));
    t_cuda(CALL(cuMemAllocFromPoolAsync_ptsz)(&block, 3 * T_MIB, pool, NULL));
    EXPECT_ON(1, 32 * T_MIB);
    EXPECT(0);
}
