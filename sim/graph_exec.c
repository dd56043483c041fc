/* SPDX-License-Identifier: Apache-2.0 */
/* Instantiated graphs: made, launched, updated. A graph's work is one after the other: the GPU model has one engine a process. */
#include <string.h>

#include "graph.h"

/* `ctx` is what a node that launches a CUkernel runs in; NULL: not yet known. */
static CUresult load_functions(const struct sim_graph *g, struct sim_ctx *ctx)
{
    CUresult r = CUDA_SUCCESS;

    for (size_t i = 0; i < g->count && r == CUDA_SUCCESS; i++) {
        const struct sim_node *n = g->nodes[i];
        struct sim_function *f = n->type == CU_GRAPH_NODE_TYPE_KERNEL ? sim_function_of(n->params.kernel.func) : NULL;

        if (f && (ctx || f->head.ctx))
            r = sim_function_load(f, ctx ? ctx : f->head.ctx);
        if (n->child)
            r = load_functions(n->child, ctx);
    }
    return r;
}

static CUresult instantiate(CUgraphExec *out, CUgraph handle, cuuint64_t flags)
{
    struct sim_graph *g, *copy;
    struct sim_ctx *ctx = NULL;
    struct sim_exec *e;
    CUresult r;
    SIM_GUARD();

    g = sim_handle_find(handle, SIM_GRAPH);
    if (!g || !out || (flags & ~(cuuint64_t)15))
        return CUDA_ERROR_INVALID_VALUE;
    if (flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH)
        return CUDA_ERROR_NOT_SUPPORTED;
    r = load_functions(g, sim_context_current(&ctx) == CUDA_SUCCESS ? ctx : NULL);
    if (r != CUDA_SUCCESS)
        return r;
    copy = sim_graph_clone(g);
    if (!copy)
        return CUDA_ERROR_OUT_OF_MEMORY;
    copy->owned = true;
    e = sim_graph_sort(copy) ? sim_handle_new(sizeof(*e), SIM_GRAPH_EXEC, NULL) : NULL;
    if (!e) {
        sim_graph_free(copy);
        return CUDA_ERROR_INVALID_VALUE;
    }
    e->graph = copy;
    e->flags = flags;
    *out = (CUgraphExec)e;
    return CUDA_SUCCESS;
}

CUresult cuGraphInstantiate(CUgraphExec *phGraphExec, CUgraph hGraph, CUgraphNode *phErrorNode, char *logBuffer, size_t bufferSize)
{
    ENTER();
    if (phErrorNode)
        *phErrorNode = NULL;
    if (logBuffer && bufferSize)
        *logBuffer = '\0';
    return instantiate(phGraphExec, hGraph, 0);
}

CUresult cuGraphInstantiate_v2(CUgraphExec *phGraphExec, CUgraph hGraph, CUgraphNode *phErrorNode, char *logBuffer,
                               size_t bufferSize)
{
    ENTER();
    if (phErrorNode)
        *phErrorNode = NULL;
    if (logBuffer && bufferSize)
        *logBuffer = '\0';
    return instantiate(phGraphExec, hGraph, 0);
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *phGraphExec, CUgraph hGraph, unsigned long long flags)
{
    ENTER();
    return instantiate(phGraphExec, hGraph, flags);
}

static CUresult instantiate_params(CUgraphExec *out, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *p)
{
    CUresult r;

    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    r = instantiate(out, graph, p->flags);
    p->hErrNode_out = NULL;
    p->result_out = r == CUDA_SUCCESS ? CUDA_GRAPH_INSTANTIATE_SUCCESS : CUDA_GRAPH_INSTANTIATE_ERROR;
    return r;
}

CUresult cuGraphInstantiateWithParams(CUgraphExec *phGraphExec, CUgraph hGraph, CUDA_GRAPH_INSTANTIATE_PARAMS *instantiateParams)
{
    ENTER();
    return instantiate_params(phGraphExec, hGraph, instantiateParams);
}

CUresult cuGraphInstantiateWithParams_ptsz(CUgraphExec *phGraphExec, CUgraph hGraph,
                                           CUDA_GRAPH_INSTANTIATE_PARAMS *instantiateParams)
{
    ENTER();
    return instantiate_params(phGraphExec, hGraph, instantiateParams);
}

