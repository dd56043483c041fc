/* SPDX-License-Identifier: Apache-2.0 */
/* Charges contexts and ends what they own. */
#include "context.h"

#include <errno.h>

#include "../core/compat.h"
#include "gap.h"
#include "guard.h"
#include "imports.h"
#include "real.h"
#include "returns.h"
#include "softslice/log.h"
#include "take.h"
#include "watch.h"

/* Reserved for a first context until one has been measured (docs/measurements/ has what drivers take). Too small is corrected after the
 * creation, too large only until then. */
#define CONTEXT_DEFAULT_BYTES (UINT64_C(512) << 20)

/* How long a thread waits for another one to charge the primary context that both got: asking NVML takes milliseconds. */
#define CHARGE_POLL_NS  100000
#define CHARGE_ATTEMPTS 10000

static uint64_t expected_bytes(const struct membership *m, int device)
{
    uint64_t seen = ledger_context_bytes(&m->quota.ledger, (unsigned)m->quota.device[device].index);
    return seen ? seen : CONTEXT_DEFAULT_BYTES;
}

/* The same, to be reserved. While nobody has measured a context, all that is left will do, for the default may be far too much; likewise for
 * a further context of a process, which shares part of what the first one took. What it really takes is asked for afterwards. */
static uint64_t reserved_bytes(struct membership *m, int device)
{
    unsigned index = (unsigned)m->quota.device[device].index;
    uint64_t expected = expected_bytes(m, device), total, left;

    if (ledger_context_bytes(&m->quota.ledger, index) && !ledger_own(&m->quota.ledger, index))
        return expected;
    quota_info(&m->quota, (unsigned)device, UINT64_MAX, &total, &left);
    left &= ~(m->quota.device[device].granule - 1);
    return left && left < expected ? left : expected;
}

/* Remember what a first context took, for those that come. The smallest counts: memory that is not charged may be in a figure, and one
 * that is too large would refuse contexts that fit. */
static void remember_bytes(struct membership *m, int device, uint64_t bytes)
{
    unsigned index = (unsigned)m->quota.device[device].index;
    uint64_t seen = ledger_context_bytes(&m->quota.ledger, index);

    if (bytes && (!seen || bytes < seen))
        ledger_set_context_bytes(&m->quota.ledger, index, bytes);
}

static uint64_t endings; /* of contexts, so far */

/* A context's record is gone or is another: what threads remember of it is no longer so. */
static void forget(void)
{
    __atomic_fetch_add(&endings, 1, __ATOMIC_SEQ_CST);
}

uint64_t context_endings(void)
{
    return __atomic_load_n(&endings, __ATOMIC_ACQUIRE);
}

bool context_ended(uint64_t owner, uint64_t before)
{
    /* The caller has locked its record's shard before it reads the count here, and who ends a context counts before it locks the shards
     * to look for records: one of the two sees the other. On x86-64 taking a lock is the fence that this needs. */
#if !defined(__x86_64__)
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
    return context_endings() != before && !records_of_context(process_contexts(), owner);
}

bool context_on(int device)
{
    return records_on_device(process_contexts(), (unsigned)device);
}

static void refund_each(void *argument, const struct record *record)
{
    take_refund(argument, record);
}

/* A context's record is out of the table: so is, now, what threads remember of it and what it owned. What it took itself is read anew, once all
 * of this is done. */
static void drop(struct membership *m, const struct record *context)
{
    forget();
    records_drop_context(process_allocations(), context->context, refund_each, m);
    records_drop_context(process_handles(), context->context, refund_each, m);
    imports_drop(m, context->context);
    quota_refund(&m->quota, context);
}

/* Enter a charged context that was just made, in place of one that had the same address. False, with the charge given back, for want of
 * host memory. */
static bool enter_new(struct membership *m, const struct record *record)
{
    struct record old;
    int put = records_put(process_contexts(), record, &old);

    if (put == 1) {
        drop(m, &old);
        gap_read(m, old.device);
    } else if (put < 0) {
        quota_refund(&m->quota, record);
    }
    return put >= 0;
}

