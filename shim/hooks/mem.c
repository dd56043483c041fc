/* SPDX-License-Identifier: Apache-2.0 */
/* Linear memory: cuMemAlloc, cuMemAllocPitch, cuMemAllocManaged, cuMemFree, in all their ABIs, which differ in types alone.
 *
 * What is refused after all, because of where the driver put it, must not be seen, so the driver writes into variables of ours; whatever
 * else it left there, an error's zero for one, the program gets. */
#include <stddef.h>

#include "../arm.h"
#include "../context.h"
#include "../guard.h"
#include "../spill.h"
#include "../take.h"

/* What a program is told that may have no managed memory: what a device without it says. Without a context the driver refuses by itself. */
static bool managed_forbidden(void)
{
    struct membership *m = arm_config()->managed == CONFIG_MANAGED_FORBID ? process_membership(NULL) : NULL;
    uint64_t owner;
    int device;

    return m && context_current(m, &owner, &device);
}

/* What managed memory is charged when it is allocated. With managed = resident that is nothing: its pages come to the GPU later, and go. */
static uint64_t managed_bytes(uint64_t bytes)
{
    return arm_config()->managed == CONFIG_MANAGED_RESIDENT ? 0 : bytes;
}

/* An allocation of `bytes`: `given` are the program's arguments, `ours` the same with our own outputs. `spills`: whether what is over the budget
 * goes to the host, by `spilled`. */
#define ALLOCATE(symbol, type, undo, family, bytes, forbidden, spills, spilled, parameters, given, ours)                           \
    CUresult symbol parameters                                                                                                     \
    {                                                                                                                              \
        struct take take;                                                                                                          \
        type pointer;                                                                                                              \
        CUresult result;                                                                                                           \
        unsigned times = 0;                                                                                                        \
        bool kept;                                                                                                                 \
                                                                                                                                   \
        if (!guard_acts(RESOLVE_VRAM))                                                                                             \
            return real.symbol given;                                                                                              \
        if (forbidden)                                                                                                             \
            return CUDA_ERROR_NOT_SUPPORTED;                                                                                       \
        do {                                                                                                                       \
            pointer = dptr ? *dptr : 0;                                                                                            \
            result = (spills) ? take_begin_quiet(&take, bytes, family) : take_begin(&take, bytes, family);                         \
            if (result == CUDA_ERROR_OUT_OF_MEMORY && (spills))                                                                    \
                return spilled;                                                                                                    \
            if (result != CUDA_SUCCESS)                                                                                            \
                return result;                                                                                                     \
            do                                                                                                                     \
                result = real.symbol ours;                                                                                         \
            while (take_again(&take, result));                                                                                     \
            kept = take_end(&take, result, result == CUDA_SUCCESS ? pointer : 0);                                                  \
            if (!kept)                                                                                                             \
                real.undo(pointer);                                                                                                \
        } while (!kept && take_anew(&take, &times));                                                                               \
        if (!kept)                                                                                                                 \
            return (spills) ? spilled : CUDA_ERROR_OUT_OF_MEMORY;                                                                  \
        if (dptr)                                                                                                                  \
            *dptr = pointer;                                                                                                       \
        return result;                                                                                                             \
    }

ALLOCATE(cuMemAlloc_v2, CUdeviceptr, cuMemFree_v2, QUOTA_LINEAR, bytesize, false, dptr &&spill_wanted(),
         spill_alloc(dptr, bytesize), (CUdeviceptr * dptr, size_t bytesize), (dptr, bytesize), (dptr ? &pointer : NULL, bytesize))
ALLOCATE(cuMemAlloc, CUdeviceptr_v1, cuMemFree, QUOTA_LINEAR, bytesize, false, false, CUDA_ERROR_OUT_OF_MEMORY,
         (CUdeviceptr_v1 * dptr, unsigned int bytesize), (dptr, bytesize), (dptr ? &pointer : NULL, bytesize))
ALLOCATE(cuMemAllocManaged, CUdeviceptr, cuMemFree_v2, QUOTA_MANAGED, managed_bytes(bytesize), managed_forbidden(), false,
         CUDA_ERROR_OUT_OF_MEMORY, (CUdeviceptr * dptr, size_t bytesize, unsigned int flags), (dptr, bytesize, flags),
         (dptr ? &pointer : NULL, bytesize, flags))

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

