/* SPDX-License-Identifier: Apache-2.0 */
/* Linear memory: cuMemAlloc, cuMemAllocPitch, cuMemAllocManaged, cuMemFree, in all their ABIs. What is refused after all, because of where
 * the driver put it, must not be seen: the driver writes into a variable of ours first. */
#include <stddef.h>

#include "../guard.h"
#include "../take.h"

CUresult cuMemAlloc_v2(CUdeviceptr *dptr, size_t bytesize)
{
    struct take take;
    CUdeviceptr pointer = 0;
    CUresult result;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuMemAlloc_v2(dptr, bytesize);
    if ((result = take_begin(&take, bytesize, QUOTA_LINEAR)) != CUDA_SUCCESS)
        return result;
    do
        result = real.cuMemAlloc_v2(dptr ? &pointer : NULL, bytesize);
    while (take_again(&take, result));
    if (!take_end(&take, result, result == CUDA_SUCCESS ? pointer : 0)) {
        real.cuMemFree_v2(pointer);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (result == CUDA_SUCCESS)
        *dptr = pointer;
    return result;
}

CUresult cuMemAlloc(CUdeviceptr_v1 *dptr, unsigned int bytesize)
{
    struct take take;
    CUdeviceptr_v1 pointer = 0;
    CUresult result;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuMemAlloc(dptr, bytesize);
    if ((result = take_begin(&take, bytesize, QUOTA_LINEAR)) != CUDA_SUCCESS)
        return result;
    do
        result = real.cuMemAlloc(dptr ? &pointer : NULL, bytesize);
    while (take_again(&take, result));
    if (!take_end(&take, result, result == CUDA_SUCCESS ? pointer : 0)) {
        real.cuMemFree(pointer);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (result == CUDA_SUCCESS)
        *dptr = pointer;
    return result;
}

CUresult cuMemAllocManaged(CUdeviceptr *dptr, size_t bytesize, unsigned int flags)
{
    struct take take;
    CUdeviceptr pointer = 0;
    CUresult result;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuMemAllocManaged(dptr, bytesize, flags);
    if ((result = take_begin(&take, bytesize, QUOTA_MANAGED)) != CUDA_SUCCESS)
        return result;
    do
        result = real.cuMemAllocManaged(dptr ? &pointer : NULL, bytesize, flags);
    while (take_again(&take, result));
    if (!take_end(&take, result, result == CUDA_SUCCESS ? pointer : 0)) {
        real.cuMemFree_v2(pointer);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (result == CUDA_SUCCESS)
        *dptr = pointer;
    return result;
}

/* Rows are padded to at least this: what the pitch comes to is known only afterwards. */
#define PITCH_ALIGNMENT 512

/* Bytes of `rows` rows, saturating: no such allocation can be granted, and the refusal is the driver's own word for it. */
static uint64_t pitched_bytes(uint64_t pitch, uint64_t rows)
{
    uint64_t bytes;
    return __builtin_mul_overflow(pitch, rows, &bytes) ? UINT64_MAX : bytes;
}

static uint64_t expected_pitch(uint64_t width)
{
    return width > UINT64_MAX - PITCH_ALIGNMENT ? width : (width + PITCH_ALIGNMENT - 1) & ~(uint64_t)(PITCH_ALIGNMENT - 1);
}

CUresult cuMemAllocPitch_v2(CUdeviceptr *dptr, size_t *pitch, size_t width, size_t height, unsigned int element_size)
{
    struct take take;
    CUdeviceptr pointer = 0;
    size_t wide = 0;
    CUresult result;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuMemAllocPitch_v2(dptr, pitch, width, height, element_size);
    if ((result = take_begin(&take, pitched_bytes(expected_pitch(width), height), QUOTA_LINEAR)) != CUDA_SUCCESS)
        return result;
    do
        result = real.cuMemAllocPitch_v2(dptr ? &pointer : NULL, pitch ? &wide : NULL, width, height, element_size);
    while (take_again(&take, result));
    bool fits = result != CUDA_SUCCESS || wide <= expected_pitch(width) || take_widen(&take, pitched_bytes(wide, height));
    if (!take_end(&take, fits ? result : CUDA_ERROR_OUT_OF_MEMORY, result == CUDA_SUCCESS ? pointer : 0) || !fits) {
        real.cuMemFree_v2(pointer);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (result == CUDA_SUCCESS) {
        *dptr = pointer;
        *pitch = wide;
    }
    return result;
}

CUresult cuMemAllocPitch(CUdeviceptr_v1 *dptr, unsigned int *pitch, unsigned int width, unsigned int height,
                         unsigned int element_size)
{
    struct take take;
    CUdeviceptr_v1 pointer = 0;
    unsigned int wide = 0;
    CUresult result;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuMemAllocPitch(dptr, pitch, width, height, element_size);
    if ((result = take_begin(&take, pitched_bytes(expected_pitch(width), height), QUOTA_LINEAR)) != CUDA_SUCCESS)
        return result;
    do
        result = real.cuMemAllocPitch(dptr ? &pointer : NULL, pitch ? &wide : NULL, width, height, element_size);
    while (take_again(&take, result));
    bool fits = result != CUDA_SUCCESS || wide <= expected_pitch(width) || take_widen(&take, pitched_bytes(wide, height));
    if (!take_end(&take, fits ? result : CUDA_ERROR_OUT_OF_MEMORY, result == CUDA_SUCCESS ? pointer : 0) || !fits) {
        real.cuMemFree(pointer);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (result == CUDA_SUCCESS) {
        *dptr = pointer;
        *pitch = wide;
    }
    return result;
}

CUresult cuMemFree_v2(CUdeviceptr dptr)
{
    struct give give;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuMemFree_v2(dptr);
    give_begin(&give, dptr);
    CUresult result = real.cuMemFree_v2(dptr);
    give_end(&give, result);
    return result;
}

CUresult cuMemFree(CUdeviceptr_v1 dptr)
{
    struct give give;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuMemFree(dptr);
    give_begin(&give, dptr);
    CUresult result = real.cuMemFree(dptr);
    give_end(&give, result);
    return result;
}
