/* SPDX-License-Identifier: Apache-2.0 */
/* cuArrayCreate: R3, an array of 4 MiB */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#define SNIPPET_CONTEXT cuCtxCreate(&context, 0, 0)
#include "snippet.h"

static void snippet(void)
{
    CUDA_ARRAY_DESCRIPTOR_v1 desc = {.Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    CUarray array;

    t_cuda(CALL(cuArrayCreate)(&array, &desc));
    EXPECT(2 * GRANULE);
    t_cuda(cuArrayDestroy(array));
    EXPECT(0);
}
