/* SPDX-License-Identifier: Apache-2.0 */
/* cuIpcCloseMemHandle: IMPORT, what is not open is the driver's to refuse */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUdeviceptr block;

    t_cuda(cuMemAlloc_v2(&block, 2 * GRANULE));
    t_check(CALL(cuIpcCloseMemHandle)(block) != CUDA_SUCCESS, "closed what was never opened");
    EXPECT(2 * GRANULE);
}
