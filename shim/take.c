/* SPDX-License-Identifier: Apache-2.0 */
/* Charges around one driver call. */
#include "take.h"

#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "bucket.h"
#include "context.h"
#include "gap.h"
#include "guard.h"
#include "meter.h"
#include "returns.h"
#include "spill.h"
#include "virtual.h"

static uint64_t granule_of(const struct membership *m, unsigned device)
{
    return m->quota.device[device].granule;
}

#define ASK_ATTEMPTS 100 /* of one who sees slabs come and go each time */

/* How often an allocation begins anew, and how long it waits for others each time: a thread may be put aside in the middle of a free. */
#define ANEW_TIMES    3
#define ANEW_ROUNDS   200
#define ANEW_SLEEP_NS 100000

/* What can be had before a refusal: what pools and graphs keep without using it, and what the driver has given back by itself. Whether that was
 * anything. */
static bool give_back(struct membership *m, unsigned device, enum quota_family family)
{
    bool came_back = meters_give_back(m, device);

    /* What a call made the driver take is about to be read itself. */
    return (family != QUOTA_GROWTH && gap_fell(m, (int)device, family == QUOTA_CONTEXT)) || came_back;
}

/* In silence; who would be refused only because of the dead waits for them. */
static bool try_reserve(struct membership *m, struct quota_charge *charge, unsigned device, uint64_t bytes,
                        enum quota_family family)
{
    uint64_t waited = 0;

    if (quota_try_reserve(&m->quota, charge, device, bytes, family))
        return true;
    if (bytes <= quota_limit(&m->quota, device))
        give_back(m, device, family);
    do {
        if (quota_try_reserve(&m->quota, charge, device, bytes, family))
            return true;
    } while (quota_await_dead(&m->quota, device, bytes, family, &waited));
    return false;
}

bool take_reserve(struct membership *m, struct quota_charge *charge, unsigned device, uint64_t bytes, enum quota_family family)
{
    if (try_reserve(m, charge, device, bytes, family))
        return true;
    quota_refuse(&m->quota, device, bytes, family);
    return false;
}

/* Of an open take: over the budget. */
static bool refuse(struct take *take, struct membership *m, uint64_t bytes)
{
    if (!take->quiet)
        quota_refuse(&m->quota, take->device, bytes, take->family);
    return false;
}

/* Ask for what an allocation may take. A small one may take a granule, so one is reserved for it; only where the budget has none left and
 * the process's own slabs have room it is tried without. Between the two looks a granule may have gone from the one side to the other, so
 * a refusal is final when it holds twice with no slab come or gone in between. */
static bool ask(struct take *take, struct membership *m, uint64_t bytes)
{
    uint64_t granule = granule_of(m, take->device), changes = UINT64_MAX, before;
    uint64_t waited = 0;
    bool gave_back = false;

    if (!slabs_is_small(bytes, granule))
        return try_reserve(m, &take->charge, take->device, bytes, take->family) || refuse(take, m, bytes);
    take->small = bytes;
    for (unsigned attempt = 0; attempt < ASK_ATTEMPTS; attempt++) {
        before = changes;
        if (quota_try_reserve(&m->quota, &take->charge, take->device, granule, take->family) ||
            slabs_have_room(process_slabs(), take->device, granule, bytes, &changes))
            return true;
        if (changes != before)
            continue;
        if (!gave_back && give_back(m, take->device, take->family))
            gave_back = true;
        else if (quota_await_dead(&m->quota, take->device, granule, take->family, &waited))
            attempt = 0;
        else
            break;
    }
    return refuse(take, m, bytes);
}

static CUresult begin_take(struct take *take, uint64_t bytes, enum quota_family family, bool quiet)
{
    CUresult why;
    int device;

    *take = (struct take){.family = family, .quiet = quiet};
    struct membership *m = process_membership(&why);
    if (!m) {
        if (why == CUDA_ERROR_OPERATING_SYSTEM)
            return why;
        guard_enter();
        return CUDA_SUCCESS;
    }
    take->endings = context_endings();
    if (bytes != 0 && context_current(m, &take->owner, &device)) {
        take->device = (unsigned)device;
        if (!ask(take, m, bytes))
            return CUDA_ERROR_OUT_OF_MEMORY;
        take->membership = m;
        take->unreserved = !take->charge.bytes;
        if (take->unreserved)
            returns_begin();
    }
    guard_enter();
    return CUDA_SUCCESS;
}

CUresult take_begin(struct take *take, uint64_t bytes, enum quota_family family)
{
    return begin_take(take, bytes, family, false);
}

CUresult take_begin_quiet(struct take *take, uint64_t bytes, enum quota_family family)
{
    return begin_take(take, bytes, family, true);
}

bool take_again(struct take *take, CUresult result)
{
    return result == CUDA_ERROR_OUT_OF_MEMORY && take->membership &&
           quota_retry_oom(&take->membership->quota, take->device, &take->attempt);
}

bool take_widen(struct take *take, uint64_t bytes)
{
    if (!take->membership)
        return true;
    if (take->small && slabs_is_small(bytes, granule_of(take->membership, take->device))) {
        take->small = bytes;
        return true;
    }
    /* Ask for the whole again and give the first charge back: the two together are never less than what the driver gave. */
    struct quota_charge whole;
    if (!try_reserve(take->membership, &whole, take->device, bytes, take->family))
        return refuse(take, take->membership, bytes);
    quota_cancel(&take->membership->quota, &take->charge);
    take->charge = whole;
    take->small = 0;
    return true;
}

