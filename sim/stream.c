/* SPDX-License-Identifier: Apache-2.0 */
/* Streams as queues: what is issued to the GPU when, what waits behind a host function, the driver's own thread.
 *
 * The GPU does one piece of a process' work at a time, in the order of issue. So work is issued as soon as it is submitted, and a wait
 * for an event costs nothing, because the record was issued before. What cannot be issued yet stays in its stream: host functions until
 * the GPU gets there, and whatever is ordered behind one. */
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sim.h"

#define WORKER_IDLE_NS UINT64_C(100000000)

static uint32_t woken;   /* a futex: the worker has something to look at. Not a condition of libc's: those wait in real time only */
static bool worker_idle; /* it waits for nothing but being woken */
static uint64_t last_seq;
static unsigned long queued; /* ops not issued, in all streams */
static struct sim_event *pending_events;

static bool is_blocking(const struct sim_stream *s)
{
    return !(s->flags & CU_STREAM_NON_BLOCKING);
}

static bool is_legacy(const struct sim_stream *s)
{
    return s->head.ctx->legacy == s;
}

static struct sim_stream *first_stream(const struct sim_ctx *ctx)
{
    return ctx->streams;
}

static void stream_free(struct sim_stream *s)
{
    struct sim_stream **link = &s->head.ctx->streams;

    sim_capture_leave(s);
    while (*link != s)
        link = &(*link)->sibling;
    *link = s->sibling;
    sim_handle_free(s);
}

struct sim_stream *sim_stream_new(struct sim_ctx *ctx, unsigned int flags, int priority)
{
    static uint64_t last_id;
    struct sim_stream *s = sim_handle_new(sizeof(*s), SIM_STREAM, ctx);

    if (s) {
        s->flags = flags;
        s->priority = priority;
        s->id = ++last_id;
        s->sibling = ctx->streams;
        ctx->streams = s;
    }
    return s;
}

static struct sim_stream *per_thread_stream(struct sim_ctx *ctx)
{
    struct sim_stream *s;

    for (s = first_stream(ctx); s; s = s->sibling)
        if (s->thread == sim_thread_id())
            return s;
    s = sim_stream_new(ctx, CU_STREAM_DEFAULT, 0);
    if (s)
        s->thread = sim_thread_id();
    return s;
}

