/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes by type: adding them to graphs, their parameters, in graphs and in what was instantiated from them. */
#include <string.h>

#include "copy.h"
#include "graph.h"

static CUresult set_kernel(struct sim_node *n, const CUDA_KERNEL_NODE_PARAMS *p)
{
    struct sim_function *f = sim_function_of(p->func ? p->func : (CUfunction)p->kern);
    CUresult r;

    if (!f)
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_kernel_check(p);
    if (r != CUDA_SUCCESS)
        return r;
    n->params.kernel = *p;
    n->op = (struct sim_op){.type = SIM_OP_KERNEL, .ns = f->ns};
    return CUDA_SUCCESS;
}

static CUresult set_copy(struct sim_node *n, const CUDA_MEMCPY3D *p)
{
    enum sim_end dst, src;
    struct sim_copy copy;
    CUresult r = sim_copy_shape(p, &copy, &dst, &src);

    if (r == CUDA_SUCCESS)
        r = sim_copy_check(&copy, dst, src);
    if (r != CUDA_SUCCESS)
        return r;
    n->params.copy = *p;
    n->op = (struct sim_op){.type = SIM_OP_COPY, .copy = copy, .run = sim_copy_run, .ns = sim_copy_ns(&copy)};
    return CUDA_SUCCESS;
}

static CUresult set_memset(struct sim_node *n, const CUDA_MEMSET_NODE_PARAMS *p)
{
    struct sim_copy copy = {.dst = p->dst,
                            .dst_pitch = p->pitch,
                            .width = p->width * p->elementSize,
                            .height = p->height,
                            .depth = 1,
                            .value = p->value,
                            .element = (uint8_t)p->elementSize};
    CUresult r;

    if ((p->elementSize != 1 && p->elementSize != 2 && p->elementSize != 4) || !p->width || !p->height)
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_copy_check(&copy, SIM_END_DEVICE, SIM_END_ANY);
    if (r != CUDA_SUCCESS)
        return r;
    n->params.set = *p;
    n->op = (struct sim_op){.type = SIM_OP_COPY, .copy = copy, .run = sim_copy_run, .ns = sim_copy_ns(&copy)};
    return CUDA_SUCCESS;
}

CUresult sim_node_set(struct sim_node *n, const void *params)
{
    switch (n->type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
        return set_kernel(n, params);
    case CU_GRAPH_NODE_TYPE_MEMCPY:
        return set_copy(n, params);
    case CU_GRAPH_NODE_TYPE_MEMSET:
        return set_memset(n, params);
    case CU_GRAPH_NODE_TYPE_HOST:
        n->params.host = *(const CUDA_HOST_NODE_PARAMS *)params;
        if (!n->params.host.fn)
            return CUDA_ERROR_INVALID_VALUE;
        n->op = (struct sim_op){.type = SIM_OP_HOST, .host = n->params.host.fn, .data = n->params.host.userData};
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
        n->params.alloc = *(const CUDA_MEM_ALLOC_NODE_PARAMS *)params;
        n->params.alloc.dptr = 0;
        return sim_graph_mem_reserve(n);
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
        n->params.free = *(const CUdeviceptr *)params;
        return n->params.free ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
        n->params.event = *(const CUevent *)params;
        return sim_handle_find(n->params.event, SIM_EVENT) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    default:
        return CUDA_SUCCESS;
    }
}

/* Lock held. */
static CUresult add(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, CUgraphNodeType type,
                    const void *params)
{
    struct sim_graph *g = sim_handle_find(graph, SIM_GRAPH);
    struct sim_node *n;
    CUresult r;

    if (!out || !g || (count && !deps) || !params)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; i++)
        if (!sim_handle_find(deps[i], SIM_GRAPH_NODE))
            return CUDA_ERROR_INVALID_VALUE;
    r = sim_node_new(g, type, (struct sim_node *const *)deps, count, &n);
    if (r != CUDA_SUCCESS)
        return r;
    if (type == CU_GRAPH_NODE_TYPE_GRAPH) {
        struct sim_graph *child = sim_handle_find(*(const CUgraph *)params, SIM_GRAPH);

        n->child = child ? sim_graph_clone(child) : NULL;
        r = !child ? CUDA_ERROR_INVALID_VALUE : !n->child ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
        if (n->child)
            n->child->owned = true;
    } else if (type == CU_GRAPH_NODE_TYPE_CONDITIONAL) {
        r = sim_condition_set(n, (CUDA_CONDITIONAL_NODE_PARAMS *)(uintptr_t)params);
    } else {
        r = sim_node_set(n, params);
    }
    if (r != CUDA_SUCCESS) {
        sim_node_free(n);
        return r;
    }
    *out = (CUgraphNode)n;
    return CUDA_SUCCESS;
}

