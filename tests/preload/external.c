/* SPDX-License-Identifier: Apache-2.0 */
/* External memory is charged where it was made and nowhere else, whatever is mapped of it, freed or destroyed; what is wrong is told by the driver. */
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_NVML_SHARED=1
#define __CUDA_API_VERSION_INTERNAL     1
#define __CUDA_API_VERSION_INTERNAL_ODR 1
#include "../helper.h"

#include <cuda.h>

#define REAL(symbol) ((__typeof__(&symbol))t_real(#symbol))
#define SIZE         (64 * T_MIB)

static uint64_t free_now(void)
{
    size_t free_bytes, total;

    t_cuda(cuMemGetInfo_v2(&free_bytes, &total));
    return free_bytes;
}

int main(void)
{
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE},
                                .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR};
    CUDA_EXTERNAL_MEMORY_HANDLE_DESC import = {.type = CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD, .size = SIZE};
    CUDA_EXTERNAL_MEMORY_BUFFER_DESC part = {.offset = 4 * T_MIB, .size = 8 * T_MIB}, whole = {.size = SIZE};
    CUDA_EXTERNAL_MEMORY_MIPMAPPED_ARRAY_DESC levels = {
        .arrayDesc = {.Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1}, .numLevels = 3};
    CUmemGenericAllocationHandle made;
    CUexternalMemory external = NULL;
    CUmipmappedArray mipmap;
    CUdeviceptr first, second;
    CUcontext context;
    uint64_t free_bytes;
    int fd;

    t_cuda(cuInit(0));
    t_cuda(cuCtxCreate_v2(&context, 0, 0));
    for (int round = 0; round < 3; round++) {
        t_cuda(cuMemCreate(&made, SIZE, &prop, 0));
        t_cuda(cuMemExportToShareableHandle(&fd, made, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
        free_bytes = free_now();
        import.handle.fd = fd;
        t_cuda(cuImportExternalMemory(&external, &import));
        t_cuda(cuExternalMemoryGetMappedBuffer(&first, external, &part));
        t_cuda(cuExternalMemoryGetMappedBuffer(&second, external, &whole));
        t_cuda(cuExternalMemoryGetMappedMipmappedArray(&mipmap, external, &levels));
        t_equal(free_now(), free_bytes);
        t_cuda(cuMemFree_v2(first));
        t_check(cuMemFree_v2(first) != CUDA_SUCCESS, "a second free of one block succeeded");
        t_cuda(cuMipmappedArrayDestroy(mipmap));
        t_equal(free_now(), free_bytes);
        t_cuda(cuDestroyExternalMemory(external));
        t_result(cuDestroyExternalMemory(external), REAL(cuDestroyExternalMemory)(external));
        t_result(cuExternalMemoryGetMappedBuffer(&first, external, &part),
                 REAL(cuExternalMemoryGetMappedBuffer)(&first, external, &part));
        if (round < 2)
            t_cuda(cuMemFree_v2(second)); /* it outlives the handle */
        t_equal(free_now(), free_bytes);
        t_cuda(cuMemRelease(made));
    }
    import.size = 0;
    t_result(cuImportExternalMemory(&external, &import), REAL(cuImportExternalMemory)(&external, &import));
    t_result(cuImportExternalMemory(NULL, &import), REAL(cuImportExternalMemory)(NULL, &import));
    t_result(cuImportExternalMemory(&external, NULL), REAL(cuImportExternalMemory)(&external, NULL));
    t_result(cuDestroyExternalMemory(NULL), REAL(cuDestroyExternalMemory)(NULL));
    t_result(cuIpcCloseMemHandle(0), REAL(cuIpcCloseMemHandle)(0));
    t_result(cuIpcCloseMemHandle(0x1234), REAL(cuIpcCloseMemHandle)(0x1234));
    t_result(cuIpcOpenMemHandle_v2(NULL, (CUipcMemHandle){0}, 1), REAL(cuIpcOpenMemHandle_v2)(NULL, (CUipcMemHandle){0}, 1));
    t_result(cuIpcOpenMemHandle_v2(&first, (CUipcMemHandle){0}, 1), REAL(cuIpcOpenMemHandle_v2)(&first, (CUipcMemHandle){0}, 1));
    return 0;
}
