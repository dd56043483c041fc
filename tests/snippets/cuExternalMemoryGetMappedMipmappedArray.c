/* SPDX-License-Identifier: Apache-2.0 */
/* cuExternalMemoryGetMappedMipmappedArray: IMPORT, the array lies in memory that is charged already */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUmemAllocationProp prop = on_gpu(0);
    CUmemGenericAllocationHandle handle;
    CUDA_EXTERNAL_MEMORY_HANDLE_DESC desc = {.type = CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD, .size = 2 * GRANULE};
    CUexternalMemory memory;

    t_cuda(cuMemCreate(&handle, 2 * GRANULE, &prop, 0));
    t_cuda(cuMemExportToShareableHandle(&desc.handle.fd, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    CUDA_EXTERNAL_MEMORY_MIPMAPPED_ARRAY_DESC levels = {
        .arrayDesc = {.Width = 256, .Height = 256, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1}, .numLevels = 1};
    CUmipmappedArray mipmap;

    t_cuda(cuImportExternalMemory(&memory, &desc));
    t_cuda(CALL(cuExternalMemoryGetMappedMipmappedArray)(&mipmap, memory, &levels));
    EXPECT(2 * GRANULE);
    t_cuda(cuMipmappedArrayDestroy(mipmap));
    EXPECT(2 * GRANULE);
}
