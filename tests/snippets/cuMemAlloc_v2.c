/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemAlloc_v2: R1, whole granules, and all of them back */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUdeviceptr block, none = 7;

    t_cuda(CALL(cuMemAlloc_v2)(&block, 3 * T_MIB));
    EXPECT(2 * GRANULE);
    t_result(CALL(cuMemAlloc_v2)(&none, BUDGET), CUDA_ERROR_OUT_OF_MEMORY);
    t_equal(none, 7);
    t_cuda(cuMemFree_v2(block));
    EXPECT(0);
}
