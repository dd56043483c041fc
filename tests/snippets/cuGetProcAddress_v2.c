/* SPDX-License-Identifier: Apache-2.0 */
/* cuGetProcAddress_v2: LOOKUP, hands out wrappers */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUdriverProcAddressQueryResult found;
    void *function = NULL;

    t_cuda(CALL(cuGetProcAddress_v2)("cuMemAlloc", &function, 3020, CU_GET_PROC_ADDRESS_DEFAULT, &found));
    t_check(function == (void *)cuMemAlloc_v2 || t_is_ours(function), "cuMemAlloc at 3020 is not the wrapper");
    t_equal(found, CU_GET_PROC_ADDRESS_SUCCESS);
}
