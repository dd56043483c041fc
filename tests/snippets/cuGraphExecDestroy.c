/* SPDX-License-Identifier: Apache-2.0 */
/* cuGraphExecDestroy: R6, the device's graph memory outlives it until it is trimmed */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUgraphExec exec = memory_exec(8 * T_MIB);

    t_cuda(cuGraphLaunch(exec, NULL));
    t_cuda(cuCtxSynchronize());
    t_cuda(CALL(cuGraphExecDestroy)(exec));
    t_cuda(cuDeviceGraphMemTrim(0));
    EXPECT(0);
}
