/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays and mipmapped arrays: their sizes, their memory, their descriptors. */
#include <stdlib.h>
#include <string.h>

#include "array.h"

#define API_V2 3020

/* Bytes of one channel; 0: a format without a model. */
static unsigned int format_bytes(CUarray_format format)
{
    switch (format) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
    case CU_AD_FORMAT_SIGNED_INT8:
        return 1;
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF:
        return 2;
    case CU_AD_FORMAT_UNSIGNED_INT32:
    case CU_AD_FORMAT_SIGNED_INT32:
    case CU_AD_FORMAT_FLOAT:
        return 4;
    default:
        return 0;
    }
}

static CUresult measure(struct sim_array *a)
{
    const CUDA_ARRAY3D_DESCRIPTOR *d = &a->desc;
    unsigned int bytes = format_bytes(d->Format);
    uint64_t rows = d->Height ? d->Height : 1, planes = d->Depth ? d->Depth : 1;

    if (!bytes)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (!d->Width || (d->NumChannels != 1 && d->NumChannels != 2 && d->NumChannels != 4))
        return CUDA_ERROR_INVALID_VALUE;
    /* Sides of at most 2^20 elements of 16 bytes: the size of a plane has 44 bits, that of all of them may have 65. */
    if (d->Width > (size_t)1 << 20 || rows > (uint64_t)1 << 20 || planes > (uint64_t)1 << 20)
        return CUDA_ERROR_INVALID_VALUE;
    a->pitch = d->Width * bytes * d->NumChannels;
    a->slice = a->pitch * rows;
    if (__builtin_mul_overflow(a->slice, planes, &a->size))
        return CUDA_ERROR_OUT_OF_MEMORY;
    return CUDA_SUCCESS;
}

static size_t half(size_t side, unsigned int level)
{
    return !side ? 0 : side >> level ? side >> level : 1;
}

CUDA_ARRAY3D_DESCRIPTOR sim_level_desc(const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned int level)
{
    CUDA_ARRAY3D_DESCRIPTOR d = *desc;

    d.Width = half(d.Width, level);
    d.Height = half(d.Height, level);
    if (!(d.Flags & CUDA_ARRAY3D_LAYERED))
        d.Depth = half(d.Depth, level);
    return d;
}

unsigned int sim_array_element(const CUDA_ARRAY3D_DESCRIPTOR *desc)
{
    return format_bytes(desc->Format) * desc->NumChannels;
}

/* HBM, or addresses for an array whose memory comes from tile pools. */
static CUresult memory_of(struct sim_ctx *ctx, const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned int levels, uint64_t size,
                          struct sim_tiles *tiles, struct sim_mem **mem)
{
    CUresult r;

