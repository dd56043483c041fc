/* SPDX-License-Identifier: Apache-2.0 */
/* cuArrayDestroy: R3, what it took is given back, once */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUDA_ARRAY_DESCRIPTOR desc = {.Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    CUarray array;

    t_cuda(cuArrayCreate_v2(&array, &desc));
    t_cuda(CALL(cuArrayDestroy)(array));
    EXPECT(0);
    t_check(CALL(cuArrayDestroy)(array) != CUDA_SUCCESS, "destroyed twice");
    EXPECT(0);
}
