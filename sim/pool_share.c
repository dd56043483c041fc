/* SPDX-License-Identifier: Apache-2.0 */
/* Pools and single allocations of theirs in other processes. The HBM stays the exporter's; an importer has a way to the bytes. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pool.h"

#define DATA_MAGIC UINT64_C(0x6c6f6f706d697366)

struct pointer_data {
    uint64_t magic, pool, object, size;
};
_Static_assert(sizeof(struct pointer_data) <= sizeof(CUmemPoolPtrExportData), "the driver's data have 64 bytes");

CUresult cuMemPoolExportToShareableHandle(void *handle_out, CUmemoryPool pool, CUmemAllocationHandleType handleType,
                                          unsigned long long flags)
{
    struct sim_pool *p;
    int fd;

    ENTER();
    SIM_GUARD();
    p = sim_pool_of(pool);
    if (!handle_out || !p || flags || p->imported || !(p->props.handleTypes & handleType))
        return CUDA_ERROR_INVALID_VALUE;
    if (handleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || p->dev < 0)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (!p->object)
        p->object = sim_share(p->dev, 0, false);
    if (!p->object)
        return CUDA_ERROR_OUT_OF_MEMORY;
    fd = sim_share_export(p->object);
    if (fd < 0)
        return CUDA_ERROR_OPERATING_SYSTEM;
    *(int *)handle_out = fd;
    return CUDA_SUCCESS;
}

CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool *pool_out, void *handle, CUmemAllocationHandleType handleType,
                                            unsigned long long flags)
{
    CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                            .handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                            .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    struct sim_pool *p = NULL;
    uint64_t id, size;
    int dev;

    ENTER();
    SIM_GUARD();
    if (!pool_out || flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (handleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return CUDA_ERROR_NOT_SUPPORTED;
    id = sim_share_id((int)(intptr_t)handle);
    if (!sim_share_hold(id, &size, &dev))
        return CUDA_ERROR_INVALID_VALUE;
    props.location.id = dev;
    if (!size)
        p = sim_pool_new(&props, dev);
    if (!p) {
        sim_share_drop(id);
        return size ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_OUT_OF_MEMORY;
    }
    p->object = id;
    p->imported = true;
    *pool_out = (CUmemoryPool)p;
    return CUDA_SUCCESS;
}

CUresult cuMemPoolExportPointer(CUmemPoolPtrExportData *shareData_out, CUdeviceptr ptr)
{
    struct pointer_data data = {.magic = DATA_MAGIC};
    const struct sim_pool *p;
    struct sim_mem *mem;

    ENTER();
    SIM_GUARD();
    mem = sim_mem_find(ptr);
    if (!shareData_out || !mem || mem->kind != SIM_MEM_POOL || mem->base != ptr)
        return CUDA_ERROR_INVALID_VALUE;
    p = mem->owner;
    if (!p->object || p->imported)
        return CUDA_ERROR_INVALID_VALUE;
    if (!mem->object) {
        uint64_t id = sim_share(mem->dev, mem->reserved, false);
        unsigned char *bytes = id ? sim_share_map(id, 0, mem->reserved) : NULL;

        if (id && !bytes)
            sim_share_drop(id);
        if (!bytes)
            return CUDA_ERROR_OUT_OF_MEMORY;
        if (mem->bytes) {
            memcpy(bytes, mem->bytes, mem->size);
            munmap(mem->bytes, mem->reserved);
        }
        mem->object = id;
        mem->bytes = bytes;
        mem->bytes_mapped = true;
    }
    data.pool = p->object;
    data.object = mem->object;
    data.size = mem->size;
    memset(shareData_out, 0, sizeof(*shareData_out));
    memcpy(shareData_out, &data, sizeof(data));
    return CUDA_SUCCESS;
}

CUresult cuMemPoolImportPointer(CUdeviceptr *ptr_out, CUmemoryPool pool, CUmemPoolPtrExportData *shareData)
{
    struct pointer_data data;
    struct sim_mem *mem;
    struct sim_pool *p;
    uint64_t size;
    int dev;

    ENTER();
    SIM_GUARD();
    p = sim_pool_of(pool);
    if (!ptr_out || !p || !p->imported || !shareData)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&data, shareData, sizeof(data));
    if (data.magic != DATA_MAGIC || data.pool != p->object || !sim_share_hold(data.object, &size, &dev))
        return CUDA_ERROR_INVALID_VALUE;
    mem = sim_share_mem(SIM_MEM_POOL, dev, NULL, data.object, 0, data.size);
    if (!mem) {
        sim_share_drop(data.object);
        return CUDA_ERROR_MAP_FAILED;
    }
    mem->owner = p;
    p->blocks++;
    *ptr_out = mem->base;
    return CUDA_SUCCESS;
}
