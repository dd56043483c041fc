/* SPDX-License-Identifier: Apache-2.0 */
/* cuStream*: making, asking, waiting, callbacks. Each _ptsz variant differs in what a NULL stream means. */
#include "sim.h"

static CUresult create(CUstream *out, unsigned int flags, int priority)
{
    struct sim_ctx *ctx;
    struct sim_stream *s;
    SIM_GUARD();

    CONTEXT(ctx);
    if (!out || (flags & ~(unsigned int)CU_STREAM_NON_BLOCKING))
        return CUDA_ERROR_INVALID_VALUE;
    UNSAFE_IN_CAPTURE();
    if (priority > 0)
        priority = 0;
    if (priority < -5)
        priority = -5;
    s = sim_stream_new(ctx, flags, priority);
    if (!s)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *out = (CUstream)s;
    return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream *phStream, unsigned int Flags)
{
    ENTER();
    return create(phStream, Flags, 0);
}

CUresult cuStreamCreateWithPriority(CUstream *phStream, unsigned int flags, int priority)
{
    ENTER();
    return create(phStream, flags, priority);
}

static CUresult destroy(CUstream handle)
{
    struct sim_stream *s;
    SIM_GUARD();

    s = sim_handle_find(handle, SIM_STREAM);
    if (!s || s->destroyed || s == s->head.ctx->legacy || s->thread)
        return CUDA_ERROR_INVALID_HANDLE;
    sim_stream_destroy(s);
    return CUDA_SUCCESS;
}

CUresult cuStreamDestroy(CUstream hStream)
{
    ENTER();
    return destroy(hStream);
}

CUresult cuStreamDestroy_v2(CUstream hStream)
{
    ENTER();
    return destroy(hStream);
}

static CUresult synchronize(CUstream handle, bool per_thread)
{
    struct sim_stream *s;
    CUresult r;
    SIM_GUARD();

    STREAM(s, handle, per_thread);
    r = sim_capture_forbid(s);
    if (r != CUDA_SUCCESS)
        return r;
    sim_stream_wait(s);
    sim_pools_synchronised();
    return CUDA_SUCCESS;
}

