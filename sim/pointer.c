/* SPDX-License-Identifier: Apache-2.0 */
/* cuPointerGetAttribute(s), cuPointerSetAttribute, and advice about managed memory. */
#include <string.h>

#include "copy.h"
#include "sim.h"

static bool is_host(const struct sim_mem *mem)
{
    return mem->kind == SIM_MEM_HOST || mem->kind == SIM_MEM_REGISTERED;
}

static CUresult get(void *data, CUpointer_attribute attribute, CUdeviceptr ptr)
{
    struct sim_mem *mem = sim_mem_find(ptr);

    if (!mem || mem->kind == SIM_MEM_ARRAY)
        return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
        *(CUcontext *)data = (CUcontext)mem->ctx;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *(unsigned int *)data = is_host(mem) ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        *(CUdeviceptr *)data = ptr;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        if (!is_host(mem) && mem->kind != SIM_MEM_MANAGED)
            return CUDA_ERROR_INVALID_VALUE;
        *(void **)data = (void *)(uintptr_t)ptr;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
        *(int *)data = 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
        *(unsigned long long *)data = mem->id;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        *(int *)data = mem->kind == SIM_MEM_MANAGED;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        *(int *)data = mem->dev;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
        *(int *)data = mem->kind == SIM_MEM_DEVICE;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        *(CUdeviceptr *)data = mem->base;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        *(size_t *)data = mem->size;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MAPPED:
        *(int *)data = 1;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
        *(unsigned long long *)data = 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
        *(CUmemoryPool *)data = mem->kind == SIM_MEM_POOL ? (CUmemoryPool)mem->owner : NULL;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_NOT_SUPPORTED;
    }
}

CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr ptr)
{
    struct sim_ctx *ctx;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    return data ? get(data, attribute, ptr) : CUDA_ERROR_INVALID_VALUE;
}

static size_t width(CUpointer_attribute attribute)
{
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
        return 8;
    default:
        return 4;
    }
}

/* Of a pointer that the driver does not know, every attribute is zero, and that is a success. */
CUresult cuPointerGetAttributes(unsigned int numAttributes, CUpointer_attribute *attributes, void **data, CUdeviceptr ptr)
{
    struct sim_ctx *ctx;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    if (!numAttributes || !attributes || !data)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned int i = 0; i < numAttributes; i++) {
        CUresult r = get(data[i], attributes[i], ptr);

        if (r == CUDA_ERROR_NOT_SUPPORTED)
            return r;
        if (r != CUDA_SUCCESS) {
            memset(data[i], 0, width(attributes[i]));
            if (attributes[i] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL)
                *(int *)data[i] = CU_DEVICE_INVALID;
        }
    }
    return CUDA_SUCCESS;
}

CUresult cuPointerSetAttribute(const void *value, CUpointer_attribute attribute, CUdeviceptr ptr)
{
    struct sim_ctx *ctx;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    if (!value || attribute != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS || !sim_mem_find(ptr))
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

/* Advice about managed memory is checked and changes nothing. */
static CUresult managed(CUdeviceptr ptr, size_t count)
{
    struct sim_mem *mem = sim_mem_find(ptr);

    if (!mem || !count || mem->kind != SIM_MEM_MANAGED || count > mem->size - (ptr - mem->base))
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

CUresult cuMemAdvise(CUdeviceptr devPtr, size_t count, CUmem_advise advice, CUdevice device)
{
    ENTER();
    SIM_GUARD();
    (void)advice;
    if (device != CU_DEVICE_CPU && !sim_device_valid(device))
        return CUDA_ERROR_INVALID_DEVICE;
    return managed(devPtr, count);
}

CUresult cuMemAdvise_v2(CUdeviceptr devPtr, size_t count, CUmem_advise advice, CUmemLocation location)
{
    ENTER();
    SIM_GUARD();
    (void)advice;
    if (location.type == CU_MEM_LOCATION_TYPE_DEVICE && !sim_device_valid(location.id))
        return CUDA_ERROR_INVALID_DEVICE;
    return managed(devPtr, count);
}

static CUresult prefetch(CUdeviceptr ptr, size_t count, bool device, int id, CUstream stream, bool per_thread)
{
    struct sim_op op = {.type = SIM_OP_COPY,
                        .run = sim_prefetch_run,
                        .copy = {.dst = ptr, .width = count, .height = 1, .depth = 1, .value = device ? (uint32_t)id + 1 : 0}};
    struct sim_stream *s;
    CUresult r;
    SIM_GUARD();

    if (device && !sim_device_valid(id))
        return CUDA_ERROR_INVALID_DEVICE;
    r = managed(ptr, count);
    if (r != CUDA_SUCCESS)
        return r;
    STREAM(s, stream, per_thread);
    r = sim_capture_forbid(s);
    op.ns = sim_copy_ns(&op.copy);
    return r == CUDA_SUCCESS ? sim_stream_submit(s, &op, NULL) : r;
}

#define PREFETCH_FUNCTIONS(suffix, per_thread)                                                                                     \
    CUresult cuMemPrefetchAsync##suffix(CUdeviceptr devPtr, size_t count, CUdevice dstDevice, CUstream hStream)                    \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return prefetch(devPtr, count, dstDevice != CU_DEVICE_CPU, dstDevice, hStream, per_thread);                                \
    }                                                                                                                              \
    CUresult cuMemPrefetchAsync_v2##suffix(CUdeviceptr devPtr, size_t count, CUmemLocation location, unsigned int flags,           \
                                           CUstream hStream)                                                                       \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        if (flags)                                                                                                                 \
            return CUDA_ERROR_INVALID_VALUE;                                                                                       \
        return prefetch(devPtr, count, location.type == CU_MEM_LOCATION_TYPE_DEVICE, location.id, hStream, per_thread);            \
    }

PREFETCH_FUNCTIONS(, false)
PREFETCH_FUNCTIONS(_ptsz, true)
