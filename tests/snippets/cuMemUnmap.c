/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemUnmap: R5, the last mapping of a released handle gives it back */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUmemAllocationProp prop = on_gpu(1);
    CUmemGenericAllocationHandle handle;
    CUdeviceptr address;

    t_cuda(cuMemAddressReserve(&address, 2 * GRANULE, 0, 0, 0));
    t_cuda(cuMemCreate(&handle, GRANULE, &prop, 0));
    t_cuda(cuMemMap(address, GRANULE, 0, handle, 0));
    t_cuda(cuMemMap(address + GRANULE, GRANULE, 0, handle, 0));
    t_cuda(cuMemRelease(handle));
    EXPECT_ON(1, GRANULE);
    t_cuda(CALL(cuMemUnmap)(address, 2 * GRANULE));
    EXPECT_ON(1, 0);
}
