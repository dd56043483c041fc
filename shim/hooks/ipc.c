/* SPDX-License-Identifier: Apache-2.0 */
/* Interprocess and external memory: its maker is charged for it, whoever opens it is not. What is mapped here has an address or a handle that was
 * perhaps another's, freed on a road that we do not see: that one's charge goes. */
#include "../guard.h"
#include "../imports.h"
#include "../take.h"

static void forget(struct records *records, uint64_t key)
{
    struct membership *m = process_membership(NULL);
    struct record stale;

    if (m && key && records_take(records, key, &stale))
        take_refund(m, &stale);
}

#define OPEN(symbol)                                                                                                               \
    CUresult symbol(CUdeviceptr *pdptr, CUipcMemHandle handle, unsigned int Flags)                                                 \
    {                                                                                                                              \
        struct opening opening;                                                                                                    \
                                                                                                                                   \
        if (!guard_acts(RESOLVE_VRAM))                                                                                             \
            return real.symbol(pdptr, handle, Flags);                                                                              \
        opening_begin(&opening);                                                                                                   \
        CUresult result = real.symbol(pdptr, handle, Flags);                                                                       \
        if (result == CUDA_SUCCESS)                                                                                                \
            forget(process_allocations(), *pdptr);                                                                                 \
        opening_end(&opening, result, result == CUDA_SUCCESS ? *pdptr : 0, 0);                                                     \
        return result;                                                                                                             \
    }

OPEN(cuIpcOpenMemHandle)
OPEN(cuIpcOpenMemHandle_v2)

CUresult cuIpcCloseMemHandle(CUdeviceptr dptr)
{
    struct closing closing;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuIpcCloseMemHandle(dptr);
    closing_begin(&closing, dptr);
    CUresult result = real.cuIpcCloseMemHandle(dptr);
    closing_end(&closing, result);
    return result;
}

CUresult cuImportExternalMemory(CUexternalMemory *extMem_out, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *memHandleDesc)
{
    struct opening opening;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuImportExternalMemory(extMem_out, memHandleDesc);
    opening_begin(&opening);
    CUresult result = real.cuImportExternalMemory(extMem_out, memHandleDesc);
    if (result == CUDA_SUCCESS && memHandleDesc->size)
        opening_end(&opening, result, (uint64_t)(uintptr_t)*extMem_out, memHandleDesc->size);
    else
        opening_end(&opening, result, 0, 0);
    return result;
}

CUresult cuDestroyExternalMemory(CUexternalMemory extMem)
{
    struct closing closing;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuDestroyExternalMemory(extMem);
    closing_begin(&closing, (uint64_t)(uintptr_t)extMem);
    CUresult result = real.cuDestroyExternalMemory(extMem);
    closing_end(&closing, result);
    return result;
}

/* Freed with cuMemFree and cuMipmappedArrayDestroy, which pass on what they do not know. */
CUresult cuExternalMemoryGetMappedBuffer(CUdeviceptr *devPtr, CUexternalMemory extMem,
                                         const CUDA_EXTERNAL_MEMORY_BUFFER_DESC *bufferDesc)
{
    CUresult result = real.cuExternalMemoryGetMappedBuffer(devPtr, extMem, bufferDesc);

    if (result == CUDA_SUCCESS && guard_acts(RESOLVE_VRAM))
        forget(process_allocations(), *devPtr);
    return result;
}

CUresult cuExternalMemoryGetMappedMipmappedArray(CUmipmappedArray *mipmap, CUexternalMemory extMem,
                                                 const CUDA_EXTERNAL_MEMORY_MIPMAPPED_ARRAY_DESC *mipmapDesc)
{
    CUresult result = real.cuExternalMemoryGetMappedMipmappedArray(mipmap, extMem, mipmapDesc);

    if (result == CUDA_SUCCESS && guard_acts(RESOLVE_VRAM))
        forget(process_handles(), (uint64_t)(uintptr_t)*mipmap);
    return result;
}
