/* SPDX-License-Identifier: Apache-2.0 */
/* What is left of the first ABI: descriptors, globals and array copies with 32-bit sizes. Only its own contexts may call them. */
#include "array.h"
#include "copy.h"

static CUresult context_v1(void)
{
    struct sim_ctx *ctx;

    CONTEXT(ctx);
    return ctx->api_version >= 3020 ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}

static CUresult find(CUarray handle, const void *out, struct sim_array **a)
{
    CUresult r = context_v1();

    if (r != CUDA_SUCCESS)
        return r;
    *a = sim_handle_find(handle, SIM_ARRAY);
    return !out ? CUDA_ERROR_INVALID_VALUE : *a ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuArrayGetDescriptor(CUDA_ARRAY_DESCRIPTOR_v1 *pArrayDescriptor, CUarray hArray)
{
    struct sim_array *a;
    CUresult r;

    ENTER();
    SIM_GUARD();
    r = find(hArray, pArrayDescriptor, &a);
    if (r == CUDA_SUCCESS)
        *pArrayDescriptor = (CUDA_ARRAY_DESCRIPTOR_v1){.Width = (unsigned int)a->desc.Width,
                                                       .Height = (unsigned int)a->desc.Height,
                                                       .Format = a->desc.Format,
                                                       .NumChannels = a->desc.NumChannels};
    return r;
}

CUresult cuArray3DGetDescriptor(CUDA_ARRAY3D_DESCRIPTOR_v1 *pArrayDescriptor, CUarray hArray)
{
    struct sim_array *a;
    CUresult r;

    ENTER();
    SIM_GUARD();
    r = find(hArray, pArrayDescriptor, &a);
    if (r == CUDA_SUCCESS)
        *pArrayDescriptor = (CUDA_ARRAY3D_DESCRIPTOR_v1){.Width = (unsigned int)a->desc.Width,
                                                         .Height = (unsigned int)a->desc.Height,
                                                         .Depth = (unsigned int)a->desc.Depth,
                                                         .Format = a->desc.Format,
                                                         .NumChannels = a->desc.NumChannels,
                                                         .Flags = a->desc.Flags};
    return r;
}

static CUresult copy(CUarray dst_array, uint64_t dst, CUarray src_array, uint64_t src, bool host, uint64_t bytes, CUstream stream,
                     bool async)
{
    CUDA_MEMCPY3D c = {.WidthInBytes = bytes, .Height = 1, .Depth = 1};
    enum sim_end dst_end, src_end;
    struct sim_copy shape;
    CUresult r;
    SIM_GUARD();

    r = context_v1();
    if (r != CUDA_SUCCESS)
        return r;
    c.dstMemoryType = dst_array ? CU_MEMORYTYPE_ARRAY : host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
    c.dstArray = dst_array;
    c.dstXInBytes = dst_array ? dst : 0;
    c.dstHost = (void *)(uintptr_t)dst;
    c.dstDevice = dst;
    c.srcMemoryType = src_array ? CU_MEMORYTYPE_ARRAY : host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
    c.srcArray = src_array;
    c.srcXInBytes = src_array ? src : 0;
    c.srcHost = (const void *)(uintptr_t)src;
    c.srcDevice = src;
    r = sim_copy_shape(&c, &shape, &dst_end, &src_end);
    return r == CUDA_SUCCESS ? sim_copy_submit(&shape, dst_end, src_end, stream, false, async, &c) : r;
}

CUresult cuMemcpyDtoA(CUarray dstArray, unsigned int dstOffset, CUdeviceptr_v1 srcDevice, unsigned int ByteCount)
{
    ENTER();
    return copy(dstArray, dstOffset, NULL, srcDevice, false, ByteCount, NULL, false);
}

CUresult cuMemcpyAtoD(CUdeviceptr_v1 dstDevice, CUarray srcArray, unsigned int srcOffset, unsigned int ByteCount)
{
    ENTER();
    return copy(NULL, dstDevice, srcArray, srcOffset, false, ByteCount, NULL, false);
}

CUresult cuMemcpyHtoA(CUarray dstArray, unsigned int dstOffset, const void *srcHost, unsigned int ByteCount)
{
    ENTER();
    return copy(dstArray, dstOffset, NULL, (uint64_t)(uintptr_t)srcHost, true, ByteCount, NULL, false);
}

CUresult cuMemcpyAtoH(void *dstHost, CUarray srcArray, unsigned int srcOffset, unsigned int ByteCount)
{
    ENTER();
    return copy(NULL, (uint64_t)(uintptr_t)dstHost, srcArray, srcOffset, true, ByteCount, NULL, false);
}

CUresult cuMemcpyAtoA(CUarray dstArray, unsigned int dstOffset, CUarray srcArray, unsigned int srcOffset, unsigned int ByteCount)
{
    ENTER();
    return copy(dstArray, dstOffset, srcArray, srcOffset, false, ByteCount, NULL, false);
}

CUresult cuMemcpyHtoAAsync(CUarray dstArray, unsigned int dstOffset, const void *srcHost, unsigned int ByteCount, CUstream hStream)
{
    ENTER();
    return copy(dstArray, dstOffset, NULL, (uint64_t)(uintptr_t)srcHost, true, ByteCount, hStream, true);
}

CUresult cuMemcpyAtoHAsync(void *dstHost, CUarray srcArray, unsigned int srcOffset, unsigned int ByteCount, CUstream hStream)
{
    ENTER();
    return copy(NULL, (uint64_t)(uintptr_t)dstHost, srcArray, srcOffset, true, ByteCount, hStream, true);
}
