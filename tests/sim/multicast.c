/* SPDX-License-Identifier: Apache-2.0 */
/* Multicast objects of the simulated driver: who may bind what where, and how long bound memory lives. */
#include "helper.h"
#include <cuda.h>

static CUmemGenericAllocationHandle memory(int dev, uint64_t size)
{
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, dev}};
    CUmemGenericAllocationHandle h;

    t_cuda(cuMemCreate(&h, size, &prop, 0));
    return h;
}

int main(void)
{
    CUmulticastObjectProp prop = {.numDevices = 2, .size = 16 * T_MIB};
    CUmemGenericAllocationHandle mc, a, b, other;
    CUmemAllocationProp asked;
    CUdeviceptr va, at;
    CUcontext ctx;
    size_t g;

    setenv("SOFTSIM_GPUS", "3", 1);
    setenv("SOFTSIM_MEM", "1G", 1);
    setenv("SOFTSIM_CONTEXT_BYTES", "100M", 1);
    t_cuda(cuInit(0));
    t_cuda(cuCtxCreate(&ctx, NULL, 0, 0));
    t_cuda(cuMulticastGetGranularity(&g, &prop, CU_MULTICAST_GRANULARITY_MINIMUM));
    t_equal(g, 2 * T_MIB);
    prop.numDevices = 4;
    t_result(cuMulticastCreate(&mc, &prop), CUDA_ERROR_INVALID_VALUE);
    prop.numDevices = 2;
    prop.size++;
    t_result(cuMulticastCreate(&mc, &prop), CUDA_ERROR_INVALID_VALUE);
    prop.size--;
    t_cuda(cuMulticastCreate(&mc, &prop));
    t_equal(t_used(0), 100 * T_MIB);
    t_cuda(cuMulticastAddDevice(mc, 0));
    t_result(cuMulticastAddDevice(mc, 0), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMulticastAddDevice(mc, 1));
    t_result(cuMulticastAddDevice(mc, 2), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMemGetAllocationPropertiesFromHandle(&asked, mc), CUDA_ERROR_INVALID_VALUE);

    a = memory(0, 8 * T_MIB);
    b = memory(1, 8 * T_MIB);
    other = memory(2, 8 * T_MIB);
    t_result(cuMulticastBindMem(mc, 0, other, 0, 8 * T_MIB, 0), CUDA_ERROR_INVALID_DEVICE);
    t_result(cuMulticastBindMem(a, 0, b, 0, 8 * T_MIB, 0), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMulticastBindMem(mc, 0, a, 0, 10 * T_MIB, 0), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMulticastBindMem(mc, 10 * T_MIB, a, 0, 8 * T_MIB, 0), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMulticastBindMem(mc, 0, a, 0, 8 * T_MIB, 0));
    t_cuda(cuMulticastBindMem(mc, 0, b, 0, 8 * T_MIB, 0)); /* another device's */
    t_result(cuMulticastBindMem(mc, 4 * T_MIB, a, 0, 4 * T_MIB, 0), CUDA_ERROR_INVALID_VALUE);

    /* The handle goes, the bind keeps the memory. */
    t_cuda(cuMemRelease(a));
    t_result(cuMemRelease(a), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMulticastBindMem(mc, 8 * T_MIB, a, 0, 4 * T_MIB, 0), CUDA_ERROR_INVALID_VALUE);
    t_equal(t_used(0), 108 * T_MIB);
    t_result(cuMulticastUnbind(mc, 0, 0, 4 * T_MIB), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMulticastUnbind(mc, 0, 0, 8 * T_MIB));
    t_equal(t_used(0), 100 * T_MIB);
    t_result(cuMulticastUnbind(mc, 0, 0, 8 * T_MIB), CUDA_ERROR_INVALID_VALUE);
    t_equal(t_used(1), 8 * T_MIB);

    /* By address; the mapping goes, the bind keeps the memory; the object goes, and with it what is bound. */
    a = memory(0, 4 * T_MIB);
    t_cuda(cuMemAddressReserve(&at, 4 * T_MIB, 0, 0, 0));
    t_cuda(cuMemMap(at, 4 * T_MIB, 0, a, 0));
    t_cuda(cuMulticastBindAddr(mc, 12 * T_MIB, at, 4 * T_MIB, 0));
    t_cuda(cuMemUnmap(at, 4 * T_MIB));
    t_cuda(cuMemRelease(a));
    t_equal(t_used(0), 104 * T_MIB);
    t_cuda(cuMemAddressReserve(&va, 16 * T_MIB, 0, 0, 0));
    t_cuda(cuMemMap(va, 16 * T_MIB, 0, mc, 0));
    t_cuda(cuMemRelease(mc));
    t_cuda(cuMemRelease(b));
    t_equal(t_used(0), 104 * T_MIB);
    t_equal(t_used(1), 8 * T_MIB);
    t_cuda(cuMemUnmap(va, 16 * T_MIB));
    t_equal(t_used(0), 100 * T_MIB);
    t_equal(t_used(1), 0);
    t_result(cuMulticastAddDevice(mc, 2), CUDA_ERROR_INVALID_VALUE);
    return 0;
}
