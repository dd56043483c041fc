/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemAlloc: R1, whole granules, and all of them back */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#define SNIPPET_CONTEXT cuCtxCreate(&context, 0, 0)
#include "snippet.h"

static void snippet(void)
{
    CUdeviceptr_v1 block, none = 7;

    t_cuda(CALL(cuMemAlloc)(&block, 3 * T_MIB));
    EXPECT(2 * GRANULE);
    t_result(CALL(cuMemAlloc)(&none, 0xf0000000u), CUDA_ERROR_OUT_OF_MEMORY);
    t_equal(none, 7);
    t_cuda(cuMemFree(block));
    EXPECT(0);
}
