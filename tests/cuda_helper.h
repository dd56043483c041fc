/* SPDX-License-Identifier: Apache-2.0 */
/* helper.h and the few steps that every driver-API program under LD_PRELOAD begins with. */
#ifndef TESTS_CUDA_HELPER_H
#define TESTS_CUDA_HELPER_H

#include <cuda.h>

#include "helper.h"

#define T_UNTOUCHED ((CUdeviceptr)0xdeadbeefdeadbeef)

/* cuInit and a new context on a device. */
T_UNUSED static CUcontext t_context(int ordinal)
{
    CUcontext context;
    CUdevice device;

    t_cuda(cuInit(0));
    t_cuda(cuDeviceGet(&device, ordinal));
    t_cuda(cuCtxCreate(&context, NULL, 0, device));
    return context;
}

/* What the simulated GPU takes from HBM at a time. */
T_UNUSED static uint64_t t_granule(void)
{
    return t_bytes("SOFTSIM_GRANULARITY", 2 * T_MIB);
}

/* A block of `size`, or 0 where the budget refuses it: with exactly that error, and the output as it was. */
T_UNUSED static CUdeviceptr t_alloc(size_t size)
{
    CUdeviceptr pointer = T_UNTOUCHED;
    CUresult result = cuMemAlloc(&pointer, size);

    if (result == CUDA_SUCCESS)
        return pointer;
    t_result(result, CUDA_ERROR_OUT_OF_MEMORY);
    t_check(pointer == T_UNTOUCHED, "a refused cuMemAlloc wrote its output");
    return 0;
}

/* What a program is told to be free and to be there in all. */
T_UNUSED static size_t t_free(void)
{
    size_t free_bytes, total;

    t_cuda(cuMemGetInfo(&free_bytes, &total));
    return free_bytes;
}

T_UNUSED static size_t t_total(void)
{
    size_t free_bytes, total;

    t_cuda(cuMemGetInfo(&free_bytes, &total));
    return total;
}

#endif
