/* SPDX-License-Identifier: Apache-2.0 */
/* cuLaunch: a launch is charged for the time that it takes, and waits while the tenant is in debt */
// preload: yes
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=snippet SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2 LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1
// unsanitized: it is in virtual time
// unemulated: it is in virtual time
#include "gate_snippet.h"

static void launch(CUfunction f)
{
    t_cuda(cuFuncSetBlockShape(f, 1, 1, 1));
    t_cuda(CALL(cuLaunch)(f));
}
