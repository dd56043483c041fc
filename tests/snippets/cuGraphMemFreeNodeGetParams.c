/* SPDX-License-Identifier: Apache-2.0 */
/* cuGraphMemFreeNodeGetParams: observed: as the driver answers */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUDA_MEM_ALLOC_NODE_PARAMS params = {.poolProps = pool_on_gpu(0), .bytesize = 8 * T_MIB};
    CUgraphNode take, give;
    CUdeviceptr seen;
    CUgraph graph;

    t_cuda(cuGraphCreate(&graph, 0));
    t_cuda(cuGraphAddMemAllocNode(&take, graph, NULL, 0, &params));
    t_cuda(cuGraphAddMemFreeNode(&give, graph, &take, 1, params.dptr));
    t_cuda(CALL(cuGraphMemFreeNodeGetParams)(give, &seen));
    t_equal(seen, params.dptr);
    EXPECT(0);
}
