/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs and nodes as data: making, cloning, ordering, taking apart. */
#include <stdlib.h>
#include <string.h>

#include "graph.h"

struct sim_graph *sim_graph_new(void)
{
    return sim_handle_new(sizeof(struct sim_graph), SIM_GRAPH, NULL);
}

/* The node's own things; the graph still lists it. */
static void node_release(struct sim_node *n)
{
    if (n->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC && n->params.alloc.dptr)
        sim_graph_mem_unhold(n->params.alloc.dptr);
    if (n->child)
        sim_graph_free(n->child);
    free(n->deps);
    sim_handle_free(n);
}

void sim_graph_free(struct sim_graph *g)
{
    for (size_t i = 0; i < g->count; i++)
        node_release(g->nodes[i]);
    free(g->nodes);
    g->nodes = NULL;
    g->count = 0;
    sim_user_objects_drop(g);
    sim_handle_free(g);
}

CUresult sim_node_add_dep(struct sim_node *n, struct sim_node *dep)
{
    struct sim_node **deps;

    for (size_t i = 0; i < n->dep_count; i++)
        if (n->deps[i] == dep)
            return CUDA_ERROR_INVALID_VALUE;
    deps = realloc(n->deps, (n->dep_count + 1) * sizeof(*deps));
    if (!deps)
        return CUDA_ERROR_OUT_OF_MEMORY;
    n->deps = deps;
    deps[n->dep_count++] = dep;
    return CUDA_SUCCESS;
}

CUresult sim_node_new(struct sim_graph *g, CUgraphNodeType type, struct sim_node *const *deps, size_t dep_count,
                      struct sim_node **out)
{
    struct sim_node *n = sim_handle_new(sizeof(*n), SIM_GRAPH_NODE, NULL);
    struct sim_node **nodes;

    if (!n)
        return CUDA_ERROR_OUT_OF_MEMORY;
    nodes = realloc(g->nodes, (g->count + 1) * sizeof(*nodes));
    if (!nodes) {
        sim_handle_free(n);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    g->nodes = nodes;
    n->graph = g;
    n->type = type;
    n->enabled = true;
    for (size_t i = 0; i < dep_count; i++) {
        CUresult r = deps[i]->graph == g ? sim_node_add_dep(n, deps[i]) : CUDA_ERROR_INVALID_VALUE;

        if (r != CUDA_SUCCESS) {
            node_release(n);
            return r;
        }
    }
    nodes[g->count++] = n;
    *out = n;
    return CUDA_SUCCESS;
}

static void remove_dep(struct sim_node *n, const struct sim_node *dep)
{
    for (size_t i = 0; i < n->dep_count; i++)
        if (n->deps[i] == dep) {
            memmove(&n->deps[i], &n->deps[i + 1], (n->dep_count - i - 1) * sizeof(n->deps[0]));
            n->dep_count--;
            return;
        }
}

void sim_node_free(struct sim_node *n)
{
    struct sim_graph *g = n->graph;
    size_t at = 0;

    for (size_t i = 0; i < g->count; i++) {
        if (g->nodes[i] == n)
            at = i;
        else
            remove_dep(g->nodes[i], n);
    }
    memmove(&g->nodes[at], &g->nodes[at + 1], (g->count - at - 1) * sizeof(g->nodes[0]));
    g->count--;
    node_release(n);
}

struct sim_graph *sim_graph_clone(const struct sim_graph *g)
{
    struct sim_graph *copy = sim_graph_new();

