/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemRetainAllocationHandle: R5, a handle more */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUmemAllocationProp prop = on_gpu(1);
    CUmemGenericAllocationHandle handle, again;
    CUdeviceptr address;

    t_cuda(cuMemAddressReserve(&address, 2 * GRANULE, 0, 0, 0));
    t_cuda(cuMemCreate(&handle, 2 * GRANULE, &prop, 0));
    t_cuda(cuMemMap(address, 2 * GRANULE, 0, handle, 0));
    t_cuda(CALL(cuMemRetainAllocationHandle)(&again, (void *)(uintptr_t)address));
    t_cuda(cuMemUnmap(address, 2 * GRANULE));
    t_cuda(cuMemRelease(handle));
    EXPECT_ON(1, 2 * GRANULE);
    t_cuda(cuMemRelease(again));
    EXPECT_ON(1, 0);
}
