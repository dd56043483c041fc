/* SPDX-License-Identifier: Apache-2.0 */
/* nvmlDeviceGetMemoryInfo_v2: STORY, the budget and what is left of it, for the version that it knows */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "nvml_snippet.h"

static void snippet(void)
{
    nvmlMemory_v2_t memory = {.version = 0x02000028}, wrong = {.version = 77};
    size_t free_bytes, total;

    t_cuda(cuMemGetInfo_v2(&free_bytes, &total));
    t_result(CALL(nvmlDeviceGetMemoryInfo_v2)(nvml_gpu(0), &memory), NVML_SUCCESS);
    t_equal(memory.total, total);
    t_equal(memory.free, free_bytes);
    t_equal(memory.used + memory.reserved, total - free_bytes);
    t_check(CALL(nvmlDeviceGetMemoryInfo_v2)(nvml_gpu(0), &wrong) != NVML_SUCCESS, "a version that nobody knows");
}
