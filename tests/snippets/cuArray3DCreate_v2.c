/* SPDX-License-Identifier: Apache-2.0 */
/* cuArray3DCreate_v2: R3, an array of 4 MiB */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUDA_ARRAY3D_DESCRIPTOR desc = {.Width = 256, .Height = 256, .Depth = 16, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    CUarray array;

    t_cuda(CALL(cuArray3DCreate_v2)(&array, &desc));
    EXPECT(2 * GRANULE);
    t_cuda(cuArrayDestroy(array));
    EXPECT(0);
}
