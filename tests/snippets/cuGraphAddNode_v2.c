/* SPDX-License-Identifier: Apache-2.0 */
/* cuGraphAddNode_v2: R6, an allocation node like any other */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUgraphNodeParams params = {.type = CU_GRAPH_NODE_TYPE_MEM_ALLOC, .alloc = {.poolProps = pool_on_gpu(0), .bytesize = 8 * T_MIB}};
    CUgraphNode node;
    CUgraphExec exec;
    CUgraph graph;

    t_cuda(cuGraphCreate(&graph, 0));
    t_cuda(CALL(cuGraphAddNode_v2)(&node, graph, NULL, NULL, 0, &params));
    EXPECT(0);
    t_cuda(cuGraphInstantiateWithFlags(&exec, graph, 0));
    t_cuda(cuGraphLaunch(exec, NULL));
    EXPECT(8 * T_MIB);
}
