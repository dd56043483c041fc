/* SPDX-License-Identifier: Apache-2.0 */
/* cuDevicePrimaryCtxRelease_v2: R9, the primary context takes its allocations along */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUcontext primary;
    CUdeviceptr block;

    t_cuda(cuDevicePrimaryCtxRetain(&primary, 1));
    t_cuda(cuCtxPushCurrent_v2(primary));
    t_cuda(cuMemAlloc_v2(&block, 3 * T_MIB));
    EXPECT_ON(1, 512 * T_MIB + 2 * GRANULE);
    t_cuda(CALL(cuDevicePrimaryCtxRelease_v2)(1));
    EXPECT_ON(1, 0);
}
