/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts and primary contexts: creation is charged, the end refunds the context and all that it owns. */
#include "../context.h"
#include "../guard.h"
#include "../meter.h"

/* A context creation: the ABIs differ in their parameters alone. One that is refused after the driver made it leaves the output as it was. */
#define CREATE(symbol, parameters, arguments)                                                                                      \
    CUresult symbol parameters                                                                                                     \
    {                                                                                                                              \
        struct creation creation;                                                                                                  \
        CUcontext context = NULL, *told = pctx;                                                                                    \
        CUresult result;                                                                                                           \
                                                                                                                                   \
        if (!guard_acts(RESOLVE_VRAM))                                                                                             \
            return real.symbol arguments;                                                                                          \
        if ((result = creation_begin(&creation, dev)) != CUDA_SUCCESS)                                                             \
            return result;                                                                                                         \
        pctx = told ? &context : NULL;                                                                                             \
        do                                                                                                                         \
            result = real.symbol arguments;                                                                                        \
        while (creation_again(&creation, result));                                                                                 \
        if (!creation_end(&creation, result, context)) {                                                                           \
            real.cuCtxDestroy_v2(context);                                                                                         \
            return CUDA_ERROR_OUT_OF_MEMORY;                                                                                       \
        }                                                                                                                          \
        if (result == CUDA_SUCCESS)                                                                                                \
            *told = context;                                                                                                       \
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
        if (!guard_acts(RESOLVE_VRAM))                                                                                             \
            return real.symbol(ctx);                                                                                               \
        ending_begin(&ending, ctx);                                                                                                \
        CUresult result = real.symbol(ctx);                                                                                        \
        ending_end(&ending, result);                                                                                               \
        return result;                                                                                                             \
    }

DESTROY(cuCtxDestroy)
DESTROY(cuCtxDestroy_v2)

/* Lowers a usage count, and destroys the context at the last: whether it did is seen by asking for its version. */
CUresult cuCtxDetach(CUcontext ctx)
{
    struct ending ending;
    unsigned int version;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuCtxDetach(ctx);
    ending_begin(&ending, ctx);
    CUresult result = real.cuCtxDetach(ctx);
    bool alive = result == CUDA_SUCCESS && called.cuCtxGetApiVersion(ctx, &version) == CUDA_SUCCESS;
    ending_end(&ending, alive ? CUDA_ERROR_CONTEXT_IS_DESTROYED : result);
    return result;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev)
{
    struct creation creation;
    CUcontext context = NULL;
    CUresult result;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuDevicePrimaryCtxRetain(pctx, dev);
    if ((result = creation_begin_primary(&creation, dev)) != CUDA_SUCCESS)
        return result;
    do
        result = real.cuDevicePrimaryCtxRetain(pctx ? &context : NULL, dev);
    while (creation_again(&creation, result));
    if (!creation_end_primary(&creation, result, context)) {
        real.cuDevicePrimaryCtxRelease_v2(dev);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (result == CUDA_SUCCESS)
        *pctx = context;
    return result;
}

#define END_PRIMARY(symbol, reset)                                                                                                 \
    CUresult symbol(CUdevice dev)                                                                                                  \
    {                                                                                                                              \
        if (!guard_acts(RESOLVE_VRAM))                                                                                             \
            return real.symbol(dev);                                                                                               \
        uint64_t context = context_primary_ending(dev);                                                                            \
        guard_enter();                                                                                                             \
        CUresult result = real.symbol(dev);                                                                                        \
        guard_leave();                                                                                                             \
        context_primary_ended(dev, context, result, reset);                                                                        \
        return result;                                                                                                             \
    }

END_PRIMARY(cuDevicePrimaryCtxRelease, false)
END_PRIMARY(cuDevicePrimaryCtxRelease_v2, false)
END_PRIMARY(cuDevicePrimaryCtxReset, true)
END_PRIMARY(cuDevicePrimaryCtxReset_v2, true)

/* At a synchronisation the driver gives back what its pools no longer use. */
#define SYNCHRONIZE(symbol, parameters, arguments)                                                                                 \
    CUresult symbol parameters                                                                                                     \
    {                                                                                                                              \
        CUresult result = real.symbol arguments;                                                                                   \
                                                                                                                                   \
        if (result == CUDA_SUCCESS && guard_acts(RESOLVE_VRAM))                                                                    \
            meters_read_released();                                                                                                \
        return result;                                                                                                             \
    }

SYNCHRONIZE(cuCtxSynchronize, (void), ())
SYNCHRONIZE(cuCtxSynchronize_v2, (CUcontext ctx), (ctx))
