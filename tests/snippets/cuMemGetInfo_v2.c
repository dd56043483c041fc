/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemGetInfo_v2: STORY, the budget and what is left of it; outputs may be NULL */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    size_t free_bytes, total;

    t_cuda(CALL(cuMemGetInfo_v2)(&free_bytes, &total));
    t_equal(total, BUDGET);
    t_equal(total - free_bytes, charged_on(0));
    t_cuda(CALL(cuMemGetInfo_v2)(NULL, &total));
    t_cuda(CALL(cuMemGetInfo_v2)(&free_bytes, NULL));
    t_equal(BUDGET - free_bytes, charged_on(0));
}
