/* SPDX-License-Identifier: Apache-2.0 */
/* cuDevicePrimaryCtxRetain: R9, charged once, when it becomes active */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUcontext primary, again;

    t_cuda(CALL(cuDevicePrimaryCtxRetain)(&primary, 1));
    EXPECT_ON(1, 512 * T_MIB);
    t_cuda(CALL(cuDevicePrimaryCtxRetain)(&again, 1));
    EXPECT_ON(1, 512 * T_MIB);
    t_cuda(cuDevicePrimaryCtxRelease_v2(1));
    EXPECT_ON(1, 512 * T_MIB);
    t_cuda(cuDevicePrimaryCtxRelease_v2(1));
    EXPECT_ON(1, 0);
}
