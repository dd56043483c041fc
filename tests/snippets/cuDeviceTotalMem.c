/* SPDX-License-Identifier: Apache-2.0 */
/* cuDeviceTotalMem: STORY, in 32 bits what fits */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    unsigned int total;

    t_cuda(CALL(cuDeviceTotalMem)(&total, 1));
    t_equal(total, UINT32_MAX);
}
