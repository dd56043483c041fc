/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs: memory nodes take nothing, an instantiation is refused what can never fit, launches and uploads are charged. Graphs are read when
 * they are instantiated, so what changes them before has no wrapper but those which make memory nodes. */
#include <stddef.h>

#include "../gate.h"
#include "../graphs.h"

CUresult cuGraphAddMemAllocNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies, size_t numDependencies,
                                CUDA_MEM_ALLOC_NODE_PARAMS *nodeParams)
{
    CUresult result = real.cuGraphAddMemAllocNode(phGraphNode, hGraph, dependencies, numDependencies, nodeParams);

    if (result == CUDA_SUCCESS)
        graphs_note_memory_node();
    return result;
}

/* A child graph may come with memory nodes that were noted when they were made. */
static void note(CUresult result, const CUgraphNodeParams *params)
{
    if (result == CUDA_SUCCESS && params && params->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC)
        graphs_note_memory_node();
}

CUresult cuGraphAddNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies, size_t numDependencies,
                        CUgraphNodeParams *nodeParams)
{
    CUresult result = real.cuGraphAddNode(phGraphNode, hGraph, dependencies, numDependencies, nodeParams);

    note(result, nodeParams);
    return result;
}

CUresult cuGraphAddNode_v2(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                           const CUgraphEdgeData *dependencyData, size_t numDependencies, CUgraphNodeParams *nodeParams)
{
    CUresult result = real.cuGraphAddNode_v2(phGraphNode, hGraph, dependencies, dependencyData, numDependencies, nodeParams);

    note(result, nodeParams);
    return result;
}

/* An instantiation: `given` are the program's arguments, `ours` the same with our own output, for what is refused after all must not be seen. */
#define INSTANTIATE(symbol, parameters, given, ours)                                                                               \
    CUresult symbol parameters                                                                                                     \
    {                                                                                                                              \
        struct graph_need need;                                                                                                    \
        CUgraphExec exec = NULL;                                                                                                   \
                                                                                                                                   \
        if (!guard_acts(RESOLVE_VRAM) || !graphs_measure(&need, hGraph))                                                           \
            return real.symbol given;                                                                                              \
        if (phGraphExec)                                                                                                           \
            exec = *phGraphExec;                                                                                                   \
        guard_enter();                                                                                                             \
        CUresult result = real.symbol ours;                                                                                        \
        guard_leave();                                                                                                             \
        if (result == CUDA_SUCCESS && !graphs_remember(&need, exec)) {                                                             \
            real.cuGraphExecDestroy(exec);                                                                                         \
            return CUDA_ERROR_OUT_OF_MEMORY;                                                                                       \
        }                                                                                                                          \
        if (phGraphExec)                                                                                                           \
            *phGraphExec = exec;                                                                                                   \
        return result;                                                                                                             \
    }

INSTANTIATE(cuGraphInstantiate,
            (CUgraphExec * phGraphExec, CUgraph hGraph, CUgraphNode *phErrorNode, char *logBuffer, size_t bufferSize),
            (phGraphExec, hGraph, phErrorNode, logBuffer, bufferSize),
            (phGraphExec ? &exec : NULL, hGraph, phErrorNode, logBuffer, bufferSize))
INSTANTIATE(cuGraphInstantiate_v2,
            (CUgraphExec * phGraphExec, CUgraph hGraph, CUgraphNode *phErrorNode, char *logBuffer, size_t bufferSize),
            (phGraphExec, hGraph, phErrorNode, logBuffer, bufferSize),
            (phGraphExec ? &exec : NULL, hGraph, phErrorNode, logBuffer, bufferSize))
INSTANTIATE(cuGraphInstantiateWithFlags, (CUgraphExec * phGraphExec, CUgraph hGraph, unsigned long long flags),
            (phGraphExec, hGraph, flags), (phGraphExec ? &exec : NULL, hGraph, flags))

/* What the driver says of an instantiation that failed for no fault of a node. */
static CUresult refuse(CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
    params->hErrNode_out = NULL;
    params->result_out = CUDA_GRAPH_INSTANTIATE_ERROR;
    return CUDA_ERROR_OUT_OF_MEMORY;
}

/* It can be an upload at the same time. */
static CUresult instantiate(CUgraphExec *out, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *params,
                            __typeof__(&cuGraphInstantiateWithParams) call, bool per_thread)
{
    struct graphs_launch upload = {.membership = NULL};
    struct graph_need need;
    CUgraphExec exec = NULL;
    CUresult result;

    if (!guard_acts(RESOLVE_VRAM) || !params || !graphs_measure(&need, graph))
        return call(out, graph, params);
    if (out)
        exec = *out;
    if ((params->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD) &&
        graphs_upload_begin(&upload, &need, params->hUploadStream, per_thread) != CUDA_SUCCESS)
        return refuse(params);
    do {
        guard_enter();
        result = call(out ? &exec : NULL, graph, params);
        guard_leave();
    } while (graphs_launch_again(&upload, result));
    bool kept = result != CUDA_SUCCESS || graphs_remember(&need, exec);
    if (result == CUDA_SUCCESS && kept)
        upload.exec = exec;
    if (!kept)
        real.cuGraphExecDestroy(exec);
    graphs_launch_end(&upload, result);
    if (!kept)
        return refuse(params);
    if (out)
        *out = exec;
    return result;
}

