/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemFree: R1, what is freed is given back, once */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#define SNIPPET_CONTEXT cuCtxCreate(&context, 0, 0)
#include "snippet.h"

static void snippet(void)
{
    CUdeviceptr_v1 block;

    t_cuda(cuMemAlloc(&block, 3 * T_MIB));
    t_cuda(CALL(cuMemFree)(block));
    EXPECT(0);
    t_result(CALL(cuMemFree)(block), CUDA_ERROR_INVALID_VALUE);
    EXPECT(0);
}
