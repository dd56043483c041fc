/* SPDX-License-Identifier: Apache-2.0 */
/* nvmlDeviceGetMPSComputeRunningProcesses_v3: STORY, none of a tenant's, unless the driver has it there */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "nvml_snippet.h"

static void snippet(void)
{
    EXPECT_NONE(nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlProcessInfo_v2_t);
}
