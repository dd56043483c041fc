/* SPDX-License-Identifier: Apache-2.0 */
/* cuStreamDestroy: what was launched in a stream that is gone is charged all the same */
// preload: yes
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=snippet SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2 LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1
// unsanitized: it is in virtual time
// unemulated: it is in virtual time
#include "gate_snippet.h"

static void launch(CUfunction f)
{
    CUstream made = stream();
    CUevent done;

    t_cuda(cuEventCreate(&done, CU_EVENT_DEFAULT));
    t_cuda(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, made, NULL, NULL));
    t_cuda(cuEventRecord(done, made));
    t_cuda(CALL(cuStreamDestroy)(made));
    t_cuda(cuEventSynchronize(done));
}
