/* SPDX-License-Identifier: Apache-2.0 */
/* cuGraphExecUpdate_v2: R6, an exec with memory nodes stays charged what it takes */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUgraphExec exec = memory_exec(8 * T_MIB);
    CUgraphExecUpdateResultInfo info;

    t_cuda(cuGraphLaunch(exec, NULL));
    CALL(cuGraphExecUpdate_v2)(exec, memory_graph(8 * T_MIB), &info); /* the driver decides whether it can */
    t_cuda(cuGraphLaunch(exec, NULL));
    EXPECT(8 * T_MIB);
}
