/* SPDX-License-Identifier: Apache-2.0 */
/* cuMulticastCreate: R5, the object itself takes nothing */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUmulticastObjectProp object = {.numDevices = 2, .size = 2 * GRANULE, .handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR};
    CUmemGenericAllocationHandle multicast;

    t_cuda(CALL(cuMulticastCreate)(&multicast, &object));
    EXPECT(0);
    t_cuda(cuMemRelease(multicast));
    EXPECT(0);
}
