/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemPrefetchAsync_v2_ptsz: managed memory that is charged as it becomes resident needs room to be brought here */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2 SOFTSLICE_MANAGED=resident
#include "snippet.h"

static void snippet(void)
{
    CUmemLocation here = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
    CUdeviceptr block;

    t_cuda(cuMemAllocManaged(&block, BUDGET, CU_MEM_ATTACH_GLOBAL));
    EXPECT(0);
    t_result(CALL(cuMemPrefetchAsync_v2_ptsz)(block, BUDGET, here, 0, NULL), CUDA_ERROR_OUT_OF_MEMORY);
    t_cuda(CALL(cuMemPrefetchAsync_v2_ptsz)(block, 2 * GRANULE, here, 0, NULL));
}
