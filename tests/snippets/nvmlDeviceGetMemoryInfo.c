/* SPDX-License-Identifier: Apache-2.0 */
/* nvmlDeviceGetMemoryInfo: STORY, the budget and what is left of it */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "nvml_snippet.h"

static void snippet(void)
{
    nvmlMemory_t memory;
    size_t free_bytes, total;

    t_cuda(cuMemGetInfo_v2(&free_bytes, &total));
    t_result(CALL(nvmlDeviceGetMemoryInfo)(nvml_gpu(0), &memory), NVML_SUCCESS);
    t_equal(memory.total, total);
    t_equal(memory.free, free_bytes);
    t_equal(memory.used, total - free_bytes);
}
