/* SPDX-License-Identifier: Apache-2.0 */
/* Pools themselves: growth, release at synchronisation, attributes, access. */
#include <stdlib.h>
#include <string.h>

#include "pool.h"

static struct sim_pool *default_pool[SIM_MAX_GPUS], *current_pool[SIM_MAX_GPUS];

/* A pool grows by whole chunks (SOFTSIM_POOL_CHUNK; assumed 32 MiB). */
static uint64_t chunk_bytes(void)
{
    static uint64_t chunk;
    uint64_t drawn;

    if (!chunk) {
        chunk = sim_random(2, &drawn) ? (uint64_t)2 << (20 + drawn % 6) : (uint64_t)32 << 20;
        chunk = sim_round_up(sim_env_number("SOFTSIM_POOL_CHUNK", chunk), sim_granularity());
        chunk += chunk ? 0 : sim_granularity();
    }
    return chunk;
}

struct sim_pool *sim_pool_new(const CUmemPoolProps *props, int dev)
{
    struct sim_pool *p = sim_handle_new(sizeof(*p), SIM_POOL, NULL);

    if (!p)
        return NULL;
    p->props = *props;
    p->dev = dev;
    p->reuse[0] = p->reuse[1] = p->reuse[2] = 1;
    if (dev >= 0)
        p->access[dev] = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    return p;
}

static struct sim_pool *pool_default(int dev)
{
    if (!default_pool[dev]) {
        CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = dev}};

        default_pool[dev] = sim_pool_new(&props, dev);
        if (default_pool[dev])
            default_pool[dev]->fixed = true;
    }
    return default_pool[dev];
}

struct sim_pool *sim_pool_current(int dev)
{
    return current_pool[dev] ? current_pool[dev] : pool_default(dev);
}

struct sim_pool *sim_pool_of(CUmemoryPool handle)
{
    struct sim_pool *p = sim_handle_find(handle, SIM_POOL);

    return p && !p->destroyed ? p : NULL;
}

static void shrink(struct sim_pool *p, uint64_t keep)
{
    if (keep < p->used)
        keep = p->used;
    keep = sim_round_up(keep, sim_granularity());
    if (keep >= p->reserved)
        return;
    if (p->dev >= 0)
        sim_hbm_give(p->dev, p->reserved - keep);
    p->reserved = keep;
}

static bool grow(struct sim_pool *p, uint64_t need)
{
    uint64_t by = sim_round_up(need - p->reserved, chunk_bytes());
    uint64_t limit = p->props.maxSize ? sim_round_up(p->props.maxSize, sim_granularity()) : UINT64_MAX;

    if (p->reserved + by > limit || (p->dev >= 0 && !sim_hbm_take(p->dev, by))) {
        by = sim_round_up(need - p->reserved, sim_granularity());
        if (p->reserved + by > limit || (p->dev >= 0 && !sim_hbm_take(p->dev, by)))
            return false;
    }
    p->reserved += by;
    if (p->reserved_high < p->reserved)
        p->reserved_high = p->reserved;
    return true;
}

