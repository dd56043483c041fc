/* SPDX-License-Identifier: Apache-2.0 */
/* cuStreamBeginCaptureToGraph_ptsz: launches into the capture are no work, and wait for nothing */
// preload: yes
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=snippet SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2 LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1
// unsanitized: it is in virtual time
// unemulated: it is in virtual time
#include "capture_snippet.h"

static void begin_capture(CUstream stream, CUgraph graph)
{
    t_cuda(CALL(cuStreamBeginCaptureToGraph_ptsz)(stream, graph, NULL, NULL, 0, CU_STREAM_CAPTURE_MODE_RELAXED));
}
