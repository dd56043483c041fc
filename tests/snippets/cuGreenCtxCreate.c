/* SPDX-License-Identifier: Apache-2.0 */
/* cuGreenCtxCreate: R9, it makes the primary context active */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUdevResourceDesc desc;
    CUdevResource sms;
    CUgreenCtx green;

    t_cuda(cuDeviceGetDevResource(1, &sms, CU_DEV_RESOURCE_TYPE_SM));
    t_cuda(cuDevResourceGenerateDesc(&desc, &sms, 1));
    t_cuda(CALL(cuGreenCtxCreate)(&green, desc, 1, CU_GREEN_CTX_DEFAULT_STREAM));
    EXPECT_ON(1, 512 * T_MIB);
    t_cuda(cuGreenCtxDestroy(green));
    EXPECT_ON(1, 0);
}
