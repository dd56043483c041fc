/* SPDX-License-Identifier: Apache-2.0 */
/* Charges physical allocations. */
#include "virtual.h"

#include "asleep.h"
#include "gap.h"
#include "guard.h"
#include "take.h"

static uint64_t round_up(uint64_t bytes, uint64_t granule)
{
    return bytes > UINT64_MAX - (granule - 1) ? UINT64_MAX : (bytes + (granule - 1)) & ~(granule - 1);
}

/* Reserve what is not kept from before. False: over the budget. */
static bool reserve(struct creating *creating, bool sound)
{
    struct membership *m = creating->membership;

    if (asleep_wanted())
        creating->asleep = asleep_use(creating->device, creating->bytes);
    if (creating->asleep == creating->bytes)
        return true;
    if (sound)
        return take_reserve(m, &creating->charge, (unsigned)creating->device, creating->bytes - creating->asleep, QUOTA_VMM);
    creating->trial =
        !quota_try_reserve(&m->quota, &creating->charge, (unsigned)creating->device, creating->bytes - creating->asleep, QUOTA_VMM);
    return true;
}

static void give_back(struct creating *creating)
{
    quota_cancel(&creating->membership->quota, &creating->charge);
    if (creating->asleep)
        asleep_return(creating->device, creating->asleep);
}

CUresult creating_begin(struct creating *creating, size_t size, const CUmemAllocationProp *prop, unsigned long long flags)
{
    CUresult why;

    *creating = (struct creating){.device = PROCESS_NO_DEVICE};
    struct membership *m = process_membership(&why);
    if (!m && why == CUDA_ERROR_OPERATING_SYSTEM)
        return why;
    if (m && process_phys() && prop && size) {
        creating->membership = m;
        if (prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE)
            creating->device = process_device(m, prop->location.id);
    }
    guard_enter();
    if (creating->device == PROCESS_NO_DEVICE)
        return CUDA_SUCCESS;
    uint64_t granule = m->quota.device[creating->device].granule;
    creating->bytes = round_up(size, granule);
    /* What the driver refuses as invalid is not to be refused as too much. */
    if (reserve(creating, size % granule == 0 && flags == 0 && prop->type == CU_MEM_ALLOCATION_TYPE_PINNED &&
                              !(prop->requestedHandleTypes & (CU_MEM_HANDLE_TYPE_WIN32 | CU_MEM_HANDLE_TYPE_WIN32_KMT))))
        return CUDA_SUCCESS;
    give_back(creating);
    guard_leave();
    return CUDA_ERROR_OUT_OF_MEMORY;
}

bool creating_again(struct creating *creating, CUresult result)
{
    return result == CUDA_ERROR_OUT_OF_MEMORY && creating->device != PROCESS_NO_DEVICE && !creating->trial &&
           quota_retry_oom(&creating->membership->quota, (unsigned)creating->device, &creating->attempt);
}

bool creating_end(struct creating *creating, CUresult result, uint64_t handle)
{
    struct membership *m = creating->membership;
    struct record record;
    struct phys_use use;

    guard_leave();
    if (!m || creating->device == PROCESS_NO_DEVICE)
        return true;
    if (result != CUDA_SUCCESS) {
        give_back(creating);
        return true;
    }
    if (creating->trial) {
        quota_refuse(&m->quota, (unsigned)creating->device, creating->bytes, QUOTA_VMM);
        give_back(creating);
        return false;
    }
    virtual_use(&use);
    quota_keep(&m->quota, &creating->charge, 0, &record);
    if (phys_create(&use, handle, (unsigned)creating->device, creating->bytes) == 0) {
        if (creating->asleep)
            asleep_used(creating->device, creating->asleep);
        return true;
    }
    quota_refund(&m->quota, &record);
    if (creating->asleep)
        asleep_return(creating->device, creating->asleep);
    return false;
}

static void ended(void *argument, const struct phys_end *end)
{
    struct membership *m = argument;

    if (end->shared)
        gap_note_import(end->device, -(int64_t)end->shared);
    if (!end->bytes || (end->address && asleep_wanted() && asleep_keep(end->device, end->address, end->bytes)))
        return;
    quota_refund(&m->quota, &(struct record){.bytes = end->bytes, .device = end->device, .family = QUOTA_VMM});
}

bool virtual_use(struct phys_use *use)
{
    struct membership *m = process_membership(NULL);
    struct phys *table = m ? process_phys() : NULL;

    *use = (struct phys_use){.table = table, .ended = ended, .argument = m};
    return table;
}

bool virtual_enter(CUmemGenericAllocationHandle handle, int device)
{
    unsigned place = device == PROCESS_NO_DEVICE ? PHYS_NO_DEVICE : (unsigned)device;
    struct phys_use use;

    return !virtual_use(&use) || phys_retain(&use, handle) || phys_create(&use, handle, place, 0) == 0;
}

void virtual_drop(uint64_t number)
{
    struct phys_use use;

    if (virtual_use(&use))
        phys_drop_owner(&use, PHYS_FOREIGN_OWNER | number);
}
