/* SPDX-License-Identifier: Apache-2.0 */
/* cuGraphUpload_ptsz: R6, an upload takes what its nodes allocate */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUgraphExec exec = memory_exec(8 * T_MIB);

    t_cuda(CALL(cuGraphUpload_ptsz)(exec, NULL));
    EXPECT(8 * T_MIB);
}
