/* SPDX-License-Identifier: Apache-2.0 */
/* cuGraphMemAllocNodeGetParams: observed: as the driver answers */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUDA_MEM_ALLOC_NODE_PARAMS params = {.poolProps = pool_on_gpu(0), .bytesize = GRANULE}, seen;
    CUgraphNode node;
    CUgraph graph;

    t_cuda(cuGraphCreate(&graph, 0));
    t_cuda(cuGraphAddMemAllocNode(&node, graph, NULL, 0, &params));
    t_cuda(CALL(cuGraphMemAllocNodeGetParams)(node, &seen));
    t_equal(seen.dptr, params.dptr);
    EXPECT(0);
}
