/* SPDX-License-Identifier: Apache-2.0 */
/* Events: recorded in streams, asked and waited for by the host, and the time between two of them. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

CUresult cuEventCreate(CUevent *phEvent, unsigned int Flags)
{
    struct sim_ctx *ctx;
    struct sim_event *e;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    if (!phEvent || (Flags & ~7u) || ((Flags & CU_EVENT_INTERPROCESS) && !(Flags & CU_EVENT_DISABLE_TIMING)))
        return CUDA_ERROR_INVALID_VALUE;
    e = sim_handle_new(sizeof(*e), SIM_EVENT, ctx);
    if (!e)
        return CUDA_ERROR_OUT_OF_MEMORY;
    e->flags = Flags;
    e->dev = ctx->dev;
    *phEvent = (CUevent)e;
    return CUDA_SUCCESS;
}

static CUresult destroy(CUevent handle)
{
    struct sim_event *e;
    SIM_GUARD();

    e = sim_handle_find(handle, SIM_EVENT);
    if (!e)
        return CUDA_ERROR_INVALID_HANDLE;
    sim_event_forget(e);
    sim_event_uncapture(e);
    sim_handle_free(e);
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent hEvent)
{
    ENTER();
    return destroy(hEvent);
}

CUresult cuEventDestroy_v2(CUevent hEvent)
{
    ENTER();
    return destroy(hEvent);
}

/* An event of the primary context serves the green contexts on it too (assumed; documented is it of cuGreenCtxRecordEvent). */
static bool shared(struct sim_ctx *event, struct sim_ctx *stream)
{
    const char *text = getenv("SOFTSIM_GREEN_EVENTS");

    return (!text || strcmp(text, "own") != 0) && sim_context_base(event) == sim_context_base(stream);
}

static CUresult record(CUevent event, CUstream stream, bool per_thread, unsigned int flags)
{
    struct sim_stream *s;
    struct sim_event *e;

    sim_spend(SIM_COST_RECORD, 1);
    SIM_GUARD();
    STREAM(s, stream, per_thread);
    e = sim_handle_find(event, SIM_EVENT);
    if (!e || (e->head.ctx != s->head.ctx && !shared(e->head.ctx, s->head.ctx)))
        return CUDA_ERROR_INVALID_HANDLE;
    if (flags & ~1u)
        return CUDA_ERROR_INVALID_VALUE;
    if (s->capture)
        return sim_capture_record(s, e, flags);
    sim_event_uncapture(e);
    e->record++;
    return sim_stream_submit(s, &(struct sim_op){.type = SIM_OP_RECORD, .event = e, .event_record = e->record}, NULL);
}

CUresult cuEventRecord(CUevent hEvent, CUstream hStream)
{
    ENTER();
    return record(hEvent, hStream, false, 0);
}

CUresult cuEventRecord_ptsz(CUevent hEvent, CUstream hStream)
{
    ENTER();
    return record(hEvent, hStream, true, 0);
}

CUresult cuEventRecordWithFlags(CUevent hEvent, CUstream hStream, unsigned int flags)
{
    ENTER();
    return record(hEvent, hStream, false, flags);
}

CUresult cuEventRecordWithFlags_ptsz(CUevent hEvent, CUstream hStream, unsigned int flags)
{
    ENTER();
    return record(hEvent, hStream, true, flags);
}

/* An event that was never recorded is complete. */
static bool reached(struct sim_event *e)
{
    if (e->issued < e->record)
        return false;
    if (!e->record || e->time_ns)
        return true;
    sim_events_settle();
    return e->time_ns != 0;
}

CUresult cuEventQuery(CUevent hEvent)
{
    struct sim_event *e;

    ENTER();
    SIM_GUARD();
    e = sim_handle_find(hEvent, SIM_EVENT);
    if (!e)
        return CUDA_ERROR_INVALID_HANDLE;
    if (e->capture)
        return CUDA_ERROR_CAPTURED_EVENT;
    UNSAFE_IN_CAPTURE();
    sim_stream_pump();
    return reached(e) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult cuEventSynchronize(CUevent hEvent)
{
    struct sim_event *e;

    ENTER();
    SIM_GUARD();
    e = sim_handle_find(hEvent, SIM_EVENT);
    if (!e)
        return CUDA_ERROR_INVALID_HANDLE;
    if (e->capture)
        return CUDA_ERROR_CAPTURED_EVENT;
    UNSAFE_IN_CAPTURE();
    while (!reached(e)) {
        /* Not issued yet: behind a host function, whose end only time tells. */
        if (e->issued < e->record)
            sim_stream_poll();
        else
            sim_engine_sleep(e->dev, e->mark);
        if (sim_handle_find(hEvent, SIM_EVENT) != e)
            return CUDA_SUCCESS;
    }
    sim_pools_synchronised();
    return CUDA_SUCCESS;
}

static CUresult elapsed(float *ms, CUevent start, CUevent end)
{
    struct sim_event *a, *b;
    SIM_GUARD();

    if (!ms)
        return CUDA_ERROR_INVALID_VALUE;
    a = sim_handle_find(start, SIM_EVENT);
    b = sim_handle_find(end, SIM_EVENT);
    if (!a || !b || a->head.ctx != b->head.ctx || !a->record || !b->record || ((a->flags | b->flags) & CU_EVENT_DISABLE_TIMING))
        return CUDA_ERROR_INVALID_HANDLE;
    if (a->capture || b->capture)
        return CUDA_ERROR_CAPTURED_EVENT;
    if (!reached(a) || !reached(b))
        return CUDA_ERROR_NOT_READY;
    *ms = (float)((double)(int64_t)(b->time_ns - a->time_ns) / 1e6);
    return CUDA_SUCCESS;
}

CUresult cuEventElapsedTime(float *pMilliseconds, CUevent hStart, CUevent hEnd)
{
    ENTER();
    return elapsed(pMilliseconds, hStart, hEnd);
}

CUresult cuEventElapsedTime_v2(float *pMilliseconds, CUevent hStart, CUevent hEnd)
{
    ENTER();
    return elapsed(pMilliseconds, hStart, hEnd);
}
