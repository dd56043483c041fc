/* SPDX-License-Identifier: Apache-2.0 */
/* Multicast objects: a team of devices, and memory of theirs bound at offsets. They take no HBM; what is written through one stays there. */
#include <stdlib.h>

#include "vmm.h"

/* Keeps the memory alive as a mapping does (assumed). */
struct bind {
    struct bind *next;
    struct sim_phys *memory;
    uint64_t offset, size;
};

struct sim_team {
    unsigned int size; /* devices that it needs */
    unsigned int count;
    bool member[SIM_MAX_GPUS];
    struct bind *binds;
};

static bool aligned(uint64_t value)
{
    return value % sim_granularity() == 0;
}

static CUresult prop_check(const CUmulticastObjectProp *prop)
{
    if (!prop || !prop->numDevices || prop->numDevices > (unsigned int)sim->devices || !prop->size || prop->flags)
        return CUDA_ERROR_INVALID_VALUE;
    return prop->handleTypes & ~(unsigned long long)CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR ? CUDA_ERROR_NOT_SUPPORTED
                                                                                             : CUDA_SUCCESS;
}

static struct sim_phys *object_of(CUmemGenericAllocationHandle handle)
{
    struct sim_phys *p = sim_phys_of(handle);

    return p && p->team ? p : NULL;
}

bool sim_team_wait(CUmemGenericAllocationHandle handle)
{
    struct sim_phys *p;

    while ((p = sim_phys_of(handle)) && p->team && p->team->count < p->team->size)
        sim_stream_poll();
    return p;
}

static void unbind(struct bind **link)
{
    struct bind *b = *link;

    *link = b->next;
    b->memory->maps--;
    sim_phys_put(b->memory);
    free(b);
}

void sim_team_free(struct sim_team *team)
{
    while (team->binds)
        unbind(&team->binds);
    free(team);
}

CUresult cuMulticastGetGranularity(size_t *granularity, const CUmulticastObjectProp *prop, CUmulticastGranularity_flags option)
{
    CUresult r;

    ENTER();
    if (!granularity || (unsigned int)option > CU_MULTICAST_GRANULARITY_RECOMMENDED)
        return CUDA_ERROR_INVALID_VALUE;
    r = prop_check(prop);
    if (r == CUDA_SUCCESS)
        *granularity = sim_granularity();
    return r;
}

CUresult cuMulticastCreate(CUmemGenericAllocationHandle *mcHandle, const CUmulticastObjectProp *prop)
{
    struct sim_phys *p;
    CUresult r;

    ENTER();
    SIM_GUARD();
    r = prop_check(prop);
    if (r != CUDA_SUCCESS)
        return r;
    if (!mcHandle || !aligned(prop->size))
        return CUDA_ERROR_INVALID_VALUE;
    p = sim_handle_new(sizeof(*p), SIM_PHYS, NULL);
    if (p)
        p->team = calloc(1, sizeof(*p->team));
    if (!p || !p->team) {
        if (p)
            sim_handle_free(p);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    p->size = prop->size;
    p->dev = -1;
    p->refs = 1;
    p->team->size = prop->numDevices;
    *mcHandle = (CUmemGenericAllocationHandle)(uintptr_t)p;
    return CUDA_SUCCESS;
}

CUresult cuMulticastAddDevice(CUmemGenericAllocationHandle mcHandle, CUdevice dev)
{
    struct sim_phys *p;

    ENTER();
    SIM_GUARD();
    p = object_of(mcHandle);
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_device_valid(dev))
        return CUDA_ERROR_INVALID_DEVICE;
    if (p->team->member[dev] || p->team->count == p->team->size)
        return CUDA_ERROR_INVALID_VALUE;
    p->team->member[dev] = true;
    p->team->count++;
    return CUDA_SUCCESS;
}

static bool overlap(const struct bind *b, uint64_t offset, uint64_t size)
{
    return offset < b->offset + b->size && b->offset < offset + size;
}

/* `memory` is the handle's, or what lies at an address. */
static CUresult bind(CUmemGenericAllocationHandle handle, uint64_t offset, struct sim_phys *memory, uint64_t from, uint64_t size,
                     unsigned long long flags)
{
    struct sim_phys *p = object_of(handle);
    struct bind *b;

    if (!p || !memory || memory->team || flags || !size || !aligned(offset | from | size))
        return CUDA_ERROR_INVALID_VALUE;
    if (size > memory->size || from > memory->size - size || size > p->size || offset > p->size - size)
        return CUDA_ERROR_INVALID_VALUE;
    if (memory->dev < 0 || !p->team->member[memory->dev])
        return CUDA_ERROR_INVALID_DEVICE;
    for (b = p->team->binds; b; b = b->next)
        if (b->memory->dev == memory->dev && overlap(b, offset, size))
            return CUDA_ERROR_INVALID_VALUE;
    b = malloc(sizeof(*b));
    if (!b)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *b = (struct bind){.next = p->team->binds, .memory = memory, .offset = offset, .size = size};
    p->team->binds = b;
    memory->maps++;
    return CUDA_SUCCESS;
}

CUresult cuMulticastBindMem(CUmemGenericAllocationHandle mcHandle, size_t mcOffset, CUmemGenericAllocationHandle memHandle,
                            size_t memOffset, size_t size, unsigned long long flags)
{
    ENTER();
    SIM_GUARD();
    if (!object_of(mcHandle) || !sim_team_wait(mcHandle))
        return CUDA_ERROR_INVALID_VALUE;
    return bind(mcHandle, mcOffset, sim_phys_of(memHandle), memOffset, size, flags);
}

/* Memory of a pool cannot be bound here. */
CUresult cuMulticastBindAddr(CUmemGenericAllocationHandle mcHandle, size_t mcOffset, CUdeviceptr memptr, size_t size,
                             unsigned long long flags)
{
    struct sim_mem *mem;

    ENTER();
    SIM_GUARD();
    if (!object_of(mcHandle) || !sim_team_wait(mcHandle))
        return CUDA_ERROR_INVALID_VALUE;
    mem = sim_mem_find(memptr);
    if (mem && mem->kind == SIM_MEM_POOL)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (!mem || mem->kind != SIM_MEM_MAPPED)
        return CUDA_ERROR_INVALID_VALUE;
    return bind(mcHandle, mcOffset, mem->owner, memptr - mem->base, size, flags);
}

/* Whole binds of a device only: of a part, the documentation says nothing good. */
CUresult cuMulticastUnbind(CUmemGenericAllocationHandle mcHandle, CUdevice dev, size_t mcOffset, size_t size)
{
    struct sim_phys *p;
    bool found = false;

    ENTER();
    SIM_GUARD();
    p = object_of(mcHandle);
    if (!p || !size || !aligned(mcOffset | size) || size > p->size || mcOffset > p->size - size)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_device_valid(dev))
        return CUDA_ERROR_INVALID_DEVICE;
    for (const struct bind *b = p->team->binds; b; b = b->next) {
        if (b->memory->dev != dev || !overlap(b, mcOffset, size))
            continue;
        if (b->offset < mcOffset || b->offset + b->size > mcOffset + size)
            return CUDA_ERROR_INVALID_VALUE;
        found = true;
    }
    for (struct bind **link = &p->team->binds; *link;) {
        if ((*link)->memory->dev == dev && overlap(*link, mcOffset, size))
            unbind(link);
        else
            link = &(*link)->next;
    }
    return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
