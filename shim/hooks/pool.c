/* SPDX-License-Identifier: Apache-2.0 */
/* Memory pools: stream-ordered allocation, and what makes pools, ends them and changes what they hold. */
#include "../draw.h"
#include "../guard.h"
#include "../real.h"
#include "../take.h"

/* What is refused after all, because of what the pool took for it, must not be seen: the driver writes into a variable of ours. */
#define ALLOCATE(symbol, named, pool, per_thread, parameters, given, ours)                                                         \
    CUresult symbol parameters                                                                                                     \
    {                                                                                                                              \
        struct draw draw = {0};                                                                                                    \
        CUdeviceptr pointer;                                                                                                       \
        CUresult result;                                                                                                           \
        bool kept;                                                                                                                 \
                                                                                                                                   \
        if (!guard_acts(RESOLVE_VRAM))                                                                                             \
            return real.symbol given;                                                                                              \
        do {                                                                                                                       \
            pointer = dptr ? *dptr : 0;                                                                                            \
            if ((result = draw_begin(&draw, bytesize, pool, named, hStream, per_thread)) != CUDA_SUCCESS)                          \
                return result;                                                                                                     \
            do                                                                                                                     \
                result = real.symbol ours;                                                                                         \
            while (draw_again(&draw, result));                                                                                     \
            kept = draw_end(&draw, result, result == CUDA_SUCCESS ? pointer : 0);                                                  \
            if (!kept)                                                                                                             \
                real.cuMemFreeAsync(pointer, draw.stream);                                                                         \
        } while (!kept && draw_anew(&draw));                                                                                       \
        if (!kept)                                                                                                                 \
            return CUDA_ERROR_OUT_OF_MEMORY;                                                                                       \
        if (dptr)                                                                                                                  \
            *dptr = pointer;                                                                                                       \
        return result;                                                                                                             \
    }

#define ALLOCATE_CURRENT(symbol, per_thread)                                                                                       \
    ALLOCATE(symbol, false, NULL, per_thread, (CUdeviceptr * dptr, size_t bytesize, CUstream hStream), (dptr, bytesize, hStream),  \
             (dptr ? &pointer : NULL, bytesize, hStream))
#define ALLOCATE_NAMED(symbol, per_thread)                                                                                         \
    ALLOCATE(symbol, true, pool, per_thread, (CUdeviceptr * dptr, size_t bytesize, CUmemoryPool pool, CUstream hStream),           \
             (dptr, bytesize, pool, hStream), (dptr ? &pointer : NULL, bytesize, pool, hStream))

ALLOCATE_CURRENT(cuMemAllocAsync, false)
ALLOCATE_CURRENT(cuMemAllocAsync_ptsz, true)
ALLOCATE_NAMED(cuMemAllocFromPoolAsync, false)
ALLOCATE_NAMED(cuMemAllocFromPoolAsync_ptsz, true)

#define FREE(symbol, per_thread)                                                                                                   \
    CUresult symbol(CUdeviceptr dptr, CUstream hStream)                                                                            \
    {                                                                                                                              \
        struct give give;                                                                                                          \
                                                                                                                                   \
        if (!guard_acts(RESOLVE_VRAM) || draw_captures(draw_stream(hStream, per_thread)))                                          \
            return real.symbol(dptr, hStream);                                                                                     \
        give_begin(&give, dptr);                                                                                                   \
        CUresult result = real.symbol(dptr, hStream);                                                                              \
        give_end(&give, result);                                                                                                   \
        return result;                                                                                                             \
    }

FREE(cuMemFreeAsync, false)
FREE(cuMemFreeAsync_ptsz, true)

CUresult cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *poolProps)
{
    if (!guard_acts(RESOLVE_VRAM))
        return real.cuMemPoolCreate(pool, poolProps);
    CUresult result = real.cuMemPoolCreate(pool, poolProps);
    if (result == CUDA_SUCCESS)
        draw_created(*pool, poolProps);
    return result;
}

CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    if (!guard_acts(RESOLVE_VRAM))
        return real.cuMemPoolDestroy(pool);
    meters_change_begin(); /* a current pool gives way to the default one */
    struct meter *meter = draw_ending(pool);
    CUresult result = real.cuMemPoolDestroy(pool);
    draw_ended(meter, result);
    meters_change_end();
    return result;
}

CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t minBytesToKeep)
{
    CUresult result = real.cuMemPoolTrimTo(pool, minBytesToKeep);

    if (result == CUDA_SUCCESS && guard_acts(RESOLVE_VRAM))
        draw_trimmed(pool);
    return result;
}

CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attr, void *value)
{
    CUresult result = real.cuMemPoolSetAttribute(pool, attr, value);

    if (result == CUDA_SUCCESS && guard_acts(RESOLVE_VRAM) && attr == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD)
        draw_set_threshold(pool, *(const cuuint64_t *)value);
    return result;
}

CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool *pool_out, void *handle, CUmemAllocationHandleType handleType,
                                            unsigned long long flags)
{
    CUresult result = real.cuMemPoolImportFromShareableHandle(pool_out, handle, handleType, flags);

    if (result == CUDA_SUCCESS && guard_acts(RESOLVE_VRAM))
        draw_imported(*pool_out);
    return result;
}

/* Another process's block, and its charge: no record, so that its free gives nothing back. One that had its address is gone. */
CUresult cuMemPoolImportPointer(CUdeviceptr *ptr_out, CUmemoryPool pool, CUmemPoolPtrExportData *shareData)
{
    struct give give;
    CUresult result = real.cuMemPoolImportPointer(ptr_out, pool, shareData);

    if (result == CUDA_SUCCESS && guard_acts(RESOLVE_VRAM)) {
        give_begin(&give, *ptr_out);
        give_end(&give, CUDA_SUCCESS);
    }
    return result;
}

CUresult cuDeviceSetMemPool(CUdevice dev, CUmemoryPool pool)
{
    if (!guard_acts(RESOLVE_VRAM))
        return real.cuDeviceSetMemPool(dev, pool);
    meters_change_begin();
    CUresult result = real.cuDeviceSetMemPool(dev, pool);
    meters_change_end();
    return result;
}

CUresult cuMemSetMemPool(CUmemLocation *location, CUmemAllocationType type, CUmemoryPool pool)
{
    if (!guard_acts(RESOLVE_VRAM))
        return real.cuMemSetMemPool(location, type, pool);
    meters_change_begin();
    CUresult result = real.cuMemSetMemPool(location, type, pool);
    meters_change_end();
    return result;
}
