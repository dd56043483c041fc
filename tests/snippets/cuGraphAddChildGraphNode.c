/* SPDX-License-Identifier: Apache-2.0 */
/* cuGraphAddChildGraphNode: R6, child graphs and their memory */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUgraphNode node;
    CUgraph graph, child;

    t_cuda(cuGraphCreate(&graph, 0));
    t_cuda(cuGraphCreate(&child, 0));
    t_cuda(CALL(cuGraphAddChildGraphNode)(&node, graph, NULL, 0, child));
    EXPECT(0);
}
