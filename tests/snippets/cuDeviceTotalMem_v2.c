/* SPDX-License-Identifier: Apache-2.0 */
/* cuDeviceTotalMem_v2: STORY, the budget is the whole card */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    size_t total;

    t_cuda(CALL(cuDeviceTotalMem_v2)(&total, 1));
    t_equal(total, BUDGET);
    t_result(CALL(cuDeviceTotalMem_v2)(&total, 99), CUDA_ERROR_INVALID_DEVICE);
}
