/* SPDX-License-Identifier: Apache-2.0 */
/* Green contexts: a part of the SMs, here in name only, and a context of its own on top of the primary one. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define SMS      108
#define SM_ALIGN 8
#define API_V2   3020

struct sim_green {
    struct sim_object_head head;
    struct sim_ctx *ctx;
    CUdevResource resource;
};

/* What a descriptor handle points to. */
struct sim_resource {
    struct sim_object_head head;
    CUdevResource resource;
};

static CUdevResource sms(unsigned int count)
{
    CUdevResource r;

    memset(&r, 0, sizeof(r));
    r.type = CU_DEV_RESOURCE_TYPE_SM;
    r.sm.smCount = count;
    r.sm.minSmPartitionSize = SM_ALIGN;
    r.sm.smCoscheduledAlignment = SM_ALIGN;
    return r;
}

static CUresult check(const CUdevResource *resource, CUdevResourceType type)
{
    if (!resource)
        return CUDA_ERROR_INVALID_VALUE;
    return type == CU_DEV_RESOURCE_TYPE_SM ? CUDA_SUCCESS : CUDA_ERROR_INVALID_RESOURCE_TYPE;
}

CUresult cuDeviceGetDevResource(CUdevice device, CUdevResource *resource, CUdevResourceType type)
{
    CUresult r;

    ENTER();
    if (!sim_device_valid(device))
        return CUDA_ERROR_INVALID_DEVICE;
    r = check(resource, type);
    if (r == CUDA_SUCCESS)
        *resource = sms(SMS);
    return r;
}

static struct sim_green *green_of_context(const struct sim_ctx *ctx)
{
    for (struct sim_green *g = sim_handle_first(SIM_GREEN, NULL); g; g = sim_handle_next(g))
        if (g->ctx == ctx)
            return g;
    return NULL;
}

CUgreenCtx sim_green_of(const struct sim_ctx *ctx)
{
    return (CUgreenCtx)green_of_context(ctx);
}

CUresult cuCtxGetDevResource(CUcontext hCtx, CUdevResource *resource, CUdevResourceType type)
{
    struct sim_green *g;
    struct sim_ctx *ctx;
    CUresult r;

    ENTER();
    SIM_GUARD();
    r = sim_context_of(hCtx, &ctx);
    if (r == CUDA_SUCCESS)
        r = check(resource, type);
    if (r != CUDA_SUCCESS)
        return r;
    g = green_of_context(ctx);
    *resource = g ? g->resource : sms(SMS);
    return CUDA_SUCCESS;
}

CUresult cuGreenCtxGetDevResource(CUgreenCtx hCtx, CUdevResource *resource, CUdevResourceType type)
{
    struct sim_green *g;
    CUresult r;

    ENTER();
    SIM_GUARD();
    g = sim_handle_find(hCtx, SIM_GREEN);
    if (!g)
        return CUDA_ERROR_INVALID_CONTEXT;
    r = check(resource, type);
    if (r == CUDA_SUCCESS)
        *resource = g->resource;
    return r;
}

CUresult cuDevSmResourceSplitByCount(CUdevResource *result, unsigned int *nbGroups, const CUdevResource *input,
                                     CUdevResource *remaining, unsigned int useFlags, unsigned int minCount)
{
    unsigned int size = (minCount + SM_ALIGN - 1) / SM_ALIGN * SM_ALIGN, groups;

    ENTER();
    (void)useFlags;
    if (!nbGroups || !input || input->type != CU_DEV_RESOURCE_TYPE_SM || !input->sm.smCount || minCount > input->sm.smCount)
        return CUDA_ERROR_INVALID_VALUE;
    if (!size)
        size = SM_ALIGN;
    groups = input->sm.smCount / size;
    if (!result) {
        *nbGroups = groups;
        return CUDA_SUCCESS;
    }
    if (*nbGroups < groups)
        groups = *nbGroups;
    for (unsigned int i = 0; i < groups; i++)
        result[i] = sms(size);
    *nbGroups = groups;
    if (remaining)
        *remaining = sms(input->sm.smCount - groups * size);
    return CUDA_SUCCESS;
}

