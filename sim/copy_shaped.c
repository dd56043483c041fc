/* SPDX-License-Identifier: Apache-2.0 */
/* Two- and three-dimensional copies, and copies from and to arrays. */
#include "array.h"
#include "copy.h"

/* One end of a shaped copy: where it begins, and how far rows and planes are apart. */
struct end {
    uint64_t address, pitch, slice;
    enum sim_end kind;
};

static CUresult end_of(struct end *e, CUmemorytype type, const void *host, CUdeviceptr device, CUarray array, uint64_t pitch,
                       uint64_t rows, uint64_t x, uint64_t y, uint64_t z, const CUDA_MEMCPY3D *c)
{
    struct sim_array *a;

    switch (type) {
    case CU_MEMORYTYPE_HOST:
        e->address = (uint64_t)(uintptr_t)host;
        e->kind = SIM_END_HOST;
        break;
    case CU_MEMORYTYPE_DEVICE:
        e->address = device;
        e->kind = SIM_END_DEVICE;
        break;
    case CU_MEMORYTYPE_UNIFIED:
        e->address = device;
        e->kind = SIM_END_ANY;
        break;
    case CU_MEMORYTYPE_ARRAY:
        a = sim_handle_find(array, SIM_ARRAY);
        if (!a || !a->base || x + c->WidthInBytes > a->pitch || (y + c->Height) * a->pitch > a->slice ||
            (z + c->Depth) * a->slice > a->size)
            return CUDA_ERROR_INVALID_VALUE;
        e->address = a->base;
        e->kind = SIM_END_DEVICE;
        pitch = a->pitch;
        rows = a->slice / a->pitch;
        break;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    /* Without a pitch, rows lie next to each other. */
    e->pitch = pitch ? pitch : x + c->WidthInBytes;
    if (e->pitch < x + c->WidthInBytes)
        return CUDA_ERROR_INVALID_VALUE;
    e->slice = e->pitch * (rows ? rows : y + c->Height);
    e->address += x + y * e->pitch + z * e->slice;
    return CUDA_SUCCESS;
}

CUresult sim_copy_shape(const CUDA_MEMCPY3D *c, struct sim_copy *out, enum sim_end *dst_kind, enum sim_end *src_kind)
{
    struct end dst, src;
    CUresult r = end_of(&src, c->srcMemoryType, c->srcHost, c->srcDevice, c->srcArray, c->srcPitch, c->srcHeight, c->srcXInBytes,
                        c->srcY, c->srcZ, c);

    if (r == CUDA_SUCCESS)
        r = end_of(&dst, c->dstMemoryType, c->dstHost, c->dstDevice, c->dstArray, c->dstPitch, c->dstHeight, c->dstXInBytes,
                   c->dstY, c->dstZ, c);
    if (r != CUDA_SUCCESS)
        return r;
    *out = (struct sim_copy){.dst = dst.address,
                             .src = src.address,
                             .dst_pitch = dst.pitch,
                             .src_pitch = src.pitch,
                             .dst_slice = dst.slice,
                             .src_slice = src.slice,
                             .width = c->WidthInBytes,
                             .height = c->Height,
                             .depth = c->Depth};
    *dst_kind = dst.kind;
    *src_kind = src.kind;
    return CUDA_SUCCESS;
}

static CUresult copy(const CUDA_MEMCPY3D *c, CUstream stream, bool per_thread, bool async)
{
    struct sim_copy shape;
    enum sim_end dst, src;
    CUresult r;
    SIM_GUARD();

    if (!c)
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_copy_shape(c, &shape, &dst, &src);
    return r == CUDA_SUCCESS ? sim_copy_submit(&shape, dst, src, stream, per_thread, async, c) : r;
}

/* All the older shapes are a CUDA_MEMCPY3D with fewer fields. */
#define FROM_2D(p)                                                                                                                 \
    (CUDA_MEMCPY3D)                                                                                                                \
    {                                                                                                                              \
        .srcXInBytes = (p)->srcXInBytes, .srcY = (p)->srcY, .srcMemoryType = (p)->srcMemoryType, .srcHost = (p)->srcHost,          \
        .srcDevice = (p)->srcDevice, .srcArray = (p)->srcArray, .srcPitch = (p)->srcPitch, .dstXInBytes = (p)->dstXInBytes,        \
        .dstY = (p)->dstY, .dstMemoryType = (p)->dstMemoryType, .dstHost = (p)->dstHost, .dstDevice = (p)->dstDevice,              \
        .dstArray = (p)->dstArray, .dstPitch = (p)->dstPitch, .WidthInBytes = (p)->WidthInBytes, .Height = (p)->Height, .Depth = 1 \
    }

#define FROM_3D(p)                                                                                                                 \
    (CUDA_MEMCPY3D)                                                                                                                \
    {                                                                                                                              \
        .srcXInBytes = (p)->srcXInBytes, .srcY = (p)->srcY, .srcZ = (p)->srcZ, .srcMemoryType = (p)->srcMemoryType,                \
        .srcHost = (p)->srcHost, .srcDevice = (p)->srcDevice, .srcArray = (p)->srcArray, .srcPitch = (p)->srcPitch,                \
        .srcHeight = (p)->srcHeight, .dstXInBytes = (p)->dstXInBytes, .dstY = (p)->dstY, .dstZ = (p)->dstZ,                        \
        .dstMemoryType = (p)->dstMemoryType, .dstHost = (p)->dstHost, .dstDevice = (p)->dstDevice, .dstArray = (p)->dstArray,      \
        .dstPitch = (p)->dstPitch, .dstHeight = (p)->dstHeight, .WidthInBytes = (p)->WidthInBytes, .Height = (p)->Height,          \
        .Depth = (p)->Depth                                                                                                        \
    }

#define SHAPED(from, stream, per_thread, async)                                                                                    \
    {                                                                                                                              \
        CUDA_MEMCPY3D c;                                                                                                           \
        ENTER();                                                                                                                   \
        if (!pCopy)                                                                                                                \
            return CUDA_ERROR_INVALID_VALUE;                                                                                       \
        c = from(pCopy);                                                                                                           \
        return copy(&c, stream, per_thread, async);                                                                                \
    }

#define SHAPED_FUNCTIONS(ptds, ptsz, per_thread)                                                                                   \
    CUresult cuMemcpy2D_v2##ptds(const CUDA_MEMCPY2D *pCopy) SHAPED(FROM_2D, NULL, per_thread, false)                              \
        CUresult cuMemcpy2DUnaligned_v2##ptds(const CUDA_MEMCPY2D *pCopy) SHAPED(FROM_2D, NULL, per_thread, false)                 \
            CUresult cuMemcpy2DAsync_v2##ptsz(const CUDA_MEMCPY2D *pCopy, CUstream hStream)                                        \
                SHAPED(FROM_2D, hStream, per_thread, true) CUresult cuMemcpy3D_v2##ptds(const CUDA_MEMCPY3D *pCopy)                \
                    SHAPED(FROM_3D, NULL, per_thread, false)                                                                       \
                        CUresult cuMemcpy3DAsync_v2##ptsz(const CUDA_MEMCPY3D *pCopy, CUstream hStream)                            \
                            SHAPED(FROM_3D, hStream, per_thread, true)                                                             \
                                CUresult cuMemcpy3DPeer##ptds(const CUDA_MEMCPY3D_PEER *pCopy)                                     \
                                    SHAPED(FROM_3D, NULL, per_thread, false)                                                       \
                                        CUresult cuMemcpy3DPeerAsync##ptsz(const CUDA_MEMCPY3D_PEER *pCopy, CUstream hStream)      \
                                            SHAPED(FROM_3D, hStream, per_thread, true)

SHAPED_FUNCTIONS(, , false)
SHAPED_FUNCTIONS(_ptds, _ptsz, true)

static CUresult context_v1(void)
{
    struct sim_ctx *ctx;

    CONTEXT(ctx);
    return ctx->api_version >= 3020 ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}

#define SHAPED_V1(from, stream, async)                                                                                             \
    {                                                                                                                              \
        CUDA_MEMCPY3D c;                                                                                                           \
        CUresult r;                                                                                                                \
        ENTER();                                                                                                                   \
        r = context_v1();                                                                                                          \
        if (r != CUDA_SUCCESS)                                                                                                     \
            return r;                                                                                                              \
        if (!pCopy)                                                                                                                \
            return CUDA_ERROR_INVALID_VALUE;                                                                                       \
        c = from(pCopy);                                                                                                           \
        return copy(&c, stream, false, async);                                                                                     \
    }

CUresult cuMemcpy2D(const CUDA_MEMCPY2D_v1 *pCopy) SHAPED_V1(FROM_2D, NULL, false) CUresult
    cuMemcpy2DUnaligned(const CUDA_MEMCPY2D_v1 *pCopy) SHAPED_V1(FROM_2D, NULL, false) CUresult
    cuMemcpy2DAsync(const CUDA_MEMCPY2D_v1 *pCopy, CUstream hStream) SHAPED_V1(FROM_2D, hStream, true) CUresult
    cuMemcpy3D(const CUDA_MEMCPY3D_v1 *pCopy) SHAPED_V1(FROM_3D, NULL, false) CUresult
    cuMemcpy3DAsync(const CUDA_MEMCPY3D_v1 *pCopy, CUstream hStream) SHAPED_V1(FROM_3D, hStream, true)

    /* Linear copies from and to one-dimensional arrays. */
    static CUresult array_copy(CUarray dst_array, uint64_t dst, enum sim_end dst_end, CUarray src_array, uint64_t src,
                               enum sim_end src_end, uint64_t bytes, CUstream stream, bool per_thread, bool async)
{
    CUDA_MEMCPY3D c = {.WidthInBytes = bytes, .Height = 1, .Depth = 1};

    if (dst_array) {
        c.dstMemoryType = CU_MEMORYTYPE_ARRAY;
        c.dstArray = dst_array;
        c.dstXInBytes = dst;
    } else {
        c.dstMemoryType = dst_end == SIM_END_HOST ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
        c.dstHost = (void *)(uintptr_t)dst;
        c.dstDevice = dst;
    }
    if (src_array) {
        c.srcMemoryType = CU_MEMORYTYPE_ARRAY;
        c.srcArray = src_array;
        c.srcXInBytes = src;
    } else {
        c.srcMemoryType = src_end == SIM_END_HOST ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
        c.srcHost = (const void *)(uintptr_t)src;
        c.srcDevice = src;
    }
    return copy(&c, stream, per_thread, async);
}

#define HOST(p) ((uint64_t)(uintptr_t)(p))

#define ARRAY_FUNCTIONS(ptds, ptsz, per_thread)                                                                                    \
    CUresult cuMemcpyDtoA_v2##ptds(CUarray dstArray, size_t dstOffset, CUdeviceptr srcDevice, size_t ByteCount)                    \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return array_copy(dstArray, dstOffset, 0, NULL, srcDevice, SIM_END_DEVICE, ByteCount, NULL, per_thread, false);            \
    }                                                                                                                              \
    CUresult cuMemcpyAtoD_v2##ptds(CUdeviceptr dstDevice, CUarray srcArray, size_t srcOffset, size_t ByteCount)                    \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return array_copy(NULL, dstDevice, SIM_END_DEVICE, srcArray, srcOffset, 0, ByteCount, NULL, per_thread, false);            \
    }                                                                                                                              \
    CUresult cuMemcpyHtoA_v2##ptds(CUarray dstArray, size_t dstOffset, const void *srcHost, size_t ByteCount)                      \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return array_copy(dstArray, dstOffset, 0, NULL, HOST(srcHost), SIM_END_HOST, ByteCount, NULL, per_thread, false);          \
    }                                                                                                                              \
    CUresult cuMemcpyAtoH_v2##ptds(void *dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount)                            \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return array_copy(NULL, HOST(dstHost), SIM_END_HOST, srcArray, srcOffset, 0, ByteCount, NULL, per_thread, false);          \
    }                                                                                                                              \
    CUresult cuMemcpyAtoA_v2##ptds(CUarray dstArray, size_t dstOffset, CUarray srcArray, size_t srcOffset, size_t ByteCount)       \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return array_copy(dstArray, dstOffset, 0, srcArray, srcOffset, 0, ByteCount, NULL, per_thread, false);                     \
    }                                                                                                                              \
    CUresult cuMemcpyHtoAAsync_v2##ptsz(CUarray dstArray, size_t dstOffset, const void *srcHost, size_t ByteCount,                 \
                                        CUstream hStream)                                                                          \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return array_copy(dstArray, dstOffset, 0, NULL, HOST(srcHost), SIM_END_HOST, ByteCount, hStream, per_thread, true);        \
    }                                                                                                                              \
    CUresult cuMemcpyAtoHAsync_v2##ptsz(void *dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount, CUstream hStream)     \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return array_copy(NULL, HOST(dstHost), SIM_END_HOST, srcArray, srcOffset, 0, ByteCount, hStream, per_thread, true);        \
    }

ARRAY_FUNCTIONS(, , false)
ARRAY_FUNCTIONS(_ptds, _ptsz, true)
