/* SPDX-License-Identifier: Apache-2.0 */
/* cuGraphLaunch_ptsz: R6, a launch takes what its nodes allocate, a replay no more */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUgraphExec exec = memory_exec(8 * T_MIB);

    EXPECT(0);
    t_cuda(CALL(cuGraphLaunch_ptsz)(exec, NULL));
    EXPECT(8 * T_MIB);
    t_cuda(CALL(cuGraphLaunch_ptsz)(exec, NULL));
    EXPECT(8 * T_MIB);
}
