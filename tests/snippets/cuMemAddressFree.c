/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemAddressFree: R5, addresses hold no memory */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUmemAllocationProp prop = on_gpu(0);
    CUmemGenericAllocationHandle handle;
    CUdeviceptr address;

    t_cuda(cuMemAddressReserve(&address, 2 * GRANULE, 0, 0, 0));
    t_cuda(cuMemCreate(&handle, 2 * GRANULE, &prop, 0));
    t_cuda(CALL(cuMemAddressFree)(address, 2 * GRANULE));
    EXPECT(2 * GRANULE);
    t_cuda(cuMemRelease(handle));
    EXPECT(0);
}
