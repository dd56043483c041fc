/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemGetInfo: STORY, in 32 bits what fits */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#define SNIPPET_CONTEXT cuCtxCreate(&context, 0, 0)
#include "snippet.h"

static void snippet(void)
{
    unsigned int free_bytes, total;

    t_cuda(CALL(cuMemGetInfo)(&free_bytes, &total));
    t_equal(total, UINT32_MAX);
    t_equal(free_bytes, BUDGET - charged_on(0));
}
