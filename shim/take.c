/* SPDX-License-Identifier: Apache-2.0 */
/* Charges around one driver call. */
#include "take.h"

#include "context.h"
#include "guard.h"

CUresult take_begin(struct take *take, uint64_t bytes, enum quota_family family)
{
    CUresult why;
    int device;

    *take = (struct take){0};
    struct membership *m = process_membership(&why);
    if (!m) {
        if (why == CUDA_ERROR_OPERATING_SYSTEM)
            return why;
        guard_enter();
        return CUDA_SUCCESS;
    }
    if (bytes != 0 && context_current(m, &take->owner, &device)) {
        if (quota_reserve(&m->quota, &take->charge, (unsigned)device, bytes, family) != 0)
            return CUDA_ERROR_OUT_OF_MEMORY;
        take->membership = m;
    }
    guard_enter();
    return CUDA_SUCCESS;
}

bool take_again(struct take *take, CUresult result)
{
    return result == CUDA_ERROR_OUT_OF_MEMORY && take->membership &&
           quota_retry_oom(&take->membership->quota, take->charge.device, &take->attempt);
}

bool take_widen(struct take *take, uint64_t bytes)
{
    if (!take->membership)
        return true;
    /* Ask for the whole again and give the first charge back: the two together are never less than what the driver gave. */
    struct quota_charge whole;
    if (quota_reserve(&take->membership->quota, &whole, take->charge.device, bytes, take->charge.family) != 0)
        return false;
    quota_cancel(&take->membership->quota, &take->charge);
    take->charge = whole;
    return true;
}

bool take_end(struct take *take, CUresult result, uint64_t pointer)
{
    struct membership *m = take->membership;
    struct record record = {.key = pointer, .context = take->owner}, old;

    guard_leave();
    if (!m)
        return true;
    if (result != CUDA_SUCCESS || !pointer) {
        quota_cancel(&m->quota, &take->charge);
        return true;
    }
    quota_keep(&m->quota, &take->charge, 0, &record);
    switch (records_put(process_allocations(), &record, &old)) {
    case 0:
        return true;
    case 1: /* freed on a road that we do not see, and handed out again */
        quota_refund(&m->quota, &old);
        return true;
    default:
        quota_refund(&m->quota, &record);
        return false;
    }
}

void give_begin(struct give *give, uint64_t pointer)
{
    struct membership *m = process_membership(NULL);

    give->membership = m && pointer && records_take(process_allocations(), pointer, &give->record) ? m : NULL;
    guard_enter();
}

void give_end(struct give *give, CUresult result)
{
    struct membership *m = give->membership;

    guard_leave();
    if (!m)
        return;
    if (result == CUDA_SUCCESS || result == CUDA_ERROR_DEINITIALIZED) {
        quota_refund(&m->quota, &give->record);
        return;
    }
    struct record old;
    if (records_put(process_allocations(), &give->record, &old) == 1)
        quota_refund(&m->quota, &old);
}
