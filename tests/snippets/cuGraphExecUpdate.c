/* SPDX-License-Identifier: Apache-2.0 */
/* cuGraphExecUpdate: R6, an exec with memory nodes stays charged what it takes */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUgraphExec exec = memory_exec(8 * T_MIB);
    CUgraphNode node;
    CUgraphExecUpdateResult result;

    t_cuda(cuGraphLaunch(exec, NULL));
    CALL(cuGraphExecUpdate)(exec, memory_graph(8 * T_MIB), &node, &result); /* the driver decides whether it can */
    t_cuda(cuGraphLaunch(exec, NULL));
    EXPECT(8 * T_MIB);
}
