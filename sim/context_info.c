/* SPDX-License-Identifier: Apache-2.0 */
/* What a context can be asked and told: device, flags, limits, synchronisation, peers. */
#include <string.h>

#include "sim.h"

#define RESIDENT_THREADS ((uint64_t)108 * 2048)

const size_t sim_limit_default[CU_LIMIT_MAX] = {
    [CU_LIMIT_STACK_SIZE] = 1024,
    [CU_LIMIT_PRINTF_FIFO_SIZE] = 8 << 20,
    [CU_LIMIT_MALLOC_HEAP_SIZE] = 8 << 20,
    [CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH] = 2,
    [CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT] = 2048,
    [CU_LIMIT_MAX_L2_FETCH_GRANULARITY] = 64,
};

static CUresult get_device(CUdevice *device, CUcontext ctx)
{
    struct sim_ctx *c;
    CUresult r;
    SIM_GUARD();

    if (!device)
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_context_of(ctx, &c);
    if (r == CUDA_SUCCESS)
        *device = c->dev;
    return r;
}

CUresult cuCtxGetDevice(CUdevice *device)
{
    ENTER();
    return get_device(device, NULL);
}

CUresult cuCtxGetDevice_v2(CUdevice *device, CUcontext ctx)
{
    ENTER();
    return get_device(device, ctx);
}

