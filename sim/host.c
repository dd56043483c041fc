/* SPDX-License-Identifier: Apache-2.0 */
/* Page-locked host memory: allocated, registered; it is ordinary memory here and takes no HBM. */
#include <sys/mman.h>

#include "sim.h"

static CUresult host_alloc(void **pp, size_t size, unsigned int flags)
{
    struct sim_ctx *ctx;
    struct sim_mem *mem;
    uint64_t reserved;
    void *p;

    CONTEXT(ctx);
    if (!pp || !size || (flags & ~7u))
        return CUDA_ERROR_INVALID_VALUE;
    UNSAFE_IN_CAPTURE();
    reserved = sim_round_up(size, 4096);
    p = reserved < size ? MAP_FAILED : mmap(NULL, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    mem = sim_mem_new(SIM_MEM_HOST, ctx->dev, ctx, (uint64_t)(uintptr_t)p, size);
    if (!mem) {
        munmap(p, reserved);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    mem->reserved = reserved;
    mem->bytes = p;
    mem->flags = flags;
    *pp = p;
    return CUDA_SUCCESS;
}

CUresult cuMemAllocHost_v2(void **pp, size_t bytesize)
{
    ENTER();
    SIM_GUARD();
    return host_alloc(pp, bytesize, 0);
}

CUresult cuMemAllocHost(void **pp, unsigned int bytesize)
{
    ENTER();
    SIM_GUARD();
    return host_alloc(pp, bytesize, 0);
}

CUresult cuMemHostAlloc(void **pp, size_t bytesize, unsigned int Flags)
{
    ENTER();
    SIM_GUARD();
    return host_alloc(pp, bytesize, Flags);
}

CUresult cuMemFreeHost(void *p)
{
    struct sim_ctx *ctx;
    struct sim_mem *mem;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    UNSAFE_IN_CAPTURE();
    mem = sim_mem_find((uint64_t)(uintptr_t)p);
    if (!mem || mem->kind != SIM_MEM_HOST || mem->base != (uint64_t)(uintptr_t)p)
        return CUDA_ERROR_INVALID_VALUE;
    sim_mem_free(mem);
    return CUDA_SUCCESS;
}

static CUresult host_register(void *p, size_t size, unsigned int flags)
{
    struct sim_ctx *ctx;
    struct sim_mem *mem;

    CONTEXT(ctx);
    if (!p || !size || (flags & ~15u))
        return CUDA_ERROR_INVALID_VALUE;
    UNSAFE_IN_CAPTURE();
    mem = sim_mem_new(SIM_MEM_REGISTERED, ctx->dev, ctx, (uint64_t)(uintptr_t)p, size);
    if (!mem)
        return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    mem->bytes = p;
    mem->flags = flags;
    return CUDA_SUCCESS;
}

CUresult cuMemHostRegister_v2(void *p, size_t bytesize, unsigned int Flags)
{
    ENTER();
    SIM_GUARD();
    return host_register(p, bytesize, Flags);
}

CUresult cuMemHostRegister(void *p, size_t bytesize, unsigned int Flags)
{
    ENTER();
    SIM_GUARD();
    return host_register(p, bytesize, Flags);
}

CUresult cuMemHostUnregister(void *p)
{
    struct sim_ctx *ctx;
    struct sim_mem *mem;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    UNSAFE_IN_CAPTURE();
    mem = sim_mem_find((uint64_t)(uintptr_t)p);
    if (!mem || mem->kind != SIM_MEM_REGISTERED || mem->base != (uint64_t)(uintptr_t)p)
        return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    sim_mem_free(mem);
    return CUDA_SUCCESS;
}

static struct sim_mem *host_memory(const void *p)
{
    struct sim_mem *mem = sim_mem_find((uint64_t)(uintptr_t)p);

    return mem && (mem->kind == SIM_MEM_HOST || mem->kind == SIM_MEM_REGISTERED) ? mem : NULL;
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *pdptr, void *p, unsigned int Flags)
{
    struct sim_ctx *ctx;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    if (!pdptr || Flags || !host_memory(p))
        return CUDA_ERROR_INVALID_VALUE;
    *pdptr = (CUdeviceptr)(uintptr_t)p;
    return CUDA_SUCCESS;
}

/* An address above 4 GiB cannot be told through the first ABI. */
CUresult cuMemHostGetDevicePointer(CUdeviceptr_v1 *pdptr, void *p, unsigned int Flags)
{
    struct sim_ctx *ctx;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    if (ctx->api_version >= 3020)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!pdptr || Flags || !host_memory(p) || (uintptr_t)p > UINT32_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    *pdptr = (CUdeviceptr_v1)(uintptr_t)p;
    return CUDA_SUCCESS;
}

CUresult cuMemHostGetFlags(unsigned int *pFlags, void *p)
{
    struct sim_ctx *ctx;
    struct sim_mem *mem;

    ENTER();
    SIM_GUARD();
    CONTEXT(ctx);
    mem = host_memory(p);
    if (!pFlags || !mem)
        return CUDA_ERROR_INVALID_VALUE;
    *pFlags = mem->flags;
    return CUDA_SUCCESS;
}