    if (!(desc->Flags & SIM_UNMAPPED)) {
        r = sim_mem_alloc(ctx, size, false, SIM_MEM_DEVICE, mem);
        if (r == CUDA_SUCCESS)
            (*mem)->kind = SIM_MEM_ARRAY;
        return r;
    }
    r = sim_tiles_init(tiles, desc, levels, size);
    if (r != CUDA_SUCCESS)
        return r;
    *mem = sim_mem_new(SIM_MEM_ARRAY, ctx->dev, ctx, 0, size);
    if (*mem)
        return CUDA_SUCCESS;
    sim_tiles_free(tiles);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult create(CUarray *handle, const CUDA_ARRAY3D_DESCRIPTOR *desc)
{
    struct sim_ctx *ctx;
    struct sim_array tmp = {.desc = *desc}, *a;
    CUresult r;

    CONTEXT(ctx);
    r = measure(&tmp);
    if (r != CUDA_SUCCESS)
        return r;
    UNSAFE_IN_CAPTURE();
    r = memory_of(ctx, desc, 1, tmp.size, &tmp.tiles, &tmp.mem);
    if (r != CUDA_SUCCESS)
        return r;
    tmp.base = tmp.mem->base;
    a = sim_handle_new(sizeof(*a), SIM_ARRAY, ctx);
    if (!a) {
        sim_mem_free(tmp.mem);
        sim_tiles_free(&tmp.tiles);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    tmp.head = a->head;
    *a = tmp;
    *handle = (CUarray)a;
    return CUDA_SUCCESS;
}

/* The first ABI exists for contexts of that ABI only. */
static CUresult need_v1(void)
{
    struct sim_ctx *ctx;

    CONTEXT(ctx);
    return ctx->api_version >= API_V2 ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}

CUresult cuArrayCreate_v2(CUarray *pHandle, const CUDA_ARRAY_DESCRIPTOR *pAllocateArray)
{
    ENTER();
    SIM_GUARD();
    if (!pHandle || !pAllocateArray)
        return CUDA_ERROR_INVALID_VALUE;
    return create(pHandle, &(CUDA_ARRAY3D_DESCRIPTOR){.Width = pAllocateArray->Width,
                                                      .Height = pAllocateArray->Height,
                                                      .Format = pAllocateArray->Format,
                                                      .NumChannels = pAllocateArray->NumChannels});
}

CUresult cuArrayCreate(CUarray *pHandle, const CUDA_ARRAY_DESCRIPTOR_v1 *pAllocateArray)
{
    CUresult r;

    ENTER();
    SIM_GUARD();
    r = need_v1();
    if (r != CUDA_SUCCESS)
        return r;
    if (!pHandle || !pAllocateArray)
        return CUDA_ERROR_INVALID_VALUE;
    return create(pHandle, &(CUDA_ARRAY3D_DESCRIPTOR){.Width = pAllocateArray->Width,
                                                      .Height = pAllocateArray->Height,
                                                      .Format = pAllocateArray->Format,
                                                      .NumChannels = pAllocateArray->NumChannels});
}

CUresult cuArray3DCreate_v2(CUarray *pHandle, const CUDA_ARRAY3D_DESCRIPTOR *pAllocateArray)
{
    ENTER();
    SIM_GUARD();
    if (!pHandle || !pAllocateArray)
        return CUDA_ERROR_INVALID_VALUE;
    return create(pHandle, pAllocateArray);
}

CUresult cuArray3DCreate(CUarray *pHandle, const CUDA_ARRAY3D_DESCRIPTOR_v1 *pAllocateArray)
{
    CUresult r;

    ENTER();
    SIM_GUARD();
    r = need_v1();
    if (r != CUDA_SUCCESS)
        return r;
    if (!pHandle || !pAllocateArray)
        return CUDA_ERROR_INVALID_VALUE;
    return create(pHandle, &(CUDA_ARRAY3D_DESCRIPTOR){.Width = pAllocateArray->Width,
                                                      .Height = pAllocateArray->Height,
                                                      .Depth = pAllocateArray->Depth,
                                                      .Format = pAllocateArray->Format,
                                                      .NumChannels = pAllocateArray->NumChannels,
                                                      .Flags = pAllocateArray->Flags});
}

static void array_free(struct sim_array *a)
{
    if (a->mem && !a->level)
        sim_mem_free(a->mem);
    sim_tiles_free(&a->tiles);
    sim_handle_free(a);
}

CUresult cuArrayDestroy(CUarray hArray)
{
    struct sim_array *a;

    ENTER();
    SIM_GUARD();
    a = sim_handle_find(hArray, SIM_ARRAY);
    if (!a || a->level)
        return CUDA_ERROR_INVALID_HANDLE;
    UNSAFE_IN_CAPTURE();
    sim_context_wait(a->head.ctx);
    array_free(a);
    return CUDA_SUCCESS;
}

CUresult cuArrayGetDescriptor_v2(CUDA_ARRAY_DESCRIPTOR *pArrayDescriptor, CUarray hArray)
{
    struct sim_array *a;

    ENTER();
    SIM_GUARD();
    if (!pArrayDescriptor)
        return CUDA_ERROR_INVALID_VALUE;
    a = sim_handle_find(hArray, SIM_ARRAY);
    if (!a)
        return CUDA_ERROR_INVALID_HANDLE;
    *pArrayDescriptor = (CUDA_ARRAY_DESCRIPTOR){
        .Width = a->desc.Width, .Height = a->desc.Height, .Format = a->desc.Format, .NumChannels = a->desc.NumChannels};
    return CUDA_SUCCESS;
}

CUresult cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR *pArrayDescriptor, CUarray hArray)
{
    struct sim_array *a;

    ENTER();
    SIM_GUARD();
    if (!pArrayDescriptor)
        return CUDA_ERROR_INVALID_VALUE;
    a = sim_handle_find(hArray, SIM_ARRAY);
    if (!a)
        return CUDA_ERROR_INVALID_HANDLE;
    *pArrayDescriptor = a->desc;
    return CUDA_SUCCESS;
}

static CUresult requirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *out, unsigned int flags, uint64_t size, CUdevice device)
{
    if (!out || !(flags & CUDA_ARRAY3D_DEFERRED_MAPPING))
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_device_valid(device))
        return CUDA_ERROR_INVALID_DEVICE;
    memset(out, 0, sizeof(*out));
    out->alignment = sim_granularity();
    out->size = sim_round_up(size, sim_granularity());
    return CUDA_SUCCESS;
}

CUresult cuArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *memoryRequirements, CUarray array, CUdevice device)
{
    struct sim_array *a;

    ENTER();
    SIM_GUARD();
    a = sim_handle_find(array, SIM_ARRAY);
    if (!a)
        return CUDA_ERROR_INVALID_HANDLE;
    return requirements(memoryRequirements, a->desc.Flags, a->size, device);
}

