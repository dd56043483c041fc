/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts are charged at what they take, by every call that makes one, and give back themselves and what is in them by every call that ends one. */
// run: SOFTSLICE_VRAM=2GiB SOFTSIM_CONTEXT_BYTES=300M
// run: SOFTSLICE_VRAM=2GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSLICE_TENANT=contexts
// run: SOFTSLICE_VRAM=2GiB SOFTSIM_RANDOMISE=3
#define __CUDA_API_VERSION_INTERNAL     1
#define __CUDA_API_VERSION_INTERNAL_ODR 1
#include "../helper.h"

#include <cuda.h>

static uint64_t limit, cost;
static CUdevice device;

static CUdeviceptr alloc(size_t size)
{
    CUdeviceptr p = 0;
    t_cuda(cuMemAlloc_v2(&p, size));
    return p;
}

/* In the current context: what is told agrees with what the GPU says is in use, and that is `used`. */
static void holds(uint64_t used)
{
    size_t free_bytes, total;

    t_equal(t_used(0), used);
    t_cuda(cuMemGetInfo_v2(&free_bytes, &total));
    t_equal(total, limit);
    t_equal(free_bytes, limit - used);
}

/* Nothing is held: a context that is made now finds all of the rest. */
static void holds_nothing(void)
{
    CUcontext context;

    t_equal(t_used(0), 0);
    t_cuda(cuCtxCreate_v2(&context, 0, device));
    holds(cost);
    t_cuda(cuCtxDestroy_v2(context));
    t_equal(t_used(0), 0);
}

static void created(void)
{
    CUcontext a, b, popped;
    uint64_t block = 64 * T_MIB;

    t_cuda(cuCtxCreate_v2(&a, 0, device));
    holds(cost);
    CUdeviceptr p = alloc(block);
    holds(cost + block);

    /* A second context of a process costs what the GPU says it does: here nothing. */
    t_cuda(cuCtxCreate_v3(&b, NULL, 0, 0, device));
    uint64_t both = t_used(0); /* p included */
    holds(both);
    alloc(block);
    alloc(2 * block);
    holds(both + 3 * block);
    t_cuda(cuCtxPopCurrent_v2(&popped));
    t_cuda(cuCtxDestroy_v2(b));
    t_cuda(cuCtxSetCurrent(a));
    holds(cost + block);

    /* A block is freed from another context than its own. */
    t_cuda(cuCtxCreate_v4(&b, NULL, 0, device));
    t_cuda(cuMemFree_v2(p));
    holds(both - block);
    t_cuda(cuCtxDestroy(b));
    t_cuda(cuCtxSetCurrent(a));
    holds(cost);
    alloc(block);
    t_cuda(cuCtxDestroy_v2(a));
    holds_nothing();
    t_check(cuCtxDestroy_v2(a) != CUDA_SUCCESS, "a context was destroyed twice");
    t_check(cuCtxDestroy_v2((CUcontext)0x1234) != CUDA_SUCCESS, "garbage was destroyed");
    t_check(cuCtxDestroy_v2(NULL) != CUDA_SUCCESS, "NULL was destroyed");
    holds_nothing();
    t_result(cuCtxCreate_v2(NULL, 0, device), CUDA_ERROR_INVALID_VALUE);
    t_check(cuCtxCreate_v2(&a, 0, 99) != CUDA_SUCCESS, "a context was created on no device");
    holds_nothing();
}

static void detached(void)
{
    CUcontext context;

    t_cuda(cuCtxCreate(&context, 0, device));
    t_cuda(cuCtxAttach(&context, 0));
    t_cuda(cuCtxDetach(context));
    t_equal(t_used(0), cost);
    t_cuda(cuCtxDetach(context));
    holds_nothing();
}

static void primary(void)
{
    CUcontext a, b;
    uint64_t block = 64 * T_MIB;

    for (int round = 0; round < 2; round++) {
        t_cuda(cuDevicePrimaryCtxRetain(&a, device));
        t_cuda(cuDevicePrimaryCtxRetain(&b, device));
        t_check(a == b, "a device has two primary contexts");
        t_cuda(cuCtxSetCurrent(a));
        holds(cost);
        alloc(block);
        t_cuda(cuDevicePrimaryCtxRelease_v2(device));
        holds(cost + block);
        t_cuda(round ? cuDevicePrimaryCtxRelease(device) : cuDevicePrimaryCtxRelease_v2(device));
        t_cuda(cuCtxSetCurrent(NULL));
        holds_nothing();
    }
    t_check(cuDevicePrimaryCtxRelease_v2(device) != CUDA_SUCCESS, "a primary context was released that nobody had");
    holds_nothing();

    for (int round = 0; round < 2; round++) {
        t_cuda(cuDevicePrimaryCtxRetain(&a, device));
        t_cuda(cuCtxSetCurrent(a));
        alloc(block);
        t_cuda(round ? cuDevicePrimaryCtxReset(device) : cuDevicePrimaryCtxReset_v2(device));
        uint64_t left = t_used(0);
        t_check(left == 0 || left == cost, "%llu bytes are in use after a reset", (unsigned long long)left);
        while (cuDevicePrimaryCtxRelease_v2(device) == CUDA_SUCCESS)
            ;
        t_cuda(cuCtxSetCurrent(NULL));
        holds_nothing();
    }
}

/* The budget has no room for a context: it is refused as memory is, and leaves nothing behind. */
static void refused(void)
{
    CUcontext first, second = (CUcontext)0x77;
    size_t free_bytes, total;

    t_cuda(cuCtxCreate_v2(&first, 0, device));
    t_cuda(cuMemGetInfo_v2(&free_bytes, &total));
    alloc(free_bytes & ~(2 * T_MIB - 1));
    t_check(t_used(0) <= limit, "more is in use than the limit");
    CUresult result = cuCtxCreate_v2(&second, 0, device);
    if (result == CUDA_SUCCESS)
        t_cuda(cuCtxDestroy_v2(second)); /* it took nothing more */
    else
        t_result(result, CUDA_ERROR_OUT_OF_MEMORY);
    t_check(t_used(0) <= limit, "more is in use than the limit");
    t_cuda(cuCtxDestroy_v2(first));
    holds_nothing();
}

int main(void)
{
    CUcontext context;

    limit = t_bytes("SOFTSLICE_VRAM", 0);
    t_cuda(cuInit(0));
    t_cuda(cuDeviceGet(&device, 0));
    t_cuda(cuCtxCreate_v2(&context, 0, device));
    cost = t_used(0);
    t_cuda(cuCtxDestroy_v2(context));
    holds_nothing();
    created();
    detached();
    primary();
    refused();
    return 0;
}
