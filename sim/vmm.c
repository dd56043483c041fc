/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual memory management: physical memory by handles, reserved addresses, mappings between them, sharing by file descriptor. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm.h"

struct reservation {
    struct reservation *next;
    uint64_t base, size;
};

static struct reservation *reservations;

static CUresult prop_check(const CUmemAllocationProp *p, int *dev)
{
    if (!p || p->type != CU_MEM_ALLOCATION_TYPE_PINNED)
        return CUDA_ERROR_INVALID_VALUE;
    switch (p->location.type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
        if (!sim_device_valid(p->location.id))
            return CUDA_ERROR_INVALID_DEVICE;
        *dev = p->location.id;
        break;
    case CU_MEM_LOCATION_TYPE_HOST:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT:
        *dev = -1;
        break;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (p->requestedHandleTypes & ~(unsigned int)CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return CUDA_ERROR_NOT_SUPPORTED;
    return CUDA_SUCCESS;
}

CUresult cuMemGetAllocationGranularity(size_t *granularity, const CUmemAllocationProp *prop,
                                       CUmemAllocationGranularity_flags option)
{
    CUresult r;
    int dev;

    ENTER();
    if (!granularity || (unsigned int)option > CU_MEM_ALLOC_GRANULARITY_RECOMMENDED)
        return CUDA_ERROR_INVALID_VALUE;
    r = prop_check(prop, &dev);
    if (r == CUDA_SUCCESS)
        *granularity = sim_granularity();
    return r;
}

struct sim_phys *sim_phys_of(CUmemGenericAllocationHandle handle)
{
    struct sim_phys *p = sim_handle_find((const void *)(uintptr_t)handle, SIM_PHYS);

    return p && p->refs ? p : NULL;
}

CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *prop, unsigned long long flags)
{
    struct sim_phys *p;
    CUresult r;
    int dev;

    ENTER();
    SIM_GUARD();
    r = prop_check(prop, &dev);
    if (r != CUDA_SUCCESS)
        return r;
    if (!handle || !size || size % sim_granularity() || flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (dev >= 0 && !sim_hbm_take(dev, size))
        return CUDA_ERROR_OUT_OF_MEMORY;
    p = sim_handle_new(sizeof(*p), SIM_PHYS, NULL);
    if (!p) {
        if (dev >= 0)
            sim_hbm_give(dev, size);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    p->size = size;
    p->dev = dev;
    p->prop = *prop;
    p->refs = 1;
    *handle = (CUmemGenericAllocationHandle)(uintptr_t)p;
    return CUDA_SUCCESS;
}

void sim_phys_put(struct sim_phys *p)
{
    if (p->refs || p->maps)
        return;
    if (p->object)
        sim_share_drop(p->object);
    else if (p->dev >= 0)
        sim_hbm_give(p->dev, p->size);
    if (p->bytes)
        munmap(p->bytes, p->size);
    if (p->team)
        sim_team_free(p->team);
    sim_handle_free(p);
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    struct sim_phys *p;

    ENTER();
    SIM_GUARD();
    p = sim_phys_of(handle);
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    p->refs--;
    sim_phys_put(p);
    return CUDA_SUCCESS;
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *addr)
{
    struct sim_mem *mem;
    struct sim_phys *p;

    ENTER();
    SIM_GUARD();
    mem = sim_mem_find((uint64_t)(uintptr_t)addr);
    if (!handle || !mem || mem->kind != SIM_MEM_MAPPED)
        return CUDA_ERROR_INVALID_VALUE;
    p = mem->owner;
    p->refs++;
    *handle = (CUmemGenericAllocationHandle)(uintptr_t)p;
    return CUDA_SUCCESS;
}

CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop, CUmemGenericAllocationHandle handle)
{
    struct sim_phys *p;

    ENTER();
    SIM_GUARD();
    p = sim_phys_of(handle);
    if (!prop || !p || p->team)
        return CUDA_ERROR_INVALID_VALUE;
    *prop = p->prop;
    return CUDA_SUCCESS;
}

static struct reservation *reservation_around(uint64_t base, uint64_t size)
{
    for (struct reservation *r = reservations; r; r = r->next)
        if (base >= r->base && size <= r->size && base - r->base <= r->size - size)
            return r;
    return NULL;
}

/* Whether any mapping lies in the range. */
static bool mapped_in(uint64_t base, uint64_t size)
{
    for (struct sim_mem *mem = sim_mem_next(NULL); mem; mem = sim_mem_next(mem))
        if (mem->kind == SIM_MEM_MAPPED && mem->base < base + size && base < mem->base + mem->size)
            return true;
    return false;
}

CUresult cuMemAddressReserve(CUdeviceptr *ptr, size_t size, size_t alignment, CUdeviceptr addr, unsigned long long flags)
{
    uint64_t align = alignment > sim_granularity() ? alignment : sim_granularity(), base;
    struct reservation *r;
    char *p;

    ENTER();
    SIM_GUARD();
    if (!ptr || !size || size % sim_granularity() || flags || (alignment & (alignment - 1)))
        return CUDA_ERROR_INVALID_VALUE;
    if (size > (size_t)1 << 46)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = malloc(sizeof(*r));
    if (!r)
        return CUDA_ERROR_OUT_OF_MEMORY;
    /* The address asked for is a hint: taken when it is free and aligned. */
    if (addr && addr % align == 0) {
        p = mmap((void *)(uintptr_t)addr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1,
                 0);
        if (p != MAP_FAILED && (uintptr_t)p != addr) {
            munmap(p, size);
            p = MAP_FAILED;
        }
        if (p != MAP_FAILED) {
            base = addr;
            goto done;
        }
    }
    p = mmap(NULL, size + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        free(r);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    base = sim_round_up((uint64_t)(uintptr_t)p, align);
    if (base > (uint64_t)(uintptr_t)p)
        munmap(p, base - (uint64_t)(uintptr_t)p);
    munmap((void *)(uintptr_t)(base + size), (uint64_t)(uintptr_t)p + align - base);
done:
    r->base = base;
    r->size = size;
    r->next = reservations;
    reservations = r;
    *ptr = base;
    return CUDA_SUCCESS;
}

CUresult cuMemAddressFree(CUdeviceptr ptr, size_t size)
{
    ENTER();
    SIM_GUARD();
    for (struct reservation **link = &reservations; *link; link = &(*link)->next) {
        struct reservation *r = *link;

        if (r->base != ptr || r->size != size)
            continue;
        if (mapped_in(ptr, size))
            return CUDA_ERROR_INVALID_VALUE;
        *link = r->next;
        munmap((void *)(uintptr_t)ptr, size);
        free(r);
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemMap(CUdeviceptr ptr, size_t size, size_t offset, CUmemGenericAllocationHandle handle, unsigned long long flags)
{
    struct sim_phys *p;
    struct sim_mem *mem;

    ENTER();
    SIM_GUARD();
    p = sim_team_wait(handle) ? sim_phys_of(handle) : NULL;
    if (!p || (p->prop.allocFlags.usage & CU_MEM_CREATE_USAGE_TILE_POOL) || !size || offset || flags || ptr % sim_granularity() ||
        size != p->size || !reservation_around(ptr, size) || mapped_in(ptr, size))
        return CUDA_ERROR_INVALID_VALUE;
    mem = sim_mem_new(SIM_MEM_MAPPED, p->dev < 0 ? 0 : p->dev, NULL, ptr, size);
    if (!mem)
        return CUDA_ERROR_OUT_OF_MEMORY;
    mem->owner = p;
    p->maps++;
    return CUDA_SUCCESS;
}

/* The range has to be made of whole mappings. */
CUresult cuMemUnmap(CUdeviceptr ptr, size_t size)
{
    uint64_t at = ptr;

    ENTER();
    SIM_GUARD();
    if (!size)
        return CUDA_ERROR_INVALID_VALUE;
    while (at < ptr + size) {
        struct sim_mem *mem = sim_mem_find(at);

        if (!mem || mem->kind != SIM_MEM_MAPPED || mem->base != at || mem->size > ptr + size - at)
            return CUDA_ERROR_INVALID_VALUE;
        at += mem->size;
    }
    for (at = ptr; at < ptr + size;) {
        struct sim_mem *mem = sim_mem_find(at);
        struct sim_phys *p = mem->owner;

        at += mem->size;
        sim_mem_free(mem);
        p->maps--;
        sim_phys_put(p);
    }
    return CUDA_SUCCESS;
}

CUresult cuMemSetAccess(CUdeviceptr ptr, size_t size, const CUmemAccessDesc *desc, size_t count)
{
    uint64_t at = ptr;

    ENTER();
    SIM_GUARD();
    if (!size || !desc || !count)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; i++)
        if (desc[i].location.type == CU_MEM_LOCATION_TYPE_DEVICE && !sim_device_valid(desc[i].location.id))
            return CUDA_ERROR_INVALID_DEVICE;
    while (at < ptr + size) {
        struct sim_mem *mem = sim_mem_find(at);

        if (!mem || mem->kind != SIM_MEM_MAPPED)
            return CUDA_ERROR_INVALID_VALUE;
        at = mem->base + mem->size;
    }
    for (at = ptr; at < ptr + size;) {
        struct sim_mem *mem = sim_mem_find(at);

        for (size_t i = 0; i < count; i++)
            if (desc[i].location.type == CU_MEM_LOCATION_TYPE_DEVICE) {
                unsigned int shift = 2 * (unsigned int)desc[i].location.id;

                mem->flags = (mem->flags & ~(3u << shift)) | ((unsigned int)desc[i].flags & 3u) << shift;
            }
        at = mem->base + mem->size;
    }
    return CUDA_SUCCESS;
}

CUresult cuMemGetAccess(unsigned long long *flags, const CUmemLocation *location, CUdeviceptr ptr)
{
    struct sim_mem *mem;

    ENTER();
    SIM_GUARD();
    mem = sim_mem_find(ptr);
    if (!flags || !location || !mem || mem->kind != SIM_MEM_MAPPED)
        return CUDA_ERROR_INVALID_VALUE;
    if (location->type != CU_MEM_LOCATION_TYPE_DEVICE)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_device_valid(location->id))
        return CUDA_ERROR_INVALID_DEVICE;
    *flags = mem->flags >> (2 * (unsigned int)location->id) & 3u;
    return CUDA_SUCCESS;
}

unsigned char *sim_phys_bytes(struct sim_mem *mem)
{
    struct sim_phys *p = mem->owner;
    void *bytes;

    if (p->bytes)
        return p->bytes;
    if (p->object) {
        p->bytes = sim_share_map(p->object, 0, p->size);
        return p->bytes;
    }
    bytes = mmap(NULL, p->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    p->bytes = bytes == MAP_FAILED ? NULL : bytes;
    return p->bytes;
}

CUresult cuMemExportToShareableHandle(void *shareableHandle, CUmemGenericAllocationHandle handle,
                                      CUmemAllocationHandleType handleType, unsigned long long flags)
{
    struct sim_phys *p;
    int fd;

    ENTER();
    SIM_GUARD();
    p = sim_phys_of(handle);
    if (!shareableHandle || !p || flags || !(p->prop.requestedHandleTypes & handleType))
        return CUDA_ERROR_INVALID_VALUE;
    if (handleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || p->dev < 0)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (!p->object) {
        unsigned char *old = p->bytes;

        p->object = sim_share(p->dev, p->size, true);
        if (!p->object)
            return CUDA_ERROR_OUT_OF_MEMORY;
        p->bytes = NULL;
        if (old) {
            p->bytes = sim_share_map(p->object, 0, p->size);
            if (p->bytes)
                memcpy(p->bytes, old, p->size);
            munmap(old, p->size);
        }
    }
    fd = sim_share_export(p->object);
    if (fd < 0)
        return CUDA_ERROR_OPERATING_SYSTEM;
    *(int *)shareableHandle = fd;
    return CUDA_SUCCESS;
}

CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *osHandle,
                                        CUmemAllocationHandleType shHandleType)
{
    struct sim_phys *p;
    uint64_t id, size;
    int dev;

    ENTER();
    SIM_GUARD();
    if (!handle)
        return CUDA_ERROR_INVALID_VALUE;
    if (shHandleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return CUDA_ERROR_NOT_SUPPORTED;
    id = sim_share_id((int)(intptr_t)osHandle);
    if (!sim_share_hold(id, &size, &dev))
        return CUDA_ERROR_INVALID_VALUE;
    if (!size) {
        sim_share_drop(id);
        return CUDA_ERROR_INVALID_VALUE;
    }
    p = sim_handle_new(sizeof(*p), SIM_PHYS, NULL);
    if (!p) {
        sim_share_drop(id);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    p->size = size;
    p->dev = dev;
    p->prop = (CUmemAllocationProp){.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                    .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                    .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = dev}};
    p->refs = 1;
    p->object = id;
    *handle = (CUmemGenericAllocationHandle)(uintptr_t)p;
    return CUDA_SUCCESS;
}
