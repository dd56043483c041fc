/* SPDX-License-Identifier: Apache-2.0 */
/* cuDeviceGraphMemTrim: R6, what is trimmed is given back */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUgraphExec exec = memory_exec(8 * T_MIB);

    t_cuda(cuGraphLaunch(exec, NULL));
    t_cuda(cuCtxSynchronize());
    t_cuda(CALL(cuDeviceGraphMemTrim)(0));
    EXPECT(0);
}
