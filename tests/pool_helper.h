/* SPDX-License-Identifier: Apache-2.0 */
/* cuda_helper.h and what the programs that use memory pools share. */
#ifndef TESTS_POOL_HELPER_H
#define TESTS_POOL_HELPER_H

#include "cuda_helper.h"

/* A block of a pool, or of the current one where `pool` is NULL; 0 where the budget refuses it: with exactly that error, and the output as it
 * was. */
T_UNUSED static CUdeviceptr t_draw(CUmemoryPool pool, size_t size, CUstream stream)
{
    CUdeviceptr pointer = T_UNTOUCHED;
    CUresult result = pool ? cuMemAllocFromPoolAsync(&pointer, size, pool, stream) : cuMemAllocAsync(&pointer, size, stream);

    if (result == CUDA_SUCCESS)
        return pointer;
    t_result(result, CUDA_ERROR_OUT_OF_MEMORY);
    t_check(pointer == T_UNTOUCHED, "a refused allocation wrote its output");
    return 0;
}

/* What the simulated GPU's pools grow by. */
T_UNUSED static uint64_t t_chunk(void)
{
    return t_bytes("SOFTSIM_POOL_CHUNK", 32 * T_MIB);
}

/* What the driver holds for a pool. */
T_UNUSED static uint64_t t_reserved(CUmemoryPool pool)
{
    cuuint64_t bytes;

    t_cuda(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &bytes));
    return bytes;
}

/* A pool on a GPU. */
T_UNUSED static CUmemoryPool t_pool(int gpu)
{
    CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                            .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = gpu}};
    CUmemoryPool pool;

    t_cuda(cuMemPoolCreate(&pool, &props));
    return pool;
}

/* Give nothing back at synchronisations, as frameworks have it. */
T_UNUSED static void t_keep_all(CUmemoryPool pool)
{
    cuuint64_t all = UINT64_MAX;

    t_cuda(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &all));
}

/* Nothing is on its way on the current context's GPU, which no other process uses: the program is told what that GPU shows, and that is no
 * more than the budget. */
T_UNUSED static void t_at_rest(unsigned gpu)
{
    t_check(t_used(gpu) <= t_total(), "GPU %u says %llu bytes are in use, the limit is %llu", gpu, (unsigned long long)t_used(gpu),
            (unsigned long long)t_total());
    t_equal(t_free(), t_total() - t_used(gpu));
}

#endif
