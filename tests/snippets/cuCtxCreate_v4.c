/* SPDX-License-Identifier: Apache-2.0 */
/* cuCtxCreate_v4: R9, a context is charged what it takes, on its own device */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUcontext further;

    t_cuda(CALL(cuCtxCreate_v4)(&further, NULL, 0, 1));
    EXPECT_ON(1, 512 * T_MIB);
    EXPECT(0);
    t_cuda(cuCtxDestroy_v2(further));
    EXPECT_ON(1, 0);
}
