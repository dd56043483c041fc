/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts, primary contexts and green contexts: creation is charged, the end refunds the context and all that it owns. */
#include "../context.h"
#include "../gap.h"
#include "../gate.h"
#include "../meter.h"
#include "../relaxed.h"

/* A context creation: the ABIs differ in their parameters alone. One that is refused after the driver made it leaves the output as it was. */
#define CREATE(symbol, parameters, arguments)                                                                                      \
    CUresult symbol parameters                                                                                                     \
    {                                                                                                                              \
        struct creation creation;                                                                                                  \
        CUcontext context = NULL, *told = pctx;                                                                                    \
        CUresult result;                                                                                                           \
                                                                                                                                   \
        if (!guard_acts(RESOLVE_VRAM)) {                                                                                           \
            result = real.symbol arguments;                                                                                        \
            if (result == CUDA_SUCCESS)                                                                                            \
                mark_context_made(*pctx);                                                                                          \
            return result;                                                                                                         \
        }                                                                                                                          \
        if ((result = creation_begin(&creation, dev)) != CUDA_SUCCESS)                                                             \
            return result;                                                                                                         \
        pctx = told ? &context : NULL;                                                                                             \
        do                                                                                                                         \
            result = real.symbol arguments;                                                                                        \
        while (creation_again(&creation, result));                                                                                 \
        if (!creation_end(&creation, result, context)) {                                                                           \
            real.cuCtxDestroy_v2(context);                                                                                         \
            creation_undone(&creation);                                                                                            \
            return CUDA_ERROR_OUT_OF_MEMORY;                                                                                       \
        }                                                                                                                          \
        if (result == CUDA_SUCCESS) {                                                                                              \
            mark_context_made(context);                                                                                            \
            *told = context;                                                                                                       \
        }                                                                                                                          \
        return result;                                                                                                             \
    }

CREATE(cuCtxCreate, (CUcontext * pctx, unsigned int flags, CUdevice dev), (pctx, flags, dev))
CREATE(cuCtxCreate_v2, (CUcontext * pctx, unsigned int flags, CUdevice dev), (pctx, flags, dev))
CREATE(cuCtxCreate_v3, (CUcontext * pctx, CUexecAffinityParam *affinity, int affinities, unsigned int flags, CUdevice dev),
       (pctx, affinity, affinities, flags, dev))
CREATE(cuCtxCreate_v4, (CUcontext * pctx, CUctxCreateParams *params, unsigned int flags, CUdevice dev), (pctx, params, flags, dev))

#define DESTROY(symbol)                                                                                                            \
    CUresult symbol(CUcontext ctx)                                                                                                 \
    {                                                                                                                              \
        struct ending ending;                                                                                                      \
                                                                                                                                   \
        if (!guard_acts(RESOLVE_ANY))                                                                                              \
            return real.symbol(ctx);                                                                                               \
        bool charged = guard_acts(RESOLVE_VRAM);                                                                                   \
        if (charged)                                                                                                               \
            ending_begin(&ending, ctx);                                                                                            \
        mark_context_ending(ctx);                                                                                                  \
        CUresult result = real.symbol(ctx);                                                                                        \
        mark_context_ended(ctx, result == CUDA_SUCCESS || result == CUDA_ERROR_DEINITIALIZED);                                     \
        if (charged)                                                                                                               \
            ending_end(&ending, result);                                                                                           \
        return result;                                                                                                             \
    }

DESTROY(cuCtxDestroy)
DESTROY(cuCtxDestroy_v2)

