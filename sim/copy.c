/* SPDX-License-Identifier: Apache-2.0 */
/* Moving bytes: the engine behind all copies and memsets, and the linear copies of the API. */
#include <stdlib.h>
#include <string.h>

#include "copy.h"

/* Of one operation, no more than this is really moved: tests look at small data, and simulated HBM is larger than the host's memory. */
#define MOVE_MAX ((uint64_t)256 << 20)

static bool end_is(uint64_t address, uint64_t span, enum sim_end end)
{
    struct sim_mem *mem = sim_mem_find(address);

    if (!address)
        return false;
    if (!mem)
        return end != SIM_END_DEVICE;
    if (mem->kind == SIM_MEM_MAPPED && !mem->flags)
        return false; /* mapped, but no device was given access */
    while (span > mem->size - (address - mem->base)) {
        /* A range over several mappings of VMM memory is one range. */
        span -= mem->size - (address - mem->base);
        address = mem->base + mem->size;
        mem = sim_mem_find(address);
        if (!mem || mem->kind != SIM_MEM_MAPPED || !mem->flags)
            return false;
    }
    return true;
}

static uint64_t span(const struct sim_copy *c, uint64_t pitch, uint64_t slice)
{
    return (c->depth - 1) * slice + (c->height - 1) * pitch + c->width;
}