/* Whether rows over the budget go to the host; not if the driver would refuse them anyway. */
static bool spills_pitched(const CUdeviceptr *dptr, const size_t *pitch, unsigned element_size)
{
    return dptr && pitch && (element_size == 4 || element_size == 8 || element_size == 16) && spill_wanted();
}

static CUresult spill_pitched(CUdeviceptr *dptr, size_t *pitch, size_t width, size_t height)
{
    CUresult result = spill_alloc(dptr, pitched_bytes(expected_pitch(width), height));

    if (result == CUDA_SUCCESS)
        *pitch = expected_pitch(width);
    return result;
}

#define ALLOCATE_PITCH(symbol, type, size, undo, spills, spilled)                                                                  \
    CUresult symbol(type *dptr, size *pitch, size width, size height, unsigned int element_size)                                   \
    {                                                                                                                              \
        struct take take;                                                                                                          \
        type pointer;                                                                                                              \
        size wide;                                                                                                                 \
        CUresult result;                                                                                                           \
        unsigned times = 0;                                                                                                        \
        bool kept;                                                                                                                 \
                                                                                                                                   \
        if (!guard_acts(RESOLVE_VRAM))                                                                                             \
            return real.symbol(dptr, pitch, width, height, element_size);                                                          \
        do {                                                                                                                       \
            uint64_t bytes = pitched_bytes(expected_pitch(width), height);                                                         \
                                                                                                                                   \
            pointer = dptr ? *dptr : 0;                                                                                            \
            wide = pitch ? *pitch : 0;                                                                                             \
            result = (spills) ? take_begin_quiet(&take, bytes, QUOTA_LINEAR) : take_begin(&take, bytes, QUOTA_LINEAR);             \
            if (result == CUDA_ERROR_OUT_OF_MEMORY && (spills))                                                                    \
                return spilled;                                                                                                    \
            if (result != CUDA_SUCCESS)                                                                                            \
                return result;                                                                                                     \
            do                                                                                                                     \
                result = real.symbol(dptr ? &pointer : NULL, pitch ? &wide : NULL, width, height, element_size);                   \
            while (take_again(&take, result));                                                                                     \
            bool fits = result != CUDA_SUCCESS || wide <= expected_pitch(width) || take_widen(&take, pitched_bytes(wide, height)); \
            kept = take_end(&take, fits ? result : CUDA_ERROR_OUT_OF_MEMORY, result == CUDA_SUCCESS ? pointer : 0) && fits;        \
            if (!kept)                                                                                                             \
                real.undo(pointer);                                                                                                \
        } while (!kept && take_anew(&take, &times));                                                                               \
        if (!kept)                                                                                                                 \
            return (spills) ? spilled : CUDA_ERROR_OUT_OF_MEMORY;                                                                  \
        if (dptr)                                                                                                                  \
            *dptr = pointer;                                                                                                       \
        if (pitch)                                                                                                                 \
            *pitch = wide;                                                                                                         \
        return result;                                                                                                             \
    }

ALLOCATE_PITCH(cuMemAllocPitch_v2, CUdeviceptr, size_t, cuMemFree_v2, spills_pitched(dptr, pitch, element_size),
               spill_pitched(dptr, pitch, width, height))
ALLOCATE_PITCH(cuMemAllocPitch, CUdeviceptr_v1, unsigned int, cuMemFree, false, CUDA_ERROR_OUT_OF_MEMORY)

#define FREE(symbol, type)                                                                                                         \
    CUresult symbol(type dptr)                                                                                                     \
    {                                                                                                                              \
        struct give give;                                                                                                          \
                                                                                                                                   \
        if (!guard_acts(RESOLVE_VRAM))                                                                                             \
            return real.symbol(dptr);                                                                                              \
        give_begin(&give, dptr);                                                                                                   \
        CUresult result = real.symbol(dptr);                                                                                       \
        give_end(&give, result);                                                                                                   \
        return result;                                                                                                             \
    }

FREE(cuMemFree_v2, CUdeviceptr)
FREE(cuMemFree, CUdeviceptr_v1)
