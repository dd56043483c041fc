/* SPDX-License-Identifier: Apache-2.0 */
/* cuGraphInstantiate_v2: R6, what can never fit is refused */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUgraphExec exec = NULL;

    t_result(CALL(cuGraphInstantiate_v2)(&exec, memory_graph(2 * BUDGET), NULL, NULL, 0), CUDA_ERROR_OUT_OF_MEMORY);
    t_check(!exec, "a refused instantiation wrote its output");
    t_cuda(CALL(cuGraphInstantiate_v2)(&exec, memory_graph(8 * T_MIB), NULL, NULL, 0));
    EXPECT(0);
    t_cuda(cuGraphLaunch(exec, NULL));
    EXPECT(8 * T_MIB);
}