#define ADD_FUNCTION(name, node_type, param_type, param, address)                                                                  \
    CUresult name(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies, size_t numDependencies,               \
                  param_type param)                                                                                                \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        SIM_GUARD();                                                                                                               \
        return add(phGraphNode, hGraph, dependencies, numDependencies, node_type, address);                                        \
    }

ADD_FUNCTION(cuGraphAddKernelNode_v2, CU_GRAPH_NODE_TYPE_KERNEL, const CUDA_KERNEL_NODE_PARAMS *, nodeParams, nodeParams)
ADD_FUNCTION(cuGraphAddHostNode, CU_GRAPH_NODE_TYPE_HOST, const CUDA_HOST_NODE_PARAMS *, nodeParams, nodeParams)
ADD_FUNCTION(cuGraphAddChildGraphNode, CU_GRAPH_NODE_TYPE_GRAPH, CUgraph, childGraph, &childGraph)
ADD_FUNCTION(cuGraphAddEventRecordNode, CU_GRAPH_NODE_TYPE_EVENT_RECORD, CUevent, event, &event)
ADD_FUNCTION(cuGraphAddEventWaitNode, CU_GRAPH_NODE_TYPE_WAIT_EVENT, CUevent, event, &event)
ADD_FUNCTION(cuGraphAddMemFreeNode, CU_GRAPH_NODE_TYPE_MEM_FREE, CUdeviceptr, dptr, &dptr)

CUresult cuGraphAddEmptyNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies, size_t numDependencies)
{
    ENTER();
    SIM_GUARD();
    return add(phGraphNode, hGraph, dependencies, numDependencies, CU_GRAPH_NODE_TYPE_EMPTY, "");
}

/* The first ABI's parameters are the beginning of the second's. */
static CUDA_KERNEL_NODE_PARAMS widen(const CUDA_KERNEL_NODE_PARAMS_v1 *p)
{
    return (CUDA_KERNEL_NODE_PARAMS){.func = p->func,
                                     .gridDimX = p->gridDimX,
                                     .gridDimY = p->gridDimY,
                                     .gridDimZ = p->gridDimZ,
                                     .blockDimX = p->blockDimX,
                                     .blockDimY = p->blockDimY,
                                     .blockDimZ = p->blockDimZ,
                                     .sharedMemBytes = p->sharedMemBytes,
                                     .kernelParams = p->kernelParams,
                                     .extra = p->extra};
}

CUresult cuGraphAddKernelNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies, size_t numDependencies,
                              const CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
    CUDA_KERNEL_NODE_PARAMS p;

    ENTER();
    SIM_GUARD();
    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = widen(nodeParams);
    return add(phGraphNode, hGraph, dependencies, numDependencies, CU_GRAPH_NODE_TYPE_KERNEL, &p);
}

CUresult cuGraphAddMemcpyNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies, size_t numDependencies,
                              const CUDA_MEMCPY3D *copyParams, CUcontext ctx)
{
    ENTER();
    SIM_GUARD();
    (void)ctx;
    return add(phGraphNode, hGraph, dependencies, numDependencies, CU_GRAPH_NODE_TYPE_MEMCPY, copyParams);
}

CUresult cuGraphAddMemsetNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies, size_t numDependencies,
                              const CUDA_MEMSET_NODE_PARAMS *memsetParams, CUcontext ctx)
{
    ENTER();
    SIM_GUARD();
    (void)ctx;
    return add(phGraphNode, hGraph, dependencies, numDependencies, CU_GRAPH_NODE_TYPE_MEMSET, memsetParams);
}

static CUresult add_alloc(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, CUDA_MEM_ALLOC_NODE_PARAMS *p)
{
    CUresult r = add(out, graph, deps, count, CU_GRAPH_NODE_TYPE_MEM_ALLOC, p);

    if (r == CUDA_SUCCESS)
        p->dptr = ((struct sim_node *)*out)->params.alloc.dptr;
    return r;
}

CUresult cuGraphAddMemAllocNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies, size_t numDependencies,
                                CUDA_MEM_ALLOC_NODE_PARAMS *nodeParams)
{
    ENTER();
    SIM_GUARD();
    return add_alloc(phGraphNode, hGraph, dependencies, numDependencies, nodeParams);
}

_Static_assert(sizeof(CUDA_KERNEL_NODE_PARAMS_v3) == sizeof(CUDA_KERNEL_NODE_PARAMS),
               "kernel parameters v2 and v3 have one layout");

/* The generic form carries the same parameters, some of them wider. */
static CUresult narrow(const CUgraphNodeParams *p, struct sim_node *out, const void **params)
{
    switch (p->type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
        memcpy(&out->params.kernel, &p->kernel, sizeof(p->kernel));
        *params = &out->params.kernel;
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_MEMCPY:
        *params = &p->memcpy.copyParams;
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_MEMSET:
        out->params.set = (CUDA_MEMSET_NODE_PARAMS){.dst = p->memset.dst,
                                                    .pitch = p->memset.pitch,
                                                    .value = p->memset.value,
                                                    .elementSize = p->memset.elementSize,
                                                    .width = p->memset.width,
                                                    .height = p->memset.height};
        *params = &out->params.set;
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_HOST:
        out->params.host = (CUDA_HOST_NODE_PARAMS){.fn = p->host.fn, .userData = p->host.userData};
        *params = &out->params.host;
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_GRAPH:
        *params = &p->graph.graph;
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_EMPTY:
        *params = "";
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
        *params = &p->eventRecord.event;
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
        *params = &p->eventWait.event;
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
        *params = &p->free.dptr;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_NOT_SUPPORTED;
    }
}

static CUresult add_generic(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, CUgraphNodeParams *p)
{
    struct sim_node wide;
    const void *params = NULL;
    CUresult r;
    SIM_GUARD();

    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    if (p->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC) {
        CUDA_MEM_ALLOC_NODE_PARAMS alloc = {.poolProps = p->alloc.poolProps, .bytesize = p->alloc.bytesize};

        r = add_alloc(out, graph, deps, count, &alloc);
        if (r == CUDA_SUCCESS)
            p->alloc.dptr = alloc.dptr;
        return r;
    }
    if (p->type == CU_GRAPH_NODE_TYPE_CONDITIONAL)
        return add(out, graph, deps, count, p->type, &p->conditional);
    r = narrow(p, &wide, &params);
    return r == CUDA_SUCCESS ? add(out, graph, deps, count, p->type, params) : r;
}

CUresult cuGraphAddNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies, size_t numDependencies,
                        CUgraphNodeParams *nodeParams)
{
    ENTER();
    return add_generic(phGraphNode, hGraph, dependencies, numDependencies, nodeParams);
}

CUresult cuGraphAddNode_v2(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                           const CUgraphEdgeData *dependencyData, size_t numDependencies, CUgraphNodeParams *nodeParams)
{
    ENTER();
    (void)dependencyData;
    return add_generic(phGraphNode, hGraph, dependencies, numDependencies, nodeParams);
}

static struct sim_node *node_of(CUgraphNode handle, CUgraphNodeType type)
{
    struct sim_node *n = sim_handle_find(handle, SIM_GRAPH_NODE);

    return n && n->type == type ? n : NULL;
}

/* The instantiated graph's copy of a node. */
static struct sim_node *exec_node(CUgraphExec exec, CUgraphNode handle)
{
    struct sim_exec *e = sim_handle_find(exec, SIM_GRAPH_EXEC);

    for (size_t i = 0; e && i < e->graph->count; i++)
        if (e->graph->nodes[i]->original == (struct sim_node *)handle)
            return e->graph->nodes[i];
    return NULL;
}

static CUresult set_in(struct sim_node *n, CUgraphNodeType type, const void *params)
{
    struct sim_node before;
    CUresult r;

    if (!n || n->type != type || !params)
        return CUDA_ERROR_INVALID_VALUE;
    before = *n;
    r = sim_node_set(n, params);
    if (r != CUDA_SUCCESS)
        *n = before;
    return r;
}

