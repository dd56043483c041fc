/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemcpyDtoH: a copy to the host that takes its time shows that work does */
// preload: yes
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=snippet SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2 LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1
// unsanitized: it is in virtual time
// unemulated: it is in virtual time
#define SNIPPET_CONTEXT cuCtxCreate(&context, 0, 0)
#include "late_snippet.h"

static void wait_for(CUstream stream)
{
    CUdeviceptr_v1 block;
    char host[16];

    (void)stream; /* the legacy stream waits for it */
    t_cuda(cuMemAlloc(&block, sizeof(host)));
    t_cuda(CALL(cuMemcpyDtoH)(host, block, sizeof(host)));
}
