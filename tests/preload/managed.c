/* SPDX-License-Identifier: Apache-2.0 */
/* Managed memory is charged in full, or as far as it is on the GPU, or forbidden, as `managed` says; and only prefetching towards the GPU asks. */
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=300M -- charge
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSLICE_MANAGED=charge -- charge
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSLICE_MANAGED=resident -- resident
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSLICE_MANAGED=forbid -- forbid
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSLICE_MANAGED=forbid SOFTSLICE_SPILL=host -- forbid
#define __CUDA_API_VERSION_INTERNAL     1
#define __CUDA_API_VERSION_INTERNAL_ODR 1
#include "../helper.h"

#include <cuda.h>

#define REAL(symbol) ((__typeof__(&symbol))t_real(#symbol))
#define UNTOUCHED    ((CUdeviceptr)0xdeadbeefdeadbeef)

static uint64_t free_now(void)
{
    size_t free_bytes, total;

    t_cuda(cuMemGetInfo_v2(&free_bytes, &total));
    return free_bytes;
}

static CUresult take(CUdeviceptr *pointer, size_t bytes)
{
    *pointer = UNTOUCHED;
    CUresult result = cuMemAllocManaged(pointer, bytes, CU_MEM_ATTACH_GLOBAL);
    t_check(result == CUDA_SUCCESS || *pointer == UNTOUCHED, "a refused cuMemAllocManaged wrote its output");
    return result;
}

/* By every ABI, towards the device and the host. */
static void prefetch(CUdeviceptr pointer, size_t bytes, CUresult expected)
{
    CUmemLocation there = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}, here = {.type = CU_MEM_LOCATION_TYPE_HOST, .id = 0};

    t_result(cuMemPrefetchAsync(pointer, bytes, 0, NULL), expected);
    t_result(cuMemPrefetchAsync_ptsz(pointer, bytes, 0, NULL), expected);
    t_result(cuMemPrefetchAsync_v2(pointer, bytes, there, 0, NULL), expected);
    t_result(cuMemPrefetchAsync_v2_ptsz(pointer, bytes, there, 0, NULL), expected);
    t_cuda(cuMemPrefetchAsync(pointer, bytes, CU_DEVICE_CPU, NULL));
    t_cuda(cuMemPrefetchAsync_v2(pointer, bytes, here, 0, NULL));
    t_cuda(cuCtxSynchronize());
}

/* The driver's own answer to what is wrong. */
static void wrong(void)
{
    CUdeviceptr pointer = UNTOUCHED;
    uint64_t before = free_now();

    t_result(cuMemAllocManaged(NULL, T_MIB, CU_MEM_ATTACH_GLOBAL), REAL(cuMemAllocManaged)(NULL, T_MIB, CU_MEM_ATTACH_GLOBAL));
    t_result(cuMemAllocManaged(&pointer, 0, CU_MEM_ATTACH_GLOBAL), REAL(cuMemAllocManaged)(&pointer, 0, CU_MEM_ATTACH_GLOBAL));
    t_result(cuMemAllocManaged(&pointer, T_MIB, 77), REAL(cuMemAllocManaged)(&pointer, T_MIB, 77));
    t_check(pointer == UNTOUCHED, "a failed cuMemAllocManaged wrote its output");
    t_result(cuMemPrefetchAsync(0x1234, 4096, 0, NULL), REAL(cuMemPrefetchAsync)(0x1234, 4096, 0, NULL));
    t_result(cuMemPrefetchAsync(0x1234, 0, 0, NULL), REAL(cuMemPrefetchAsync)(0x1234, 0, 0, NULL));
    t_cuda(cuMemAllocManaged(&pointer, 4 * T_MIB, CU_MEM_ATTACH_GLOBAL));
    t_result(cuMemPrefetchAsync(pointer, 4 * T_MIB, 99, NULL), REAL(cuMemPrefetchAsync)(pointer, 4 * T_MIB, 99, NULL));
    t_result(cuMemPrefetchAsync(pointer, 5 * T_MIB, 0, NULL), REAL(cuMemPrefetchAsync)(pointer, 5 * T_MIB, 0, NULL));
    t_cuda(cuMemFree_v2(pointer));
    t_equal(free_now(), before);
}

/* What is charged and not on the GPU is not missed in the driver's figure. */
static void small_ones(void)
{
    CUdeviceptr pointer[100];
    uint64_t before = free_now();
    size_t heap;

    for (int i = 0; i < 100; i++)
        t_cuda(take(&pointer[i], 4096));
    t_check(free_now() < before, "small managed memory costs nothing");
    t_cuda(cuCtxGetLimit(&heap, CU_LIMIT_MALLOC_HEAP_SIZE));
    t_cuda(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, heap)); /* which reads the figure */
    for (int i = 0; i < 100; i++)
        t_cuda(cuMemFree_v2(pointer[i]));
    t_equal(free_now(), before);
}

