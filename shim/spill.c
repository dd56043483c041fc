/* SPDX-License-Identifier: Apache-2.0 */
/* Allocations on the host in place of the GPU. */
#include "spill.h"

#include "arm.h"
#include "context.h"
#include "guard.h"
#include "relaxed.h"
#include "softslice/log.h"
#include "take.h"

bool spill_wanted(void)
{
    return arm_config()->spill == CONFIG_SPILL_HOST;
}

/* Tie it to the host. Without a preferred location it would move to the GPU at the first touch there, so that one is a must; where the device
 * cannot be told to access it in place, it faults its way to it. */
static CUresult keep_on_host(CUdeviceptr pointer, uint64_t bytes, CUdevice device)
{
    CUstreamCaptureMode mode = relaxed_enter();
    CUresult result = called.cuMemAdvise(pointer, bytes, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, CU_DEVICE_CPU);

    if (result == CUDA_SUCCESS)
        called.cuMemAdvise(pointer, bytes, CU_MEM_ADVISE_SET_ACCESSED_BY, device);
    relaxed_leave(mode);
    return result;
}

static void tell_once(unsigned device)
{
    static uint32_t told;
    uint32_t bit = 1u << device % 32;

    if (!(__atomic_fetch_or(&told, bit, __ATOMIC_RELAXED) & bit))
        log_warn(
            "device %u: the budget is used up, so allocations go to the host from here on (spill = host); the GPU reaches them "
            "over the bus",
            device);
}

CUresult spill_alloc(CUdeviceptr *pointer, uint64_t bytes)
{
    struct membership *m = process_membership(NULL);
    struct record record = {.bytes = bytes, .family = QUOTA_SPILLED};
    uint64_t endings = context_endings();
    CUdeviceptr made = 0;
    int device;

    if (!m || !context_current(m, &record.context, &device))
        return CUDA_ERROR_OUT_OF_MEMORY;
    record.device = (uint16_t)device;
    guard_enter();
    CUresult result = real.cuMemAllocManaged(&made, bytes, CU_MEM_ATTACH_GLOBAL);
    if (result == CUDA_SUCCESS && keep_on_host(made, bytes, m->device[device]) != CUDA_SUCCESS) {
        real.cuMemFree_v2(made);
        result = CUDA_ERROR_NOT_SUPPORTED;
    }
    guard_leave();
    if (result == CUDA_ERROR_OUT_OF_MEMORY || result == CUDA_ERROR_INVALID_VALUE || result == CUDA_ERROR_NOT_SUPPORTED) {
        quota_refuse(&m->quota, record.device, bytes, QUOTA_SPILLED);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (result != CUDA_SUCCESS)
        return result;
    record.key = made;
    ledger_spill(&m->quota.ledger, (unsigned)m->quota.device[device].index, (int64_t)bytes);
    if (!take_enter(m, process_allocations(), &record, endings)) {
        real.cuMemFree_v2(made);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    tell_once(record.device);
    *pointer = made;
    return CUDA_SUCCESS;
}

bool spill_has(CUdeviceptr pointer)
{
    CUdeviceptr base = 0;
    struct record record;

    if (!spill_wanted() || called.cuPointerGetAttribute(&base, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, pointer) != CUDA_SUCCESS)
        return false;
    return records_find(process_allocations(), base, &record) && record.family == QUOTA_SPILLED;
}

void spill_refund(struct membership *m, const struct record *record)
{
    ledger_spill(&m->quota.ledger, (unsigned)m->quota.device[record->device].index, -(int64_t)record->bytes);
}
