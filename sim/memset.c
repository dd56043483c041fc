/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemset*, linear and two-dimensional. */
#include "copy.h"

static CUresult set(uint64_t dst, uint64_t pitch, uint32_t value, unsigned int element, uint64_t width, uint64_t height,
                    CUstream stream, bool per_thread, bool async)
{
    struct sim_copy c = {.dst = dst,
                         .dst_pitch = pitch,
                         .width = width * element,
                         .height = height,
                         .depth = 1,
                         .value = value,
                         .element = (uint8_t)element};
    CUDA_MEMSET_NODE_PARAMS params = {
        .dst = dst, .pitch = pitch, .value = value, .elementSize = element, .width = width, .height = height};
    SIM_GUARD();

    if (height > 1 && pitch < width * element)
        return CUDA_ERROR_INVALID_VALUE;
    return sim_copy_submit(&c, SIM_END_DEVICE, SIM_END_ANY, stream, per_thread, async, &params);
}

#define MEMSET_FUNCTIONS(bits, type, ptds, ptsz, per_thread)                                                                       \
    CUresult cuMemsetD##bits##_v2##ptds(CUdeviceptr dstDevice, type value, size_t N)                                               \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return set(dstDevice, 0, value, bits / 8, N, 1, NULL, per_thread, false);                                                  \
    }                                                                                                                              \
    CUresult cuMemsetD##bits##Async##ptsz(CUdeviceptr dstDevice, type value, size_t N, CUstream hStream)                           \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return set(dstDevice, 0, value, bits / 8, N, 1, hStream, per_thread, true);                                                \
    }                                                                                                                              \
    CUresult cuMemsetD2D##bits##_v2##ptds(CUdeviceptr dstDevice, size_t dstPitch, type value, size_t Width, size_t Height)         \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return set(dstDevice, dstPitch, value, bits / 8, Width, Height, NULL, per_thread, false);                                  \
    }                                                                                                                              \
    CUresult cuMemsetD2D##bits##Async##ptsz(CUdeviceptr dstDevice, size_t dstPitch, type value, size_t Width, size_t Height,       \
                                            CUstream hStream)                                                                      \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return set(dstDevice, dstPitch, value, bits / 8, Width, Height, hStream, per_thread, true);                                \
    }

MEMSET_FUNCTIONS(8, unsigned char, , , false)
MEMSET_FUNCTIONS(8, unsigned char, _ptds, _ptsz, true)
MEMSET_FUNCTIONS(16, unsigned short, , , false)
MEMSET_FUNCTIONS(16, unsigned short, _ptds, _ptsz, true)
MEMSET_FUNCTIONS(32, unsigned int, , , false)
MEMSET_FUNCTIONS(32, unsigned int, _ptds, _ptsz, true)

/* The first ABI: only contexts of that ABI have 32-bit addresses. */
static CUresult set_v1(uint64_t dst, uint64_t pitch, uint32_t value, unsigned int element, uint64_t width, uint64_t height)
{
    struct sim_ctx *ctx;
    CUresult r = sim_context_current(&ctx);

    if (r == CUDA_SUCCESS && ctx->api_version >= 3020)
        r = CUDA_ERROR_INVALID_CONTEXT;
    return r == CUDA_SUCCESS ? set(dst, pitch, value, element, width, height, NULL, false, false) : r;
}

#define MEMSET_V1(bits, type)                                                                                                      \
    CUresult cuMemsetD##bits(CUdeviceptr_v1 dstDevice, type value, unsigned int N)                                                 \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return set_v1(dstDevice, 0, value, bits / 8, N, 1);                                                                        \
    }                                                                                                                              \
    CUresult cuMemsetD2D##bits(CUdeviceptr_v1 dstDevice, unsigned int dstPitch, type value, unsigned int Width,                    \
                               unsigned int Height)                                                                                \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return set_v1(dstDevice, dstPitch, value, bits / 8, Width, Height);                                                        \
    }

MEMSET_V1(8, unsigned char)
MEMSET_V1(16, unsigned short)
MEMSET_V1(32, unsigned int)
