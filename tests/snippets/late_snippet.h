/* SPDX-License-Identifier: Apache-2.0 */
/* Snippets of what shows that work is not done: a graph that took 10 us takes 20 ms after it was changed. Who waits for it that way is charged for that, so
 * that the next launch waits, in virtual time. */
#ifndef TESTS_SNIPPETS_LATE_SNIPPET_H
#define TESTS_SNIPPETS_LATE_SNIPPET_H

#include "snippet.h"

static void wait_for(CUstream stream);

static CUgraph graph_of(const char *kernel)
{
    CUDA_KERNEL_NODE_PARAMS_v2 params = {
        .gridDimX = 1, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 1, .blockDimY = 1, .blockDimZ = 1};
    CUgraphNode node;
    CUmodule module;
    CUgraph graph;

    t_cuda(cuModuleLoadData(&module, "any image"));
    t_cuda(cuModuleGetFunction(&params.func, module, kernel));
    t_cuda(cuGraphCreate(&graph, 0));
    t_cuda(cuGraphAddKernelNode_v2(&node, graph, NULL, 0, &params));
    return graph;
}

/* Of the 200 ms that 20 ms at 10 % are, 80 are what an idle tenant may use at once. */
static void snippet(void)
{
    CUgraph brief = graph_of("k__10us"), longer = graph_of("k__20ms");
    CUgraphExecUpdateResultInfo info;
    CUgraphExec exec;
    CUstream stream;

    t_cuda(cuStreamCreate(&stream, CU_STREAM_DEFAULT));
    t_cuda(cuGraphInstantiateWithFlags(&exec, brief, 0));
    for (int i = 0; i < 2; i++) {
        t_cuda(cuGraphLaunch(exec, stream));
        t_cuda(cuStreamSynchronize(stream));
    }
    usleep(100000);
    t_cuda(cuGraphExecUpdate_v2(exec, longer, &info));
    for (int i = 0; i < 2; i++)
        t_cuda(cuGraphLaunch(exec, stream));
    wait_for(stream);
    uint64_t before = t_now_ms();
    t_cuda(cuGraphLaunch(exec, stream));
    uint64_t took = t_now_ms() - before;
    t_check(took >= 200 && took <= 450, "a launch in debt took %llu ms", (unsigned long long)took);
    t_cuda(cuStreamSynchronize(stream));
}

#endif