CUresult cuGraphExecGetFlags(CUgraphExec hGraphExec, cuuint64_t *flags)
{
    struct sim_exec *e;

    ENTER();
    SIM_GUARD();
    e = sim_handle_find(hGraphExec, SIM_GRAPH_EXEC);
    if (!e || !flags)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = e->flags;
    return CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(CUgraphExec hGraphExec)
{
    struct sim_exec *e;

    ENTER();
    SIM_GUARD();
    e = sim_handle_find(hGraphExec, SIM_GRAPH_EXEC);
    if (!e)
        return CUDA_ERROR_INVALID_VALUE;
    sim_graph_free(e->graph);
    sim_handle_free(e);
    return CUDA_SUCCESS;
}

static void alloc_run(struct sim_op *op)
{
    sim_graph_mem_alloc(op->copy.dst);
}

static void free_run(struct sim_op *op)
{
    struct sim_mem *mem = sim_mem_find(op->copy.dst);

    if (mem && mem->base == op->copy.dst && mem->kind == SIM_MEM_GRAPH)
        sim_graph_mem_free(mem);
    else if (mem && mem->base == op->copy.dst && mem->kind == SIM_MEM_POOL)
        sim_pool_free(mem);
}

static CUresult issue_node(struct sim_node *n, struct sim_stream *s);

static CUresult issue_graph(const struct sim_graph *g, struct sim_stream *s)
{
    for (size_t i = 0; i < g->count; i++) {
        CUresult r = issue_node(g->nodes[i], s);

        if (r != CUDA_SUCCESS)
            return r;
    }
    return CUDA_SUCCESS;
}

static CUresult issue_node(struct sim_node *n, struct sim_stream *s)
{
    struct sim_op op = n->op;
    struct sim_event *e;

    if (!n->enabled)
        return CUDA_SUCCESS;
    switch (n->type) {
    case CU_GRAPH_NODE_TYPE_EMPTY:
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_GRAPH:
        return issue_graph(n->child, s);
    case CU_GRAPH_NODE_TYPE_CONDITIONAL:
        for (unsigned int rounds = sim_condition_rounds(n); rounds; rounds--) {
            CUresult r = issue_graph(n->child, s);

            if (r != CUDA_SUCCESS)
                return r;
        }
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
        op = (struct sim_op){.type = SIM_OP_ALLOC, .run = alloc_run, .copy = {.dst = n->params.alloc.dptr}};
        break;
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
        op = (struct sim_op){.type = SIM_OP_FREE, .run = free_run, .copy = {.dst = n->params.free}};
        break;
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
        e = sim_handle_find(n->params.event, SIM_EVENT);
        if (!e)
            return CUDA_ERROR_INVALID_VALUE;
        if (n->type == CU_GRAPH_NODE_TYPE_EVENT_RECORD)
            e->record++;
        op = (struct sim_op){.type = n->type == CU_GRAPH_NODE_TYPE_EVENT_RECORD ? SIM_OP_RECORD : SIM_OP_WAIT,
                             .event = e,
                             .event_record = e->record};
        break;
    default:
        break;
    }
    return sim_stream_issue(s, &op);
}

static CUresult launch(CUgraphExec handle, CUstream stream, bool per_thread)
{
    struct sim_stream *s;
    struct sim_exec *e;
    uint64_t wait;
    CUresult r;

    sim_spend(SIM_COST_LAUNCH, 1);
    SIM_GUARD();
    for (;;) {
        e = sim_handle_find(handle, SIM_GRAPH_EXEC);
        if (!e)
            return CUDA_ERROR_INVALID_VALUE;
        STREAM(s, stream, per_thread);
        wait = s->capture ? 0 : sim_engine_wait(s->head.ctx->dev);
        if (!wait)
            break;
        sim_engine_sleep(s->head.ctx->dev, wait);
    }
    /* In a capture the graph becomes a child graph of the one that is captured. */
    if (s->capture) {
        r = sim_capture_add(s, &(struct sim_op){.type = SIM_OP_GRAPH}, NULL);
        if (r == CUDA_SUCCESS) {
            s->capture_nodes[0]->child = sim_graph_clone(e->graph);
            if (!s->capture_nodes[0]->child)
                return CUDA_ERROR_OUT_OF_MEMORY;
            s->capture_nodes[0]->child->owned = true;
        }
        return r;
    }
    r = sim_capture_implicit(s);
    if (r == CUDA_SUCCESS)
        r = load_functions(e->graph, s->head.ctx);
    if (r == CUDA_SUCCESS)
        r = sim_graph_mem_prepare(e->graph, e->flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
    if (r == CUDA_SUCCESS)
        r = issue_graph(e->graph, s);
    if (r == CUDA_SUCCESS && !s->first)
        sim_engine_launched(s->head.ctx->dev, s->mark);
    if (r == CUDA_SUCCESS && sim_launch_blocks())
        sim_stream_wait(s);
    return r;
}

CUresult cuGraphLaunch(CUgraphExec hGraph, CUstream hStream)
{
    ENTER();
    return launch(hGraph, hStream, false);
}

CUresult cuGraphLaunch_ptsz(CUgraphExec hGraphExec, CUstream hStream)
{
    ENTER();
    return launch(hGraphExec, hStream, true);
}

/* Backs the allocations of the graph, so that a launch need not. */
static CUresult upload(CUgraphExec handle, CUstream stream, bool per_thread)
{
    struct sim_stream *s;
    struct sim_exec *e;
    SIM_GUARD();

    e = sim_handle_find(handle, SIM_GRAPH_EXEC);
    if (!e)
        return CUDA_ERROR_INVALID_VALUE;
    STREAM(s, stream, per_thread);
    return sim_graph_mem_prepare(e->graph, e->flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
}

CUresult cuGraphUpload(CUgraphExec hGraph, CUstream hStream)
{
    ENTER();
    return upload(hGraph, hStream, false);
}

CUresult cuGraphUpload_ptsz(CUgraphExec hGraphExec, CUstream hStream)
{
    ENTER();
    return upload(hGraphExec, hStream, true);
}

/* The graph must have the shape of the one that was instantiated. */
static CUresult update(CUgraphExec exec, CUgraph graph, CUgraphNode *error, CUgraphExecUpdateResult *result)
{
    struct sim_graph *copy, *g;
    struct sim_exec *e;
    SIM_GUARD();

    e = sim_handle_find(exec, SIM_GRAPH_EXEC);
    g = sim_handle_find(graph, SIM_GRAPH);
    *error = NULL;
    *result = CU_GRAPH_EXEC_UPDATE_ERROR;
    if (!e || !g)
        return CUDA_ERROR_INVALID_VALUE;
    copy = sim_graph_clone(g);
    if (!copy)
        return CUDA_ERROR_OUT_OF_MEMORY;
    copy->owned = true;
    *result = CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    if (!sim_graph_sort(copy) || copy->count != e->graph->count)
        goto fail;
    for (size_t i = 0; i < copy->count; i++) {
        struct sim_node *a = copy->nodes[i], *b = e->graph->nodes[i];

        *error = (CUgraphNode)a->original;
        if (a->type != b->type) {
            *result = CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
            goto fail;
        }
        if (a->dep_count != b->dep_count)
            goto fail;
    }
    /* Nodes are named by those of the graph that was instantiated first, also after an update. */
    for (size_t i = 0; i < copy->count; i++) {
        copy->nodes[i]->original = e->graph->nodes[i]->original;
        copy->nodes[i]->enabled = e->graph->nodes[i]->enabled;
    }
    sim_graph_free(e->graph);
    e->graph = copy;
    *error = NULL;
    *result = CU_GRAPH_EXEC_UPDATE_SUCCESS;
    return CUDA_SUCCESS;
fail:
    sim_graph_free(copy);
    return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
}

CUresult cuGraphExecUpdate(CUgraphExec hGraphExec, CUgraph hGraph, CUgraphNode *hErrorNode_out,
                           CUgraphExecUpdateResult *updateResult_out)
{
    CUgraphNode error;
    CUgraphExecUpdateResult result;
    CUresult r;

    ENTER();
    r = update(hGraphExec, hGraph, &error, &result);
    if (hErrorNode_out)
        *hErrorNode_out = error;
    if (updateResult_out)
        *updateResult_out = result;
    return r;
}

CUresult cuGraphExecUpdate_v2(CUgraphExec hGraphExec, CUgraph hGraph, CUgraphExecUpdateResultInfo *resultInfo)
{
    CUgraphNode error;
    CUgraphExecUpdateResult result;
    CUresult r;

    ENTER();
    r = update(hGraphExec, hGraph, &error, &result);
    if (resultInfo)
        *resultInfo = (CUgraphExecUpdateResultInfo){.result = result, .errorNode = error};
    return r;
}
