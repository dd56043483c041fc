/* SPDX-License-Identifier: Apache-2.0 */
/* cuCtxSetLimit: R8, the heap of a context is part of what it takes */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    size_t before;

    t_cuda(cuCtxGetLimit(&before, CU_LIMIT_MALLOC_HEAP_SIZE));
    t_cuda(CALL(cuCtxSetLimit)(CU_LIMIT_MALLOC_HEAP_SIZE, before + 64 * T_MIB));
    EXPECT(64 * T_MIB);
    t_cuda(CALL(cuCtxSetLimit)(CU_LIMIT_MALLOC_HEAP_SIZE, before));
    EXPECT(0);
}