/* Enter a charged context that others may see and charge too: the first keeps its charge, and is *record afterwards. */
static bool enter_shared(struct membership *m, struct record *record)
{
    struct record known;
    int put = records_enter(process_contexts(), record, &known);

    if (put == 0)
        return true;
    quota_refund(&m->quota, record);
    if (put < 0)
        return false;
    *record = known;
    return true;
}

/* Charge a context that exists already: what the driver's figure shows for it or, where there is none, what is expected of a first one. */
static bool adopt(struct membership *m, CUcontext context, int device, struct record *record)
{
    struct quota_device *d = &m->quota.device[device];
    uint64_t expected = ledger_own(&m->quota.ledger, (unsigned)d->index) ? 0 : expected_bytes(m, device);

    *record = (struct record){
        .key = (uint64_t)(uintptr_t)context, .context = process_new_owner(), .device = (uint16_t)device, .family = QUOTA_CONTEXT};
    bool known = gap_read(m, device);
    if (!known) {
        record->bytes = expected;
        ledger_settle(&m->quota.ledger, (unsigned)d->index, 0, expected);
    }
    if (!enter_shared(m, record))
        return false;
    watch_start(device, known);
    return true;
}

/* What the last look of this thread found. A membership's address is its own in a forked child, and a context's end counts `endings` up. */
static __thread struct {
    struct membership *membership;
    CUcontext context;
    uint64_t endings, owner;
    int device;
} last;

bool context_current(struct membership *m, uint64_t *owner, int *device)
{
    uint64_t now = __atomic_load_n(&endings, __ATOMIC_ACQUIRE);
    struct records *contexts = process_contexts();
    struct record record;
    CUcontext context = NULL;
    CUdevice handle;

    if (called.cuCtxGetCurrent(&context) != CUDA_SUCCESS || !context)
        return false;
    if (last.context == context && last.membership == m && last.endings == now) {
        *owner = last.owner;
        *device = last.device;
        return true;
    }
    if (!records_find(contexts, (uint64_t)(uintptr_t)context, &record)) {
        if (called.cuCtxGetDevice(&handle) != CUDA_SUCCESS)
            return false;
        int index = process_device(m, handle);
        if (index == PROCESS_NO_DEVICE || !adopt(m, context, index, &record))
            return false;
    }
    last.membership = m;
    last.context = context;
    last.endings = now;
    last.owner = *owner = record.context;
    last.device = *device = record.device;
    return true;
}

CUresult creation_begin(struct creation *creation, CUdevice device)
{
    CUresult why;

    *creation = (struct creation){0};
    struct membership *m = process_membership(&why);
    if (!m && why == CUDA_ERROR_OPERATING_SYSTEM)
        return why;
    creation->device = m ? process_device(m, device) : PROCESS_NO_DEVICE;
    if (creation->device != PROCESS_NO_DEVICE) {
        if (!take_reserve(m, &creation->charge, (unsigned)creation->device, reserved_bytes(m, creation->device), QUOTA_CONTEXT))
            return CUDA_ERROR_OUT_OF_MEMORY;
        creation->membership = m;
        creation->before = gap_bytes(creation->device);
        gap_expect(&creation->charge);
        if (!context_on(creation->device))
            figure_look(m->quota.device[creation->device].id.uuid, &creation->seen);
    }
    guard_enter();
    return CUDA_SUCCESS;
}

/* `unknown` where the driver does not tell. */
static bool primary_active(CUdevice device, bool unknown)
{
    unsigned flags;
    int active = 1;

    return called.cuDevicePrimaryCtxGetState(device, &flags, &active) == CUDA_SUCCESS ? active : unknown;
}

static bool primary_exists(int index, CUdevice device)
{
    return __atomic_load_n(process_primary(index), __ATOMIC_ACQUIRE) || primary_active(device, false);
}