/* Lowers a usage count, and destroys the context at the last: whether it did is seen by asking for its version. */
CUresult cuCtxDetach(CUcontext ctx)
{
    struct ending ending;
    unsigned int version;

    if (!guard_acts(RESOLVE_ANY))
        return real.cuCtxDetach(ctx);
    bool charged = guard_acts(RESOLVE_VRAM);
    if (charged)
        ending_begin(&ending, ctx);
    mark_context_ending(ctx);
    CUresult result = real.cuCtxDetach(ctx);
    bool alive = result == CUDA_SUCCESS && called.cuCtxGetApiVersion(ctx, &version) == CUDA_SUCCESS;
    mark_context_ended(ctx, result == CUDA_SUCCESS && !alive);
    if (charged)
        ending_end(&ending, alive ? CUDA_ERROR_CONTEXT_IS_DESTROYED : result);
    return result;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev)
{
    struct creation creation;
    CUcontext context = NULL;
    CUresult result;

    if (!guard_acts(RESOLVE_VRAM)) {
        result = real.cuDevicePrimaryCtxRetain(pctx, dev);
        if (result == CUDA_SUCCESS)
            mark_context_made(*pctx);
        return result;
    }
    if ((result = creation_begin_primary(&creation, dev)) != CUDA_SUCCESS)
        return result;
    do
        result = real.cuDevicePrimaryCtxRetain(pctx ? &context : NULL, dev);
    while (creation_again(&creation, result));
    if (!creation_end_primary(&creation, result, context)) {
        real.cuDevicePrimaryCtxRelease_v2(dev);
        creation_undone(&creation);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (result == CUDA_SUCCESS) {
        mark_context_made(context);
        *pctx = context;
    }
    return result;
}

/* The primary context while it is active, else NULL. */
static CUcontext primary_of(CUdevice dev)
{
    CUcontext context = NULL;
    unsigned int flags;
    int active = 0;

    if (!mark_contexts() || called.cuDevicePrimaryCtxGetState(dev, &flags, &active) != CUDA_SUCCESS || !active)
        return NULL;
    guard_enter();
    if (real.cuDevicePrimaryCtxRetain(&context, dev) == CUDA_SUCCESS)
        real.cuDevicePrimaryCtxRelease_v2(dev);
    guard_leave();
    return context;
}

static CUresult end_primary(CUdevice dev, CUresult (*call)(CUdevice), bool reset)
{
    bool charged = guard_acts(RESOLVE_VRAM);
    uint64_t context = charged ? context_primary_ending(dev) : 0;
    CUcontext marked = primary_of(dev);
    unsigned int flags;
    int active = 0;

    mark_context_ending(marked);
    guard_enter();
    CUresult result = call(dev);
    if (marked && !reset)
        called.cuDevicePrimaryCtxGetState(dev, &flags, &active);
    guard_leave();
    mark_context_ended(marked, result == CUDA_SUCCESS && !active);
    if (charged)
        context_primary_ended(dev, context, result, reset);
    return result;
}

#define END_PRIMARY(symbol, reset)                                                                                                 \
    CUresult symbol(CUdevice dev)                                                                                                  \
    {                                                                                                                              \
        return guard_acts(RESOLVE_ANY) ? end_primary(dev, real.symbol, reset) : real.symbol(dev);                                  \
    }

END_PRIMARY(cuDevicePrimaryCtxRelease, false)
END_PRIMARY(cuDevicePrimaryCtxRelease_v2, false)
END_PRIMARY(cuDevicePrimaryCtxReset, true)
END_PRIMARY(cuDevicePrimaryCtxReset_v2, true)

/* At a synchronisation the driver gives back what its pools no longer use. */
#define SYNCHRONIZE(symbol, parameters, arguments, context)                                                                        \
    CUresult symbol parameters                                                                                                     \
    {                                                                                                                              \
        uint64_t entered = gate_enters();                                                                                          \
        CUresult result = real.symbol arguments;                                                                                   \
                                                                                                                                   \
        if (result == CUDA_SUCCESS)                                                                                                \
            gate_synchronised_context(context, entered);                                                                           \
        if (result == CUDA_SUCCESS && guard_acts(RESOLVE_VRAM))                                                                    \
            meters_read_released();                                                                                                \
        return result;                                                                                                             \
    }

SYNCHRONIZE(cuCtxSynchronize, (void), (), NULL)
SYNCHRONIZE(cuCtxSynchronize_v2, (CUcontext ctx), (ctx), ctx)

/* A green context's record tells on which device it retains the primary context. It is no context's: it lives until it is destroyed. */
static bool green_enter(CUgreenCtx green, int device)
{
    struct record record = {.key = (uint64_t)(uintptr_t)green, .device = (uint16_t)device, .family = QUOTA_CONTEXT}, old;

    return device == PROCESS_NO_DEVICE || records_put(process_handles(), &record, &old) >= 0;
}

/* A green context retains the primary context, and is charged as that is, if it makes it active. What it takes beside that is in the driver's
 * figure, and so is its own CUcontext: no further full one. */
CUresult cuGreenCtxCreate(CUgreenCtx *phCtx, CUdevResourceDesc desc, CUdevice dev, unsigned int flags)
{
    struct creation creation;
    struct growth growth;
    CUgreenCtx green = phCtx ? *phCtx : NULL;
    CUcontext primary = NULL;
    CUresult result;

    /* Before it can be had: its CUcontext is asked for by a function that is not hooked. */
    mark_context_made(NULL);
    if (!guard_acts(RESOLVE_VRAM))
        return real.cuGreenCtxCreate(phCtx, desc, dev, flags);
    if ((result = creation_begin_primary(&creation, dev)) != CUDA_SUCCESS)
        return result;
    growth_begin(&growth, creation.device);
    do
        result = real.cuGreenCtxCreate(phCtx ? &green : NULL, desc, dev, flags);
    while (creation_again(&creation, result));
    /* Which context that is: it is retained already, so this takes nothing. */
    if (result == CUDA_SUCCESS && real.cuDevicePrimaryCtxRetain(&primary, dev) == CUDA_SUCCESS)
        real.cuDevicePrimaryCtxRelease_v2(dev);
    bool fits = creation_end_primary(&creation, result, primary);
    if (!growth_end(&growth, fits ? result : CUDA_ERROR_OUT_OF_MEMORY, 0) || !fits ||
        (result == CUDA_SUCCESS && !green_enter(green, creation.device))) {
        uint64_t charged = context_primary_ending(dev);
        CUstreamCaptureMode mode = relaxed_enter();
        real.cuGreenCtxDestroy(green);
        relaxed_leave(mode);
        context_primary_ended(dev, charged, CUDA_SUCCESS, false);
        creation_undone(&creation);
        growth_undone(&growth);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (phCtx)
        *phCtx = green;
    return result;
}

CUresult cuGreenCtxDestroy(CUgreenCtx hCtx)
{
    struct membership *m;
    struct ending ending;
    struct record green;
    CUcontext context = NULL;

    if (!guard_acts(RESOLVE_ANY))
        return real.cuGreenCtxDestroy(hCtx);
    m = process_membership(NULL);
    if (!guard_acts(RESOLVE_VRAM) || !m || !hCtx || !records_take(process_handles(), (uint64_t)(uintptr_t)hCtx, &green)) {
        called.cuCtxFromGreenCtx(&context, hCtx);
        mark_context_ending(context);
        CUresult result = real.cuGreenCtxDestroy(hCtx);
        mark_context_ended(context, result == CUDA_SUCCESS);
        return result;
    }
    uint64_t primary = context_primary_ending(m->device[green.device]);
    called.cuCtxFromGreenCtx(&context, hCtx);
    ending_begin(&ending, context);
    mark_context_ending(context);
    CUresult result = real.cuGreenCtxDestroy(hCtx);
    mark_context_ended(context, result == CUDA_SUCCESS);
    ending_end(&ending, result);
    if (result != CUDA_SUCCESS && result != CUDA_ERROR_DEINITIALIZED)
        green_enter(hCtx, green.device);
    context_primary_ended(m->device[green.device], primary, result, false);
    return result;
}

/* Stacks, heaps and buffers: how much a limit comes to is the driver's affair. Over the budget the old limit is set back. */
CUresult cuCtxSetLimit(CUlimit limit, size_t value)
{
    struct growth growth;
    size_t before;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuCtxSetLimit(limit, value);
    bool known = called.cuCtxGetLimit(&before, limit) == CUDA_SUCCESS;
    growth_begin(&growth, GAP_CURRENT);
    CUresult result = real.cuCtxSetLimit(limit, value);
    if (growth_end(&growth, result, 0))
        return result;
    if (known) {
        CUstreamCaptureMode mode = relaxed_enter();
        real.cuCtxSetLimit(limit, before);
        relaxed_leave(mode);
    }
    growth_undone(&growth);
    return known ? CUDA_ERROR_OUT_OF_MEMORY : result;
}