CUresult sim_pool_alloc(struct sim_pool *p, uint64_t size, struct sim_mem **out)
{
    uint64_t bytes = sim_round_up(size, 512);
    struct sim_mem *mem;

    if (size > (uint64_t)1 << 46)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (p->used + bytes > p->reserved && !grow(p, p->used + bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    mem = sim_mem_new(SIM_MEM_POOL, p->dev < 0 ? 0 : p->dev, NULL, 0, size);
    if (!mem)
        return CUDA_ERROR_OUT_OF_MEMORY;
    mem->owner = p;
    mem->aux = bytes;
    p->used += bytes;
    p->blocks++;
    if (p->used_high < p->used)
        p->used_high = p->used;
    *out = mem;
    return CUDA_SUCCESS;
}

static void pool_free(struct sim_pool *p)
{
    shrink(p, 0);
    if (p->blocks)
        return;
    if (p->object)
        sim_share_drop(p->object);
    sim_handle_free(p);
}

/* The memory stays reserved until a synchronisation finds more than the threshold. */
CUresult sim_pool_free(struct sim_mem *mem)
{
    struct sim_pool *p = mem->owner;

    p->used -= mem->aux;
    p->blocks--;
    sim_mem_free(mem);
    if (p->destroyed && !p->blocks)
        pool_free(p);
    return CUDA_SUCCESS;
}

void sim_pools_synchronised(void)
{
    for (struct sim_pool *p = sim_handle_first(SIM_POOL, NULL); p; p = sim_handle_next(p))
        if (p->reserved > p->threshold)
            shrink(p, p->threshold);
}

static CUresult location_device(const CUmemLocation *location, int *dev)
{
    switch (location->type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
        if (!sim_device_valid(location->id))
            return CUDA_ERROR_INVALID_DEVICE;
        *dev = location->id;
        return CUDA_SUCCESS;
    case CU_MEM_LOCATION_TYPE_HOST:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT:
        *dev = -1;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *poolProps)
{
    struct sim_pool *p;
    CUresult r;
    int dev;

    ENTER();
    SIM_GUARD();
    if (!pool || !poolProps)
        return CUDA_ERROR_INVALID_VALUE;
    if (poolProps->allocType == CU_MEM_ALLOCATION_TYPE_MANAGED)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (poolProps->allocType != CU_MEM_ALLOCATION_TYPE_PINNED)
        return CUDA_ERROR_INVALID_VALUE;
    r = location_device(&poolProps->location, &dev);
    if (r != CUDA_SUCCESS)
        return r;
    UNSAFE_IN_CAPTURE();
    p = sim_pool_new(poolProps, dev);
    if (!p)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *pool = (CUmemoryPool)p;
    return CUDA_SUCCESS;
}

CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    struct sim_pool *p;

    ENTER();
    SIM_GUARD();
    p = sim_pool_of(pool);
    if (!p || p->fixed)
        return CUDA_ERROR_INVALID_VALUE;
    UNSAFE_IN_CAPTURE();
    for (int dev = 0; dev < SIM_MAX_GPUS; dev++)
        if (current_pool[dev] == p)
            current_pool[dev] = NULL;
    p->destroyed = true;
    pool_free(p);
    return CUDA_SUCCESS;
}

CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t minBytesToKeep)
{
    struct sim_pool *p;

    ENTER();
    SIM_GUARD();
    p = sim_pool_of(pool);
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    UNSAFE_IN_CAPTURE();
    shrink(p, minBytesToKeep);
    return CUDA_SUCCESS;
}

CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attr, void *value)
{
    struct sim_pool *p;

    ENTER();
    SIM_GUARD();
    p = sim_pool_of(pool);
    if (!p || !value)
        return CUDA_ERROR_INVALID_VALUE;
    UNSAFE_IN_CAPTURE();
    switch (attr) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
        *(int *)value = p->reuse[attr - CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES];
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
        *(cuuint64_t *)value = p->threshold;
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
        *(cuuint64_t *)value = p->reserved;
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
        *(cuuint64_t *)value = p->reserved_high;
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
        *(cuuint64_t *)value = p->used;
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
        *(cuuint64_t *)value = p->used_high;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attr, void *value)
{
    struct sim_pool *p;

    ENTER();
    SIM_GUARD();
    p = sim_pool_of(pool);
    if (!p || !value)
        return CUDA_ERROR_INVALID_VALUE;
    UNSAFE_IN_CAPTURE();
    switch (attr) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
        p->reuse[attr - CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES] = *(const int *)value;
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
        p->threshold = *(const cuuint64_t *)value;
        return CUDA_SUCCESS;
    /* A high-water mark can be reset, to the value that is current, by setting it to zero. */
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
        if (*(const cuuint64_t *)value)
            return CUDA_ERROR_INVALID_VALUE;
        p->reserved_high = p->reserved;
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
        if (*(const cuuint64_t *)value)
            return CUDA_ERROR_INVALID_VALUE;
        p->used_high = p->used;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult cuMemPoolSetAccess(CUmemoryPool pool, const CUmemAccessDesc *map, size_t count)
{
    struct sim_pool *p;

    ENTER();
    SIM_GUARD();
    p = sim_pool_of(pool);
    if (!p || (count && !map))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; i++) {
        if (map[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE)
            return CUDA_ERROR_INVALID_VALUE;
        if (!sim_device_valid(map[i].location.id))
            return CUDA_ERROR_INVALID_DEVICE;
    }
    for (size_t i = 0; i < count; i++)
        p->access[map[i].location.id] = map[i].flags;
    return CUDA_SUCCESS;
}

CUresult cuMemPoolGetAccess(CUmemAccess_flags *flags, CUmemoryPool memPool, CUmemLocation *location)
{
    struct sim_pool *p;

    ENTER();
    SIM_GUARD();
    p = sim_pool_of(memPool);
    if (!p || !flags || !location || location->type != CU_MEM_LOCATION_TYPE_DEVICE || !sim_device_valid(location->id))
        return CUDA_ERROR_INVALID_VALUE;
    *flags = p->access[location->id];
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool_out, CUdevice dev)
{
    ENTER();
    SIM_GUARD();
    if (!pool_out)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_device_valid(dev))
        return CUDA_ERROR_INVALID_DEVICE;
    *pool_out = (CUmemoryPool)pool_default(dev);
    return CUDA_SUCCESS;
}

