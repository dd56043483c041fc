/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemAllocAsync, cuMemAllocFromPoolAsync, cuMemFreeAsync. */
#include "graph.h"
#include "pool.h"

static CUresult alloc_async(CUdeviceptr *dptr, size_t size, CUmemoryPool handle, bool named, CUstream stream, bool per_thread)
{
    struct sim_pool *pool = NULL;
    struct sim_stream *s;
    struct sim_ctx *ctx;
    struct sim_mem *mem;
    CUresult r;
    SIM_GUARD();

    CONTEXT(ctx);
    if (!dptr || !size)
        return CUDA_ERROR_INVALID_VALUE;
    STREAM(s, stream, per_thread);
    if (named) {
        pool = sim_pool_of(handle);
        if (!pool || pool->imported)
            return CUDA_ERROR_INVALID_VALUE;
    } else {
        pool = sim_pool_current(s->head.ctx->dev);
    }
    if (!pool)
        return CUDA_ERROR_OUT_OF_MEMORY;
    /* In a capture it becomes an allocation node, and no memory moves. */
    if (s->capture) {
        CUDA_MEM_ALLOC_NODE_PARAMS params = {.poolProps = pool->props, .bytesize = size};

        r = sim_capture_add(s, &(struct sim_op){.type = SIM_OP_ALLOC}, &params);
        if (r == CUDA_SUCCESS)
            *dptr = ((struct sim_node *)s->capture_nodes[0])->params.alloc.dptr;
        return r;
    }
    r = sim_capture_implicit(s);
    if (r != CUDA_SUCCESS)
        return r;
    r = sim_pool_alloc(pool, size, &mem);
    if (r == CUDA_SUCCESS)
        *dptr = mem->base;
    return r;
}

static void free_run(struct sim_op *op)
{
    struct sim_mem *mem = sim_mem_find(op->copy.dst);

    if (!mem || mem->base != op->copy.dst)
        return;
    if (mem->kind == SIM_MEM_POOL)
        sim_pool_free(mem);
    else if (mem->kind == SIM_MEM_GRAPH)
        sim_graph_mem_free(mem);
    else
        sim_mem_free(mem);
}

static CUresult free_async(CUdeviceptr dptr, CUstream stream, bool per_thread)
{
    struct sim_stream *s;
    struct sim_mem *mem;
    SIM_GUARD();

    STREAM(s, stream, per_thread);
    if (!dptr)
        return CUDA_ERROR_INVALID_VALUE;
    mem = sim_mem_find(dptr);
    if (!mem || mem->base != dptr)
        return CUDA_ERROR_INVALID_VALUE;
    if (mem->kind != SIM_MEM_POOL && mem->kind != SIM_MEM_GRAPH && mem->kind != SIM_MEM_DEVICE)
        return CUDA_ERROR_INVALID_VALUE;
    return sim_stream_submit(s, &(struct sim_op){.type = SIM_OP_FREE, .run = free_run, .copy = {.dst = dptr}}, &dptr);
}

#define POOL_FUNCTIONS(suffix, per_thread)                                                                                         \
    CUresult cuMemAllocAsync##suffix(CUdeviceptr *dptr, size_t bytesize, CUstream hStream)                                         \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return alloc_async(dptr, bytesize, NULL, false, hStream, per_thread);                                                      \
    }                                                                                                                              \
    CUresult cuMemAllocFromPoolAsync##suffix(CUdeviceptr *dptr, size_t bytesize, CUmemoryPool pool, CUstream hStream)              \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return alloc_async(dptr, bytesize, pool, true, hStream, per_thread);                                                       \
    }                                                                                                                              \
    CUresult cuMemFreeAsync##suffix(CUdeviceptr dptr, CUstream hStream)                                                            \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return free_async(dptr, hStream, per_thread);                                                                              \
    }

POOL_FUNCTIONS(, false)
POOL_FUNCTIONS(_ptsz, true)