CUresult sim_copy_check(const struct sim_copy *c, enum sim_end dst, enum sim_end src)
{
    if (!c->width || !c->height || !c->depth)
        return CUDA_SUCCESS;
    if (c->element && (c->dst % c->element || c->width % c->element))
        return CUDA_ERROR_INVALID_VALUE;
    if (!end_is(c->dst, span(c, c->dst_pitch, c->dst_slice), dst))
        return CUDA_ERROR_INVALID_VALUE;
    if (!c->element && !end_is(c->src, span(c, c->src_pitch, c->src_slice), src))
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

/* SOFTSIM_COPY_GBPS; 0, the default, makes copies take no time. */
uint64_t sim_copy_ns(const struct sim_copy *c)
{
    static double gbps = -1;

    if (gbps < 0) {
        const char *text = getenv("SOFTSIM_COPY_GBPS");

        gbps = text && *text ? strtod(text, NULL) : 0;
    }
    return gbps > 0 ? (uint64_t)((double)(c->width * c->height * c->depth) / gbps) : 0;
}

/* How many bytes from `address` on lie in one piece, and where. */
static unsigned char *piece(uint64_t address, uint64_t bytes, uint64_t *here)
{
    struct sim_mem *mem = sim_mem_find(address);

    *here = bytes;
    if (mem && bytes > mem->size - (address - mem->base))
        *here = mem->size - (address - mem->base);
    return sim_mem_bytes(address, *here);
}

static void fill(unsigned char *to, uint64_t bytes, uint32_t value, unsigned int element)
{
    if (element == 1) {
        memset(to, (int)(value & 0xff), bytes);
        return;
    }
    for (uint64_t i = 0; i + element <= bytes; i += element)
        memcpy(to + i, &value, element);
}

static void move_row(const struct sim_copy *c, uint64_t dst, uint64_t src)
{
    uint64_t left = c->width;

    while (left) {
        uint64_t n, m;
        unsigned char *to = piece(dst, left, &n);

        if (!to)
            return;
        if (c->element) {
            fill(to, n, c->value, c->element);
        } else {
            const unsigned char *from = piece(src, n, &m);

            if (!from)
                return;
            n = m;
            memmove(to, from, n);
        }
        dst += n;
        src += n;
        left -= n;
    }
}

void sim_copy_run(struct sim_op *op)
{
    const struct sim_copy *c = &op->copy;
    struct sim_copy part = *c;
    uint64_t moved = 0;

    for (uint64_t z = 0; z < c->depth; z++)
        for (uint64_t y = 0; y < c->height; y++) {
            if (part.width > MOVE_MAX - moved)
                part.width = MOVE_MAX - moved;
            if (!part.width)
                return;
            move_row(&part, c->dst + z * c->dst_slice + y * c->dst_pitch, c->src + z * c->src_slice + y * c->src_pitch);
            moved += part.width;
        }
}

CUresult sim_copy_submit(const struct sim_copy *copy, enum sim_end dst, enum sim_end src, CUstream stream, bool per_thread,
                         bool async, const void *params)
{
    struct sim_stream *s;
    struct sim_ctx *ctx;
    CUresult r;

    CONTEXT(ctx);
    r = sim_copy_check(copy, dst, src);
    if (r != CUDA_SUCCESS)
        return r;
    if (!async)
        UNSAFE_IN_CAPTURE();
    STREAM(s, stream, per_thread);
    if (!copy->width || !copy->height || !copy->depth)
        return CUDA_SUCCESS;
    r = sim_stream_submit(s, &(struct sim_op){.type = SIM_OP_COPY, .copy = *copy, .run = sim_copy_run, .ns = sim_copy_ns(copy)},
                          params);
    if (r == CUDA_SUCCESS && !async)
        sim_stream_wait(s);
    return r;
}

static CUresult linear(uint64_t dst, enum sim_end dst_end, uint64_t src, enum sim_end src_end, uint64_t bytes, CUstream stream,
                       bool per_thread, bool async)
{
    struct sim_copy c = sim_copy_linear(dst, src, bytes);
    CUDA_MEMCPY3D params = {
        .srcMemoryType = src_end == SIM_END_HOST     ? CU_MEMORYTYPE_HOST
                         : src_end == SIM_END_DEVICE ? CU_MEMORYTYPE_DEVICE
                                                     : CU_MEMORYTYPE_UNIFIED,
        .srcHost = (const void *)(uintptr_t)src,
        .srcDevice = src,
        .dstMemoryType = dst_end == SIM_END_HOST     ? CU_MEMORYTYPE_HOST
                         : dst_end == SIM_END_DEVICE ? CU_MEMORYTYPE_DEVICE
                                                     : CU_MEMORYTYPE_UNIFIED,
        .dstHost = (void *)(uintptr_t)dst,
        .dstDevice = dst,
        .WidthInBytes = bytes,
        .Height = 1,
        .Depth = 1,
    };
    SIM_GUARD();

    return sim_copy_submit(&c, dst_end, src_end, stream, per_thread, async, &params);
}

#define ADDRESS(p) ((uint64_t)(uintptr_t)(p))

#define COPY_FUNCTIONS(ptds, ptsz, per_thread)                                                                                     \
    CUresult cuMemcpy##ptds(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount)                                                    \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return linear(dst, SIM_END_ANY, src, SIM_END_ANY, ByteCount, NULL, per_thread, false);                                     \
    }                                                                                                                              \
    CUresult cuMemcpyAsync##ptsz(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount, CUstream hStream)                             \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return linear(dst, SIM_END_ANY, src, SIM_END_ANY, ByteCount, hStream, per_thread, true);                                   \
    }                                                                                                                              \
    CUresult cuMemcpyHtoD_v2##ptds(CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount)                                   \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return linear(dstDevice, SIM_END_DEVICE, ADDRESS(srcHost), SIM_END_HOST, ByteCount, NULL, per_thread, false);              \
    }                                                                                                                              \
    CUresult cuMemcpyHtoDAsync_v2##ptsz(CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount, CUstream hStream)            \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return linear(dstDevice, SIM_END_DEVICE, ADDRESS(srcHost), SIM_END_HOST, ByteCount, hStream, per_thread, true);            \
    }                                                                                                                              \
    CUresult cuMemcpyDtoH_v2##ptds(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount)                                         \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return linear(ADDRESS(dstHost), SIM_END_HOST, srcDevice, SIM_END_DEVICE, ByteCount, NULL, per_thread, false);              \
    }                                                                                                                              \
    CUresult cuMemcpyDtoHAsync_v2##ptsz(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream)                  \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return linear(ADDRESS(dstHost), SIM_END_HOST, srcDevice, SIM_END_DEVICE, ByteCount, hStream, per_thread, true);            \
    }                                                                                                                              \
    CUresult cuMemcpyDtoD_v2##ptds(CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount)                                 \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return linear(dstDevice, SIM_END_DEVICE, srcDevice, SIM_END_DEVICE, ByteCount, NULL, per_thread, false);                   \
    }                                                                                                                              \
    CUresult cuMemcpyDtoDAsync_v2##ptsz(CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream)          \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return linear(dstDevice, SIM_END_DEVICE, srcDevice, SIM_END_DEVICE, ByteCount, hStream, per_thread, true);                 \
    }                                                                                                                              \
    CUresult cuMemcpyPeer##ptds(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice, CUcontext srcContext,          \
                                size_t ByteCount)                                                                                  \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        (void)dstContext;                                                                                                          \
        (void)srcContext;                                                                                                          \
        return linear(dstDevice, SIM_END_DEVICE, srcDevice, SIM_END_DEVICE, ByteCount, NULL, per_thread, false);                   \
    }                                                                                                                              \
    CUresult cuMemcpyPeerAsync##ptsz(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice, CUcontext srcContext,     \
                                     size_t ByteCount, CUstream hStream)                                                           \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        (void)dstContext;                                                                                                          \
        (void)srcContext;                                                                                                          \
        return linear(dstDevice, SIM_END_DEVICE, srcDevice, SIM_END_DEVICE, ByteCount, hStream, per_thread, true);                 \
    }