static void charge(void)
{
    CUdeviceptr first, second;
    uint64_t before = free_now();

    t_cuda(take(&first, 500 * T_MIB));
    t_equal(free_now(), before - 500 * T_MIB);
    t_result(take(&second, 400 * T_MIB), CUDA_ERROR_OUT_OF_MEMORY);
    prefetch(first, 500 * T_MIB, CUDA_SUCCESS);
    t_cuda(cuMemFree_v2(first));
    t_equal(free_now(), before);
    small_ones();
    wrong();
}

/* Until the driver's figure was read again: what is charged is what is on the GPU. */
static void settled(uint64_t bytes)
{
    uint64_t limit = t_bytes("SOFTSLICE_VRAM", 0), end = t_now_ms() + 20000;

    while (limit - free_now() != bytes && t_now_ms() < end)
        usleep(10000);
    t_equal(limit - free_now(), bytes);
    t_equal(t_used(0), bytes);
}

static void resident(void)
{
    CUdeviceptr large, small, plain;
    uint64_t before = free_now();

    t_cuda(take(&large, 4 * T_GIB)); /* more than the budget, of which none is on the GPU */
    t_cuda(take(&small, 100 * T_MIB));
    t_equal(free_now(), before);
    t_result(cuMemPrefetchAsync(large, 4 * T_GIB, 0, NULL), CUDA_ERROR_OUT_OF_MEMORY);
    prefetch(large, 2 * T_GIB, CUDA_ERROR_OUT_OF_MEMORY);
    t_equal(free_now(), before); /* a refused one holds nothing */

    /* What the budget has left, less what others take of it. */
    t_cuda(cuMemAlloc_v2(&plain, 700 * T_MIB));
    prefetch(small, 100 * T_MIB, CUDA_ERROR_OUT_OF_MEMORY);
    prefetch(small, 20 * T_MIB, CUDA_SUCCESS);
    t_cuda(cuMemFree_v2(plain));
    t_cuda(cuMemFree_v2(large));
    t_result(cuMemFree_v2(large), REAL(cuMemFree_v2)(large));
    t_cuda(cuMemFree_v2(small));
    settled(t_bytes("SOFTSLICE_VRAM", 0) - before);
    wrong();
}

/* Pages that are on the GPU are charged while they are there. */
static void comes_and_goes(void)
{
    CUdeviceptr pointer, plain;
    uint64_t before = t_used(0);

    t_cuda(take(&pointer, 2 * T_GIB));
    t_cuda(cuMemPrefetchAsync(pointer, 400 * T_MIB, 0, NULL));
    t_cuda(cuCtxSynchronize());
    settled(before + 400 * T_MIB);
    t_result(cuMemPrefetchAsync(pointer + 400 * T_MIB, 400 * T_MIB, 0, NULL), CUDA_ERROR_OUT_OF_MEMORY);
    t_cuda(cuMemAlloc_v2(&plain, 200 * T_MIB));
    t_cuda(cuMemPrefetchAsync(pointer, 400 * T_MIB, 0, NULL)); /* asks for nothing that is not there */
    t_cuda(cuCtxSynchronize());
    settled(before + 600 * T_MIB);
    t_cuda(cuMemPrefetchAsync(pointer, 400 * T_MIB, CU_DEVICE_CPU, NULL));
    t_cuda(cuCtxSynchronize());
    settled(before + 200 * T_MIB);
    t_cuda(cuMemPrefetchAsync(pointer + 400 * T_MIB, 400 * T_MIB, 0, NULL));
    t_cuda(cuCtxSynchronize());
    settled(before + 600 * T_MIB);
    t_cuda(cuMemFree_v2(pointer));
    settled(before + 200 * T_MIB);
    t_cuda(cuMemFree_v2(plain));
    settled(before);
}

static void forbid(void)
{
    CUdeviceptr pointer;
    uint64_t before = free_now();

    t_result(take(&pointer, 4096), CUDA_ERROR_NOT_SUPPORTED);
    t_result(take(&pointer, 4 * T_GIB), CUDA_ERROR_NOT_SUPPORTED);
    t_equal(free_now(), before);
    t_cuda(cuMemAlloc_v2(&pointer, 4 * T_MIB));
    t_equal(free_now(), before - 4 * T_MIB);
    t_cuda(cuMemFree_v2(pointer));
}

int main(int argc, char **argv)
{
    CUdeviceptr pointer = UNTOUCHED;
    CUcontext context;

    t_check(argc > 1, "usage: managed charge|resident|forbid");
    t_result(cuMemAllocManaged(&pointer, 4096, CU_MEM_ATTACH_GLOBAL),
             REAL(cuMemAllocManaged)(&pointer, 4096, CU_MEM_ATTACH_GLOBAL));
    t_cuda(cuInit(0));
    t_result(cuMemAllocManaged(&pointer, 4096, CU_MEM_ATTACH_GLOBAL),
             REAL(cuMemAllocManaged)(&pointer, 4096, CU_MEM_ATTACH_GLOBAL));
    t_cuda(cuCtxCreate_v2(&context, 0, 0));
    switch (*argv[1]) {
    case 'c':
        charge();
        break;
    case 'r':
        resident();
        comes_and_goes();
        break;
    default:
        forbid();
    }
    return 0;
}
