/* SPDX-License-Identifier: Apache-2.0 */
/* cuGraphAddMemFreeNode: R6, what it frees can be used again in the same graph */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUDA_MEM_ALLOC_NODE_PARAMS params = {.poolProps = pool_on_gpu(0), .bytesize = 8 * T_MIB};
    CUgraphNode take, give, again;
    CUgraphExec exec;
    CUgraph graph;

    t_cuda(cuGraphCreate(&graph, 0));
    t_cuda(cuGraphAddMemAllocNode(&take, graph, NULL, 0, &params));
    t_cuda(CALL(cuGraphAddMemFreeNode)(&give, graph, &take, 1, params.dptr));
    t_cuda(cuGraphAddMemAllocNode(&again, graph, &give, 1, &params));
    t_cuda(cuGraphInstantiateWithFlags(&exec, graph, 0));
    t_cuda(cuGraphLaunch(exec, NULL));
    EXPECT(8 * T_MIB);
}