    if (!copy)
        return NULL;
    for (size_t i = 0; i < g->count; i++) {
        const struct sim_node *from = g->nodes[i];
        struct sim_node *to;

        if (sim_node_new(copy, from->type, NULL, 0, &to) != CUDA_SUCCESS)
            goto fail;
        to->op = from->op;
        to->params = from->params;
        to->enabled = from->enabled;
        to->original = g->nodes[i];
        if (from->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC)
            sim_graph_mem_hold(from->params.alloc.dptr);
        if (from->child) {
            to->child = sim_graph_clone(from->child);
            if (!to->child)
                goto fail;
            to->child->owned = true;
            to->condition = from->condition;
            to->loops = from->loops;
        }
    }
    for (size_t i = 0; i < g->count; i++)
        for (size_t d = 0; d < g->nodes[i]->dep_count; d++)
            for (size_t j = 0; j < g->count; j++)
                if (g->nodes[j] == g->nodes[i]->deps[d] && sim_node_add_dep(copy->nodes[i], copy->nodes[j]) != CUDA_SUCCESS)
                    goto fail;
    if (sim_user_objects_copy(g, copy) != CUDA_SUCCESS)
        goto fail;
    return copy;
fail:
    sim_graph_free(copy);
    return NULL;
}

bool sim_graph_sort(struct sim_graph *g)
{
    struct sim_node **order = malloc((g->count + 1) * sizeof(*order));
    size_t done = 0;
    bool moved = true;

    if (!order)
        return false;
    for (size_t i = 0; i < g->count; i++)
        g->nodes[i]->seen = false;
    while (moved) {
        moved = false;
        for (size_t i = 0; i < g->count; i++) {
            struct sim_node *n = g->nodes[i];
            bool ready = !n->seen;

            for (size_t d = 0; ready && d < n->dep_count; d++)
                ready = n->deps[d]->seen;
            if (ready) {
                n->seen = true;
                order[done++] = n;
                moved = true;
            }
        }
    }
    if (done == g->count)
        memcpy(g->nodes, order, g->count * sizeof(*order));
    free(order);
    return done == g->count;
}

static struct sim_graph *graph_of(CUgraph handle)
{
    return sim_handle_find(handle, SIM_GRAPH);
}

static struct sim_node *node_of(CUgraphNode handle)
{
    return sim_handle_find(handle, SIM_GRAPH_NODE);
}

CUresult cuGraphCreate(CUgraph *phGraph, unsigned int flags)
{
    struct sim_graph *g;

    ENTER();
    SIM_GUARD();
    if (!phGraph || flags)
        return CUDA_ERROR_INVALID_VALUE;
    g = sim_graph_new();
    if (!g)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *phGraph = (CUgraph)g;
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph hGraph)
{
    struct sim_graph *g;

    ENTER();
    SIM_GUARD();
    g = graph_of(hGraph);
    if (!g || g->owned)
        return CUDA_ERROR_INVALID_VALUE;
    sim_graph_free(g);
    return CUDA_SUCCESS;
}

CUresult cuGraphClone(CUgraph *phGraphClone, CUgraph originalGraph)
{
    struct sim_graph *g, *copy;

    ENTER();
    SIM_GUARD();
    g = graph_of(originalGraph);
    if (!g || !phGraphClone)
        return CUDA_ERROR_INVALID_VALUE;
    /* "Graphs containing memory allocation or free nodes cannot be cloned." */
    for (size_t i = 0; i < g->count; i++)
        if (g->nodes[i]->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC || g->nodes[i]->type == CU_GRAPH_NODE_TYPE_MEM_FREE)
            return CUDA_ERROR_INVALID_VALUE;
    copy = sim_graph_clone(g);
    if (!copy)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *phGraphClone = (CUgraph)copy;
    return CUDA_SUCCESS;
}

CUresult cuGraphNodeFindInClone(CUgraphNode *phNode, CUgraphNode hOriginalNode, CUgraph hClonedGraph)
{
    struct sim_graph *g;

    ENTER();
    SIM_GUARD();
    g = graph_of(hClonedGraph);
    if (!g || !phNode)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < g->count; i++)
        if (g->nodes[i]->original == (struct sim_node *)hOriginalNode) {
            *phNode = (CUgraphNode)g->nodes[i];
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGraphNodeGetType(CUgraphNode hNode, CUgraphNodeType *type)
{
    struct sim_node *n;

    ENTER();
    SIM_GUARD();
    n = node_of(hNode);
    if (!n || !type)
        return CUDA_ERROR_INVALID_VALUE;
    *type = n->type;
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroyNode(CUgraphNode hNode)
{
    struct sim_node *n;

    ENTER();
    SIM_GUARD();
    n = node_of(hNode);
    if (!n)
        return CUDA_ERROR_INVALID_VALUE;
    /* "Destroying memory allocation or free nodes is not allowed." */
    if (n->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC || n->type == CU_GRAPH_NODE_TYPE_MEM_FREE)
        return CUDA_ERROR_NOT_SUPPORTED;
    sim_node_free(n);
    return CUDA_SUCCESS;
}

/* A listing: without room the number alone; with more room than nodes, NULL in what is left over and the number found. */
struct listing {
    CUgraphNode *out;
    size_t room, found;
};

static void list_add(struct listing *l, struct sim_node *n)
{
    if (l->out && l->found < l->room)
        l->out[l->found] = (CUgraphNode)n;
    l->found++;
}

static CUresult list_end(struct listing *l, size_t *count)
{
    for (size_t i = l->found; l->out && i < l->room; i++)
        l->out[i] = NULL;
    *count = l->out && l->found > l->room ? l->room : l->found;
    return CUDA_SUCCESS;
}

CUresult cuGraphGetNodes(CUgraph hGraph, CUgraphNode *nodes, size_t *numNodes)
{
    struct sim_graph *g;
    struct listing l;

    ENTER();
    SIM_GUARD();
    g = graph_of(hGraph);
    if (!g || !numNodes)
        return CUDA_ERROR_INVALID_VALUE;
    l = (struct listing){.out = nodes, .room = *numNodes};
    for (size_t i = 0; i < g->count; i++)
        list_add(&l, g->nodes[i]);
    return list_end(&l, numNodes);
}

CUresult cuGraphGetRootNodes(CUgraph hGraph, CUgraphNode *rootNodes, size_t *numRootNodes)
{
    struct sim_graph *g;
    struct listing l;

    ENTER();
    SIM_GUARD();
    g = graph_of(hGraph);
    if (!g || !numRootNodes)
        return CUDA_ERROR_INVALID_VALUE;
    l = (struct listing){.out = rootNodes, .room = *numRootNodes};
    for (size_t i = 0; i < g->count; i++)
        if (!g->nodes[i]->dep_count)
            list_add(&l, g->nodes[i]);
    return list_end(&l, numRootNodes);
}

static CUresult dependencies(CUgraphNode node, CUgraphNode *out, CUgraphEdgeData *edges, size_t *count)
{
    struct sim_node *n;
    struct listing l;
    SIM_GUARD();

    n = node_of(node);
    if (!n || !count)
        return CUDA_ERROR_INVALID_VALUE;
    l = (struct listing){.out = out, .room = *count};
    if (edges)
        memset(edges, 0, *count * sizeof(*edges));
    for (size_t i = 0; i < n->dep_count; i++)
        list_add(&l, n->deps[i]);
    return list_end(&l, count);
}

CUresult cuGraphNodeGetDependencies(CUgraphNode hNode, CUgraphNode *deps, size_t *numDependencies)
{
    ENTER();
    return dependencies(hNode, deps, NULL, numDependencies);
}

CUresult cuGraphNodeGetDependencies_v2(CUgraphNode hNode, CUgraphNode *deps, CUgraphEdgeData *edgeData, size_t *numDependencies)
{
    ENTER();
    return dependencies(hNode, deps, edgeData, numDependencies);
}

static CUresult dependents(CUgraphNode node, CUgraphNode *out, CUgraphEdgeData *edges, size_t *count)
{
    struct sim_node *n;
    struct listing l;
    SIM_GUARD();

    n = node_of(node);
    if (!n || !count)
        return CUDA_ERROR_INVALID_VALUE;
    l = (struct listing){.out = out, .room = *count};
    if (edges)
        memset(edges, 0, *count * sizeof(*edges));
    for (size_t i = 0; i < n->graph->count; i++)
        for (size_t d = 0; d < n->graph->nodes[i]->dep_count; d++)
            if (n->graph->nodes[i]->deps[d] == n)
                list_add(&l, n->graph->nodes[i]);
    return list_end(&l, count);
}

CUresult cuGraphNodeGetDependentNodes(CUgraphNode hNode, CUgraphNode *dependentNodes, size_t *numDependentNodes)
{
    ENTER();
    return dependents(hNode, dependentNodes, NULL, numDependentNodes);
}

CUresult cuGraphNodeGetDependentNodes_v2(CUgraphNode hNode, CUgraphNode *dependentNodes, CUgraphEdgeData *edgeData,
                                         size_t *numDependentNodes)
{
    ENTER();
    return dependents(hNode, dependentNodes, edgeData, numDependentNodes);
}

static CUresult edges(CUgraph graph, CUgraphNode *from, CUgraphNode *to, CUgraphEdgeData *data, size_t *count)
{
    struct sim_graph *g;
    struct listing f, t;
    SIM_GUARD();

    g = graph_of(graph);
    if (!g || !count || !from != !to)
        return CUDA_ERROR_INVALID_VALUE;
    f = (struct listing){.out = from, .room = *count};
    t = (struct listing){.out = to, .room = *count};
    if (data)
        memset(data, 0, *count * sizeof(*data));
    for (size_t i = 0; i < g->count; i++)
        for (size_t d = 0; d < g->nodes[i]->dep_count; d++) {
            list_add(&f, g->nodes[i]->deps[d]);
            list_add(&t, g->nodes[i]);
        }
    list_end(&f, count);
    t.room = f.room;
    return list_end(&t, count);
}

CUresult cuGraphGetEdges(CUgraph hGraph, CUgraphNode *from, CUgraphNode *to, size_t *numEdges)
{
    ENTER();
    return edges(hGraph, from, to, NULL, numEdges);
}

CUresult cuGraphGetEdges_v2(CUgraph hGraph, CUgraphNode *from, CUgraphNode *to, CUgraphEdgeData *edgeData, size_t *numEdges)
{
    ENTER();
    return edges(hGraph, from, to, edgeData, numEdges);
}

static CUresult change_edges(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t count, bool add)
{
    struct sim_graph *g;
    SIM_GUARD();

    g = graph_of(graph);
    if (!g || (count && (!from || !to)))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; i++) {
        struct sim_node *a = node_of(from[i]), *b = node_of(to[i]);

        if (!a || !b || a->graph != g || b->graph != g || a == b)
            return CUDA_ERROR_INVALID_VALUE;
    }
    for (size_t i = 0; i < count; i++) {
        struct sim_node *a = node_of(from[i]), *b = node_of(to[i]);
        size_t before = b->dep_count;

        if (add) {
            CUresult r = sim_node_add_dep(b, a);

            if (r != CUDA_SUCCESS)
                return r;
            continue;
        }
        remove_dep(b, a);
        if (b->dep_count == before)
            return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

CUresult cuGraphAddDependencies(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to, size_t numDependencies)
{
    ENTER();
    return change_edges(hGraph, from, to, numDependencies, true);
}

CUresult cuGraphAddDependencies_v2(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to, const CUgraphEdgeData *edgeData,
                                   size_t numDependencies)
{
    ENTER();
    (void)edgeData;
    return change_edges(hGraph, from, to, numDependencies, true);
}

CUresult cuGraphRemoveDependencies(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to, size_t numDependencies)
{
    ENTER();
    return change_edges(hGraph, from, to, numDependencies, false);
}

CUresult cuGraphRemoveDependencies_v2(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to,
                                      const CUgraphEdgeData *edgeData, size_t numDependencies)
{
    ENTER();
    (void)edgeData;
    return change_edges(hGraph, from, to, numDependencies, false);
}
