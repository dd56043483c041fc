/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemAllocPitch_v2: R2, the driver's pitch times the height */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUdeviceptr block;
    size_t pitch;

    t_cuda(CALL(cuMemAllocPitch_v2)(&block, &pitch, 1000, 5000, 4));
    EXPECT(((uint64_t)pitch * 5000 + GRANULE - 1) / GRANULE * GRANULE);
    t_result(CALL(cuMemAllocPitch_v2)(&block, &pitch, SIZE_MAX, SIZE_MAX, 4), CUDA_ERROR_OUT_OF_MEMORY);
    t_cuda(cuMemFree_v2(block));
    EXPECT(0);
}
