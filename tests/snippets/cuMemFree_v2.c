/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemFree_v2: R1, what is freed is given back, once */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUdeviceptr block;

    t_cuda(cuMemAlloc_v2(&block, 3 * T_MIB));
    t_cuda(CALL(cuMemFree_v2)(block));
    EXPECT(0);
    t_result(CALL(cuMemFree_v2)(block), CUDA_ERROR_INVALID_VALUE);
    EXPECT(0);
}
