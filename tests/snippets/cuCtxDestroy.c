/* SPDX-License-Identifier: Apache-2.0 */
/* cuCtxDestroy: R9, a context takes its allocations along */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUcontext further;
    CUdeviceptr block;

    t_cuda(cuCtxCreate_v2(&further, 0, 1));
    t_cuda(cuMemAlloc_v2(&block, 3 * T_MIB));
    EXPECT_ON(1, 512 * T_MIB + 2 * GRANULE);
    t_cuda(CALL(cuCtxDestroy)(further));
    EXPECT_ON(1, 0);
}
