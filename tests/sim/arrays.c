/* SPDX-License-Identifier: Apache-2.0 */
/* Sparse arrays and arrays with deferred mapping: they take nothing until memory of a tile pool is mapped, which lives as long as that. */
#include "helper.h"
#include <cuda.h>

#define TILE (64 * T_KIB)

static CUmemGenericAllocationHandle pool(uint64_t size, unsigned short usage)
{
    CUmemAllocationProp prop = {
        .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}, .allocFlags = {.usage = usage}};
    CUmemGenericAllocationHandle h;

    t_cuda(cuMemCreate(&h, size, &prop, 0));
    return h;
}

static const CUDA_ARRAY3D_DESCRIPTOR image = {
    .Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_UNSIGNED_INT8, .NumChannels = 4};

static void check_sparse(void)
{
    CUDA_ARRAY3D_DESCRIPTOR desc = image;
    CUDA_ARRAY_SPARSE_PROPERTIES p;
    CUDA_ARRAY_MEMORY_REQUIREMENTS need;
    CUmemGenericAllocationHandle h = pool(4 * T_MIB, CU_MEM_CREATE_USAGE_TILE_POOL), plain = pool(4 * T_MIB, 0);
    CUarrayMapInfo info;
    CUarray a;

    desc.Flags = CUDA_ARRAY3D_SPARSE;
    t_equal(t_used(0), 108 * T_MIB);
    t_cuda(cuArray3DCreate(&a, &desc));
    t_equal(t_used(0), 108 * T_MIB);
    t_cuda(cuArrayGetSparseProperties(&p, a));
    t_equal(p.tileExtent.width, 128);
    t_equal(p.tileExtent.height, 128);
    t_equal(p.tileExtent.depth, 1);
    t_equal(p.miptailSize, 0);
    t_result(cuArrayGetMemoryRequirements(&need, a, 0), CUDA_ERROR_INVALID_VALUE);

    info = (CUarrayMapInfo){.resourceType = CU_RESOURCE_TYPE_ARRAY,
                            .resource = {.array = a},
                            .subresource = {.sparseLevel = {.extentWidth = 1024, .extentHeight = 1024, .extentDepth = 1}},
                            .memOperationType = CU_MEM_OPERATION_TYPE_MAP,
                            .memHandleType = CU_MEM_HANDLE_TYPE_GENERIC,
                            .memHandle = {plain},
                            .deviceBitMask = 1};
    t_result(cuMemMapArrayAsync(&info, 1, NULL), CUDA_ERROR_INVALID_VALUE); /* no tile pool */
    info.memHandle.memHandle = h;
    info.offset = TILE;
    t_result(cuMemMapArrayAsync(&info, 1, NULL), CUDA_ERROR_INVALID_VALUE); /* 64 tiles need all of it */
    info.offset = 0;
    info.deviceBitMask = 2;
    t_result(cuMemMapArrayAsync(&info, 1, NULL), CUDA_ERROR_INVALID_VALUE);
    info.deviceBitMask = 1;
    info.subresource.sparseLevel.extentWidth = 100;
    t_result(cuMemMapArrayAsync(&info, 1, NULL), CUDA_ERROR_INVALID_VALUE);
    info.subresource.sparseLevel.extentWidth = 1024;
    t_cuda(cuMemMapArrayAsync(&info, 1, NULL));
    t_cuda(cuMemRelease(h));
    t_cuda(cuMemRelease(plain));
    t_equal(t_used(0), 104 * T_MIB); /* the mapping keeps it */

    info.memOperationType = CU_MEM_OPERATION_TYPE_UNMAP;
    info.memHandle.memHandle = 0;
    info.subresource.sparseLevel.extentHeight = 512;
    t_cuda(cuMemMapArrayAsync(&info, 1, NULL));
    t_equal(t_used(0), 104 * T_MIB); /* half of it still does */
    info.subresource.sparseLevel.offsetY = 512;
    t_cuda(cuMemMapArrayAsync(&info, 1, NULL));
    t_equal(t_used(0), 100 * T_MIB);
    t_cuda(cuArrayDestroy(a));
    desc.Height = 0;
    t_result(cuArray3DCreate(&a, &desc), CUDA_ERROR_INVALID_VALUE);
}