static CUresult query(CUstream handle, bool per_thread)
{
    struct sim_stream *s;
    CUresult r;
    SIM_GUARD();

    STREAM(s, handle, per_thread);
    r = sim_capture_forbid(s);
    if (r != CUDA_SUCCESS)
        return r;
    sim_stream_pump();
    return sim_stream_done(s) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

static CUresult wait_event(CUstream handle, bool per_thread, CUevent event, unsigned int flags)
{
    struct sim_stream *s;
    struct sim_event *e;
    SIM_GUARD();

    STREAM(s, handle, per_thread);
    e = sim_handle_find(event, SIM_EVENT);
    if (!e)
        return CUDA_ERROR_INVALID_HANDLE;
    if (flags & ~1u)
        return CUDA_ERROR_INVALID_VALUE;
    if (s->capture || e->capture)
        return sim_capture_wait(s, e, flags);
    if (!e->record)
        return CUDA_SUCCESS; /* never recorded: nothing to wait for */
    return sim_stream_submit(s, &(struct sim_op){.type = SIM_OP_WAIT, .event = e, .event_record = e->record}, NULL);
}

static CUresult host_function(CUstream handle, bool per_thread, CUhostFn fn, void *data)
{
    struct sim_stream *s;
    CUDA_HOST_NODE_PARAMS params = {.fn = fn, .userData = data};
    SIM_GUARD();

    STREAM(s, handle, per_thread);
    if (!fn)
        return CUDA_ERROR_INVALID_VALUE;
    return sim_stream_submit(s, &(struct sim_op){.type = SIM_OP_HOST, .host = fn, .data = data}, &params);
}

static CUresult add_callback(CUstream handle, bool per_thread, CUstreamCallback callback, void *data, unsigned int flags)
{
    struct sim_stream *s;
    SIM_GUARD();

    STREAM(s, handle, per_thread);
    if (!callback || flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (s->capture)
        return sim_capture_forbid(s);
    return sim_stream_submit(s, &(struct sim_op){.type = SIM_OP_CALLBACK, .callback = callback, .data = data}, NULL);
}

enum question { ASK_PRIORITY, ASK_FLAGS, ASK_DEVICE, ASK_CONTEXT, ASK_ID };

static CUresult ask(CUstream handle, bool per_thread, enum question question, void *out)
{
    struct sim_stream *s;
    SIM_GUARD();

    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    STREAM(s, handle, per_thread);
    switch (question) {
    case ASK_PRIORITY:
        *(int *)out = s->priority;
        break;
    case ASK_FLAGS:
        *(unsigned int *)out = s->flags;
        break;
    case ASK_DEVICE:
        *(CUdevice *)out = s->head.ctx->dev;
        break;
    case ASK_CONTEXT:
        *(CUcontext *)out = (CUcontext)s->head.ctx;
        break;
    case ASK_ID:
        *(unsigned long long *)out = s->id;
        break;
    }
    return CUDA_SUCCESS;
}

static CUresult get_ctx_v2(CUstream handle, bool per_thread, CUcontext *ctx, CUgreenCtx *green)
{
    struct sim_stream *s;
    SIM_GUARD();

    if (!ctx || !green)
        return CUDA_ERROR_INVALID_VALUE;
    STREAM(s, handle, per_thread);
    *ctx = (CUcontext)sim_context_base(s->head.ctx);
    *green = sim_green_of(s->head.ctx);
    return CUDA_SUCCESS;
}

/* Managed memory is not migrated here, so where it is attached makes no difference. */
static CUresult attach(CUstream handle, bool per_thread, CUdeviceptr dptr)
{
    struct sim_stream *s;
    struct sim_mem *mem;
    SIM_GUARD();

    STREAM(s, handle, per_thread);
    mem = sim_mem_find(dptr);
    if (!mem || mem->kind != SIM_MEM_MANAGED)
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

#define STREAM_FUNCTIONS(suffix, per_thread)                                                                                       \
    CUresult cuStreamSynchronize##suffix(CUstream hStream)                                                                         \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return synchronize(hStream, per_thread);                                                                                   \
    }                                                                                                                              \
    CUresult cuStreamQuery##suffix(CUstream hStream)                                                                               \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return query(hStream, per_thread);                                                                                         \
    }                                                                                                                              \
    CUresult cuStreamWaitEvent##suffix(CUstream hStream, CUevent hEvent, unsigned int Flags)                                       \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return wait_event(hStream, per_thread, hEvent, Flags);                                                                     \
    }                                                                                                                              \
    CUresult cuLaunchHostFunc##suffix(CUstream hStream, CUhostFn fn, void *userData)                                               \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return host_function(hStream, per_thread, fn, userData);                                                                   \
    }                                                                                                                              \
    CUresult cuStreamAddCallback##suffix(CUstream hStream, CUstreamCallback callback, void *userData, unsigned int flags)          \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return add_callback(hStream, per_thread, callback, userData, flags);                                                       \
    }                                                                                                                              \
    CUresult cuStreamGetPriority##suffix(CUstream hStream, int *priority)                                                          \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return ask(hStream, per_thread, ASK_PRIORITY, priority);                                                                   \
    }                                                                                                                              \
    CUresult cuStreamGetFlags##suffix(CUstream hStream, unsigned int *flags)                                                       \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return ask(hStream, per_thread, ASK_FLAGS, flags);                                                                         \
    }                                                                                                                              \
    CUresult cuStreamGetDevice##suffix(CUstream hStream, CUdevice *device)                                                         \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return ask(hStream, per_thread, ASK_DEVICE, device);                                                                       \
    }                                                                                                                              \
    CUresult cuStreamGetCtx##suffix(CUstream hStream, CUcontext *pctx)                                                             \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return ask(hStream, per_thread, ASK_CONTEXT, pctx);                                                                        \
    }                                                                                                                              \
    CUresult cuStreamGetCtx_v2##suffix(CUstream hStream, CUcontext *pCtx, CUgreenCtx *pGreenCtx)                                   \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return get_ctx_v2(hStream, per_thread, pCtx, pGreenCtx);                                                                   \
    }                                                                                                                              \
    CUresult cuStreamGetId##suffix(CUstream hStream, unsigned long long *streamId)                                                 \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return ask(hStream, per_thread, ASK_ID, streamId);                                                                         \
    }                                                                                                                              \
    CUresult cuStreamAttachMemAsync##suffix(CUstream hStream, CUdeviceptr dptr, size_t length, unsigned int flags)                 \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        (void)length;                                                                                                              \
        (void)flags;                                                                                                               \
        return attach(hStream, per_thread, dptr);                                                                                  \
    }

STREAM_FUNCTIONS(, false)
STREAM_FUNCTIONS(_ptsz, true)
