/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual memory management: physical memory by handles, charged to the device that it is on for as long as anything holds it. */
#include "../asleep.h"
#include "../guard.h"
#include "../real.h"
#include "../relaxed.h"
#include "../returns.h"
#include "../virtual.h"

CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *prop, unsigned long long flags)
{
    struct creating creating;
    CUmemGenericAllocationHandle made;
    CUresult result;

    if (!guard_acts(RESOLVE_VRAM) || !handle)
        return real.cuMemCreate(handle, size, prop, flags);
    made = *handle;
    if ((result = creating_begin(&creating, size, prop, flags)) != CUDA_SUCCESS)
        return result;
    do
        result = real.cuMemCreate(&made, size, prop, flags);
    while (creating_again(&creating, result));
    if (!creating_end(&creating, result, made)) {
        real.cuMemRelease(made);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *handle = made;
    return result;
}

/* Another process's memory is that one's charge (hooks/ipc.c has what else there is to imports). */
CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *osHandle,
                                        CUmemAllocationHandleType shHandleType)
{
    CUresult result;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuMemImportFromShareableHandle(handle, osHandle, shHandleType);
    guard_enter();
    result = real.cuMemImportFromShareableHandle(handle, osHandle, shHandleType);
    guard_leave();
    if (result == CUDA_SUCCESS && !virtual_enter(*handle)) {
        real.cuMemRelease(*handle);
        result = CUDA_ERROR_OUT_OF_MEMORY;
    }
    return result;
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    struct phys_call call;
    struct phys_use use;

    if (!guard_acts(RESOLVE_VRAM) || !virtual_use(&use))
        return real.cuMemRelease(handle);
    returns_begin();
    call = phys_release_begin(&use, handle);
    guard_enter();
    CUresult result = real.cuMemRelease(handle);
    guard_leave();
    phys_release_end(&use, call, result == CUDA_SUCCESS || result == CUDA_ERROR_DEINITIALIZED);
    returns_end();
    return result;
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *addr)
{
    struct phys_use use;

    if (!guard_acts(RESOLVE_VRAM) || !virtual_use(&use))
        return real.cuMemRetainAllocationHandle(handle, addr);
    guard_enter();
    CUresult result = real.cuMemRetainAllocationHandle(handle, addr);
    guard_leave();
    if (result == CUDA_SUCCESS)
        phys_retain(&use, *handle);
    return result;
}

CUresult cuMemMap(CUdeviceptr ptr, size_t size, size_t offset, CUmemGenericAllocationHandle handle, unsigned long long flags)
{
    struct phys_call call;
    struct phys_use use;

    if (!guard_acts(RESOLVE_VRAM) || !virtual_use(&use))
        return real.cuMemMap(ptr, size, offset, handle, flags);
    call = phys_map_begin(&use, handle);
    guard_enter();
    CUresult result = real.cuMemMap(ptr, size, offset, handle, flags);
    guard_leave();
    if (!phys_map_end(&use, call, result == CUDA_SUCCESS, ptr, size)) {
        real.cuMemUnmap(ptr, size);
        phys_map_end(&use, call, false, ptr, size);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (result == CUDA_SUCCESS && asleep_wanted())
        asleep_woken(ptr, size);
    return result;
}

CUresult cuMemUnmap(CUdeviceptr ptr, size_t size)
{
    struct phys_use use;

    if (!guard_acts(RESOLVE_VRAM) || !virtual_use(&use))
        return real.cuMemUnmap(ptr, size);
    returns_begin();
    guard_enter();
    CUresult result = real.cuMemUnmap(ptr, size);
    guard_leave();
    if (result == CUDA_SUCCESS || result == CUDA_ERROR_DEINITIALIZED)
        phys_unmap(&use, ptr, size);
    returns_end();
    return result;
}

CUresult cuMemAddressFree(CUdeviceptr ptr, size_t size)
{
    struct phys_use use;

    if (!guard_acts(RESOLVE_VRAM) || !asleep_wanted() || !virtual_use(&use))
        return real.cuMemAddressFree(ptr, size);
    returns_begin();
    guard_enter();
    CUresult result = real.cuMemAddressFree(ptr, size);
    guard_leave();
    if (result == CUDA_SUCCESS) {
        phys_forget(&use, ptr, size); /* what is released only now is not asleep */
        asleep_forget(process_membership(NULL), ptr, size);
    }
    returns_end();
    return result;
}
