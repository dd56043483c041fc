/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemAlloc and its kin, cuMemFree, cuMemGetInfo, cuMemGetAddressRange. */
#include <string.h>
#include <sys/mman.h>

#include "sim.h"

#define API_V2      3020
#define PITCH_ALIGN 512

/* The first ABI has 32-bit pointers: its memory functions refuse contexts that were made by a later one. */
static CUresult context_v1(struct sim_ctx **ctx)
{
    CUresult r = sim_context_current(ctx);

    if (r == CUDA_SUCCESS && (*ctx)->api_version >= API_V2)
        return CUDA_ERROR_INVALID_CONTEXT;
    return r;
}

CUresult cuMemAlloc_v2(CUdeviceptr *dptr, size_t bytesize)
{
    struct sim_ctx *ctx;
    struct sim_mem *mem;
    CUresult r;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    if (!dptr || !bytesize)
        return CUDA_ERROR_INVALID_VALUE;
    UNSAFE_IN_CAPTURE();
    r = sim_mem_alloc(ctx, bytesize, false, SIM_MEM_DEVICE, &mem);
    if (r == CUDA_SUCCESS)
        *dptr = mem->base;
    return r;
}

CUresult cuMemAlloc(CUdeviceptr_v1 *dptr, unsigned int bytesize)
{
    struct sim_ctx *ctx;
    struct sim_mem *mem;
    CUresult r;

    ENTER();
    SIM_GUARD();
    r = context_v1(&ctx);
    if (r != CUDA_SUCCESS)
        return r;
    if (!dptr || !bytesize)
        return CUDA_ERROR_INVALID_VALUE;
    UNSAFE_IN_CAPTURE();
    r = sim_mem_alloc(ctx, bytesize, true, SIM_MEM_DEVICE, &mem);
    if (r == CUDA_SUCCESS)
        *dptr = (CUdeviceptr_v1)mem->base;
    return r;
}

static CUresult alloc_pitch(struct sim_ctx *ctx, uint64_t width, uint64_t height, unsigned int element, bool low,
                            struct sim_mem **mem, uint64_t *pitch)
{
    if (!width || !height || (element != 4 && element != 8 && element != 16))
        return CUDA_ERROR_INVALID_VALUE;
    UNSAFE_IN_CAPTURE();
    *pitch = sim_round_up(width, PITCH_ALIGN);
    if (*pitch < width || height > UINT64_MAX / *pitch)
        return CUDA_ERROR_OUT_OF_MEMORY;
    return sim_mem_alloc(ctx, *pitch * height, low, SIM_MEM_DEVICE, mem);
}

CUresult cuMemAllocPitch_v2(CUdeviceptr *dptr, size_t *pPitch, size_t WidthInBytes, size_t Height, unsigned int ElementSizeBytes)
{
    struct sim_ctx *ctx;
    struct sim_mem *mem;
    uint64_t pitch;
    CUresult r;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    if (!dptr || !pPitch)
        return CUDA_ERROR_INVALID_VALUE;
    r = alloc_pitch(ctx, WidthInBytes, Height, ElementSizeBytes, false, &mem, &pitch);
    if (r != CUDA_SUCCESS)
        return r;
    *dptr = mem->base;
    *pPitch = pitch;
    return CUDA_SUCCESS;
}

CUresult cuMemAllocPitch(CUdeviceptr_v1 *dptr, unsigned int *pPitch, unsigned int WidthInBytes, unsigned int Height,
                         unsigned int ElementSizeBytes)
{
    struct sim_ctx *ctx;
    struct sim_mem *mem;
    uint64_t pitch;
    CUresult r;

    ENTER();
    SIM_GUARD();
    r = context_v1(&ctx);
    if (r != CUDA_SUCCESS)
        return r;
    if (!dptr || !pPitch)
        return CUDA_ERROR_INVALID_VALUE;
    r = alloc_pitch(ctx, WidthInBytes, Height, ElementSizeBytes, true, &mem, &pitch);
    if (r != CUDA_SUCCESS)
        return r;
    *dptr = (CUdeviceptr_v1)mem->base;
    *pPitch = (unsigned int)pitch;
    return CUDA_SUCCESS;
}