CUresult cuGraphInstantiateWithParams(CUgraphExec *phGraphExec, CUgraph hGraph, CUDA_GRAPH_INSTANTIATE_PARAMS *instantiateParams)
{
    return instantiate(phGraphExec, hGraph, instantiateParams, real.cuGraphInstantiateWithParams, false);
}

CUresult cuGraphInstantiateWithParams_ptsz(CUgraphExec *phGraphExec, CUgraph hGraph,
                                           CUDA_GRAPH_INSTANTIATE_PARAMS *instantiateParams)
{
    return instantiate(phGraphExec, hGraph, instantiateParams, real.cuGraphInstantiateWithParams_ptsz, true);
}

/* What memory a launch or an upload takes. */
#define TAKE(name, symbol, per_thread)                                                                                             \
    static CUresult name(CUgraphExec exec, CUstream stream)                                                                        \
    {                                                                                                                              \
        struct graphs_launch launch;                                                                                               \
        CUresult result;                                                                                                           \
                                                                                                                                   \
        if (!graphs_noted() || !guard_acts(RESOLVE_VRAM))                                                                          \
            return real.symbol(exec, stream);                                                                                      \
        if ((result = graphs_launch_begin(&launch, exec, stream, per_thread)) != CUDA_SUCCESS)                                     \
            return result;                                                                                                         \
        do                                                                                                                         \
            result = real.symbol(exec, stream);                                                                                    \
        while (graphs_launch_again(&launch, result));                                                                              \
        graphs_launch_end(&launch, result);                                                                                        \
        return result;                                                                                                             \
    }

TAKE(take_launch, cuGraphLaunch, false)
TAKE(take_launch_ptsz, cuGraphLaunch_ptsz, true)
TAKE(take_upload, cuGraphUpload, false)
TAKE(take_upload_ptsz, cuGraphUpload_ptsz, true)

/* A graph is one piece of work, whatever its nodes do: a conditional node may make it longer each time, which its mark shows. */
GATE_LAUNCH_BY(take_launch, cuGraphLaunch, (CUgraphExec hGraph, CUstream hStream), (hGraph, hStream), hStream, false,
               estimate_key_of(hGraph))
GATE_LAUNCH_BY(take_launch_ptsz, cuGraphLaunch_ptsz, (CUgraphExec hGraph, CUstream hStream), (hGraph, hStream), hStream, true,
               estimate_key_of(hGraph))

CUresult cuGraphUpload(CUgraphExec hGraph, CUstream hStream)
{
    return take_upload(hGraph, hStream);
}

CUresult cuGraphUpload_ptsz(CUgraphExec hGraph, CUstream hStream)
{
    return take_upload_ptsz(hGraph, hStream);
}

static void updated(CUresult result, CUgraphExec exec, CUgraph graph)
{
    if (result == CUDA_SUCCESS && guard_acts(RESOLVE_VRAM))
        graphs_updated(exec, graph);
}

CUresult cuGraphExecUpdate(CUgraphExec hGraphExec, CUgraph hGraph, CUgraphNode *hErrorNode_out,
                           CUgraphExecUpdateResult *updateResult_out)
{
    CUresult result = real.cuGraphExecUpdate(hGraphExec, hGraph, hErrorNode_out, updateResult_out);

    updated(result, hGraphExec, hGraph);
    return result;
}

CUresult cuGraphExecUpdate_v2(CUgraphExec hGraphExec, CUgraph hGraph, CUgraphExecUpdateResultInfo *resultInfo)
{
    CUresult result = real.cuGraphExecUpdate_v2(hGraphExec, hGraph, resultInfo);

    updated(result, hGraphExec, hGraph);
    return result;
}

/* Its memory stays the device's graph memory until it is trimmed. */
CUresult cuGraphExecDestroy(CUgraphExec hGraphExec)
{
    struct graphs_ending ending;

    if (!graphs_noted() || !guard_acts(RESOLVE_VRAM))
        return real.cuGraphExecDestroy(hGraphExec);
    graphs_ending_begin(&ending, hGraphExec);
    guard_enter();
    CUresult result = real.cuGraphExecDestroy(hGraphExec);
    guard_leave();
    graphs_ending_end(&ending, result);
    return result;
}

CUresult cuDeviceGraphMemTrim(CUdevice device)
{
    struct graphs_trim trim;
    struct membership *m;
    int index;

    if (!graphs_noted() || !guard_acts(RESOLVE_VRAM) || !(m = process_membership(NULL)) ||
        (index = process_device(m, device)) == PROCESS_NO_DEVICE)
        return real.cuDeviceGraphMemTrim(device);
    graphs_trim_begin(&trim, m, (unsigned)index, true);
    guard_enter();
    CUresult result = real.cuDeviceGraphMemTrim(device);
    guard_leave();
    graphs_trim_end(&trim, m);
    return result;
}
