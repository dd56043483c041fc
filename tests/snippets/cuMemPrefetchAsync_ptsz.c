/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemPrefetchAsync_ptsz: managed memory that is charged as it becomes resident needs room to be brought here */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2 SOFTSLICE_MANAGED=resident
#include "snippet.h"

static void snippet(void)
{
    CUdeviceptr block;

    t_cuda(cuMemAllocManaged(&block, BUDGET, CU_MEM_ATTACH_GLOBAL));
    EXPECT(0);
    t_result(CALL(cuMemPrefetchAsync_ptsz)(block, BUDGET, 0, NULL), CUDA_ERROR_OUT_OF_MEMORY);
    t_cuda(CALL(cuMemPrefetchAsync_ptsz)(block, 2 * GRANULE, 0, NULL));
}
