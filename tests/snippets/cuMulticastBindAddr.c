/* SPDX-License-Identifier: Apache-2.0 */
/* cuMulticastBindAddr: R5, a binding holds the memory when handle and mapping are gone */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUmulticastObjectProp object = {.numDevices = 2, .size = 2 * GRANULE, .handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR};
    CUmemAllocationProp prop = on_gpu(0);
    CUmemGenericAllocationHandle multicast, handle;
    CUdeviceptr address;

    t_cuda(cuMulticastCreate(&multicast, &object));
    t_cuda(cuMulticastAddDevice(multicast, 0));
    t_cuda(cuMulticastAddDevice(multicast, 1));
    t_cuda(cuMemCreate(&handle, 2 * GRANULE, &prop, 0));
    t_cuda(cuMemAddressReserve(&address, 2 * GRANULE, 0, 0, 0));
    t_cuda(cuMemMap(address, 2 * GRANULE, 0, handle, 0));
    t_cuda(CALL(cuMulticastBindAddr)(multicast, 0, address, 2 * GRANULE, 0));
    t_cuda(cuMemRelease(handle));
    t_cuda(cuMemUnmap(address, 2 * GRANULE));
    EXPECT(2 * GRANULE);
    t_cuda(cuMulticastUnbind(multicast, 0, 0, 2 * GRANULE));
    EXPECT(0);
}
