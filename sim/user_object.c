/* SPDX-License-Identifier: Apache-2.0 */
/* User objects: counted references that programs and graphs hold, and a destructor for the last one. */
#include <stdlib.h>

#include "graph.h"

struct sim_user_object {
    struct sim_object_head head;
    unsigned long refs;
    CUhostFn destroy;
    void *data;
};

/* References that a graph holds. */
struct held {
    struct held *next;
    struct sim_graph *graph;
    struct sim_user_object *object;
    unsigned int count;
};

static struct held *holds;

/* The destructor is the program's: it runs without the lock. */
static void drop(struct sim_user_object *o, unsigned int count)
{
    CUhostFn destroy = o->destroy;
    void *data = o->data;

    o->refs -= count;
    if (o->refs)
        return;
    sim_handle_free(o);
    sim_unlock();
    sim_callback_begin();
    destroy(data);
    sim_callback_end();
    sim_lock();
}

CUresult cuUserObjectCreate(CUuserObject *object_out, void *ptr, CUhostFn destroy, unsigned int initialRefcount, unsigned int flags)
{
    struct sim_user_object *o;

    ENTER();
    SIM_GUARD();
    if (!object_out || !destroy || !initialRefcount || initialRefcount > INT32_MAX || flags != CU_USER_OBJECT_NO_DESTRUCTOR_SYNC)
        return CUDA_ERROR_INVALID_VALUE;
    o = sim_handle_new(sizeof(*o), SIM_USER_OBJECT, NULL);
    if (!o)
        return CUDA_ERROR_OUT_OF_MEMORY;
    o->refs = initialRefcount;
    o->destroy = destroy;
    o->data = ptr;
    *object_out = (CUuserObject)o;
    return CUDA_SUCCESS;
}

CUresult cuUserObjectRetain(CUuserObject object, unsigned int count)
{
    struct sim_user_object *o;

    ENTER();
    SIM_GUARD();
    o = sim_handle_find(object, SIM_USER_OBJECT);
    if (!o || !count || count > INT32_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    o->refs += count;
    return CUDA_SUCCESS;
}

CUresult cuUserObjectRelease(CUuserObject object, unsigned int count)
{
    struct sim_user_object *o;

    ENTER();
    SIM_GUARD();
    o = sim_handle_find(object, SIM_USER_OBJECT);
    if (!o || !count || count > o->refs)
        return CUDA_ERROR_INVALID_VALUE;
    drop(o, count);
    return CUDA_SUCCESS;
}

CUresult sim_user_object_hold(struct sim_graph *graph, void *object, unsigned int count)
{
    struct held *h = malloc(sizeof(*h));

    if (!h)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *h = (struct held){.next = holds, .graph = graph, .object = object, .count = count};
    holds = h;
    return CUDA_SUCCESS;
}

CUresult cuGraphRetainUserObject(CUgraph graph, CUuserObject object, unsigned int count, unsigned int flags)
{
    struct sim_graph *g;
    struct sim_user_object *o;
    CUresult r;

    ENTER();
    SIM_GUARD();
    g = sim_handle_find(graph, SIM_GRAPH);
    o = sim_handle_find(object, SIM_USER_OBJECT);
    if (!g || !o || !count || count > INT32_MAX || (flags & ~(unsigned int)CU_GRAPH_USER_OBJECT_MOVE))
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_user_object_hold(g, o, count);
    if (r == CUDA_SUCCESS && !(flags & CU_GRAPH_USER_OBJECT_MOVE))
        o->refs += count;
    return r;
}

CUresult cuGraphReleaseUserObject(CUgraph graph, CUuserObject object, unsigned int count)
{
    ENTER();
    SIM_GUARD();
    for (struct held **link = &holds; *link && count; link = &(*link)->next) {
        struct held *h = *link;

        if ((CUgraph)h->graph != graph || (CUuserObject)h->object != object || h->count < count)
            continue;
        h->count -= count;
        if (!h->count) {
            *link = h->next;
            drop(h->object, count);
            free(h);
        } else {
            drop(h->object, count);
        }
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_VALUE;
}

/* What is instantiated or cloned from a graph holds what the graph holds. */
CUresult sim_user_objects_copy(const struct sim_graph *from, struct sim_graph *to)
{
    for (struct held *h = holds; h; h = h->next)
        if (h->graph == from) {
            CUresult r = sim_user_object_hold(to, h->object, h->count);

            if (r != CUDA_SUCCESS)
                return r;
            h->object->refs += h->count;
        }
    return CUDA_SUCCESS;
}

void sim_user_objects_drop(const struct sim_graph *graph)
{
    for (struct held **link = &holds; *link;) {
        struct held *h = *link;

        if (h->graph != graph) {
            link = &h->next;
            continue;
        }
        *link = h->next;
        drop(h->object, h->count);
        free(h);
        link = &holds; /* the destructor may have changed the list */
    }
}
