/* SPDX-License-Identifier: Apache-2.0 */
/* Multicast objects: they take no memory of their own, and hold what is bound to them until it is unbound or the object ends. */
#include "../guard.h"
#include "../real.h"
#include "../returns.h"
#include "../virtual.h"

CUresult cuMulticastCreate(CUmemGenericAllocationHandle *mcHandle, const CUmulticastObjectProp *prop)
{
    CUresult result;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuMulticastCreate(mcHandle, prop);
    guard_enter();
    result = real.cuMulticastCreate(mcHandle, prop);
    guard_leave();
    if (result == CUDA_SUCCESS && !virtual_enter(*mcHandle, PROCESS_NO_DEVICE)) {
        real.cuMemRelease(*mcHandle);
        result = CUDA_ERROR_OUT_OF_MEMORY;
    }
    return result;
}

/* A binding is known by the object, the device and the offset. Which device is the memory's own affair; an object has one binding of a device at
 * an offset. */
static uint64_t key_of(uint64_t object, CUdevice device, size_t offset)
{
    return phys_key(object, (uint64_t)(unsigned)device, offset);
}

/* The device that an allocation is on, as the driver names it. */
static CUdevice device_of(CUmemGenericAllocationHandle handle)
{
    CUmemAllocationProp prop;

    return called.cuMemGetAllocationPropertiesFromHandle(&prop, handle) == CUDA_SUCCESS ? prop.location.id : -1;
}

/* Enter a binding that the driver has made, or forget it. What another thread released meanwhile is refunded here. */
static CUresult bound(const struct phys_use *use, struct phys_call call, CUresult result, CUmemGenericAllocationHandle team,
                      CUdevice device, size_t offset, size_t size)
{
    uint64_t object = phys_object(use->table, team);

    if (phys_attach_end(use, call, result == CUDA_SUCCESS, object, key_of(object, device, offset)))
        return result;
    real.cuMulticastUnbind(team, device, offset, size);
    phys_attach_end(use, call, false, 0, 0);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMulticastBindMem(CUmemGenericAllocationHandle mcHandle, size_t mcOffset, CUmemGenericAllocationHandle memHandle,
                            size_t memOffset, size_t size, unsigned long long flags)
{
    struct phys_call call;
    struct phys_use use;
    CUdevice device;

    if (!guard_acts(RESOLVE_VRAM) || !virtual_use(&use))
        return real.cuMulticastBindMem(mcHandle, mcOffset, memHandle, memOffset, size, flags);
    returns_begin();
    call = phys_attach_begin(&use, memHandle);
    guard_enter();
    device = device_of(memHandle);
    CUresult result = real.cuMulticastBindMem(mcHandle, mcOffset, memHandle, memOffset, size, flags);
    guard_leave();
    result = bound(&use, call, result, mcHandle, device, mcOffset, size);
    returns_end();
    return result;
}

/* By address: the allocation that is mapped there is held. */
CUresult cuMulticastBindAddr(CUmemGenericAllocationHandle mcHandle, size_t mcOffset, CUdeviceptr memptr, size_t size,
                             unsigned long long flags)
{
    struct phys_call call = {0};
    CUmemGenericAllocationHandle handle;
    struct phys_use use;
    CUdevice device = -1;

    if (!guard_acts(RESOLVE_VRAM) || !virtual_use(&use))
        return real.cuMulticastBindAddr(mcHandle, mcOffset, memptr, size, flags);
    returns_begin();
    guard_enter();
    bool retained = real.cuMemRetainAllocationHandle(&handle, (void *)(uintptr_t)memptr) == CUDA_SUCCESS;
    if (retained) {
        call = phys_attach_begin(&use, handle);
        device = device_of(handle);
    }
    CUresult result = real.cuMulticastBindAddr(mcHandle, mcOffset, memptr, size, flags);
    if (retained)
        real.cuMemRelease(handle);
    guard_leave();
    result = bound(&use, call, result, mcHandle, device, mcOffset, size);
    returns_end();
    return result;
}

CUresult cuMulticastUnbind(CUmemGenericAllocationHandle mcHandle, CUdevice dev, size_t mcOffset, size_t size)
{
    struct phys_use use;

    if (!guard_acts(RESOLVE_VRAM) || !virtual_use(&use))
        return real.cuMulticastUnbind(mcHandle, dev, mcOffset, size);
    returns_begin();
    guard_enter();
    CUresult result = real.cuMulticastUnbind(mcHandle, dev, mcOffset, size);
    guard_leave();
    if (result == CUDA_SUCCESS || result == CUDA_ERROR_DEINITIALIZED)
        phys_detach(&use, key_of(phys_object(use.table, mcHandle), dev, mcOffset));
    returns_end();
    return result;
}