/* Managed memory lives on the host until it is prefetched. */
CUresult cuMemAllocManaged(CUdeviceptr *dptr, size_t bytesize, unsigned int flags)
{
    struct sim_ctx *ctx;
    struct sim_mem *mem;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    if (!dptr || !bytesize || (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST))
        return CUDA_ERROR_INVALID_VALUE;
    UNSAFE_IN_CAPTURE();
    if (bytesize > (size_t)1 << 46)
        return CUDA_ERROR_OUT_OF_MEMORY;
    mem = sim_mem_new(SIM_MEM_MANAGED, ctx->dev, ctx, 0, bytesize);
    if (!mem)
        return CUDA_ERROR_OUT_OF_MEMORY;
    mprotect((void *)(uintptr_t)mem->base, mem->reserved, PROT_READ | PROT_WRITE);
    mem->bytes = (unsigned char *)(uintptr_t)mem->base;
    mem->flags = flags;
    *dptr = mem->base;
    return CUDA_SUCCESS;
}

static CUresult mem_free(CUdeviceptr dptr)
{
    struct sim_mem *mem;

    if (!dptr)
        return CUDA_SUCCESS;
    mem = sim_mem_find(dptr);
    if (!mem || mem->base != dptr)
        return CUDA_ERROR_INVALID_VALUE;
    switch (mem->kind) {
    case SIM_MEM_DEVICE:
    case SIM_MEM_EXTERNAL:
    case SIM_MEM_MANAGED: {
        struct sim_ctx *ctx = mem->ctx;

        /* cuMemFree waits for work that may still use the memory. */
        if (ctx) {
            sim_context_wait(ctx);
            mem = sim_mem_find(dptr);
            if (!mem || mem->base != dptr)
                return CUDA_ERROR_INVALID_VALUE;
        }
        sim_mem_free(mem);
        return CUDA_SUCCESS;
    }
    case SIM_MEM_POOL:
        return sim_pool_free(mem);
    case SIM_MEM_GRAPH:
        return sim_graph_mem_free(mem);
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult cuMemFree_v2(CUdeviceptr dptr)
{
    struct sim_ctx *ctx;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    UNSAFE_IN_CAPTURE();
    return mem_free(dptr);
}

CUresult cuMemFree(CUdeviceptr_v1 dptr)
{
    struct sim_ctx *ctx;
    CUresult r;

    ENTER();
    SIM_GUARD();
    r = context_v1(&ctx);
    if (r != CUDA_SUCCESS)
        return r;
    UNSAFE_IN_CAPTURE();
    return mem_free(dptr);
}

/* Either output may be NULL. */
CUresult cuMemGetInfo_v2(size_t *free, size_t *total)
{
    struct sim_ctx *ctx;
    uint64_t f, t;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    sim_hbm_info(ctx->dev, &f, &t);
    if (free)
        *free = f;
    if (total)
        *total = t;
    return CUDA_SUCCESS;
}

CUresult cuMemGetInfo(unsigned int *free, unsigned int *total)
{
    struct sim_ctx *ctx;
    uint64_t f, t;
    CUresult r;

    ENTER();
    SIM_GUARD();
    r = context_v1(&ctx);
    if (r != CUDA_SUCCESS)
        return r;
    sim_hbm_info(ctx->dev, &f, &t);
    if (free)
        *free = f > UINT32_MAX ? UINT32_MAX : (unsigned int)f;
    if (total)
        *total = t > UINT32_MAX ? UINT32_MAX : (unsigned int)t;
    return CUDA_SUCCESS;
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr *pbase, size_t *psize, CUdeviceptr dptr)
{
    struct sim_ctx *ctx;
    struct sim_mem *mem;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    mem = sim_mem_find(dptr);
    if (!mem || mem->kind == SIM_MEM_REGISTERED || mem->kind == SIM_MEM_HOST)
        return CUDA_ERROR_NOT_FOUND;
    if (pbase)
        *pbase = mem->base;
    if (psize)
        *psize = mem->size;
    return CUDA_SUCCESS;
}

CUresult cuMemGetAddressRange(CUdeviceptr_v1 *pbase, unsigned int *psize, CUdeviceptr_v1 dptr)
{
    struct sim_ctx *ctx;
    struct sim_mem *mem;
    CUresult r;

    ENTER();
    SIM_GUARD();
    r = context_v1(&ctx);
    if (r != CUDA_SUCCESS)
        return r;
    mem = sim_mem_find(dptr);
    if (!mem)
        return CUDA_ERROR_NOT_FOUND;
    if (pbase)
        *pbase = (CUdeviceptr_v1)mem->base;
    if (psize)
        *psize = (unsigned int)mem->size;
    return CUDA_SUCCESS;
}
