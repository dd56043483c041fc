/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemAllocAsync: R4, what the pool has reserved for it */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2 SOFTSIM_POOL_CHUNK=33554432
#include "snippet.h"

static void snippet(void)
{
    CUdeviceptr block, none = 7;

    t_cuda(CALL(cuMemAllocAsync)(&block, 3 * T_MIB, NULL));
    EXPECT(32 * T_MIB);
    t_result(CALL(cuMemAllocAsync)(&none, BUDGET, NULL), CUDA_ERROR_OUT_OF_MEMORY);
    t_equal(none, 7);
    t_cuda(cuMemFreeAsync(block, NULL));
}