static CUresult get_current(CUmemoryPool *pool, CUdevice dev)
{
    if (!pool)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_device_valid(dev))
        return CUDA_ERROR_INVALID_DEVICE;
    *pool = (CUmemoryPool)sim_pool_current(dev);
    return CUDA_SUCCESS;
}

static CUresult set_current(CUdevice dev, CUmemoryPool pool)
{
    struct sim_pool *p = sim_pool_of(pool);

    if (!sim_device_valid(dev))
        return CUDA_ERROR_INVALID_DEVICE;
    if (!p || p->dev != dev || p->imported)
        return CUDA_ERROR_INVALID_VALUE;
    current_pool[dev] = p;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice dev)
{
    ENTER();
    SIM_GUARD();
    return get_current(pool, dev);
}

CUresult cuDeviceSetMemPool(CUdevice dev, CUmemoryPool pool)
{
    ENTER();
    SIM_GUARD();
    return set_current(dev, pool);
}

/* By location: only devices and pinned memory have default and current pools here. */
static CUresult located(const CUmemLocation *location, CUmemAllocationType type)
{
    if (!location || location->type != CU_MEM_LOCATION_TYPE_DEVICE || type != CU_MEM_ALLOCATION_TYPE_PINNED)
        return location && location->type != CU_MEM_LOCATION_TYPE_DEVICE ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
    return sim_device_valid(location->id) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuMemGetDefaultMemPool(CUmemoryPool *pool_out, CUmemLocation *location, CUmemAllocationType type)
{
    CUresult r;

    ENTER();
    SIM_GUARD();
    r = located(location, type);
    if (r == CUDA_SUCCESS && !pool_out)
        r = CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        *pool_out = (CUmemoryPool)pool_default(location->id);
    return r;
}

CUresult cuMemGetMemPool(CUmemoryPool *pool, CUmemLocation *location, CUmemAllocationType type)
{
    CUresult r;

    ENTER();
    SIM_GUARD();
    r = located(location, type);
    return r == CUDA_SUCCESS ? get_current(pool, location->id) : r;
}

CUresult cuMemSetMemPool(CUmemLocation *location, CUmemAllocationType type, CUmemoryPool pool)
{
    CUresult r;

    ENTER();
    SIM_GUARD();
    r = located(location, type);
    return r == CUDA_SUCCESS ? set_current(location->id, pool) : r;
}
