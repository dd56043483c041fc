/* SPDX-License-Identifier: Apache-2.0 */
/* Reads graphs.
 *
 * How a driver packs a graph's allocations is its own affair. Sure is that two of them share memory only if the free of one comes before the
 * other: the sum of all would be too much for a chain of a thousand short-lived ones, and the peak of one serial order too little where
 * branches run side by side. So the graph is gone through in an order that respects its edges, and an allocation takes what its ancestors have
 * freed before it takes more. Each is rounded to whole granules (assumed; what it came to is read from the driver after the launch).
 *
 * Whether a node comes after another is known from clocks: nodes are strung on chains, along edges, and each node knows of each chain how far
 * it comes after that. What is on no chain, because there are more side by side, is taken for unordered: the result can only be too large. */
#include "graph_need.h"

#include <sys/mman.h>

#include "relaxed.h"

#define CHAINS    32
#define NO_CHAIN  CHAINS
#define DEPTH_MAX 16
#define NODES_MAX (UINT32_C(1) << 24)

struct live { /* an allocation that no node has freed yet */
    CUdeviceptr pointer;
    uint64_t bytes;
    unsigned device;
};

struct freed { /* what can be used again by nodes that come after position `at` of `chain` */
    uint64_t bytes;
    uint32_t chain, at;
    unsigned device;
};

struct total {
    uint64_t bytes[QUOTA_DEVICES], left[QUOTA_DEVICES];
};

struct walk {
    const struct membership *membership;
    struct total *total;
    unsigned depth;
    uint32_t nodes, edges, slots;
    CUgraphNode *node;
    CUgraphNodeType *type;
    CUgraphNode *from, *to;
    CUgraphEdgeData *data;
    uint32_t *slot;                            /* node -> index + 1, open addressing */
    uint32_t *first, *target;                  /* edges by the node that they leave */
    uint32_t *waits_for;                       /* how many edges */
    uint32_t *order;                           /* nodes that wait for none any more */
    uint32_t (*clock)[CHAINS], length[CHAINS]; /* positions count from 1 */
    struct live *live;
    struct freed *freed;
    uint32_t lives, freeds;
};

static bool measure(const struct membership *m, CUgraph graph, unsigned depth, struct total *total);

