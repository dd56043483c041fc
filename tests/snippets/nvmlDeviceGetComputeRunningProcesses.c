/* SPDX-License-Identifier: Apache-2.0 */
/* nvmlDeviceGetComputeRunningProcesses: STORY, the tenant's members, and what each holds */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "nvml_snippet.h"

static void snippet(void)
{
    EXPECT_ONE(nvmlDeviceGetComputeRunningProcesses, nvmlProcessInfo_v1_t);
}
