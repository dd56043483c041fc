/* SPDX-License-Identifier: Apache-2.0 */
/* Every ABI of the allocating calls is charged, every bad argument gets the driver's own answer, and frees of what is not ours change nothing. */
// run: SOFTSLICE_VRAM=1GiB
#define __CUDA_API_VERSION_INTERNAL     1
#define __CUDA_API_VERSION_INTERNAL_ODR 1
#include "../helper.h"

#include <cuda.h>

#define UNTOUCHED    ((CUdeviceptr)0xdeadbeefdeadbeef)
#define REAL(symbol) ((__typeof__(&symbol))t_real(#symbol))

static uint64_t limit;

static uint64_t free_now(void)
{
    size_t free_bytes, total;
    t_cuda(cuMemGetInfo_v2(&free_bytes, &total));
    t_equal(total, limit);
    return free_bytes;
}

/* What is told to be free is what the GPU has left of the budget. */
static void consistent(void)
{
    t_equal(free_now(), limit - t_used(0));
}

static void plain(void)
{
    CUdeviceptr p = UNTOUCHED;
    uint64_t before = free_now();

    t_cuda(cuMemAlloc_v2(&p, 10 * T_MIB));
    t_equal(free_now(), before - 10 * T_MIB);
    consistent();
    t_result(cuMemFree_v2(p + 512), REAL(cuMemFree_v2)(p + 512));
    t_equal(free_now(), before - 10 * T_MIB);
    t_cuda(cuMemFree_v2(p));
    t_equal(free_now(), before);
    /* A second free, garbage and NULL: the driver's answer, and nothing is given back. */
    t_check(cuMemFree_v2(p) != CUDA_SUCCESS, "a second free of one block succeeded");
    t_check(cuMemFree_v2(0x1234) != CUDA_SUCCESS, "a free of garbage succeeded");
    t_result(cuMemFree_v2(0), REAL(cuMemFree_v2)(0));
    t_equal(free_now(), before);

    /* Refused: sizes above the budget, above everything, and next to overflow. */
    static const size_t sizes[] = {(size_t)1 << 30, (size_t)1 << 40, SIZE_MAX / 2, SIZE_MAX - T_MIB, SIZE_MAX - 1, SIZE_MAX};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        p = UNTOUCHED;
        t_result(cuMemAlloc_v2(&p, sizes[i]), CUDA_ERROR_OUT_OF_MEMORY);
        t_check(p == UNTOUCHED, "a refused cuMemAlloc wrote its output");
    }
    /* Bad arguments. */
    t_result(cuMemAlloc_v2(&p, 0), REAL(cuMemAlloc_v2)(&p, 0));
    t_result(cuMemAlloc_v2(NULL, 0), REAL(cuMemAlloc_v2)(NULL, 0));
    t_result(cuMemAlloc_v2(NULL, 4096), REAL(cuMemAlloc_v2)(NULL, 4096));
    t_equal(free_now(), before);
    consistent();
}

static void pitched(void)
{
    CUdeviceptr p = UNTOUCHED;
    size_t pitch = 77;
    uint64_t before = free_now();

    t_cuda(cuMemAllocPitch_v2(&p, &pitch, 1000, 4096, 4));
    t_check(pitch >= 1000, "pitch %zu", pitch);
    consistent();
    t_check(free_now() <= before - pitch * 4096, "%llu bytes are told to be free beside a pitched block of %zu",
            (unsigned long long)free_now(), pitch * 4096);
    t_cuda(cuMemFree_v2(p));
    t_equal(free_now(), before);

    /* width * height that does not fit in 64 bits is not small. */
    static const size_t sizes[][2] = {{(size_t)1 << 33, (size_t)1 << 33},
                                      {(size_t)1 << 32, (size_t)1 << 32},
                                      {((size_t)1 << 32) + 1, (size_t)1 << 32},
                                      {SIZE_MAX, 1},
                                      {SIZE_MAX - 100, 2},
                                      {1, SIZE_MAX},
                                      {(size_t)1 << 20, (size_t)1 << 11}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        p = UNTOUCHED;
        pitch = 77;
        t_result(cuMemAllocPitch_v2(&p, &pitch, sizes[i][0], sizes[i][1], 4), CUDA_ERROR_OUT_OF_MEMORY);
        t_check(p == UNTOUCHED && pitch == 77, "a refused cuMemAllocPitch wrote an output");
    }
    t_result(cuMemAllocPitch_v2(&p, &pitch, 0, 10, 4), REAL(cuMemAllocPitch_v2)(&p, &pitch, 0, 10, 4));
    t_result(cuMemAllocPitch_v2(&p, &pitch, 10, 0, 4), REAL(cuMemAllocPitch_v2)(&p, &pitch, 10, 0, 4));
    t_result(cuMemAllocPitch_v2(&p, &pitch, 10, 10, 3), REAL(cuMemAllocPitch_v2)(&p, &pitch, 10, 10, 3));
    t_result(cuMemAllocPitch_v2(NULL, &pitch, 10, 10, 4), REAL(cuMemAllocPitch_v2)(NULL, &pitch, 10, 10, 4));
    t_result(cuMemAllocPitch_v2(&p, NULL, 10, 10, 4), REAL(cuMemAllocPitch_v2)(&p, NULL, 10, 10, 4));
    t_equal(free_now(), before);
    consistent();
}

