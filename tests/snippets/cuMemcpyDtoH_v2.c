/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemcpyDtoH_v2: a copy to the host that takes its time shows that work does */
// preload: yes
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=snippet SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2 LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1
// unsanitized: it is in virtual time
// unemulated: it is in virtual time
#include "late_snippet.h"

static void wait_for(CUstream stream)
{
    CUdeviceptr block;
    char host[16];

    (void)stream; /* the legacy stream waits for it */
    t_cuda(cuMemAlloc_v2(&block, sizeof(host)));
    t_cuda(CALL(cuMemcpyDtoH_v2)(host, block, sizeof(host)));
}
