/* SPDX-License-Identifier: Apache-2.0 */
/* Prefetching of managed memory towards a device: with managed = resident it is how pages come there by the program's will, so it is asked
 * about; pages that come by faults nobody can ask about, they show in the driver's figure. */
#include "../arm.h"
#include "../gap.h"
#include "../guard.h"
#include "../relaxed.h"
#include "../spill.h"
#include "../take.h"

/* A prefetch between asking and telling. What it asked for is held in the ledger during the call alone: how many pages really come is the
 * driver's to tell. */
struct moving {
    struct membership *membership; /* NULL: nothing is held */
    struct quota_charge charge;
};

/* Whether all of the range was prefetched to this device before: then it asks for nothing new. */
static bool there_already(CUdeviceptr pointer, size_t count, CUdevice device)
{
    int last = CU_DEVICE_INVALID;
    CUstreamCaptureMode mode = relaxed_enter();
    CUresult result =
        called.cuMemRangeGetAttribute(&last, sizeof(last), CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, pointer, count);

    relaxed_leave(mode);
    return result == CUDA_SUCCESS && last == device;
}

/* CUDA_SUCCESS: call the driver, then moving_end(). Else the answer for the program. `device` CU_DEVICE_CPU: to the host. */
static CUresult moving_begin(struct moving *moving, CUdeviceptr pointer, size_t count, CUdevice device)
{
    struct membership *m;
    int index;

    *moving = (struct moving){0};
    if (device != CU_DEVICE_CPU && spill_has(pointer))
        return CUDA_ERROR_INVALID_VALUE; /* what the program takes for plain memory cannot be prefetched */
    if (device != CU_DEVICE_CPU && arm_config()->managed == CONFIG_MANAGED_RESIDENT && (m = process_membership(NULL)) &&
        (index = process_device(m, device)) != PROCESS_NO_DEVICE && !there_already(pointer, count, device)) {
        if (!take_reserve(m, &moving->charge, (unsigned)index, count, QUOTA_MANAGED))
            return CUDA_ERROR_OUT_OF_MEMORY;
        moving->membership = m;
    }
    guard_enter();
    return CUDA_SUCCESS;
}

/* What has come is in the driver's figure once the stream has got there: have that looked at. */
static void moving_end(struct moving *moving, CUresult result)
{
    guard_leave();
    if (!moving->membership)
        return;
    quota_cancel(&moving->membership->quota, &moving->charge);
    if (result == CUDA_SUCCESS)
        gap_poke(moving->membership, moving->charge.device);
}

#define PREFETCH(symbol, device, parameters, arguments)                                                                            \
    CUresult symbol parameters                                                                                                     \
    {                                                                                                                              \
        struct moving moving;                                                                                                      \
        CUresult result;                                                                                                           \
                                                                                                                                   \
        if (!guard_acts(RESOLVE_VRAM))                                                                                             \
            return real.symbol arguments;                                                                                          \
        if ((result = moving_begin(&moving, devPtr, count, device)) != CUDA_SUCCESS)                                               \
            return result;                                                                                                         \
        result = real.symbol arguments;                                                                                            \
        moving_end(&moving, result);                                                                                               \
        return result;                                                                                                             \
    }

#define LOCATED (location.type == CU_MEM_LOCATION_TYPE_DEVICE ? location.id : CU_DEVICE_CPU)

PREFETCH(cuMemPrefetchAsync, dstDevice, (CUdeviceptr devPtr, size_t count, CUdevice dstDevice, CUstream hStream),
         (devPtr, count, dstDevice, hStream))
PREFETCH(cuMemPrefetchAsync_ptsz, dstDevice, (CUdeviceptr devPtr, size_t count, CUdevice dstDevice, CUstream hStream),
         (devPtr, count, dstDevice, hStream))
PREFETCH(cuMemPrefetchAsync_v2, LOCATED,
         (CUdeviceptr devPtr, size_t count, CUmemLocation location, unsigned int flags, CUstream hStream),
         (devPtr, count, location, flags, hStream))
PREFETCH(cuMemPrefetchAsync_v2_ptsz, LOCATED,
         (CUdeviceptr devPtr, size_t count, CUmemLocation location, unsigned int flags, CUstream hStream),
         (devPtr, count, location, flags, hStream))