static void check_mipmap(void)
{
    CUDA_ARRAY3D_DESCRIPTOR desc = image;
    CUmemGenericAllocationHandle h = pool(4 * T_MIB, CU_MEM_CREATE_USAGE_TILE_POOL);
    CUDA_ARRAY_SPARSE_PROPERTIES p;
    CUmipmappedArray m;
    CUarrayMapInfo info[2];
    CUarray level;

    desc.Flags = CUDA_ARRAY3D_SPARSE;
    t_cuda(cuMipmappedArrayCreate(&m, &desc, 11));
    t_cuda(cuMipmappedArrayGetSparseProperties(&p, m));
    t_equal(p.miptailFirstLevel, 4); /* 64 x 64 */
    t_equal(p.miptailSize, TILE);
    t_equal(p.flags, CU_ARRAY_SPARSE_PROPERTIES_SINGLE_MIPTAIL);
    t_cuda(cuMipmappedArrayGetLevel(&level, m, 1));
    t_result(cuArrayGetSparseProperties(&p, level), CUDA_ERROR_INVALID_VALUE);
    info[0] =
        (CUarrayMapInfo){.resourceType = CU_RESOURCE_TYPE_MIPMAPPED_ARRAY,
                         .resource = {.mipmap = m},
                         .subresource = {.sparseLevel = {.level = 3, .extentWidth = 128, .extentHeight = 128, .extentDepth = 1}},
                         .memOperationType = CU_MEM_OPERATION_TYPE_MAP,
                         .memHandleType = CU_MEM_HANDLE_TYPE_GENERIC,
                         .memHandle = {h},
                         .deviceBitMask = 1};
    info[1] = info[0];
    info[1].subresourceType = CU_ARRAY_SPARSE_SUBRESOURCE_TYPE_MIPTAIL;
    info[1].subresource.miptail.layer = 0;
    info[1].subresource.miptail.offset = 0;
    info[1].subresource.miptail.size = TILE;
    info[1].offset = TILE;
    t_cuda(cuMemMapArrayAsync(info, 2, NULL));
    t_cuda(cuMemRelease(h));
    t_equal(t_used(0), 104 * T_MIB);
    info[0].memOperationType = CU_MEM_OPERATION_TYPE_UNMAP;
    info[0].memHandle.memHandle = 0;
    t_cuda(cuMemMapArrayAsync(info, 1, NULL));
    t_equal(t_used(0), 104 * T_MIB);
    t_cuda(cuMipmappedArrayDestroy(m)); /* and with it what is mapped */
    t_equal(t_used(0), 100 * T_MIB);
}

static void check_deferred(void)
{
    CUDA_ARRAY3D_DESCRIPTOR desc = image;
    CUmemGenericAllocationHandle h;
    CUDA_ARRAY_MEMORY_REQUIREMENTS need;
    CUarrayMapInfo info;
    CUdeviceptr va;
    CUarray a;

    desc.Flags = CUDA_ARRAY3D_DEFERRED_MAPPING;
    desc.Width = 1000;
    t_cuda(cuArray3DCreate(&a, &desc));
    t_equal(t_used(0), 100 * T_MIB);
    t_cuda(cuArrayGetMemoryRequirements(&need, a, 0));
    t_equal(need.size, 4 * T_MIB);
    t_equal(need.alignment, 2 * T_MIB);
    h = pool(8 * T_MIB, CU_MEM_CREATE_USAGE_TILE_POOL);
    t_cuda(cuMemAddressReserve(&va, 8 * T_MIB, 0, 0, 0));
    t_result(cuMemMap(va, 8 * T_MIB, 0, h, 0), CUDA_ERROR_INVALID_VALUE);
    info = (CUarrayMapInfo){.resourceType = CU_RESOURCE_TYPE_ARRAY,
                            .resource = {.array = a},
                            .memOperationType = CU_MEM_OPERATION_TYPE_MAP,
                            .memHandleType = CU_MEM_HANDLE_TYPE_GENERIC,
                            .memHandle = {h},
                            .offset = 6 * T_MIB,
                            .deviceBitMask = 1};
    t_result(cuMemMapArrayAsync(&info, 1, NULL), CUDA_ERROR_INVALID_VALUE);
    info.offset = 4 * T_MIB;
    t_cuda(cuMemMapArrayAsync(&info, 1, NULL));
    t_cuda(cuMemRelease(h));
    t_equal(t_used(0), 108 * T_MIB);
    t_cuda(cuArrayDestroy(a));
    t_equal(t_used(0), 100 * T_MIB);
}

int main(void)
{
    CUcontext ctx;

    setenv("SOFTSIM_MEM", "1G", 1);
    setenv("SOFTSIM_CONTEXT_BYTES", "100M", 1);
    t_cuda(cuInit(0));
    t_cuda(cuCtxCreate(&ctx, NULL, 0, 0));
    check_sparse();
    check_mipmap();
    check_deferred();
    return 0;
}