CUresult cuDevResourceGenerateDesc(CUdevResourceDesc *phDesc, CUdevResource *resources, unsigned int nbResources)
{
    struct sim_resource *d;
    unsigned int count = 0;

    ENTER();
    SIM_GUARD();
    if (!phDesc || !resources || !nbResources)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned int i = 0; i < nbResources; i++) {
        if (resources[i].type != CU_DEV_RESOURCE_TYPE_SM)
            return CUDA_ERROR_INVALID_RESOURCE_TYPE;
        count += resources[i].sm.smCount;
    }
    if (!count || count > SMS)
        return CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION;
    d = sim_handle_new(sizeof(*d), SIM_RESOURCE, NULL);
    if (!d)
        return CUDA_ERROR_OUT_OF_MEMORY;
    d->resource = sms(count);
    *phDesc = (CUdevResourceDesc)d;
    return CUDA_SUCCESS;
}

/* "This API will retain the primary context on device dev, which is released when the green context is destroyed." */
CUresult cuGreenCtxCreate(CUgreenCtx *phCtx, CUdevResourceDesc desc, CUdevice dev, unsigned int flags)
{
    struct sim_resource *d;
    struct sim_green *g;
    CUcontext primary;
    CUresult r;

    ENTER();
    SIM_GUARD();
    d = sim_handle_find(desc, SIM_RESOURCE);
    if (!phCtx || !d || flags != CU_GREEN_CTX_DEFAULT_STREAM)
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_primary_retain(&primary, dev);
    if (r != CUDA_SUCCESS)
        return r;
    g = sim_handle_new(sizeof(*g), SIM_GREEN, NULL);
    if (g)
        g->ctx = sim_context_new(dev, 0, API_V2, true);
    if (!g || !g->ctx) {
        if (g)
            sim_handle_free(g);
        sim_primary_release(dev);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    g->ctx->primary = true;
    g->resource = d->resource;
    *phCtx = (CUgreenCtx)g;
    return CUDA_SUCCESS;
}

CUresult cuGreenCtxDestroy(CUgreenCtx hCtx)
{
    struct sim_green *g;
    int dev;

    ENTER();
    SIM_GUARD();
    g = sim_handle_find(hCtx, SIM_GREEN);
    if (!g)
        return CUDA_ERROR_INVALID_CONTEXT;
    dev = g->ctx->dev;
    sim_context_destroy(g->ctx);
    sim_handle_free(g);
    return sim_primary_release(dev);
}

CUresult cuCtxFromGreenCtx(CUcontext *pContext, CUgreenCtx hCtx)
{
    struct sim_green *g;

    ENTER();
    SIM_GUARD();
    g = sim_handle_find(hCtx, SIM_GREEN);
    if (!pContext)
        return CUDA_ERROR_INVALID_VALUE;
    if (!g)
        return CUDA_ERROR_INVALID_CONTEXT;
    *pContext = (CUcontext)g->ctx;
    return CUDA_SUCCESS;
}

CUresult cuGreenCtxGetId(CUgreenCtx greenCtx, unsigned long long *greenCtxId)
{
    struct sim_green *g;

    ENTER();
    SIM_GUARD();
    g = sim_handle_find(greenCtx, SIM_GREEN);
    if (!g || !greenCtxId)
        return g ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_CONTEXT;
    *greenCtxId = g->ctx->id;
    return CUDA_SUCCESS;
}

/* "The stream must be non-blocking." */
CUresult cuGreenCtxStreamCreate(CUstream *phStream, CUgreenCtx greenCtx, unsigned int flags, int priority)
{
    struct sim_green *g;
    struct sim_stream *s;

    ENTER();
    SIM_GUARD();
    g = sim_handle_find(greenCtx, SIM_GREEN);
    if (!g)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!phStream || flags != CU_STREAM_NON_BLOCKING)
        return CUDA_ERROR_INVALID_VALUE;
    s = sim_stream_new(g->ctx, flags, priority > 0 ? 0 : priority);
    if (!s)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *phStream = (CUstream)s;
    return CUDA_SUCCESS;
}

CUresult cuStreamGetGreenCtx(CUstream hStream, CUgreenCtx *phCtx)
{
    struct sim_stream *s;

    ENTER();
    SIM_GUARD();
    if (!phCtx)
        return CUDA_ERROR_INVALID_VALUE;
    STREAM(s, hStream, false);
    *phCtx = (CUgreenCtx)green_of_context(s->head.ctx);
    return CUDA_SUCCESS;
}
