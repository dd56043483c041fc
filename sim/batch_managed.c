/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes of managed ranges, and batches of prefetches and discards. What is discarded stays where it is (assumed). */
#include <string.h>

#include "sim.h"

static bool managed(CUdeviceptr ptr, size_t count)
{
    struct sim_mem *mem = sim_mem_find(ptr);

    return mem && count && mem->kind == SIM_MEM_MANAGED && count <= mem->size - (ptr - mem->base);
}

static CUresult range(void *data, size_t size, CUmem_range_attribute attribute, CUdeviceptr ptr, size_t count)
{
    if (!data)
        return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
    case CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY:
        if (size != 4)
            return CUDA_ERROR_INVALID_VALUE;
        *(int *)data = 0;
        return CUDA_SUCCESS;
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION:
        if (size != 4)
            return CUDA_ERROR_INVALID_VALUE;
        *(int *)data = CU_DEVICE_INVALID;
        return CUDA_SUCCESS;
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION: {
        const struct sim_mem *mem = sim_mem_find(ptr);

        if (size != 4)
            return CUDA_ERROR_INVALID_VALUE;
        *(int *)data = sim_prefetched_to(mem, ptr - mem->base, count);
        return CUDA_SUCCESS;
    }
    case CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY:
        if (!size || size % 4)
            return CUDA_ERROR_INVALID_VALUE;
        for (size_t i = 0; i < size / 4; i++)
            ((int *)data)[i] = CU_DEVICE_INVALID;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_NOT_SUPPORTED;
    }
}

CUresult cuMemRangeGetAttribute(void *data, size_t dataSize, CUmem_range_attribute attribute, CUdeviceptr devPtr, size_t count)
{
    ENTER();
    SIM_GUARD();
    return managed(devPtr, count) ? range(data, dataSize, attribute, devPtr, count) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemRangeGetAttributes(void **data, size_t *dataSizes, CUmem_range_attribute *attributes, size_t numAttributes,
                                 CUdeviceptr devPtr, size_t count)
{
    ENTER();
    SIM_GUARD();
    if (!data || !dataSizes || !attributes || !numAttributes || !managed(devPtr, count))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < numAttributes; i++) {
        CUresult r = range(data[i], dataSizes[i], attributes[i], devPtr, count);

        if (r != CUDA_SUCCESS)
            return r;
    }
    return CUDA_SUCCESS;
}

static CUresult batch(const CUdeviceptr *ptrs, const size_t *sizes, size_t count, const CUmemLocation *locations,
                      const size_t *indices, size_t location_count, unsigned long long flags, CUstream stream, bool per_thread,
                      bool prefetch)
{
    struct sim_stream *s;
    CUresult r;
    SIM_GUARD();

    if (!ptrs || !sizes || !count || flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (prefetch && (!locations || !indices || !location_count || location_count > count || indices[0]))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; prefetch && i < location_count; i++)
        if (locations[i].type == CU_MEM_LOCATION_TYPE_DEVICE && !sim_device_valid(locations[i].id))
            return CUDA_ERROR_INVALID_DEVICE;
    for (size_t i = 0; i < count; i++)
        if (!managed(ptrs[i], sizes[i]))
            return CUDA_ERROR_INVALID_VALUE;
    if (!stream || stream == CU_STREAM_LEGACY)
        return CUDA_ERROR_INVALID_VALUE;
    STREAM(s, stream, per_thread);
    r = sim_capture_forbid(s);
    /* A location holds from its index on until the next one's. */
    for (size_t i = 0, at = 0; r == CUDA_SUCCESS && prefetch && i < count; i++) {
        const CUmemLocation *to;

        while (at + 1 < location_count && indices[at + 1] <= i)
            at++;
        to = &locations[at];
        r = sim_stream_submit(
            s,
            &(struct sim_op){.type = SIM_OP_COPY,
                             .run = sim_prefetch_run,
                             .copy = {.dst = ptrs[i],
                                      .width = sizes[i],
                                      .value = to->type == CU_MEM_LOCATION_TYPE_DEVICE ? (uint32_t)to->id + 1 : 0}},
            NULL);
    }
    return r == CUDA_SUCCESS ? sim_stream_submit(s, &(struct sim_op){.type = SIM_OP_EMPTY}, NULL) : r;
}

#define BATCH_FUNCTIONS(suffix, per_thread)                                                                                        \
    CUresult cuMemPrefetchBatchAsync##suffix(CUdeviceptr *dptrs, size_t *sizes, size_t count, CUmemLocation *prefetchLocs,         \
                                             size_t *prefetchLocIdxs, size_t numPrefetchLocs, unsigned long long flags,            \
                                             CUstream hStream)                                                                     \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return batch(dptrs, sizes, count, prefetchLocs, prefetchLocIdxs, numPrefetchLocs, flags, hStream, per_thread, true);       \
    }                                                                                                                              \
    CUresult cuMemDiscardBatchAsync##suffix(CUdeviceptr *dptrs, size_t *sizes, size_t count, unsigned long long flags,             \
                                            CUstream hStream)                                                                      \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return batch(dptrs, sizes, count, NULL, NULL, 0, flags, hStream, per_thread, false);                                       \
    }                                                                                                                              \
    CUresult cuMemDiscardAndPrefetchBatchAsync##suffix(CUdeviceptr *dptrs, size_t *sizes, size_t count,                            \
                                                       CUmemLocation *prefetchLocs, size_t *prefetchLocIdxs,                       \
                                                       size_t numPrefetchLocs, unsigned long long flags, CUstream hStream)         \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return batch(dptrs, sizes, count, prefetchLocs, prefetchLocIdxs, numPrefetchLocs, flags, hStream, per_thread, true);       \
    }

BATCH_FUNCTIONS(, false)
BATCH_FUNCTIONS(_ptsz, true)