CUresult sim_stream_of(CUstream handle, bool per_thread, struct sim_stream **stream)
{
    struct sim_ctx *ctx;

    if (handle && handle != CU_STREAM_LEGACY && handle != CU_STREAM_PER_THREAD) {
        *stream = sim_handle_find(handle, SIM_STREAM);
        return *stream && !(*stream)->destroyed ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
    }
    CONTEXT(ctx);
    if (handle == CU_STREAM_PER_THREAD || (!handle && per_thread)) {
        *stream = per_thread_stream(ctx);
    } else {
        if (!ctx->legacy)
            ctx->legacy = sim_stream_new(ctx, CU_STREAM_DEFAULT, 0);
        *stream = ctx->legacy;
    }
    return *stream ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* The legacy stream and the blocking streams of a context wait for each other's earlier work. */
static bool ordered_behind(const struct sim_stream *s, uint64_t seq)
{
    const struct sim_ctx *ctx = s->head.ctx;

    if (!is_blocking(s) || !ctx->legacy)
        return false;
    if (!is_legacy(s))
        return ctx->legacy->first && ctx->legacy->first->seq < seq;
    for (struct sim_stream *o = first_stream(ctx); o; o = o->sibling)
        if (o != s && is_blocking(o) && o->first && o->first->seq < seq)
            return true;
    return false;
}

static void issue_record(struct sim_stream *s, struct sim_op *op)
{
    struct sim_event *e = op->event;
    uint64_t served = sim_engine_served(s->head.ctx->dev);

    if (op->event_record < e->issued)
        return;
    e->issued = op->event_record;
    e->mark = s->mark;
    e->dev = s->head.ctx->dev;
    if (s->mark <= served) {
        e->time_ns = sim_now_ns();
        return;
    }
    e->time_ns = 0;
    if (!e->pending) {
        /* The worker settles it before the machine forgets when that was. */
        if (!pending_events && __atomic_load_n(&worker_idle, __ATOMIC_SEQ_CST))
            sim_worker_wake();
        e->pending = true;
        e->pending_next = pending_events;
        pending_events = e;
    }
}

/* Work of higher priority: it comes before what streams of lower ones have on the same GPU and the GPU has not yet done, in the middle of a kernel
 * too (assumed: a real one waits for blocks of kernels to end). */
static void submit_before(struct sim_stream *s, const struct sim_op *op)
{
    int dev = s->head.ctx->dev;
    uint64_t place = sim_engine_served(dev);

    if (place < s->mark)
        place = s->mark;
    for (struct sim_ctx *c = sim_context_next(NULL); c; c = sim_context_next(c))
        for (struct sim_stream *o = c->dev == dev ? first_stream(c) : NULL; o; o = o->sibling)
            if (o->priority <= s->priority && o->mark > place)
                place = o->mark;
    for (struct sim_ctx *c = sim_context_next(NULL); c; c = sim_context_next(c)) {
        if (c->dev != dev)
            continue;
        if (c->blocking_mark > place)
            c->blocking_mark += op->ns;
        for (struct sim_stream *o = first_stream(c); o; o = o->sibling)
            if (o->mark > place)
                o->mark += op->ns;
    }
    for (struct sim_event *e = pending_events; e; e = e->pending_next)
        if (e->dev == dev && e->mark > place)
            e->mark += op->ns;
    sim_engine_insert(dev, place, op->ns);
    s->mark = place + op->ns;
}

/* False: not yet. */
static bool issue(struct sim_stream *s, struct sim_op *op)
{
    struct sim_ctx *ctx = s->head.ctx;

    if (ordered_behind(s, op->seq))
        return false;
    /* Work after the legacy stream's, or the legacy stream's after others', ends after it. */
    if (is_legacy(s) && s->mark < ctx->blocking_mark)
        s->mark = ctx->blocking_mark;
    switch (op->type) {
    case SIM_OP_HOST:
    case SIM_OP_CALLBACK:
        return false;
    case SIM_OP_WAIT:
        if (op->event && op->event->issued < op->event_record)
            return false;
        if (op->event && op->event->dev == ctx->dev && op->event->mark > s->mark)
            s->mark = op->event->mark;
        if (op->event && op->event->dev != ctx->dev && sim_engine_served(op->event->dev) < op->event->mark)
            return false;
        break;
    case SIM_OP_RECORD:
        if (op->event)
            issue_record(s, op);
        break;
    case SIM_OP_WAIT_VALUE:
        if (op->run)
            op->run(op);
        if (op->data)
            return false;
        break;
    default:
        if (op->run)
            op->run(op);
        if (op->ns && s->priority < 0 && !is_blocking(s))
            submit_before(s, op);
        else if (op->ns)
            s->mark = sim_engine_submit(ctx->dev, op->ns, op->gate);
        break;
    }
    if (is_blocking(s) && ctx->blocking_mark < s->mark)
        ctx->blocking_mark = s->mark;
    return true;
}

static void pop(struct sim_stream *s)
{
    struct sim_op *op = s->first;

    s->first = op->next;
    if (!s->first)
        s->last = NULL;
    free(op);
    queued--;
    if (!s->first && s->destroyed)
        stream_free(s);
}

static bool pump_stream(struct sim_stream *s)
{
    bool moved = false;

    while (s->first && !s->busy && issue(s, s->first)) {
        bool last = !s->first->next;

        pop(s);
        moved = true;
        if (last)
            break;
    }
    return moved;
}

void sim_stream_destroy(struct sim_stream *s)
{
    s->destroyed = true;
    if (!s->first)
        stream_free(s);
}

void sim_stream_pump(void)
{
    bool moved = queued > 0;

    while (moved && queued) {
        moved = false;
        for (struct sim_ctx *c = sim_context_next(NULL); c; c = sim_context_next(c)) {
            struct sim_stream *next;

            for (struct sim_stream *s = first_stream(c); s; s = next) {
                next = s->sibling;
                moved |= pump_stream(s);
            }
        }
    }
}

CUresult sim_stream_issue(struct sim_stream *s, const struct sim_op *given)
{
    struct sim_op op = *given, *kept;

    op.seq = ++last_seq;
    op.stream = s;
    op.next = NULL;
    if (!s->first && issue(s, &op)) {
        if (op.type == SIM_OP_RECORD)
            sim_stream_pump();
        return CUDA_SUCCESS;
    }
    kept = malloc(sizeof(*kept));
    if (!kept)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *kept = op;
    if (s->last)
        s->last->next = kept;
    else
        s->first = kept;
    s->last = kept;
    queued++;
    sim_worker_wake();
    return CUDA_SUCCESS;
}

CUresult sim_stream_submit(struct sim_stream *s, const struct sim_op *op, const void *params)
{
    CUresult r;

    if (s->capture)
        return sim_capture_add(s, op, params);
    r = sim_capture_implicit(s);
    return r == CUDA_SUCCESS ? sim_stream_issue(s, op) : r;
}

void sim_events_settle(void)
{
    struct sim_event **link = &pending_events;

    while (*link) {
        struct sim_event *e = *link;

        if (sim_engine_served(e->dev) < e->mark) {
            link = &e->pending_next;
            continue;
        }
        e->time_ns = sim_engine_time_of(e->dev, e->mark);
        e->pending = false;
        *link = e->pending_next;
    }
}

void sim_event_forget(struct sim_event *event)
{
    for (struct sim_event **link = &pending_events; *link; link = &(*link)->pending_next)
        if (*link == event) {
            *link = event->pending_next;
            break;
        }
    for (struct sim_ctx *c = sim_context_next(NULL); queued && c; c = sim_context_next(c))
        for (struct sim_stream *s = first_stream(c); s; s = s->sibling)
            for (struct sim_op *op = s->first; op; op = op->next)
                if (op->event == event)
                    op->event = NULL;
}

bool sim_stream_done(struct sim_stream *s)
{
    uint64_t mark = s->mark;

    if (s->first)
        return false;
    if (is_legacy(s)) {
        if (s->head.ctx->blocking_mark > mark)
            mark = s->head.ctx->blocking_mark;
        for (struct sim_stream *o = first_stream(s->head.ctx); o; o = o->sibling)
            if (is_blocking(o) && o->first)
                return false;
    }
    return sim_engine_served(s->head.ctx->dev) >= mark;
}

/* Waiting for host code: poll, for its end may be signalled by another thread of this process at any time. */
void sim_stream_poll(void)
{
    struct timespec ts = {.tv_nsec = 100000};

    sim_worker_wake();
    sim_unlock();
    nanosleep(&ts, NULL);
    sim_lock();
}

void sim_stream_wait(struct sim_stream *s)
{
    int dev = s->head.ctx->dev;

    while (!sim_stream_done(s)) {
        uint64_t mark = s->mark;

        if (is_legacy(s) && s->head.ctx->blocking_mark > mark)
            mark = s->head.ctx->blocking_mark;
        if (sim_engine_served(dev) < mark)
            sim_engine_sleep(dev, mark);
        else if (!sim_stream_done(s)) /* it may have ended just now */
            sim_stream_poll();
    }
    sim_events_settle();
}

bool sim_context_done(struct sim_ctx *ctx)
{
    for (struct sim_stream *s = first_stream(ctx); s; s = s->sibling)
        if (!sim_stream_done(s))
            return false;
    return sim_engine_served(ctx->dev) >= ctx->blocking_mark;
}

void sim_context_wait(struct sim_ctx *ctx)
{
    while (!ctx->destroyed && !sim_context_done(ctx)) {
        uint64_t mark = ctx->blocking_mark;

        for (struct sim_stream *s = first_stream(ctx); s; s = s->sibling)
            if (s->mark > mark)
                mark = s->mark;
        if (sim_engine_served(ctx->dev) < mark)
            sim_engine_sleep(ctx->dev, mark);
        else if (!sim_context_done(ctx))
            sim_stream_poll();
    }
    sim_events_settle();
}

void sim_streams_free_context(struct sim_ctx *ctx)
{
    struct sim_stream *s;
    struct sim_event *e;

    while ((s = first_stream(ctx))) {
        while (s->first && s->first->next)
            pop(s);
        s->destroyed = true;
        if (s->first)
            pop(s);
        else
            stream_free(s);
    }
    while ((e = sim_handle_first(SIM_EVENT, ctx))) {
        sim_event_forget(e);
        sim_event_uncapture(e);
        sim_handle_free(e);
    }
    ctx->legacy = NULL;
}

void sim_worker_wake(void)
{
    if (!__atomic_exchange_n(&woken, 1, __ATOMIC_SEQ_CST))
        syscall(SYS_futex, &woken, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* The lock is dropped around the program's code, which may not call the driver but may take its time. */
static void run_host(struct sim_stream *s)
{
    struct sim_op op = *s->first;

    s->busy = true;
    sim_unlock();
    sim_callback_begin();
    if (op.type == SIM_OP_HOST)
        op.host(op.data);
    else
        op.callback((CUstream)s, CUDA_SUCCESS, op.data);
    sim_callback_end();
    sim_lock();
    s->busy = false;
    pop(s);
    sim_stream_pump();
}

/* Runs one host function that is due. `later_ns`: how long until the next could be; false: none was due. */
static bool run_due(uint64_t *later_ns)
{
    for (struct sim_ctx *c = sim_context_next(NULL); c; c = sim_context_next(c))
        for (struct sim_stream *s = first_stream(c); s; s = s->sibling) {
            uint64_t left;

            if (!s->first || s->busy || ordered_behind(s, s->first->seq))
                continue;
            if (s->first->type != SIM_OP_HOST && s->first->type != SIM_OP_CALLBACK) {
                *later_ns = 200000; /* waits for a value in memory or for another device */
                continue;
            }
            if (!sim_engine_left(c->dev, s->mark, &left)) {
                run_host(s);
                return true;
            }
            if (left < *later_ns)
                *later_ns = left;
        }
    return false;
}

void *sim_worker(void *arg)
{
    sim_proc_hold(arg);
    for (;;) {
        uint64_t later_ns = WORKER_IDLE_NS;
        struct timespec wait;
        bool idle;

        __atomic_store_n(&woken, 0, __ATOMIC_SEQ_CST);
        sim_lock();
        sim_stream_pump();
        while (queued && run_due(&later_ns))
            later_ns = WORKER_IDLE_NS;
        sim_events_settle();
        idle = !queued && !pending_events;
        __atomic_store_n(&worker_idle, idle, __ATOMIC_SEQ_CST);
        sim_unlock();

        wait = (struct timespec){.tv_nsec = (long)later_ns};
        syscall(SYS_futex, &woken, FUTEX_WAIT_PRIVATE, 0, idle ? NULL : &wait, NULL, 0);
    }
    return NULL;
}