static void managed(void)
{
    CUdeviceptr p = UNTOUCHED;
    uint64_t before = free_now();

    t_cuda(cuMemAllocManaged(&p, 64 * T_MIB, CU_MEM_ATTACH_GLOBAL));
    t_equal(free_now(), before - 64 * T_MIB);
    t_cuda(cuMemFree_v2(p));
    t_equal(free_now(), before);
    p = UNTOUCHED;
    t_result(cuMemAllocManaged(&p, 2 * T_GIB, CU_MEM_ATTACH_GLOBAL), CUDA_ERROR_OUT_OF_MEMORY);
    t_check(p == UNTOUCHED, "a refused cuMemAllocManaged wrote its output");
    t_result(cuMemAllocManaged(&p, 4096, 77), REAL(cuMemAllocManaged)(&p, 4096, 77));
    t_result(cuMemAllocManaged(&p, 0, CU_MEM_ATTACH_GLOBAL), REAL(cuMemAllocManaged)(&p, 0, CU_MEM_ATTACH_GLOBAL));
    t_result(cuMemAllocManaged(NULL, 4096, CU_MEM_ATTACH_GLOBAL), REAL(cuMemAllocManaged)(NULL, 4096, CU_MEM_ATTACH_GLOBAL));
    t_equal(free_now(), before);
}

/* The ABI before CUDA 3.2, with 32-bit sizes and pointers, in a context of its own. */
static void first_abi(CUdevice device)
{
    CUdeviceptr_v1 p = 77;
    unsigned int free_bytes, total, pitch = 77;
    CUcontext context;

    t_cuda(cuCtxCreate(&context, 0, device));
    uint64_t before = limit - t_used(0);
    t_cuda(cuMemGetInfo(&free_bytes, &total));
    t_equal(total, limit);
    t_equal(free_bytes, before);
    t_cuda(cuMemAlloc(&p, 10 << 20));
    t_cuda(cuMemGetInfo(&free_bytes, &total));
    t_equal(free_bytes, before - 10 * T_MIB);
    t_cuda(cuMemFree(p));
    t_cuda(cuMemAllocPitch(&p, &pitch, 1000, 4096, 4));
    t_cuda(cuMemGetInfo(&free_bytes, &total));
    t_equal(free_bytes, limit - t_used(0));
    t_cuda(cuMemFree(p));
    t_cuda(cuMemGetInfo(&free_bytes, &total));
    t_equal(free_bytes, before);
    p = 77;
    t_result(cuMemAlloc(&p, 1u << 30), CUDA_ERROR_OUT_OF_MEMORY);
    t_check(p == 77, "a refused cuMemAlloc of the first ABI wrote its output");
    pitch = 77;
    t_result(cuMemAllocPitch(&p, &pitch, 1u << 31, 1u << 31, 4), CUDA_ERROR_OUT_OF_MEMORY);
    t_check(p == 77 && pitch == 77, "a refused cuMemAllocPitch of the first ABI wrote an output");
    t_result(cuMemAlloc(&p, 0), REAL(cuMemAlloc)(&p, 0));
    t_result(cuMemAlloc(NULL, 4096), REAL(cuMemAlloc)(NULL, 4096));
    t_result(cuMemFree(0x1234), REAL(cuMemFree)(0x1234));
    t_cuda(cuCtxDestroy(context));
}

int main(void)
{
    CUcontext context;
    CUdevice device;
    size_t total;
    unsigned int total32;
    CUdeviceptr p = UNTOUCHED;

    limit = t_bytes("SOFTSLICE_VRAM", 0);
    t_check(cuMemAlloc_v2(&p, 4096) == CUDA_ERROR_NOT_INITIALIZED && p == UNTOUCHED, "cuMemAlloc before cuInit");
    t_cuda(cuInit(0));
    t_cuda(cuDeviceGet(&device, 0));
    t_result(cuMemAlloc_v2(&p, 4096), CUDA_ERROR_INVALID_CONTEXT);
    t_result(cuMemAlloc_v2(&p, 2 * T_GIB), CUDA_ERROR_INVALID_CONTEXT);
    t_cuda(cuDeviceTotalMem_v2(&total, device));
    t_equal(total, limit);
    t_cuda(cuDeviceTotalMem(&total32, device));
    t_equal(total32, limit);
    t_result(cuDeviceTotalMem_v2(&total, 99), REAL(cuDeviceTotalMem_v2)(&total, 99));
    t_result(cuDeviceTotalMem_v2(NULL, device), REAL(cuDeviceTotalMem_v2)(NULL, device));

    first_abi(device);
    t_cuda(cuCtxCreate_v2(&context, 0, device));
    plain();
    pitched();
    managed();
    t_result(cuMemGetInfo_v2(NULL, NULL), REAL(cuMemGetInfo_v2)(NULL, NULL));
    t_result(cuMemGetInfo_v2(NULL, &total), REAL(cuMemGetInfo_v2)(NULL, &total));
    t_result(cuMemGetInfo_v2(&total, NULL), REAL(cuMemGetInfo_v2)(&total, NULL));
    t_cuda(cuCtxDestroy_v2(context));
    return 0;
}
