/* SPDX-License-Identifier: Apache-2.0 */
/* Stream capture: what streams do becomes nodes of a graph; what must not happen meanwhile invalidates it. */
#include <stdlib.h>
#include <string.h>

#include "graph.h"

struct sim_capture {
    struct sim_capture *next;
    uint64_t id;
    CUstreamCaptureMode mode;
    uint64_t thread;
    bool invalidated;
    bool borrowed; /* the graph was there before */
    struct sim_graph *graph;
    struct sim_stream *origin;
};

static struct sim_capture *captures;
static __thread CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

/* "Potentially unsafe" calls, by the interaction mode of the calling thread: in GLOBAL mode, prohibited while this thread has a
 * capture that was not begun RELAXED, or any thread has one that was begun GLOBAL; in THREAD_LOCAL mode only the former. */
CUresult sim_capture_unsafe(void)
{
    bool unsafe = false;

    if (thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_SUCCESS;
    for (struct sim_capture *c = captures; c; c = c->next) {
        bool own = c->thread == sim_thread_id() && c->mode != CU_STREAM_CAPTURE_MODE_RELAXED;
        bool others = c->mode == CU_STREAM_CAPTURE_MODE_GLOBAL && thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL;

        if (own || others) {
            c->invalidated = true;
            unsafe = true;
        }
    }
    return unsafe ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}

static CUresult implicit(struct sim_stream *stream, bool invalidate)
{
    struct sim_ctx *ctx = stream->head.ctx;
    CUresult r = CUDA_SUCCESS;

    if (!captures || ctx->legacy != stream)
        return CUDA_SUCCESS;
    for (struct sim_stream *s = ctx->streams; s; s = s->sibling)
        if (s->capture && !(s->flags & CU_STREAM_NON_BLOCKING)) {
            s->capture->invalidated |= invalidate;
            r = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
        }
    return r;
}

CUresult sim_capture_implicit(struct sim_stream *stream)
{
    return implicit(stream, true);
}

CUresult sim_capture_forbid(struct sim_stream *stream)
{
    if (!stream->capture)
        return sim_capture_implicit(stream);
    stream->capture->invalidated = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

/* The set of nodes that comes before what is captured next. */
static CUresult set_nodes(struct sim_node ***nodes, size_t *count, struct sim_node *const *to, size_t to_count)
{
    struct sim_node **copy = NULL;

    if (to_count) {
        copy = malloc(to_count * sizeof(*copy));
        if (!copy)
            return CUDA_ERROR_OUT_OF_MEMORY;
        memcpy(copy, to, to_count * sizeof(*copy));
    }
    free(*nodes);
    *nodes = copy;
    *count = to_count;
    return CUDA_SUCCESS;
}

static CUresult merge_nodes(struct sim_stream *s, struct sim_node *const *more, size_t count)
{
    struct sim_node **all = realloc(s->capture_nodes, (s->capture_count + count + 1) * sizeof(*all));

    if (!all)
        return CUDA_ERROR_OUT_OF_MEMORY;
    s->capture_nodes = all;
    for (size_t i = 0; i < count; i++) {
        bool known = false;

        for (size_t j = 0; j < s->capture_count; j++)
            known |= all[j] == more[i];
        if (!known)
            all[s->capture_count++] = more[i];
    }
    return CUDA_SUCCESS;
}

static CUgraphNodeType node_type(const struct sim_op *op)
{
    switch (op->type) {
    case SIM_OP_KERNEL:
        return CU_GRAPH_NODE_TYPE_KERNEL;
    case SIM_OP_COPY:
        return op->copy.element ? CU_GRAPH_NODE_TYPE_MEMSET : CU_GRAPH_NODE_TYPE_MEMCPY;
    case SIM_OP_HOST:
        return CU_GRAPH_NODE_TYPE_HOST;
    case SIM_OP_ALLOC:
        return CU_GRAPH_NODE_TYPE_MEM_ALLOC;
    case SIM_OP_FREE:
        return CU_GRAPH_NODE_TYPE_MEM_FREE;
    case SIM_OP_RECORD:
        return CU_GRAPH_NODE_TYPE_EVENT_RECORD;
    case SIM_OP_WAIT:
        return CU_GRAPH_NODE_TYPE_WAIT_EVENT;
    case SIM_OP_GRAPH:
        return CU_GRAPH_NODE_TYPE_GRAPH;
    default:
        return CU_GRAPH_NODE_TYPE_EMPTY;
    }
}

CUresult sim_capture_add(struct sim_stream *s, const struct sim_op *op, const void *params)
{
    struct sim_capture *c = s->capture;
    struct sim_node *node;
    CUresult r;

    if (c->invalidated)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (op->type == SIM_OP_CALLBACK || op->type == SIM_OP_WAIT_VALUE) {
        c->invalidated = true;
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    r = sim_node_new(c->graph, node_type(op), s->capture_nodes, s->capture_count, &node);
    if (r == CUDA_SUCCESS && params) {
        r = sim_node_set(node, params);
        if (r != CUDA_SUCCESS)
            sim_node_free(node);
    }
    if (r == CUDA_SUCCESS)
        r = set_nodes(&s->capture_nodes, &s->capture_count, &node, 1);
    if (r != CUDA_SUCCESS)
        c->invalidated = true;
    return r;
}

void sim_event_uncapture(struct sim_event *e)
{
    free(e->capture_nodes);
    e->capture_nodes = NULL;
    e->capture_count = 0;
    e->capture = NULL;
}

CUresult sim_capture_record(struct sim_stream *s, struct sim_event *e, unsigned int flags)
{
    CUresult r;

    if (s->capture->invalidated)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (flags & CU_EVENT_RECORD_EXTERNAL) {
        CUevent event = (CUevent)e;

        return sim_capture_add(s, &(struct sim_op){.type = SIM_OP_RECORD}, &event);
    }
    r = set_nodes(&e->capture_nodes, &e->capture_count, s->capture_nodes, s->capture_count);
    if (r == CUDA_SUCCESS)
        e->capture = s->capture;
    return r;
}

CUresult sim_capture_wait(struct sim_stream *s, struct sim_event *e, unsigned int flags)
{
    if (s->capture && s->capture->invalidated)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (s->capture && (flags & CU_EVENT_WAIT_EXTERNAL)) {
        CUevent event = (CUevent)e;

        return sim_capture_add(s, &(struct sim_op){.type = SIM_OP_WAIT}, &event);
    }
    if (!e->capture) {
        if (!e->record)
            return CUDA_SUCCESS;
        s->capture->invalidated = true; /* the event is of work outside the capture */
        return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    }
    if (s->capture && s->capture != e->capture) {
        s->capture->invalidated = e->capture->invalidated = true;
        return CUDA_ERROR_STREAM_CAPTURE_MERGE;
    }
    if (s->head.ctx->legacy == s) {
        e->capture->invalidated = true;
        return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    }
    s->capture = e->capture; /* a stream joins by waiting for an event of the capture */
    return merge_nodes(s, e->capture_nodes, e->capture_count);
}

static void leave(struct sim_stream *s)
{
    free(s->capture_nodes);
    s->capture_nodes = NULL;
    s->capture_count = 0;
    s->capture = NULL;
}

static void capture_end(struct sim_capture *c)
{
    struct sim_capture **link = &captures;

    while (*link != c)
        link = &(*link)->next;
    *link = c->next;
    for (struct sim_ctx *ctx = sim_context_next(NULL); ctx; ctx = sim_context_next(ctx)) {
        for (struct sim_stream *s = ctx->streams; s; s = s->sibling)
            if (s->capture == c)
                leave(s);
        for (struct sim_event *e = sim_handle_first(SIM_EVENT, ctx); e; e = sim_handle_next(e))
            if (e->capture == c)
                sim_event_uncapture(e);
    }
    free(c);
}

void sim_capture_leave(struct sim_stream *s)
{
    struct sim_capture *c = s->capture;

    if (!c)
        return;
    if (c->origin != s) {
        c->invalidated = true;
        leave(s);
        return;
    }
    leave(s);
    if (!c->borrowed)
        sim_graph_free(c->graph);
    capture_end(c);
}

static CUresult begin(CUstream handle, bool per_thread, CUstreamCaptureMode mode, struct sim_graph *graph, const CUgraphNode *deps,
                      size_t count)
{
    static uint64_t last_id;
    struct sim_stream *s;
    struct sim_capture *c;

    if ((unsigned int)mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_ERROR_INVALID_VALUE;
    STREAM(s, handle, per_thread);
    if (s == s->head.ctx->legacy)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (s->capture)
        return CUDA_ERROR_ILLEGAL_STATE;
    c = calloc(1, sizeof(*c));
    if (!c)
        return CUDA_ERROR_OUT_OF_MEMORY;
    c->graph = graph ? graph : sim_graph_new();
    if (!c->graph || set_nodes(&s->capture_nodes, &s->capture_count, (struct sim_node *const *)deps, count) != CUDA_SUCCESS) {
        if (c->graph && !graph)
            sim_graph_free(c->graph);
        free(c);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    c->borrowed = graph != NULL;
    c->id = ++last_id;
    c->mode = mode;
    c->thread = sim_thread_id();
    c->origin = s;
    c->next = captures;
    captures = c;
    s->capture = c;
    return CUDA_SUCCESS;
}

/* Mark what the given nodes come after, themselves included. */
static void mark(struct sim_node *const *nodes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!nodes[i]->seen) {
            nodes[i]->seen = true;
            mark(nodes[i]->deps, nodes[i]->dep_count);
        }
}

/* Every stream that joined must have been joined back: its last nodes come before the origin's. */
static bool joined(const struct sim_capture *c)
{
    bool ok = true;

    for (size_t i = 0; i < c->graph->count; i++)
        c->graph->nodes[i]->seen = false;
    mark(c->origin->capture_nodes, c->origin->capture_count);
    for (struct sim_ctx *ctx = sim_context_next(NULL); ctx; ctx = sim_context_next(ctx))
        for (struct sim_stream *s = ctx->streams; s; s = s->sibling)
            for (size_t i = 0; s->capture == c && i < s->capture_count; i++)
                ok &= s->capture_nodes[i]->seen;
    return ok;
}

static CUresult end(CUstream handle, bool per_thread, CUgraph *out)
{
    struct sim_stream *s;
    struct sim_capture *c;
    struct sim_graph *graph;
    CUresult r = CUDA_SUCCESS;
    SIM_GUARD();

    STREAM(s, handle, per_thread);
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    c = s->capture;
    if (!c)
        return CUDA_ERROR_ILLEGAL_STATE;
    if (c->mode != CU_STREAM_CAPTURE_MODE_RELAXED && c->thread != sim_thread_id())
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    if (c->origin != s) {
        c->invalidated = true;
        return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    }
    if (c->invalidated)
        r = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    else if (!joined(c))
        r = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    graph = c->graph;
    if (r != CUDA_SUCCESS && !c->borrowed) {
        sim_graph_free(graph);
        graph = NULL;
    }
    capture_end(c);
    *out = r == CUDA_SUCCESS ? (CUgraph)graph : NULL;
    return r;
}

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
    CUstreamCaptureMode before = thread_mode;

    ENTER();
    if (!mode || (unsigned int)*mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_ERROR_INVALID_VALUE;
    thread_mode = *mode;
    *mode = before;
    return CUDA_SUCCESS;
}

static CUresult begin_plain(CUstream stream, bool per_thread, CUstreamCaptureMode mode)
{
    SIM_GUARD();

    return begin(stream, per_thread, mode, NULL, NULL, 0);
}

static CUresult begin_into(CUstream stream, bool per_thread, CUgraph handle, const CUgraphNode *deps, size_t count,
                           CUstreamCaptureMode mode)
{
    struct sim_graph *graph;
    SIM_GUARD();

    graph = sim_handle_find(handle, SIM_GRAPH);
    if (!graph || (count && !deps))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; i++) {
        struct sim_node *n = sim_handle_find(deps[i], SIM_GRAPH_NODE);

        if (!n || n->graph != graph)
            return CUDA_ERROR_INVALID_VALUE;
    }
    return begin(stream, per_thread, mode, graph, deps, count);
}

static CUresult info(CUstream handle, bool per_thread, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *graph,
                     const CUgraphNode **deps, const CUgraphEdgeData **edges, size_t *count)
{
    struct sim_stream *s;
    struct sim_capture *c;
    CUresult r;
    SIM_GUARD();

    if (!status)
        return CUDA_ERROR_INVALID_VALUE;
    STREAM(s, handle, per_thread);
    r = implicit(s, false); /* a question spoils nothing */
    if (r != CUDA_SUCCESS)
        return r;
    c = s->capture;
    *status = !c               ? CU_STREAM_CAPTURE_STATUS_NONE
              : c->invalidated ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                               : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    if (*status != CU_STREAM_CAPTURE_STATUS_ACTIVE)
        return CUDA_SUCCESS;
    if (id)
        *id = c->id;
    if (graph)
        *graph = (CUgraph)c->graph;
    if (deps)
        *deps = (const CUgraphNode *)(void *)s->capture_nodes;
    if (edges)
        *edges = NULL;
    if (count)
        *count = s->capture_count;
    return CUDA_SUCCESS;
}

static CUresult update(CUstream handle, bool per_thread, const CUgraphNode *deps, size_t count, unsigned int flags)
{
    struct sim_stream *s;
    SIM_GUARD();

    if (flags > CU_STREAM_SET_CAPTURE_DEPENDENCIES || (count && !deps))
        return CUDA_ERROR_INVALID_VALUE;
    STREAM(s, handle, per_thread);
    if (!s->capture)
        return CUDA_ERROR_ILLEGAL_STATE;
    for (size_t i = 0; i < count; i++) {
        struct sim_node *n = sim_handle_find(deps[i], SIM_GRAPH_NODE);

        if (!n || n->graph != s->capture->graph)
            return CUDA_ERROR_INVALID_VALUE;
    }
    if (flags == CU_STREAM_SET_CAPTURE_DEPENDENCIES)
        return set_nodes(&s->capture_nodes, &s->capture_count, (struct sim_node *const *)deps, count);
    return merge_nodes(s, (struct sim_node *const *)deps, count);
}

#define CAPTURE_FUNCTIONS(suffix, per_thread)                                                                                      \
    CUresult cuStreamBeginCapture##suffix(CUstream hStream)                                                                        \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return begin_plain(hStream, per_thread, CU_STREAM_CAPTURE_MODE_GLOBAL);                                                    \
    }                                                                                                                              \
    CUresult cuStreamBeginCapture_v2##suffix(CUstream hStream, CUstreamCaptureMode mode)                                           \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return begin_plain(hStream, per_thread, mode);                                                                             \
    }                                                                                                                              \
    CUresult cuStreamBeginCaptureToGraph##suffix(CUstream hStream, CUgraph hGraph, const CUgraphNode *dependencies,                \
                                                 const CUgraphEdgeData *dependencyData, size_t numDependencies,                    \
                                                 CUstreamCaptureMode mode)                                                         \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        (void)dependencyData;                                                                                                      \
        return begin_into(hStream, per_thread, hGraph, dependencies, numDependencies, mode);                                       \
    }                                                                                                                              \
    CUresult cuStreamEndCapture##suffix(CUstream hStream, CUgraph *phGraph)                                                        \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return end(hStream, per_thread, phGraph);                                                                                  \
    }                                                                                                                              \
    CUresult cuStreamIsCapturing##suffix(CUstream hStream, CUstreamCaptureStatus *captureStatus)                                   \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return info(hStream, per_thread, captureStatus, NULL, NULL, NULL, NULL, NULL);                                             \
    }                                                                                                                              \
    CUresult cuStreamGetCaptureInfo##suffix(CUstream hStream, CUstreamCaptureStatus *captureStatus_out, cuuint64_t *id_out)        \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return info(hStream, per_thread, captureStatus_out, id_out, NULL, NULL, NULL, NULL);                                       \
    }                                                                                                                              \
    CUresult cuStreamGetCaptureInfo_v2##suffix(CUstream hStream, CUstreamCaptureStatus *captureStatus_out, cuuint64_t *id_out,     \
                                               CUgraph *graph_out, const CUgraphNode **dependencies_out,                           \
                                               size_t *numDependencies_out)                                                        \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return info(hStream, per_thread, captureStatus_out, id_out, graph_out, dependencies_out, NULL, numDependencies_out);       \
    }                                                                                                                              \
    CUresult cuStreamGetCaptureInfo_v3##suffix(CUstream hStream, CUstreamCaptureStatus *captureStatus_out, cuuint64_t *id_out,     \
                                               CUgraph *graph_out, const CUgraphNode **dependencies_out,                           \
                                               const CUgraphEdgeData **edgeData_out, size_t *numDependencies_out)                  \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return info(hStream, per_thread, captureStatus_out, id_out, graph_out, dependencies_out, edgeData_out,                     \
                    numDependencies_out);                                                                                          \
    }                                                                                                                              \
    CUresult cuStreamUpdateCaptureDependencies##suffix(CUstream hStream, CUgraphNode *dependencies, size_t numDependencies,        \
                                                       unsigned int flags)                                                         \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return update(hStream, per_thread, dependencies, numDependencies, flags);                                                  \
    }                                                                                                                              \
    CUresult cuStreamUpdateCaptureDependencies_v2##suffix(CUstream hStream, CUgraphNode *dependencies,                             \
                                                          const CUgraphEdgeData *dependencyData, size_t numDependencies,           \
                                                          unsigned int flags)                                                      \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        (void)dependencyData;                                                                                                      \
        return update(hStream, per_thread, dependencies, numDependencies, flags);                                                  \
    }

CAPTURE_FUNCTIONS(, false)
CAPTURE_FUNCTIONS(_ptsz, true)