CUresult creation_begin_primary(struct creation *creation, CUdevice device)
{
    struct membership *m = process_membership(NULL);
    int index = m ? process_device(m, device) : PROCESS_NO_DEVICE;

    if (index == PROCESS_NO_DEVICE || !primary_exists(index, device)) {
        CUresult result = creation_begin(creation, device);

        /* Meanwhile another thread may have made it, with what this one was refused. */
        if (result != CUDA_ERROR_OUT_OF_MEMORY || index == PROCESS_NO_DEVICE || !primary_exists(index, device))
            return result;
    }
    *creation = (struct creation){.device = index};
    guard_enter();
    return CUDA_SUCCESS;
}

bool creation_again(struct creation *creation, CUresult result)
{
    return result == CUDA_ERROR_OUT_OF_MEMORY && creation->membership &&
           quota_retry_oom(&creation->membership->quota, (unsigned)creation->device, &creation->attempt);
}

/* There is no figure: the context is charged with what is expected. False, with all given back, if the budget has no room for that. */
static bool keep_expected(struct membership *m, const struct quota_charge *expected, struct record *record)
{
    uint64_t bytes = expected_bytes(m, expected->device);
    struct quota_charge more = {0};

    if (bytes > expected->bytes && !take_reserve(m, &more, expected->device, bytes - expected->bytes, QUOTA_CONTEXT)) {
        quota_cancel(&m->quota, expected);
        return false;
    }
    quota_keep(&m->quota, expected, bytes, record);
    quota_cancel(&m->quota, &more);
    log_debug("the driver's figure for this process cannot be read: %llu bytes are charged for the context",
              (unsigned long long)record->bytes);
    return true;
}

static bool finish(struct creation *creation, CUresult result, CUcontext context, bool shared)
{
    struct membership *m = creation->membership;
    struct record record = {.key = (uint64_t)(uintptr_t)context, .device = (uint16_t)creation->device, .family = QUOTA_CONTEXT};

    guard_leave();
    if (!m)
        return true;
    if (result != CUDA_SUCCESS) {
        gap_cancel(m, &creation->charge);
        return true;
    }
    bool alone = !context_on(creation->device);
    figure_learn(m->quota.device[creation->device].id.uuid, &creation->seen, gap_least(m, creation->device));
    uint64_t took, likely = alone ? expected_bytes(m, creation->device) : 0;
    enum gap_verdict verdict = gap_settle(m, &creation->charge, creation->before, likely, &took);
    if (verdict == GAP_REFUSED || (verdict == GAP_UNKNOWN && !keep_expected(m, &creation->charge, &record)))
        return false;
    if (verdict == GAP_KEPT && alone && !creation->before)
        remember_bytes(m, creation->device, took);
    record.context = process_new_owner();
    if (shared ? !enter_shared(m, &record) : !enter_new(m, &record))
        return false;
    watch_start(creation->device, verdict == GAP_KEPT);
    return true;
}

bool creation_end(struct creation *creation, CUresult result, CUcontext context)
{
    return finish(creation, result, context, false);
}

/* Whether the primary context is charged, once the thread that made it active, if that one is still about it, is done: what others allocate
 * before that would stand in the way of its measuring. */
static bool wait_for_charge(int device, uint64_t context)
{
    struct record known;
    int saved = errno;
    bool charged;

    for (int i = 0; !(charged = records_find(process_contexts(), context, &known)) && i < CHARGE_ATTEMPTS &&
                    __atomic_load_n(process_primary(device), __ATOMIC_ACQUIRE) == context;
         i++)
        compat_sleep(CHARGE_POLL_NS);
    errno = saved;
    return charged;
}

/* This thread retained a primary context that it thinks another one has charged. That one may have given the charge back meanwhile, or have
 * charged one before, which is no more: there is only one at a time, and it stays while it is retained. */
