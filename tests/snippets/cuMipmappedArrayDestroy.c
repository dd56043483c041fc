/* SPDX-License-Identifier: Apache-2.0 */
/* cuMipmappedArrayDestroy: R3, what it took is given back */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUDA_ARRAY3D_DESCRIPTOR desc = {.Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    CUmipmappedArray mipmap;

    t_cuda(cuMipmappedArrayCreate(&mipmap, &desc, 3));
    t_cuda(CALL(cuMipmappedArrayDestroy)(mipmap));
    EXPECT(0);
}