static void *map(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* Cuts a piece off what is still to be laid out: of an address, or of the number 0 to learn the size of all. */
static void *cut(uintptr_t *rest, size_t count, size_t size)
{
    uintptr_t piece = *rest;

    *rest += (count * size + 15) & ~(size_t)15;
    return (void *)piece;
}

static size_t lay_out_nodes(struct walk *w, uintptr_t rest)
{
    uintptr_t begin = rest;

    w->node = cut(&rest, w->nodes, sizeof(*w->node));
    w->type = cut(&rest, w->nodes, sizeof(*w->type));
    return rest - begin;
}

static size_t lay_out_rest(struct walk *w, uintptr_t rest)
{
    uintptr_t begin = rest;

    w->from = cut(&rest, w->edges, sizeof(*w->from));
    w->to = cut(&rest, w->edges, sizeof(*w->to));
    w->data = cut(&rest, w->edges, sizeof(*w->data));
    w->slot = cut(&rest, w->slots, sizeof(*w->slot));
    w->first = cut(&rest, w->nodes + 1, sizeof(*w->first));
    w->target = cut(&rest, w->edges, sizeof(*w->target));
    w->waits_for = cut(&rest, w->nodes, sizeof(*w->waits_for));
    w->order = cut(&rest, w->nodes, sizeof(*w->order));
    w->clock = cut(&rest, w->nodes, sizeof(*w->clock));
    w->live = cut(&rest, w->nodes, sizeof(*w->live));
    w->freed = cut(&rest, w->nodes, sizeof(*w->freed));
    return rest - begin;
}

/* Whether any node allocates, or may have a child that does: of most graphs that is all there is to know. */
static bool read_nodes(struct walk *w, CUgraph graph)
{
    size_t nodes = w->nodes;
    bool memory = false;

    if (called.cuGraphGetNodes(graph, w->node, &nodes) != CUDA_SUCCESS || nodes != w->nodes)
        return false;
    for (uint32_t i = 0; i < w->nodes; i++) {
        if (called.cuGraphNodeGetType(w->node[i], &w->type[i]) != CUDA_SUCCESS)
            return false;
        memory |= w->type[i] == CU_GRAPH_NODE_TYPE_MEM_ALLOC || w->type[i] == CU_GRAPH_NODE_TYPE_GRAPH;
    }
    return memory;
}

static uint32_t *slot_of(const struct walk *w, CUgraphNode node)
{
    uint32_t i = (uint32_t)(((uintptr_t)node * UINT64_C(0x9e3779b97f4a7c15)) >> 32);

    while (w->slot[i &= w->slots - 1] && w->node[w->slot[i] - 1] != node)
        i++;
    return &w->slot[i];
}

static CUresult get_edges(CUgraph graph, CUgraphNode *from, CUgraphNode *to, CUgraphEdgeData *data, size_t *count)
{
    CUresult result = called.cuGraphGetEdges_v2(graph, from, to, data, count);

    return result == CUDA_ERROR_NOT_FOUND ? called.cuGraphGetEdges(graph, from, to, count) : result;
}

/* Sorts the edges by the node that they leave. */
static bool read_edges(struct walk *w, CUgraph graph)
{
    size_t edges = w->edges;

    if (edges && (get_edges(graph, w->from, w->to, w->data, &edges) != CUDA_SUCCESS || edges != w->edges))
        return false;
    for (uint32_t i = 0; i < w->nodes; i++)
        *slot_of(w, w->node[i]) = i + 1;
    for (uint32_t e = 0; e < w->edges; e++) {
        uint32_t from = *slot_of(w, w->from[e]), to = *slot_of(w, w->to[e]);
        if (!from || !to)
            return false;
        w->first[from]++; /* from - 1 is its index: what starts at the next one */
        w->waits_for[to - 1]++;
    }
    for (uint32_t i = 0; i < w->nodes; i++)
        w->first[i + 1] += w->first[i];
    for (uint32_t e = w->edges; e-- > 0;) {
        uint32_t from = *slot_of(w, w->from[e]) - 1;
        w->target[w->first[from + 1] - 1] = *slot_of(w, w->to[e]) - 1;
        w->first[from + 1]--;
    }
    /* Each of first[1..] was counted down to where its node's edges begin: shift them to their own places. */
    for (uint32_t i = 0; i < w->nodes; i++)
        w->first[i] = w->first[i + 1];
    w->first[w->nodes] = w->edges;
    return true;
}

/* Puts a node at the end of a chain whose last one it comes after, or of a new one. */
static uint32_t string(struct walk *w, uint32_t node)
{
    for (uint32_t c = 0; c < CHAINS; c++)
        if (w->clock[node][c] == w->length[c]) {
            w->clock[node][c] = ++w->length[c];
            return c;
        }
    return NO_CHAIN;
}

static void take(struct walk *w, uint32_t node, unsigned device, uint64_t bytes)
{
    for (uint32_t i = w->freeds; i-- > 0 && bytes;) {
        struct freed *freed = &w->freed[i];
        if (freed->device != device || w->clock[node][freed->chain] < freed->at)
            continue;
        uint64_t again = freed->bytes < bytes ? freed->bytes : bytes;
        bytes -= again;
        if (!(freed->bytes -= again))
            *freed = w->freed[--w->freeds];
    }
    if (__builtin_add_overflow(w->total->bytes[device], bytes, &w->total->bytes[device]))
        w->total->bytes[device] = UINT64_MAX;
}

/* There are at most as many freed pieces as nodes, but for children with memory on several devices: what has no place is not used again. */
static void give(struct walk *w, uint32_t node, uint32_t chain, unsigned device, uint64_t bytes)
{
    if (bytes && chain != NO_CHAIN && w->freeds < w->nodes)
        w->freed[w->freeds++] = (struct freed){.bytes = bytes, .chain = chain, .at = w->clock[node][chain], .device = device};
}

static uint64_t round_up(uint64_t bytes, uint64_t granule)
{
    return bytes > UINT64_MAX - (granule - 1) ? UINT64_MAX : (bytes + (granule - 1)) & ~(granule - 1);
}

static bool allocates(struct walk *w, uint32_t node)
{
    CUDA_MEM_ALLOC_NODE_PARAMS p;

    if (called.cuGraphMemAllocNodeGetParams(w->node[node], &p) != CUDA_SUCCESS)
        return false;
    int device = p.poolProps.location.type == CU_MEM_LOCATION_TYPE_DEVICE ? process_device(w->membership, p.poolProps.location.id)
                                                                          : PROCESS_NO_DEVICE;
    if (device == PROCESS_NO_DEVICE) /* the host's */
        return true;
    struct live *live = &w->live[w->lives++];
    *live = (struct live){
        .pointer = p.dptr, .bytes = round_up(p.bytesize, w->membership->quota.device[device].granule), .device = (unsigned)device};
    take(w, node, live->device, live->bytes);
    return true;
}

/* What is allocated elsewhere, by another graph or in a child, gives nothing back here. */
static bool frees(struct walk *w, uint32_t node, uint32_t chain)
{
    CUdeviceptr pointer;

    if (called.cuGraphMemFreeNodeGetParams(w->node[node], &pointer) != CUDA_SUCCESS)
        return false;
    for (uint32_t i = w->lives; i-- > 0;)
        if (w->live[i].pointer == pointer) {
            give(w, node, chain, w->live[i].device, w->live[i].bytes);
            w->live[i] = w->live[--w->lives];
            break;
        }
    return true;
}

/* A child takes all that it needs at once, and what it does not leave is free again behind it. */
static bool descends(struct walk *w, uint32_t node, uint32_t chain)
{
    struct total child = {{0}, {0}};
    CUgraph graph;

    if (called.cuGraphChildGraphNodeGetGraph(w->node[node], &graph) != CUDA_SUCCESS ||
        !measure(w->membership, graph, w->depth + 1, &child))
        return false;
    for (unsigned device = 0; device < w->membership->quota.devices; device++) {
        if (child.bytes[device])
            take(w, node, device, child.bytes[device]);
        give(w, node, chain, device, child.bytes[device] - child.left[device]);
        w->total->left[device] += child.left[device];
    }
    return true;
}

/* Conditional nodes cannot hold any that allocate. */
static bool visit(struct walk *w, uint32_t node)
{
    uint32_t chain = string(w, node);

    switch (w->type[node]) {
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
        return allocates(w, node);
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
        return frees(w, node, chain);
    case CU_GRAPH_NODE_TYPE_GRAPH:
        return descends(w, node, chain);
    default:
        return true;
    }
}

static bool visit_all(struct walk *w)
{
    uint32_t ready = 0;

    for (uint32_t i = 0; i < w->nodes; i++)
        if (!w->waits_for[i])
            w->order[ready++] = i;
    for (uint32_t done = 0; done < ready; done++) {
        uint32_t node = w->order[done];
        if (!visit(w, node))
            return false;
        for (uint32_t e = w->first[node]; e < w->first[node + 1]; e++) {
            uint32_t next = w->target[e];
            for (uint32_t c = 0; c < CHAINS; c++)
                if (w->clock[next][c] < w->clock[node][c])
                    w->clock[next][c] = w->clock[node][c];
            if (!--w->waits_for[next])
                w->order[ready++] = next;
        }
    }
    for (uint32_t i = 0; i < w->lives; i++)
        w->total->left[w->live[i].device] += w->live[i].bytes;
    return true;
}

static bool walk_rest(struct walk *w, CUgraph graph)
{
    size_t edges = 0;

    if (get_edges(graph, NULL, NULL, NULL, &edges) != CUDA_SUCCESS || edges > NODES_MAX)
        return false;
    w->edges = (uint32_t)edges;
    for (w->slots = 64; w->slots < w->nodes * 2; w->slots *= 2)
        ;
    size_t size = lay_out_rest(w, 0);
    void *memory = map(size);
    if (!memory)
        return false;
    lay_out_rest(w, (uintptr_t)memory);
    bool read = read_edges(w, graph) && visit_all(w);
    munmap(memory, size);
    return read;
}

/* Add up what a graph takes. False if it cannot be read. */
static bool measure(const struct membership *m, CUgraph graph, unsigned depth, struct total *total)
{
    struct walk w = {.membership = m, .total = total, .depth = depth};
    size_t nodes = 0;

    if (depth > DEPTH_MAX || called.cuGraphGetNodes(graph, NULL, &nodes) != CUDA_SUCCESS || nodes > NODES_MAX)
        return false;
    if (!nodes)
        return true;
    w.nodes = (uint32_t)nodes;
    size_t size = lay_out_nodes(&w, 0);
    void *memory = map(size);
    if (!memory)
        return false;
    lay_out_nodes(&w, (uintptr_t)memory);
    bool read = !read_nodes(&w, graph) || walk_rest(&w, graph);
    munmap(memory, size);
    return read;
}

bool graph_need(const struct membership *m, CUgraph graph, struct graph_need *need)
{
    struct total total = {{0}, {0}};
    CUstreamCaptureMode mode = relaxed_enter();
    bool read = measure(m, graph, 0, &total);

    relaxed_leave(mode);
    need->devices = 0;
    for (unsigned device = 0; read && device < m->quota.devices; device++)
        if (total.bytes[device]) {
            need->on[need->devices].device = device;
            need->on[need->devices].bytes = total.bytes[device];
            need->on[need->devices++].left = total.left[device];
        }
    return need->devices != 0;
}