#define PARAM_FUNCTIONS(get, set, exec_set, node_type, param_type, field, exec_extra)                                              \
    CUresult get(CUgraphNode hNode, param_type *nodeParams)                                                                        \
    {                                                                                                                              \
        struct sim_node *n;                                                                                                        \
        ENTER();                                                                                                                   \
        SIM_GUARD();                                                                                                               \
        n = node_of(hNode, node_type);                                                                                             \
        if (!n || !nodeParams)                                                                                                     \
            return CUDA_ERROR_INVALID_VALUE;                                                                                       \
        *nodeParams = n->params.field;                                                                                             \
        return CUDA_SUCCESS;                                                                                                       \
    }                                                                                                                              \
    CUresult set(CUgraphNode hNode, const param_type *nodeParams)                                                                  \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        SIM_GUARD();                                                                                                               \
        return set_in(node_of(hNode, node_type), node_type, nodeParams);                                                           \
    }                                                                                                                              \
    CUresult exec_set(CUgraphExec hGraphExec, CUgraphNode hNode, const param_type *nodeParams exec_extra)                          \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        SIM_GUARD();                                                                                                               \
        return set_in(exec_node(hGraphExec, hNode), node_type, nodeParams);                                                        \
    }

#define NOTHING
#define UNUSED_CONTEXT , CUcontext ctx __attribute__((unused))

PARAM_FUNCTIONS(cuGraphKernelNodeGetParams_v2, cuGraphKernelNodeSetParams_v2, cuGraphExecKernelNodeSetParams_v2,
                CU_GRAPH_NODE_TYPE_KERNEL, CUDA_KERNEL_NODE_PARAMS, kernel, NOTHING)
PARAM_FUNCTIONS(cuGraphMemcpyNodeGetParams, cuGraphMemcpyNodeSetParams, cuGraphExecMemcpyNodeSetParams, CU_GRAPH_NODE_TYPE_MEMCPY,
                CUDA_MEMCPY3D, copy, UNUSED_CONTEXT)
PARAM_FUNCTIONS(cuGraphMemsetNodeGetParams, cuGraphMemsetNodeSetParams, cuGraphExecMemsetNodeSetParams, CU_GRAPH_NODE_TYPE_MEMSET,
                CUDA_MEMSET_NODE_PARAMS, set, UNUSED_CONTEXT)
PARAM_FUNCTIONS(cuGraphHostNodeGetParams, cuGraphHostNodeSetParams, cuGraphExecHostNodeSetParams, CU_GRAPH_NODE_TYPE_HOST,
                CUDA_HOST_NODE_PARAMS, host, NOTHING)

CUresult cuGraphKernelNodeGetParams(CUgraphNode hNode, CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
    struct sim_node *n;

    ENTER();
    SIM_GUARD();
    n = node_of(hNode, CU_GRAPH_NODE_TYPE_KERNEL);
    if (!n || !nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(nodeParams, &n->params.kernel, sizeof(*nodeParams));
    return CUDA_SUCCESS;
}

CUresult cuGraphKernelNodeSetParams(CUgraphNode hNode, const CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
    CUDA_KERNEL_NODE_PARAMS p;

    ENTER();
    SIM_GUARD();
    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = widen(nodeParams);
    return set_in(node_of(hNode, CU_GRAPH_NODE_TYPE_KERNEL), CU_GRAPH_NODE_TYPE_KERNEL, &p);
}

CUresult cuGraphExecKernelNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode, const CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
    CUDA_KERNEL_NODE_PARAMS p;

    ENTER();
    SIM_GUARD();
    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = widen(nodeParams);
    return set_in(exec_node(hGraphExec, hNode), CU_GRAPH_NODE_TYPE_KERNEL, &p);
}

static CUresult set_generic(struct sim_node *n, const CUgraphNodeParams *p)
{
    struct sim_node wide;
    const void *params = NULL;
    CUresult r;

    if (!n || !p || p->type != n->type)
        return CUDA_ERROR_INVALID_VALUE;
    if (n->type == CU_GRAPH_NODE_TYPE_GRAPH || n->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC || n->type == CU_GRAPH_NODE_TYPE_MEM_FREE)
        return CUDA_ERROR_NOT_SUPPORTED;
    r = narrow(p, &wide, &params);
    return r == CUDA_SUCCESS ? set_in(n, n->type, params) : r;
}

CUresult cuGraphNodeSetParams(CUgraphNode hNode, CUgraphNodeParams *nodeParams)
{
    ENTER();
    SIM_GUARD();
    return set_generic(sim_handle_find(hNode, SIM_GRAPH_NODE), nodeParams);
}

