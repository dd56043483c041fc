/* SPDX-License-Identifier: Apache-2.0 */
/* cuGraphAddMemAllocNode: R6, a node takes nothing, its launch does */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUDA_MEM_ALLOC_NODE_PARAMS params = {.poolProps = pool_on_gpu(0), .bytesize = 8 * T_MIB};
    CUgraphNode node;
    CUgraphExec exec;
    CUgraph graph;

    t_cuda(cuGraphCreate(&graph, 0));
    t_cuda(CALL(cuGraphAddMemAllocNode)(&node, graph, NULL, 0, &params));
    EXPECT(0);
    t_cuda(cuGraphInstantiateWithFlags(&exec, graph, 0));
    t_cuda(cuGraphLaunch(exec, NULL));
    EXPECT(8 * T_MIB);
    t_cuda(cuMemFree_v2(params.dptr));
    t_cuda(cuDeviceGraphMemTrim(0));
    EXPECT(0);
}
