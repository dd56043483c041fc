/* SPDX-License-Identifier: Apache-2.0 */
/* Every object that the driver has handed out, so that a handle can be told from garbage. */
#include <stdlib.h>

#include "sim.h"

#define BUCKETS 4096

static struct sim_object_head *bucket[BUCKETS];

static unsigned int bucket_of(const void *object)
{
    return (unsigned int)(((uintptr_t)object >> 4) * 2654435761u >> 7) % BUCKETS;
}

void *sim_handle_new(size_t size, enum sim_kind kind, struct sim_ctx *ctx)
{
    struct sim_object_head *o = calloc(1, size);
    struct sim_object_head **b;

    if (!o)
        return NULL;
    b = &bucket[bucket_of(o)];
    o->kind = kind;
    o->ctx = ctx;
    o->next = *b;
    if (*b)
        (*b)->prev = o;
    *b = o;
    return o;
}

void *sim_handle_find(const void *handle, enum sim_kind kind)
{
    for (struct sim_object_head *o = bucket[bucket_of(handle)]; o; o = o->next)
        if (o == handle)
            return o->kind == kind ? o : NULL;
    return NULL;
}

void sim_handle_free(void *object)
{
    struct sim_object_head *o = object;

    if (o->next)
        o->next->prev = o->prev;
    if (o->prev)
        o->prev->next = o->next;
    else
        bucket[bucket_of(o)] = o->next;
    free(o);
}

static void *search(unsigned int from, struct sim_object_head *o, enum sim_kind kind, const struct sim_ctx *ctx)
{
    for (;;) {
        for (; o; o = o->next)
            if (o->kind == kind && o->ctx == ctx)
                return o;
        if (++from >= BUCKETS)
            return NULL;
        o = bucket[from];
    }
}

void *sim_handle_first(enum sim_kind kind, const struct sim_ctx *ctx)
{
    return search(0, bucket[0], kind, ctx);
}

void *sim_handle_next(void *object)
{
    struct sim_object_head *o = object;

    return search(bucket_of(o), o->next, o->kind, o->ctx);
}
