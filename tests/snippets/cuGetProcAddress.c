/* SPDX-License-Identifier: Apache-2.0 */
/* cuGetProcAddress: LOOKUP, hands out wrappers */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    void *function = NULL;

    t_cuda(CALL(cuGetProcAddress)("cuMemAlloc", &function, 3020, CU_GET_PROC_ADDRESS_DEFAULT));
    t_check(t_is_ours(function), "cuMemAlloc at 3020 is not the wrapper");
}
