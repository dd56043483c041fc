/* SPDX-License-Identifier: Apache-2.0 */
/* Conditional nodes of graphs. No kernel computes here, so none sets a condition: a launch finds the value that the handle was made with. */
#include <stdlib.h>

#include "graph.h"

struct sim_condition {
    struct sim_object_head head;
    unsigned int value, launches;
};

CUresult cuGraphConditionalHandleCreate(CUgraphConditionalHandle *pHandle_out, CUgraph hGraph, CUcontext ctx,
                                        unsigned int defaultLaunchValue, unsigned int flags)
{
    struct sim_condition *c;
    struct sim_ctx *context;
    CUresult r;

    ENTER();
    SIM_GUARD();
    if (!pHandle_out || !sim_handle_find(hGraph, SIM_GRAPH) || (flags & ~(unsigned int)CU_GRAPH_COND_ASSIGN_DEFAULT))
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_context_of(ctx, &context);
    if (r != CUDA_SUCCESS)
        return r;
    c = sim_handle_new(sizeof(*c), SIM_CONDITION, NULL);
    if (!c)
        return CUDA_ERROR_OUT_OF_MEMORY;
    c->value = flags ? defaultLaunchValue : 0;
    *pHandle_out = (CUgraphConditionalHandle)(uintptr_t)c;
    return CUDA_SUCCESS;
}

CUresult sim_condition_set(struct sim_node *n, CUDA_CONDITIONAL_NODE_PARAMS *p)
{
    struct sim_condition *c = sim_handle_find((void *)(uintptr_t)p->handle, SIM_CONDITION);

    if (!c)
        return CUDA_ERROR_INVALID_VALUE;
    if (p->size != 1 || p->type == CU_GRAPH_COND_TYPE_SWITCH)
        return CUDA_ERROR_NOT_SUPPORTED;
    n->child = sim_graph_new();
    if (!n->child)
        return CUDA_ERROR_OUT_OF_MEMORY;
    n->child->owned = true;
    n->condition = c;
    n->loops = p->type == CU_GRAPH_COND_TYPE_WHILE;
    n->body = (CUgraph)n->child;
    p->phGraph_out = &n->body;
    return CUDA_SUCCESS;
}

unsigned int sim_condition_rounds(struct sim_node *n)
{
    static const char setting[] = "SOFTSIM_LOOPS";
    struct sim_condition *c = n->condition;
    unsigned int value = c->value;

    if (!n->loops)
        return value != 0;
    return value && getenv(setting) ? 1 + c->launches++ * 7 % value : value;
}
