/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of programs that map physical memory by themselves. */
#ifndef TESTS_PRELOAD_VMM_HELPER_H
#define TESTS_PRELOAD_VMM_HELPER_H

#include "../cuda_helper.h"

T_UNUSED static CUmemAllocationProp t_prop(int device)
{
    return (CUmemAllocationProp){.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                 .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                 .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device}};
}

/* Physical memory of a device, or 0 where the budget refuses it: with exactly that error, and the output as it was. */
T_UNUSED static CUmemGenericAllocationHandle t_create(int device, size_t size)
{
    CUmemGenericAllocationHandle handle = 0xdeadbeef;
    CUmemAllocationProp prop = t_prop(device);
    CUresult result = cuMemCreate(&handle, size, &prop, 0);

    if (result == CUDA_SUCCESS)
        return handle;
    t_result(result, CUDA_ERROR_OUT_OF_MEMORY);
    t_check(handle == 0xdeadbeef, "a refused cuMemCreate wrote its output");
    return 0;
}

T_UNUSED static CUdeviceptr t_reserve(size_t size)
{
    CUdeviceptr place;

    t_cuda(cuMemAddressReserve(&place, size, 0, 0, 0));
    return place;
}

/* Created, mapped, and the handle let go: the mapping alone holds it. False where the budget refuses it. */
T_UNUSED static bool t_map(CUdeviceptr place, int device, size_t size)
{
    CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device},
                              .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUmemGenericAllocationHandle handle = t_create(device, size);

    if (!handle)
        return false;
    t_cuda(cuMemMap(place, size, 0, handle, 0));
    t_cuda(cuMemSetAccess(place, size, &access, 1));
    t_cuda(cuMemRelease(handle));
    return true;
}

#endif
