/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual memory management: physical memory by handles, charged to the device that it is on for as long as anything holds it. */
#include <errno.h>
#include <sys/mman.h>

#include "../asleep.h"
#include "../gap.h"
#include "../guard.h"
#include "../imports.h"
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

/* The quota device that an allocation is on, or PROCESS_NO_DEVICE. */
static int device_of(CUmemGenericAllocationHandle handle)
{
    struct membership *m = process_membership(NULL);
    CUmemAllocationProp prop;

    if (!m || called.cuMemGetAllocationPropertiesFromHandle(&prop, handle) != CUDA_SUCCESS ||
        prop.location.type != CU_MEM_LOCATION_TYPE_DEVICE)
        return PROCESS_NO_DEVICE;
    return process_device(m, prop.location.id);
}

/* Another process's memory is that one's charge. What the driver's figure for this one has of it is told to the gap when a mapping tells its
 * size. */
CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *osHandle,
                                        CUmemAllocationHandleType shHandleType)
{
    struct opening opening;
    CUresult result;
    int device;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuMemImportFromShareableHandle(handle, osHandle, shHandleType);
    sharing_begin(&opening);
    result = real.cuMemImportFromShareableHandle(handle, osHandle, shHandleType);
    device = result == CUDA_SUCCESS ? device_of(*handle) : PROCESS_NO_DEVICE;
    sharing_end(&opening, result, device, 0);
    if (result == CUDA_SUCCESS && !virtual_enter(*handle, device)) {
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

static CUresult mapped(const struct phys_use *use, struct phys_call call, CUresult result, CUdeviceptr ptr, size_t size)
{
    if (!phys_map_end(use, call, result == CUDA_SUCCESS, ptr, size)) {
        real.cuMemUnmap(ptr, size);
        phys_map_end(use, call, false, ptr, size);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (result == CUDA_SUCCESS && asleep_wanted())
        asleep_woken(ptr, size);
    return result;
}

/* The first mapping of what was imported. */
static CUresult map_foreign(const struct phys_use *use, struct phys_call call, CUdeviceptr ptr, size_t size, size_t offset,
                            CUmemGenericAllocationHandle handle, unsigned long long flags)
{
    struct opening opening;

    sharing_begin(&opening);
    CUresult result = real.cuMemMap(ptr, size, offset, handle, flags);
    bool counted = sharing_end(&opening, result, call.device, size);
    if (counted && result == CUDA_SUCCESS && phys_share(use, call, size))
        gap_note_import(call.device, (int64_t)size);
    return mapped(use, call, result, ptr, size);
}

CUresult cuMemMap(CUdeviceptr ptr, size_t size, size_t offset, CUmemGenericAllocationHandle handle, unsigned long long flags)
{
    struct phys_call call;
    struct phys_use use;

    if (!guard_acts(RESOLVE_VRAM) || !virtual_use(&use))
        return real.cuMemMap(ptr, size, offset, handle, flags);
    returns_begin(); /* another thread may release it before the driver gets to the mapping, and the refund is then here */
    call = phys_map_begin(&use, handle);
    if (call.foreign) {
        returns_end();
        return map_foreign(&use, call, ptr, size, offset, handle, flags);
    }
    guard_enter();
    CUresult result = real.cuMemMap(ptr, size, offset, handle, flags);
    guard_leave();
    result = mapped(&use, call, result, ptr, size);
    returns_end();
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

/* ---- tile pools: physical memory that is mapped into arrays */

#define MAPS_ON_STACK 256

/* The array of an operation, as hooks/array.c entered it. Of one that it did not see, something that never ends by itself. */
static struct record array_of(const CUarrayMapInfo *info)
{
    bool mipmap = info->resourceType == CU_RESOURCE_TYPE_MIPMAPPED_ARRAY;
    uint64_t handle = (uint64_t)(uintptr_t)(mipmap ? (void *)info->resource.mipmap : (void *)info->resource.array);
    struct record record;

    if (handle && records_find(process_handles(), handle, &record) && record.family == QUOTA_VMM)
        return record;
    return (struct record){.key = handle, .bytes = handle};
}

static uint64_t pair(unsigned a, unsigned b)
{
    return (uint64_t)a << 32 | b;
}

/* The place that an operation is about; all of the array where it has deferred mapping, whatever else is said. A place is unmapped as it was
 * mapped: of parts, what is left stays charged until the array ends. */
static uint64_t place_of(const CUarrayMapInfo *info, const struct record *array)
{
    uint64_t key = phys_key(array->bytes, info->deviceBitMask, array->small ? 2 : (uint64_t)info->subresourceType);

    if (array->small)
        return key;
    if (info->subresourceType == CU_ARRAY_SPARSE_SUBRESOURCE_TYPE_MIPTAIL)
        return phys_key(phys_key(key, info->subresource.miptail.layer, 0), info->subresource.miptail.offset,
                        info->subresource.miptail.size);
    __typeof__(&info->subresource.sparseLevel) at = &info->subresource.sparseLevel;
    key = phys_key(key, pair(at->level, at->layer), pair(at->offsetX, at->offsetY));
    return phys_key(key, pair(at->offsetZ, at->extentWidth), pair(at->extentHeight, at->extentDepth));
}

static bool maps(const CUarrayMapInfo *info)
{
    return info->memOperationType == CU_MEM_OPERATION_TYPE_MAP && info->memHandleType == CU_MEM_HANDLE_TYPE_GENERIC;
}

static void settle(const struct phys_use *use, const CUarrayMapInfo *info, struct phys_call call, bool done)
{
    struct record array = array_of(info);
    uint64_t place = place_of(info, &array);

    if (!maps(info)) {
        if (done && info->memOperationType == CU_MEM_OPERATION_TYPE_UNMAP)
            phys_detach(use, place);
        return;
    }
    /* It cannot be undone in the stream: without host memory to remember it, the pool is charged for good. */
    if (done && !call.entry)
        phys_detach(use, place); /* what was there before is there no more */
    else
        phys_attach_end(use, call, done, PHYS_FOREIGN_OWNER | array.bytes, place);
}

/* The driver works in the order of the stream. A mapping holds its pool from the call on. An unmapping ends that with the call, too: where the
 * handle is gone already, the refund is early by as long as the stream takes to get there. */
static CUresult map_arrays(CUarrayMapInfo *list, unsigned count, CUstream stream,
                           CUresult (*driver)(CUarrayMapInfo *, unsigned, CUstream))
{
    struct phys_call on_stack[MAPS_ON_STACK], *calls = on_stack;
    size_t size = count * sizeof(*calls);
    struct phys_use use;
    int saved = errno;

    if (!guard_acts(RESOLVE_VRAM) || !list || !virtual_use(&use))
        return driver(list, count, stream);
    if (count > MAPS_ON_STACK &&
        (calls = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) == MAP_FAILED) {
        errno = saved;
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    returns_begin();
    for (unsigned i = 0; i < count; i++)
        calls[i] = maps(&list[i]) ? phys_attach_begin(&use, list[i].memHandle.memHandle) : (struct phys_call){0};
    guard_enter();
    CUresult result = driver(list, count, stream);
    guard_leave();
    for (unsigned i = 0; i < count; i++)
        settle(&use, &list[i], calls[i], result == CUDA_SUCCESS);
    returns_end();
    if (calls != on_stack) {
        saved = errno;
        munmap(calls, size);
        errno = saved;
    }
    return result;
}

CUresult cuMemMapArrayAsync(CUarrayMapInfo *mapInfoList, unsigned int count, CUstream hStream)
{
    return map_arrays(mapInfoList, count, hStream, real.cuMemMapArrayAsync);
}

CUresult cuMemMapArrayAsync_ptsz(CUarrayMapInfo *mapInfoList, unsigned int count, CUstream hStream)
{
    return map_arrays(mapInfoList, count, hStream, real.cuMemMapArrayAsync_ptsz);
}
