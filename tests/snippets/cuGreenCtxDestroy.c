/* SPDX-License-Identifier: Apache-2.0 */
/* cuGreenCtxDestroy: R9, with the last hold the primary context goes, and what was allocated in the green one */
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
    CUcontext view;
    CUdeviceptr block;

    t_cuda(cuGreenCtxCreate(&green, desc, 1, CU_GREEN_CTX_DEFAULT_STREAM));
    t_cuda(cuCtxFromGreenCtx(&view, green));
    t_cuda(cuCtxSetCurrent(view));
    t_cuda(cuMemAlloc_v2(&block, 3 * T_MIB));
    EXPECT_ON(1, 512 * T_MIB + 2 * GRANULE);
    t_cuda(CALL(cuGreenCtxDestroy)(green));
    EXPECT_ON(1, 0);
}
