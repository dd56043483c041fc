/* SPDX-License-Identifier: Apache-2.0 */
/* cuGraphInstantiateWithParams_ptsz: R6, what can never fit is refused */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUDA_GRAPH_INSTANTIATE_PARAMS params = {0};
    CUgraphExec exec = NULL;

    t_result(CALL(cuGraphInstantiateWithParams_ptsz)(&exec, memory_graph(2 * BUDGET), &params), CUDA_ERROR_OUT_OF_MEMORY);
    t_check(!exec, "a refused instantiation wrote its output");
    t_cuda(CALL(cuGraphInstantiateWithParams_ptsz)(&exec, memory_graph(8 * T_MIB), &params));
    EXPECT(0);
    t_cuda(cuGraphLaunch(exec, NULL));
    EXPECT(8 * T_MIB);
}