static void charge_retained(int device, CUcontext context)
{
    struct membership *m = process_membership(NULL);
    uint64_t key = (uint64_t)(uintptr_t)context, before = __atomic_load_n(process_primary(device), __ATOMIC_ACQUIRE);
    bool others = before == key;
    struct record record;

    while (before != key &&
           !__atomic_compare_exchange_n(process_primary(device), &before, key, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        ;
    if (m && before && before != key && records_take(process_contexts(), before, &record)) {
        drop(m, &record);
        gap_read(m, device);
    }
    if (m && !(others ? wait_for_charge(device, key) : records_find(process_contexts(), key, &record)))
        adopt(m, context, device, &record);
}

bool creation_end_primary(struct creation *creation, CUresult result, CUcontext context)
{
    struct membership *m = creation->membership;
    uint64_t key = (uint64_t)(uintptr_t)context, nobody = 0;
    struct record known;

    if (!m || result != CUDA_SUCCESS) {
        bool kept = finish(creation, result, context, true);
        if (result == CUDA_SUCCESS && creation->device != PROCESS_NO_DEVICE)
            charge_retained(creation->device, context);
        return kept;
    }
    /* Charged already by another thread that made it active first, or at first sight: give ours back. */
    bool first =
        __atomic_compare_exchange_n(process_primary(creation->device), &nobody, key, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    if (!first || records_find(process_contexts(), key, &known)) {
        finish(creation, CUDA_ERROR_UNKNOWN, context, true);
        charge_retained(creation->device, context);
        return true;
    }
    if (finish(creation, result, context, true))
        return true;
    __atomic_store_n(process_primary(creation->device), 0, __ATOMIC_RELEASE);
    return false;
}

void creation_undone(struct creation *creation)
{
    if (creation->membership)
        gap_read(creation->membership, creation->device);
}

void ending_begin(struct ending *ending, CUcontext context)
{
    struct membership *m = process_membership(NULL);
    uint64_t key = (uint64_t)(uintptr_t)context;

    ending->membership = m && key && records_find(process_contexts(), key, &ending->context) ? m : NULL;
    if (ending->membership)
        returns_begin();
    guard_enter();
}

void ending_end(struct ending *ending, CUresult result)
{
    struct membership *m = ending->membership;
    struct record record;
    bool ended = false;

    guard_leave();
    if (!m)
        return;
    /* By its owner: another context may have got the address meanwhile, and has dropped this one then. */
    if (result == CUDA_SUCCESS || result == CUDA_ERROR_DEINITIALIZED)
        ended = records_take_of(process_contexts(), ending->context.key, ending->context.context, &record);
    if (ended)
        drop(m, &record);
    returns_end();
    if (ended && result == CUDA_SUCCESS)
        gap_read(m, record.device);
}

uint64_t context_primary_ending(CUdevice device)
{
    struct membership *m = process_membership(NULL);
    int index = m ? process_device(m, device) : PROCESS_NO_DEVICE;
    uint64_t context = index == PROCESS_NO_DEVICE ? 0 : __atomic_load_n(process_primary(index), __ATOMIC_ACQUIRE);

    if (context)
        returns_begin();
    return context;
}

/* Another thread that saw it ended, or that charged the next one, is faster or slower than this one. */
static void end_primary(struct membership *m, CUdevice device, int index, uint64_t context)
{
    uint64_t before = context, nobody = 0;
    struct record record;

    while (__atomic_compare_exchange_n(process_primary(index), &before, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        if (records_take(process_contexts(), context, &record))
            drop(m, &record);
        /* Still active after a reset, or made active again by one that saw it charged: charge it once more, it exists. */
        if (!primary_active(device, true) || !adopt(m, (CUcontext)(uintptr_t)context, index, &record))
            return;
        if (!__atomic_compare_exchange_n(process_primary(index), &nobody, context, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE) &&
            nobody != context && records_take(process_contexts(), context, &record))
            drop(m, &record);
        if (nobody || primary_active(device, true))
            return;
    }
}

void context_primary_ended(CUdevice device, uint64_t context, CUresult result, bool reset)
{
    struct membership *m = process_membership(NULL);
    int index = m && context ? process_device(m, device) : PROCESS_NO_DEVICE;

    if (!context)
        return;
    bool ended = result == CUDA_SUCCESS && index != PROCESS_NO_DEVICE && (reset || !primary_active(device, true));
    if (ended)
        end_primary(m, device, index, context);
    returns_end();
    if (ended)
        gap_read(m, index);
}
