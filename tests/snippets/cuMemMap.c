/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemMap: R5, a mapping holds the memory when the handle is gone */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUmemAllocationProp prop = on_gpu(1);
    CUmemGenericAllocationHandle handle;
    CUdeviceptr address;

    t_cuda(cuMemAddressReserve(&address, 2 * GRANULE, 0, 0, 0));
    t_cuda(cuMemCreate(&handle, 2 * GRANULE, &prop, 0));
    t_cuda(CALL(cuMemMap)(address, 2 * GRANULE, 0, handle, 0));
    t_cuda(cuMemRelease(handle));
    EXPECT_ON(1, 2 * GRANULE);
    t_cuda(cuMemUnmap(address, 2 * GRANULE));
    EXPECT_ON(1, 0);
}
