/* SPDX-License-Identifier: Apache-2.0 */
/* cuIpcOpenMemHandle_v2: IMPORT, the exporter's charge; the driver refuses its own process's handles */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUipcMemHandle handle;
    CUdeviceptr block, seen = 7;

    t_cuda(cuMemAlloc_v2(&block, T_GIB));
    t_cuda(cuIpcGetMemHandle(&handle, block));
    t_result(CALL(cuIpcOpenMemHandle_v2)(&seen, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS), CUDA_ERROR_INVALID_CONTEXT);
    EXPECT(T_GIB);
}