static void refund_slab(void *argument, const struct record *slab)
{
    struct membership *m = argument;
    uint64_t granule = granule_of(m, slab->device);

    if (slab->family == QUOTA_MANAGED)
        gap_note_managed(slab->device, -(int64_t)granule);
    quota_refund(&m->quota, &(struct record){.bytes = granule, .device = slab->device});
}

void take_refund(struct membership *m, const struct record *record)
{
    if (record->family == QUOTA_MANAGED && !record->small)
        gap_note_managed(record->device, -(int64_t)record->bytes);
    if (record->family == QUOTA_POOL)
        meter_unblock(m, record->bytes);
    else if (record->family == QUOTA_VMM)
        virtual_drop(record->bytes);
    else if (record->family == QUOTA_SPILLED)
        spill_refund(m, record);
    else if (!record->small)
        quota_refund(&m->quota, record);
    else if (record->family == QUOTA_ARRAY)
        bucket_remove(m, record);
    else
        slabs_remove(process_slabs(), granule_of(m, record->device), record, refund_slab, m);
}

/* Before it counts as taken: who reads the gap in between would miss it in the figure. */
static void note_managed(const struct take *take, uint64_t bytes)
{
    if (take->family == QUOTA_MANAGED)
        gap_note_managed((int)take->device, (int64_t)bytes);
}

static void keep_large(struct take *take, struct record *record)
{
    note_managed(take, take->charge.bytes);
    quota_keep(&take->membership->quota, &take->charge, 0, record);
}

/* Enter a small allocation where the driver put it, and charge its slab if nobody has. False: no host memory, or the budget has no room for
 * that slab (`displaced`). */
static bool keep_small(struct take *take, struct record *record)
{
    struct membership *m = take->membership;
    uint64_t granule = granule_of(m, take->device);
    bool reserved = take->charge.bytes;
    struct record slab;

    record->bytes = take->small;
    record->device = (uint16_t)take->device;
    record->family = (uint8_t)take->family;
    record->small = true;
    int uncharged = slabs_add(process_slabs(), take->device, take->family, granule, record->key, take->small, reserved);
    if (uncharged < 0) {
        quota_cancel(&m->quota, &take->charge);
        return false;
    }
    if (uncharged && !reserved) {
        reserved = quota_try_reserve(&m->quota, &take->charge, take->device, granule, take->family);
        uncharged = slabs_add(process_slabs(), take->device, take->family, granule, record->key, 0, reserved);
        if (uncharged && !reserved) {
            take->displaced = true;
            take_refund(m, record);
            return false;
        }
    }
    if (uncharged) {
        note_managed(take, granule);
        quota_keep(&m->quota, &take->charge, 0, &slab);
    } else {
        quota_cancel(&m->quota, &take->charge);
    }
    return true;
}

/* 0, 1 or -ENOMEM, as records_put(). */
static int enter(struct membership *m, struct records *records, const struct record *record, uint64_t endings)
{
    struct record other;
    int put = records_put(records, record, &other);

    if (put == 1) /* freed on a road that we do not see, and handed out again */
        take_refund(m, &other);
    if (put >= 0 && context_ended(record->context, endings) && records_take_of(records, record->key, record->context, &other))
        take_refund(m, &other);
    return put;
}

bool take_enter(struct membership *m, struct records *records, const struct record *record, uint64_t endings)
{
    if (enter(m, records, record, endings) >= 0)
        return true;
    take_refund(m, record);
    return false;
}

static bool keep(struct take *take, CUresult result, uint64_t pointer)
{
    struct membership *m = take->membership;
    struct record record = {.key = pointer, .context = take->owner};

    if (result != CUDA_SUCCESS || !pointer) {
        quota_cancel(&m->quota, &take->charge);
        return true;
    }
    if (!take->small)
        keep_large(take, &record);
    else if (!keep_small(take, &record))
        return false;
    return take_enter(m, process_allocations(), &record, take->endings);
}

bool take_end(struct take *take, CUresult result, uint64_t pointer)
{
    guard_leave();
    if (!take->membership)
        return true;
    bool kept = keep(take, result, pointer);
    if (take->unreserved && !take->displaced)
        returns_end();
    return kept;
}

bool take_anew(struct take *take, unsigned *times)
{
    struct membership *m = take->membership;

    if (!take->displaced)
        return false;
    returns_end();
    if (++*times > ANEW_TIMES)
        return refuse(take, m, take->small);
    int saved = errno;
    for (unsigned round = 0; round < ANEW_ROUNDS && !slabs_settled(process_slabs(), process_allocations()); round++)
        syscall(SYS_nanosleep, &(struct timespec){.tv_nsec = ANEW_SLEEP_NS}, NULL); /* which is no cancellation point */
    errno = saved;
    return true;
}

static void begin(struct give *give, struct records *records, uint64_t key)
{
    struct membership *m = process_membership(NULL);

    give->records = records;
    give->endings = context_endings();
    if (m)
        returns_begin();
    give->membership = m && key && records_take(records, key, &give->record) ? m : NULL;
    if (m && !give->membership)
        returns_end();
    guard_enter();
}

void give_begin(struct give *give, uint64_t pointer)
{
    begin(give, process_allocations(), pointer);
}

void give_begin_handle(struct give *give, const void *handle)
{
    begin(give, process_handles(), (uint64_t)(uintptr_t)handle);
}

void give_end(struct give *give, CUresult result)
{
    struct membership *m = give->membership;

    guard_leave();
    if (!m)
        return;
    if (result == CUDA_SUCCESS || result == CUDA_ERROR_DEINITIALIZED)
        take_refund(m, &give->record);
    else
        enter(m, give->records, &give->record, give->endings);
    returns_end();
}
