/* SPDX-License-Identifier: Apache-2.0 */
/* A fault of other limiters: what a context's end or a reset freed stayed charged, and the first of several releases of a primary context gave its
 * charge back though it lived on. */
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSLICE_TENANT=hami
#define __CUDA_API_VERSION_INTERNAL     1
#define __CUDA_API_VERSION_INTERNAL_ODR 1
#include "../helper.h"

#include <cuda.h>

#define CONTEXT (100 * T_MIB)

/* 500 MiB by calls of every kind that a context's end frees: twice of them is too much. */
static void take(void)
{
    CUmipmappedArray mipmap;
    CUdeviceptr pointer;
    CUarray array;
    size_t pitch;

    t_cuda(cuMemAlloc_v2(&pointer, 200 * T_MIB));
    t_cuda(cuMemAlloc_v2(&pointer, 512));
    t_cuda(cuMemAllocPitch_v2(&pointer, &pitch, T_MIB, 100, 16));
    t_cuda(cuMemAllocManaged(&pointer, 100 * T_MIB, CU_MEM_ATTACH_GLOBAL));
    t_cuda(cuArrayCreate_v2(&array, &(CUDA_ARRAY_DESCRIPTOR){4096, 4096, CU_AD_FORMAT_FLOAT, 1}));
    t_cuda(cuArrayCreate_v2(&array, &(CUDA_ARRAY_DESCRIPTOR){16, 16, CU_AD_FORMAT_FLOAT, 1}));
    t_cuda(cuMipmappedArrayCreate(&mipmap, &(CUDA_ARRAY3D_DESCRIPTOR){2048, 2048, 0, CU_AD_FORMAT_FLOAT, 1, 0}, 4));
}

static uint64_t charged(void)
{
    size_t free_bytes, total;

    t_cuda(cuMemGetInfo_v2(&free_bytes, &total));
    return total - free_bytes;
}

int main(void)
{
    CUcontext context, again;
    CUdeviceptr stale;
    uint64_t full;

    t_cuda(cuInit(0));
    for (int round = 0; round < 20; round++) { /* other limiters have tables of 16 and 32 contexts */
        t_cuda(cuCtxCreate_v2(&context, 0, 0));
        t_equal(charged(), CONTEXT);
        take();
        full = charged();
        t_check(full > CONTEXT + 480 * T_MIB, "%llu bytes are charged", (unsigned long long)full);
        t_cuda(cuCtxDestroy_v2(context));
        t_equal(t_used(0), 0);
    }
    for (int round = 0; round < 20; round++) {
        t_cuda(cuDevicePrimaryCtxRetain(&context, 0));
        t_cuda(cuDevicePrimaryCtxRetain(&again, 0));
        t_check(context == again, "two primary contexts");
        t_cuda(cuCtxSetCurrent(context));
        t_equal(charged(), CONTEXT);
        take();
        t_cuda(cuMemAlloc_v2(&stale, 4 * T_MIB));
        full = charged();
        t_cuda(cuDevicePrimaryCtxRelease_v2(0));
        t_equal(charged(), full); /* it is held once more */
        if (round % 2) {
            t_cuda(cuDevicePrimaryCtxReset_v2(0));
            t_equal(t_used(0), 0);
            t_check(cuMemFree_v2(stale) != CUDA_SUCCESS, "what a reset freed was freed again");
            continue;
        }
        t_cuda(cuDevicePrimaryCtxRelease_v2(0));
        t_equal(t_used(0), 0);
    }
    t_cuda(cuCtxCreate_v2(&context, 0, 0));
    t_equal(charged(), CONTEXT);
    return 0;
}