void sim_mipmap_free(struct sim_mipmap *m)
{
    for (unsigned int i = 0; i < m->levels; i++)
        if (m->level[i])
            array_free(m->level[i]);
    if (m->mem)
        sim_mem_free(m->mem);
    sim_tiles_free(&m->tiles);
    sim_handle_free(m);
}

CUresult sim_mipmap_new(struct sim_ctx *ctx, const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned int levels, struct sim_mipmap **out)
{
    struct sim_mipmap *m = sim_handle_new(sizeof(*m), SIM_MIPMAP, ctx);
    CUresult r = CUDA_SUCCESS;
    uint64_t at = 0;

    if (!m)
        return CUDA_ERROR_OUT_OF_MEMORY;
    m->desc = *desc;
    for (unsigned int i = 0; r == CUDA_SUCCESS && i < levels && i < SIM_MAX_LEVELS; i++) {
        struct sim_array *a = sim_handle_new(sizeof(*a), SIM_ARRAY, ctx);

        if (!a) {
            r = CUDA_ERROR_OUT_OF_MEMORY;
            break;
        }
        m->level[m->levels++] = a;
        a->level = true;
        a->desc = sim_level_desc(desc, i);
        r = measure(a);
        a->base = at;
        at += sim_round_up(a->size, 512);
        /* More levels than the largest side has halves are cut off. */
        if (a->desc.Width <= 1 && a->desc.Height <= 1 && a->desc.Depth <= 1)
            break;
    }
    m->size = at;
    if (r != CUDA_SUCCESS)
        sim_mipmap_free(m);
    else
        *out = m;
    return r;
}

void sim_mipmap_attach(struct sim_mipmap *m, struct sim_mem *mem)
{
    m->mem = mem;
    mem->kind = SIM_MEM_ARRAY;
    for (unsigned int i = 0; i < m->levels; i++) {
        m->level[i]->mem = mem;
        m->level[i]->base += mem->base;
    }
}

CUresult cuMipmappedArrayCreate(CUmipmappedArray *pHandle, const CUDA_ARRAY3D_DESCRIPTOR *pMipmappedArrayDesc,
                                unsigned int numMipmapLevels)
{
    struct sim_ctx *ctx;
    struct sim_mem *mem;
    struct sim_mipmap *m;
    CUresult r;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    if (!pHandle || !pMipmappedArrayDesc || !numMipmapLevels)
        return CUDA_ERROR_INVALID_VALUE;
    UNSAFE_IN_CAPTURE();
    r = sim_mipmap_new(ctx, pMipmappedArrayDesc, numMipmapLevels, &m);
    if (r == CUDA_SUCCESS) {
        r = memory_of(ctx, &m->desc, m->levels, m->size, &m->tiles, &mem);
        if (r == CUDA_SUCCESS)
            sim_mipmap_attach(m, mem);
        else
            sim_mipmap_free(m);
    }
    if (r == CUDA_SUCCESS)
        *pHandle = (CUmipmappedArray)m;
    return r;
}

CUresult cuMipmappedArrayGetLevel(CUarray *pLevelArray, CUmipmappedArray hMipmappedArray, unsigned int level)
{
    struct sim_mipmap *m;

    ENTER();
    SIM_GUARD();
    m = sim_handle_find(hMipmappedArray, SIM_MIPMAP);
    if (!m)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!pLevelArray || level >= m->levels)
        return CUDA_ERROR_INVALID_VALUE;
    *pLevelArray = (CUarray)m->level[level];
    return CUDA_SUCCESS;
}

CUresult cuMipmappedArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *memoryRequirements, CUmipmappedArray mipmap,
                                               CUdevice device)
{
    struct sim_mipmap *m;

    ENTER();
    SIM_GUARD();
    m = sim_handle_find(mipmap, SIM_MIPMAP);
    if (!m)
        return CUDA_ERROR_INVALID_HANDLE;
    return requirements(memoryRequirements, m->desc.Flags, m->size, device);
}

CUresult cuMipmappedArrayDestroy(CUmipmappedArray hMipmappedArray)
{
    struct sim_mipmap *m;

    ENTER();
    SIM_GUARD();
    m = sim_handle_find(hMipmappedArray, SIM_MIPMAP);
    if (!m)
        return CUDA_ERROR_INVALID_HANDLE;
    UNSAFE_IN_CAPTURE();
    sim_context_wait(m->head.ctx);
    sim_mipmap_free(m);
    return CUDA_SUCCESS;
}

void sim_arrays_free_context(struct sim_ctx *ctx)
{
    struct sim_mipmap *m;
    struct sim_array *a;

    while ((m = sim_handle_first(SIM_MIPMAP, ctx)))
        sim_mipmap_free(m);
    while ((a = sim_handle_first(SIM_ARRAY, ctx)))
        array_free(a);
}
