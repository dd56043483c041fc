/* SPDX-License-Identifier: Apache-2.0 */
/* External memory: here, what cuMemExportToShareableHandle exported, as an opaque file descriptor. */
#include <unistd.h>

#include "array.h"

#define PAGE 4096

struct sim_external {
    struct sim_object_head head;
    uint64_t object, size;
    int dev;
};

/* "Ownership of the file descriptor is transferred to the CUDA driver when the handle is imported successfully". */
CUresult cuImportExternalMemory(CUexternalMemory *extMem_out, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *memHandleDesc)
{
    struct sim_external *e = NULL;
    uint64_t id, size;
    int dev;

    ENTER();
    SIM_GUARD();
    if (!extMem_out || !memHandleDesc || (memHandleDesc->flags & ~(unsigned int)CUDA_EXTERNAL_MEMORY_DEDICATED))
        return CUDA_ERROR_INVALID_VALUE;
    if (memHandleDesc->type != CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD)
        return CUDA_ERROR_NOT_SUPPORTED;
    id = sim_share_id(memHandleDesc->handle.fd);
    if (!sim_share_hold(id, &size, &dev))
        return CUDA_ERROR_INVALID_VALUE;
    if (memHandleDesc->size && memHandleDesc->size <= size)
        e = sim_handle_new(sizeof(*e), SIM_EXTERNAL, NULL);
    if (!e) {
        sim_share_drop(id);
        return CUDA_ERROR_INVALID_VALUE;
    }
    e->object = id;
    e->size = memHandleDesc->size;
    e->dev = dev;
    close(memHandleDesc->handle.fd);
    *extMem_out = (CUexternalMemory)e;
    return CUDA_SUCCESS;
}

/* A part of it, with a hold of its own: it outlives the handle. Offsets are multiples of 4 KiB (assumed). */
static CUresult map(struct sim_external *e, struct sim_ctx *ctx, uint64_t offset, uint64_t size, struct sim_mem **mem)
{
    uint64_t whole;
    int dev;

    if (!size || offset % PAGE || size > e->size || offset > e->size - size)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_share_hold(e->object, &whole, &dev))
        return CUDA_ERROR_INVALID_HANDLE;
    *mem = sim_share_mem(SIM_MEM_EXTERNAL, dev, ctx, e->object, offset, size);
    if (!*mem) {
        sim_share_drop(e->object);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    return CUDA_SUCCESS;
}

CUresult cuExternalMemoryGetMappedBuffer(CUdeviceptr *devPtr, CUexternalMemory extMem,
                                         const CUDA_EXTERNAL_MEMORY_BUFFER_DESC *bufferDesc)
{
    struct sim_external *e;
    struct sim_mem *mem;
    struct sim_ctx *ctx;
    CUresult r;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    e = sim_handle_find(extMem, SIM_EXTERNAL);
    if (!e)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!devPtr || !bufferDesc || bufferDesc->flags)
        return CUDA_ERROR_INVALID_VALUE;
    r = map(e, ctx, bufferDesc->offset, bufferDesc->size, &mem);
    if (r == CUDA_SUCCESS)
        *devPtr = mem->base;
    return r;
}

CUresult cuExternalMemoryGetMappedMipmappedArray(CUmipmappedArray *mipmap, CUexternalMemory extMem,
                                                 const CUDA_EXTERNAL_MEMORY_MIPMAPPED_ARRAY_DESC *mipmapDesc)
{
    struct sim_external *e;
    struct sim_mipmap *m;
    struct sim_mem *mem;
    struct sim_ctx *ctx;
    CUresult r;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    e = sim_handle_find(extMem, SIM_EXTERNAL);
    if (!e)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!mipmap || !mipmapDesc || !mipmapDesc->numLevels)
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_mipmap_new(ctx, &mipmapDesc->arrayDesc, mipmapDesc->numLevels, &m);
    if (r != CUDA_SUCCESS)
        return r;
    r = map(e, ctx, mipmapDesc->offset, m->size, &mem);
    if (r != CUDA_SUCCESS) {
        sim_mipmap_free(m);
        return r;
    }
    sim_mipmap_attach(m, mem);
    *mipmap = (CUmipmappedArray)m;
    return CUDA_SUCCESS;
}

CUresult cuDestroyExternalMemory(CUexternalMemory extMem)
{
    struct sim_external *e;

    ENTER();
    SIM_GUARD();
    e = sim_handle_find(extMem, SIM_EXTERNAL);
    if (!e)
        return CUDA_ERROR_INVALID_HANDLE;
    sim_share_drop(e->object);
    sim_handle_free(e);
    return CUDA_SUCCESS;
}