COPY_FUNCTIONS(, , false)
COPY_FUNCTIONS(_ptds, _ptsz, true)

/* The first ABI: 32-bit addresses, and only contexts of that ABI have any. */
#define V1(copy_)                                                                                                                  \
    struct sim_ctx *ctx;                                                                                                           \
    CUresult r;                                                                                                                    \
    ENTER();                                                                                                                       \
    r = sim_context_current(&ctx);                                                                                                 \
    if (r == CUDA_SUCCESS && ctx->api_version >= 3020)                                                                             \
        r = CUDA_ERROR_INVALID_CONTEXT;                                                                                            \
    return r == CUDA_SUCCESS ? (copy_) : r

CUresult cuMemcpyHtoD(CUdeviceptr_v1 dstDevice, const void *srcHost, unsigned int ByteCount)
{
    V1(linear(dstDevice, SIM_END_DEVICE, ADDRESS(srcHost), SIM_END_HOST, ByteCount, NULL, false, false));
}

CUresult cuMemcpyDtoH(void *dstHost, CUdeviceptr_v1 srcDevice, unsigned int ByteCount)
{
    V1(linear(ADDRESS(dstHost), SIM_END_HOST, srcDevice, SIM_END_DEVICE, ByteCount, NULL, false, false));
}

CUresult cuMemcpyDtoD(CUdeviceptr_v1 dstDevice, CUdeviceptr_v1 srcDevice, unsigned int ByteCount)
{
    V1(linear(dstDevice, SIM_END_DEVICE, srcDevice, SIM_END_DEVICE, ByteCount, NULL, false, false));
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr_v1 dstDevice, const void *srcHost, unsigned int ByteCount, CUstream hStream)
{
    V1(linear(dstDevice, SIM_END_DEVICE, ADDRESS(srcHost), SIM_END_HOST, ByteCount, hStream, false, true));
}

CUresult cuMemcpyDtoHAsync(void *dstHost, CUdeviceptr_v1 srcDevice, unsigned int ByteCount, CUstream hStream)
{
    V1(linear(ADDRESS(dstHost), SIM_END_HOST, srcDevice, SIM_END_DEVICE, ByteCount, hStream, false, true));
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr_v1 dstDevice, CUdeviceptr_v1 srcDevice, unsigned int ByteCount, CUstream hStream)
{
    V1(linear(dstDevice, SIM_END_DEVICE, srcDevice, SIM_END_DEVICE, ByteCount, hStream, false, true));
}
