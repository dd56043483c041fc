/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs with memory nodes, as the tests about them make them. */
#ifndef TESTS_PRELOAD_GRAPH_HELPER_H
#define TESTS_PRELOAD_GRAPH_HELPER_H

#include "cuda_helper.h"

/* What a device of the tenant is charged: total less free, as the current context is told. */
T_UNUSED static size_t g_charged(void)
{
    size_t free_bytes, total;

    t_cuda(cuMemGetInfo(&free_bytes, &total));
    return total - free_bytes;
}

T_UNUSED static CUstream g_stream(void)
{
    CUstream stream;

    t_cuda(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    return stream;
}

/* A node that allocates behind `after` (NULL: behind none). */
T_UNUSED static CUgraphNode g_alloc(CUgraph graph, CUgraphNode after, int device, size_t bytes, CUdeviceptr *pointer)
{
    CUDA_MEM_ALLOC_NODE_PARAMS params = {
        .poolProps = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device}},
        .bytesize = bytes};
    CUgraphNode node;

    t_cuda(cuGraphAddMemAllocNode(&node, graph, after ? &after : NULL, after != NULL, &params));
    *pointer = params.dptr;
    return node;
}

T_UNUSED static CUgraphNode g_free(CUgraph graph, CUgraphNode after, CUdeviceptr pointer)
{
    CUgraphNode node;

    t_cuda(cuGraphAddMemFreeNode(&node, graph, after ? &after : NULL, after != NULL, pointer));
    return node;
}

/* Both. */
T_UNUSED static CUgraphNode g_pass(CUgraph graph, CUgraphNode after, int device, size_t bytes)
{
    CUdeviceptr pointer;
    CUgraphNode node = g_alloc(graph, after, device, bytes, &pointer);

    return g_free(graph, node, pointer);
}

T_UNUSED static CUgraph g_graph(void)
{
    CUgraph graph;

    t_cuda(cuGraphCreate(&graph, 0));
    return graph;
}

T_UNUSED static CUgraphExec g_exec(CUgraph graph)
{
    CUgraphExec exec;

    t_cuda(cuGraphInstantiateWithFlags(&exec, graph, 0));
    return exec;
}

/* A graph that allocates and frees `bytes`. */
T_UNUSED static CUgraphExec g_passing(int device, size_t bytes)
{
    CUgraph graph = g_graph();

    g_pass(graph, NULL, device, bytes);
    return g_exec(graph);
}

/* A graph that leaves `bytes` allocated. */
T_UNUSED static CUgraphExec g_leaving(int device, size_t bytes, CUdeviceptr *pointer)
{
    CUgraph graph = g_graph();

    g_alloc(graph, NULL, device, bytes, pointer);
    return g_exec(graph);
}

T_UNUSED static void g_run(CUgraphExec exec, CUstream stream)
{
    t_cuda(cuGraphLaunch(exec, stream));
    t_cuda(cuStreamSynchronize(stream));
}

/* What is charged is what the GPU has given, at rest. */
#define g_agree(gpu) t_equal(g_charged(), t_used(gpu))

#endif