CUresult cuCtxGetFlags(unsigned int *flags)
{
    struct sim_ctx *c;

    ENTER();
    SIM_GUARD();
    if (!flags)
        return CUDA_ERROR_INVALID_VALUE;
    CONTEXT(c);
    *flags = c->flags;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetFlags(unsigned int flags)
{
    struct sim_ctx *c;

    ENTER();
    SIM_GUARD();
    CONTEXT(c);
    c->flags = flags;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetId(CUcontext ctx, unsigned long long *ctxId)
{
    struct sim_ctx *c;
    CUresult r;

    ENTER();
    SIM_GUARD();
    if (!ctxId)
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_context_of(ctx, &c);
    if (r == CUDA_SUCCESS)
        *ctxId = c->id;
    return r;
}

static CUresult synchronize(CUcontext ctx)
{
    struct sim_ctx *c;
    CUresult r;
    SIM_GUARD();

    r = sim_context_of(ctx, &c);
    if (r != CUDA_SUCCESS)
        return r;
    UNSAFE_IN_CAPTURE();
    sim_context_wait(c);
    sim_pools_synchronised();
    return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize(void)
{
    ENTER();
    return synchronize(NULL);
}

CUresult cuCtxSynchronize_v2(CUcontext ctx)
{
    ENTER();
    return synchronize(ctx);
}

/* What a limit costs above its default, which the context has paid for (assumed, all of it): a stack for each thread that the GPU can
 * hold, the heap and the buffer byte by byte, and 1 KiB a pending launch. */
static bool limits_bytes(const size_t *limits, uint64_t *bytes)
{
    static const struct {
        CUlimit limit;
        uint64_t unit;
    } cost[] = {{CU_LIMIT_STACK_SIZE, RESIDENT_THREADS},
                {CU_LIMIT_PRINTF_FIFO_SIZE, 1},
                {CU_LIMIT_MALLOC_HEAP_SIZE, 1},
                {CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT, 1024}};

    *bytes = 0;
    for (size_t i = 0; i < SIM_ARRAY_SIZE(cost); i++) {
        size_t value = limits[cost[i].limit], otherwise = sim_limit_default[cost[i].limit];

        if (value > (uint64_t)1 << 46)
            return false;
        *bytes += value > otherwise ? (value - otherwise) * cost[i].unit : 0;
    }
    *bytes = sim_round_up(*bytes, sim_granularity());
    return true;
}

CUresult cuCtxSetLimit(CUlimit limit, size_t value)
{
    size_t limits[CU_LIMIT_MAX];
    struct sim_ctx *c;
    uint64_t bytes;

    ENTER();
    SIM_GUARD();
    CONTEXT(c);
    /* "Only applicable to devices of compute capability < 9.0". */
    if ((unsigned int)limit >= CU_LIMIT_MAX || limit == CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH)
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    /* "If necessary, the device will block until all preceding requested tasks are complete". */
    if (limit == CU_LIMIT_STACK_SIZE)
        sim_context_wait(c);
    memcpy(limits, c->limits, sizeof(limits));
    limits[limit] = value;
    if (!limits_bytes(limits, &bytes) || (bytes > c->limits_bytes && !sim_hbm_take(c->dev, bytes - c->limits_bytes)))
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (bytes < c->limits_bytes)
        sim_hbm_give(c->dev, c->limits_bytes - bytes);
    c->limits_bytes = bytes;
    c->limits[limit] = value;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetLimit(size_t *pvalue, CUlimit limit)
{
    struct sim_ctx *c;

    ENTER();
    SIM_GUARD();
    if (!pvalue)
        return CUDA_ERROR_INVALID_VALUE;
    CONTEXT(c);
    if ((unsigned int)limit >= CU_LIMIT_MAX)
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    *pvalue = c->limits[limit];
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCacheConfig(CUfunc_cache *pconfig)
{
    struct sim_ctx *c;

    ENTER();
    SIM_GUARD();
    if (!pconfig)
        return CUDA_ERROR_INVALID_VALUE;
    CONTEXT(c);
    *pconfig = c->cache_config;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCacheConfig(CUfunc_cache config)
{
    struct sim_ctx *c;

    ENTER();
    SIM_GUARD();
    CONTEXT(c);
    c->cache_config = config;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetSharedMemConfig(CUsharedconfig *pConfig)
{
    struct sim_ctx *c;

    ENTER();
    SIM_GUARD();
    if (!pConfig)
        return CUDA_ERROR_INVALID_VALUE;
    CONTEXT(c);
    *pConfig = c->shared_config;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetSharedMemConfig(CUsharedconfig config)
{
    struct sim_ctx *c;

    ENTER();
    SIM_GUARD();
    CONTEXT(c);
    c->shared_config = config;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetApiVersion(CUcontext ctx, unsigned int *version)
{
    struct sim_ctx *c;
    CUresult r;

    ENTER();
    SIM_GUARD();
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_context_of(ctx, &c);
    if (r == CUDA_SUCCESS)
        *version = c->api_version;
    return r;
}

CUresult cuCtxGetStreamPriorityRange(int *leastPriority, int *greatestPriority)
{
    struct sim_ctx *c;

    ENTER();
    SIM_GUARD();
    CONTEXT(c);
    if (leastPriority)
        *leastPriority = 0;
    if (greatestPriority)
        *greatestPriority = -5;
    return CUDA_SUCCESS;
}

CUresult cuCtxResetPersistingL2Cache(void)
{
    struct sim_ctx *c;

    ENTER();
    SIM_GUARD();
    CONTEXT(c);
    return CUDA_SUCCESS;
}

CUresult cuCtxEnablePeerAccess(CUcontext peerContext, unsigned int Flags)
{
    struct sim_ctx *c, *peer;

    ENTER();
    SIM_GUARD();
    if (Flags)
        return CUDA_ERROR_INVALID_VALUE;
    CONTEXT(c);
    if (!peerContext || sim_context_of(peerContext, &peer) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (peer->dev == c->dev)
        return CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
    if (c->peer[peer->dev])
        return CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
    c->peer[peer->dev] = true;
    return CUDA_SUCCESS;
}

CUresult cuCtxDisablePeerAccess(CUcontext peerContext)
{
    struct sim_ctx *c, *peer;

    ENTER();
    SIM_GUARD();
    CONTEXT(c);
    if (!peerContext || sim_context_of(peerContext, &peer) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!c->peer[peer->dev])
        return CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
    c->peer[peer->dev] = false;
    return CUDA_SUCCESS;
}
