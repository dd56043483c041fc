/* SPDX-License-Identifier: Apache-2.0 */
/* cuEventQuery: an event that is not reached shows that work takes longer than was expected */
// preload: yes
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=snippet SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2 LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1
// unsanitized: it is in virtual time
// unemulated: it is in virtual time
#include "late_snippet.h"

static void wait_for(CUstream stream)
{
    CUevent event;

    t_cuda(cuEventCreate(&event, CU_EVENT_DEFAULT));
    t_cuda(cuEventRecord(event, stream));
    while (CALL(cuEventQuery)(event) == CUDA_ERROR_NOT_READY)
        usleep(500);
}
