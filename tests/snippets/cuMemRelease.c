/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemRelease: R5, given back with the last handle where no mapping is left */
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
    t_cuda(cuMemMap(address, 2 * GRANULE, 0, handle, 0));
    t_cuda(cuMemUnmap(address, 2 * GRANULE));
    EXPECT_ON(1, 2 * GRANULE);
    t_cuda(CALL(cuMemRelease)(handle));
    EXPECT_ON(1, 0);
    t_result(CALL(cuMemRelease)(handle), CUDA_ERROR_INVALID_VALUE);
    EXPECT_ON(1, 0);
}
