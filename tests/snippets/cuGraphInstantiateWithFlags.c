/* SPDX-License-Identifier: Apache-2.0 */
/* cuGraphInstantiateWithFlags: R6, what can never fit is refused */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUgraphExec exec = NULL;

    t_result(CALL(cuGraphInstantiateWithFlags)(&exec, memory_graph(2 * BUDGET), 0), CUDA_ERROR_OUT_OF_MEMORY);
    t_check(!exec, "a refused instantiation wrote its output");
    t_cuda(CALL(cuGraphInstantiateWithFlags)(&exec, memory_graph(8 * T_MIB), 0));
    EXPECT(0);
    t_cuda(cuGraphLaunch(exec, NULL));
    EXPECT(8 * T_MIB);
}
