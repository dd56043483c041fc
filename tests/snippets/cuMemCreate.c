/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemCreate: R5, charged to the device of its location */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUmemAllocationProp prop = on_gpu(1);
    CUmemGenericAllocationHandle handle, none = 7;

    t_cuda(CALL(cuMemCreate)(&handle, 2 * GRANULE, &prop, 0));
    EXPECT_ON(1, 2 * GRANULE);
    EXPECT(0);
    t_result(CALL(cuMemCreate)(&none, BUDGET + GRANULE, &prop, 0), CUDA_ERROR_OUT_OF_MEMORY);
    t_equal(none, 7);
    t_cuda(cuMemRelease(handle));
    EXPECT_ON(1, 0);
}