CUresult cuGraphExecNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode, CUgraphNodeParams *nodeParams)
{
    ENTER();
    SIM_GUARD();
    return set_generic(exec_node(hGraphExec, hNode), nodeParams);
}

CUresult cuGraphMemAllocNodeGetParams(CUgraphNode hNode, CUDA_MEM_ALLOC_NODE_PARAMS *params_out)
{
    struct sim_node *n;

    ENTER();
    SIM_GUARD();
    n = node_of(hNode, CU_GRAPH_NODE_TYPE_MEM_ALLOC);
    if (!n || !params_out)
        return CUDA_ERROR_INVALID_VALUE;
    *params_out = n->params.alloc;
    return CUDA_SUCCESS;
}

CUresult cuGraphMemFreeNodeGetParams(CUgraphNode hNode, CUdeviceptr *dptr_out)
{
    struct sim_node *n;

    ENTER();
    SIM_GUARD();
    n = node_of(hNode, CU_GRAPH_NODE_TYPE_MEM_FREE);
    if (!n || !dptr_out)
        return CUDA_ERROR_INVALID_VALUE;
    *dptr_out = n->params.free;
    return CUDA_SUCCESS;
}

CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode hNode, CUgraph *phGraph)
{
    struct sim_node *n;

    ENTER();
    SIM_GUARD();
    n = node_of(hNode, CU_GRAPH_NODE_TYPE_GRAPH);
    if (!n || !phGraph)
        return CUDA_ERROR_INVALID_VALUE;
    *phGraph = (CUgraph)n->child;
    return CUDA_SUCCESS;
}

#define EVENT_FUNCTIONS(get, set, exec_set, node_type)                                                                             \
    CUresult get(CUgraphNode hNode, CUevent *event_out)                                                                            \
    {                                                                                                                              \
        struct sim_node *n;                                                                                                        \
        ENTER();                                                                                                                   \
        SIM_GUARD();                                                                                                               \
        n = node_of(hNode, node_type);                                                                                             \
        if (!n || !event_out)                                                                                                      \
            return CUDA_ERROR_INVALID_VALUE;                                                                                       \
        *event_out = n->params.event;                                                                                              \
        return CUDA_SUCCESS;                                                                                                       \
    }                                                                                                                              \
    CUresult set(CUgraphNode hNode, CUevent event)                                                                                 \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        SIM_GUARD();                                                                                                               \
        return set_in(node_of(hNode, node_type), node_type, &event);                                                               \
    }                                                                                                                              \
    CUresult exec_set(CUgraphExec hGraphExec, CUgraphNode hNode, CUevent event)                                                    \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        SIM_GUARD();                                                                                                               \
        return set_in(exec_node(hGraphExec, hNode), node_type, &event);                                                            \
    }

EVENT_FUNCTIONS(cuGraphEventRecordNodeGetEvent, cuGraphEventRecordNodeSetEvent, cuGraphExecEventRecordNodeSetEvent,
                CU_GRAPH_NODE_TYPE_EVENT_RECORD)
EVENT_FUNCTIONS(cuGraphEventWaitNodeGetEvent, cuGraphEventWaitNodeSetEvent, cuGraphExecEventWaitNodeSetEvent,
                CU_GRAPH_NODE_TYPE_WAIT_EVENT)

CUresult cuGraphNodeSetEnabled(CUgraphExec hGraphExec, CUgraphNode hNode, unsigned int isEnabled)
{
    struct sim_node *n;

    ENTER();
    SIM_GUARD();
    n = exec_node(hGraphExec, hNode);
    if (!n ||
        (n->type != CU_GRAPH_NODE_TYPE_KERNEL && n->type != CU_GRAPH_NODE_TYPE_MEMSET && n->type != CU_GRAPH_NODE_TYPE_MEMCPY))
        return CUDA_ERROR_INVALID_VALUE;
    n->enabled = isEnabled != 0;
    return CUDA_SUCCESS;
}

CUresult cuGraphNodeGetEnabled(CUgraphExec hGraphExec, CUgraphNode hNode, unsigned int *isEnabled)
{
    struct sim_node *n;

    ENTER();
    SIM_GUARD();
    n = exec_node(hGraphExec, hNode);
    if (!n || !isEnabled)
        return CUDA_ERROR_INVALID_VALUE;
    *isEnabled = n->enabled;
    return CUDA_SUCCESS;
}
