/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemMapArrayAsync: R5, an array holds the tile pool that is mapped into it when the handle is gone */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUDA_ARRAY3D_DESCRIPTOR image = {
        .Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_UNSIGNED_INT8, .NumChannels = 4, .Flags = CUDA_ARRAY3D_SPARSE};
    CUmemAllocationProp prop = on_gpu(0);
    CUarrayMapInfo info = {.resourceType = CU_RESOURCE_TYPE_ARRAY,
                           .subresource = {.sparseLevel = {.extentWidth = 1024, .extentHeight = 1024, .extentDepth = 1}},
                           .memOperationType = CU_MEM_OPERATION_TYPE_MAP,
                           .memHandleType = CU_MEM_HANDLE_TYPE_GENERIC,
                           .deviceBitMask = 1};

    prop.allocFlags.usage = CU_MEM_CREATE_USAGE_TILE_POOL;
    t_cuda(cuArray3DCreate_v2(&info.resource.array, &image));
    t_cuda(cuMemCreate(&info.memHandle.memHandle, 2 * GRANULE, &prop, 0));
    t_cuda(CALL(cuMemMapArrayAsync)(&info, 1, NULL));
    t_cuda(cuMemRelease(info.memHandle.memHandle));
    EXPECT(2 * GRANULE);
    info.memOperationType = CU_MEM_OPERATION_TYPE_UNMAP;
    info.memHandle.memHandle = 0;
    t_cuda(CALL(cuMemMapArrayAsync)(&info, 1, NULL));
    EXPECT(0);
}
