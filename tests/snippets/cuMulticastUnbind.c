/* SPDX-License-Identifier: Apache-2.0 */
/* cuMulticastUnbind: R5, the last binding of a released handle gives it back */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUmulticastObjectProp object = {.numDevices = 2, .size = 2 * GRANULE, .handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR};
    CUmemAllocationProp prop = on_gpu(0);
    CUmemGenericAllocationHandle multicast, handle;

    t_cuda(cuMulticastCreate(&multicast, &object));
    t_cuda(cuMulticastAddDevice(multicast, 0));
    t_cuda(cuMulticastAddDevice(multicast, 1));
    t_cuda(cuMemCreate(&handle, 2 * GRANULE, &prop, 0));
    t_cuda(cuMulticastBindMem(multicast, 0, handle, 0, 2 * GRANULE, 0));
    t_cuda(cuMemRelease(handle));
    t_cuda(CALL(cuMulticastUnbind)(multicast, 0, 0, 2 * GRANULE));
    EXPECT(0);
    t_cuda(cuMemRelease(multicast));
    EXPECT(0);
}
