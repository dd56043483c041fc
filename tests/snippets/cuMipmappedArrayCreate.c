/* SPDX-License-Identifier: Apache-2.0 */
/* cuMipmappedArrayCreate: R3, a mipmapped array is all its levels */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUDA_ARRAY3D_DESCRIPTOR desc = {.Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    CUmipmappedArray mipmap;

    t_cuda(CALL(cuMipmappedArrayCreate)(&mipmap, &desc, 3));
    EXPECT(3 * GRANULE); /* 4 MiB, 1 MiB and 256 KiB */
    t_cuda(cuMipmappedArrayDestroy(mipmap));
    EXPECT(0);
}
