/* SPDX-License-Identifier: Apache-2.0 */
/* cuStreamSynchronize_ptsz: R4, what a pool gives back when the host waits is given back to the budget */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2 SOFTSIM_POOL_CHUNK=33554432
#include "snippet.h"

static void snippet(void)
{
    CUdeviceptr block;
    CUstream stream;

    t_cuda(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    t_cuda(cuMemAllocAsync(&block, 3 * T_MIB, stream));
    t_cuda(cuMemFreeAsync(block, stream));
    EXPECT(32 * T_MIB);
    t_cuda(CALL(cuStreamSynchronize_ptsz)(stream));
    EXPECT(0);
}
