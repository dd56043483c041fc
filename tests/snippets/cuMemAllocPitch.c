/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemAllocPitch: R2, the driver's pitch times the height */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#define SNIPPET_CONTEXT cuCtxCreate(&context, 0, 0)
#include "snippet.h"

static void snippet(void)
{
    CUdeviceptr_v1 block;
    unsigned int pitch;

    t_cuda(CALL(cuMemAllocPitch)(&block, &pitch, 1000, 5000, 4));
    EXPECT(((uint64_t)pitch * 5000 + GRANULE - 1) / GRANULE * GRANULE);
    t_result(CALL(cuMemAllocPitch)(&block, &pitch, UINT32_MAX, UINT32_MAX, 4), CUDA_ERROR_OUT_OF_MEMORY);
    t_cuda(cuMemFree(block));
    EXPECT(0);
}
