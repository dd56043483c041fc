/* SPDX-License-Identifier: Apache-2.0 */
/* nvmlDeviceGetRunningProcessDetailList: STORY, the tenant's members, and what each holds */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "nvml_snippet.h"

static void snippet(void)
{
    nvmlProcessDetail_v1_t detail[8];
    nvmlProcessDetailList_v1_t list = {.version = NVML_PROCESS_DETAIL_LIST_V1, .numProcArrayEntries = 8, .procArray = detail};

    t_result(CALL(nvmlDeviceGetRunningProcessDetailList)(nvml_gpu(0), &list), NVML_SUCCESS);
    t_equal(list.numProcArrayEntries, 1);
    t_equal(detail[0].pid, getpid());
    t_equal(detail[0].usedGpuMemory, charged_on(0));
}
