/* SPDX-License-Identifier: Apache-2.0 */
/* Compares the driver's figure for this process with the ledger. */
#include "gap.h"

#include <errno.h>
#include <time.h>

#include "../core/lock.h"
#include "asleep.h"
#include "context.h"
#include "figure.h"
#include "guard.h"
#include "meter.h"
#include "real.h"
#include "relaxed.h"
#include "returns.h"
#include "softslice/log.h"
#include "softslice/units.h"
#include "take.h"
#include "watch.h"

#define ATTEMPTS     8
#define ATTEMPT_NS   100000 /* times the attempt, before the third and later ones */
#define SETTLE_TRIES 8
#define GLANCE_NS    100000000
#define DOUBT_BYTES  (UINT64_C(64) << 20)

static uint64_t load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static unsigned index_of(const struct membership *m, int device)
{
    return (unsigned)m->quota.device[device].index;
}

uint64_t gap_bytes(int device)
{
    return load(&process_gap(device)->bytes);
}

bool gap_is_rough(int device)
{
    return __atomic_load_n(&process_gap(device)->rough, __ATOMIC_SEQ_CST);
}

static void note(uint64_t *word, int64_t bytes)
{
    uint64_t before = load(word), after;

    do
        after = bytes < 0 && (uint64_t)-bytes > before ? 0 : before + (uint64_t)bytes;
    while (!__atomic_compare_exchange_n(word, &before, after, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
}

void gap_note_import(int device, int64_t bytes)
{
    note(&process_gap(device)->imports, bytes);
}

void gap_note_managed(int device, int64_t bytes)
{
    note(&process_gap(device)->managed, bytes);
}

/* ---- reading */

/* What the ledger says, as far as it belongs to one moment. */
struct look {
    uint64_t version, returns, tentative, own, gap, asleep, waking;
    bool returning; /* memory that the ledger does not tell from what the driver has */
};

static struct look look(const struct membership *m, int device)
{
    const struct process_gap *g = process_gap(device);
    struct look look = {.version = load(&g->version)};

    look.returning = returns_busy(&look.returns);
    /* Tentative before committed, as the ledger wants it: a charge may be seen in both, never in neither. */
    look.tentative = ledger_own_tentative(&m->quota.ledger, index_of(m, device)) - load(&g->growing);
    look.own = ledger_own(&m->quota.ledger, index_of(m, device));
    look.gap = load(&g->bytes);
    look.asleep = asleep_bytes(device, &look.waking);
    look.version |= load(&g->version) != look.version;
    return look;
}

struct reading {
    uint64_t ticket;
    uint64_t low, high; /* the gap is between them; `high` UINT64_MAX: no more is known */
};

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* What is charged here beside the gap, and was taken, at most. */
static uint64_t known(const struct look *look)
{
    uint64_t tentative = (int64_t)look->tentative > 0 ? look->tentative : 0;
    return less(look->own + tentative, look->gap + look->asleep);
}

uint64_t gap_least(const struct membership *m, int device)
{
    uint64_t own = ledger_own(&m->quota.ledger, index_of(m, device)), waking, asleep = asleep_bytes(device, &waking);
    return less(less(own, gap_bytes(device)), load(&process_gap(device)->managed) + asleep + waking);
}

/* Whether a figure is less than what this process has: it is another's, taken for ours. Some sizes are estimates. */
static bool is_foreign(const struct membership *m, int device, uint64_t figure)
{
    uint64_t least = gap_least(m, device);

    return figure + least / 16 + DOUBT_BYTES < least && figure_forget();
}

/* False where there is no figure. While other threads allocate and free, the figure and the ledger belong to different moments; then it is
 * asked again, and in the end only known from below. */
static bool read_gap(struct membership *m, int device, unsigned attempts, struct reading *reading)
{
    struct process_gap *g = process_gap(device);
    uint64_t figure;

    *reading = (struct reading){.ticket = 1 + __atomic_fetch_add(&g->tickets, 1, __ATOMIC_SEQ_CST), .high = UINT64_MAX};
    for (unsigned attempt = 0; attempt < attempts; attempt++) {
        if (attempt >= 2) {
            int saved = errno;
            compat_sleep((long)attempt * ATTEMPT_NS);
            errno = saved;
        }
        meters_read(m, (unsigned)device);
        uint64_t shrunk = meters_shrunk();
        struct look before = look(m, device);
        /* While this process is checkpointed, the driver has nothing of it on the device, and the ledger keeps what is to come back. */
        bool found = figure_of_process(m->quota.device[device].id.uuid, &figure);
        __atomic_store_n(&g->known, found, __ATOMIC_RELAXED);
        if (!found || ledger_is_suspended(&m->quota.ledger, index_of(m, device)))
            return false;
        meters_read(m, (unsigned)device); /* a pool shrinks when the program synchronises */
        struct look after = look(m, device);
        /* Where something was freed meanwhile, something else may have been allocated: both looks may show the same, and the figure only one of
         * the two. */
        if (before.version % 2 || before.version != after.version || before.returning || before.returns != after.returns ||
            meters_shrank(shrunk))
            continue;
        uint64_t most = known(&before) > known(&after) ? known(&before) : known(&after), imports = load(&g->imports);
        uint64_t low = less(less(figure, most), imports);
        if (!before.tentative && !after.tentative && before.own == after.own && !before.waking && !after.waking &&
            before.asleep == after.asleep) {
            if (is_foreign(m, device, figure))
                return false;
            reading->low = low;
            reading->high = less(figure, less(most, load(&g->managed)));
            return true;
        }
        reading->low = reading->low > low ? reading->low : low;
    }
    return true;
}

/* ---- charging */

/* The gap by `reading`, which is the newest. */
static uint64_t target(const struct process_gap *g, const struct reading *reading, uint64_t likely)
{
    uint64_t gap = load(&g->bytes);

    /* Of several threads that each believe theirs to be the first context, one has it charged for all. */
    if (reading->high == UINT64_MAX && gap < likely)
        gap = likely;
    if (gap < reading->low)
        return reading->low;
    return gap > reading->high ? reading->high : gap;
}

static void expect(const struct quota_charge *charge, bool more)
{
    struct process_gap *g = process_gap(charge->device);

    __atomic_fetch_add(&g->growing, more ? charge->bytes : -charge->bytes, __ATOMIC_SEQ_CST);
}

void gap_expect(const struct quota_charge *charge)
{
    expect(charge, true);
}

void gap_cancel(struct membership *m, const struct quota_charge *charge)
{
    expect(charge, false);
    quota_cancel(&m->quota, charge);
}

/* Set the gap, under its lock; `reserved` bytes are settled with it. */
static void set(struct membership *m, int device, uint64_t bytes, uint64_t reserved)
{
    struct process_gap *g = process_gap(device);
    unsigned index = index_of(m, device);
    uint64_t before = load(&g->bytes);

    __atomic_fetch_add(&g->version, 1, __ATOMIC_SEQ_CST);
    if (reserved)
        __atomic_fetch_sub(&g->growing, reserved, __ATOMIC_SEQ_CST);
    if (reserved || bytes > before)
        ledger_settle(&m->quota.ledger, index, reserved, less(bytes, before));
    if (bytes < before)
        ledger_refund(&m->quota.ledger, index, before - bytes);
    __atomic_store_n(&g->bytes, bytes, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&g->version, 1, __ATOMIC_SEQ_CST);
}

/* `reading` is the newest now; under the lock. */
static void apply(struct process_gap *g, const struct reading *reading)
{
    g->applied = reading->ticket;
    __atomic_store_n(&g->rough, reading->high == UINT64_MAX, __ATOMIC_SEQ_CST);
}

static bool over(struct membership *m, int device)
{
    return ledger_current(&m->quota.ledger, index_of(m, device)) > quota_limit(&m->quota, (unsigned)device);
}

/* Say once that the driver itself took more than the budget had. */
static void tell(struct membership *m, int device, uint64_t more)
{
    char uuid[UNITS_TEXT_MAX], grown[UNITS_TEXT_MAX], used[UNITS_TEXT_MAX], limit[UNITS_TEXT_MAX];
    const struct quota *quota = &m->quota;

    if (__atomic_exchange_n(&process_gap(device)->told, 1, __ATOMIC_RELAXED))
        return;
    log_warn("%s%s%s%s: the driver itself took %s more: %s of %s in use", quota->tenant[0] ? "tenant \"" : "", quota->tenant,
             quota->tenant[0] ? "\", " : "", units_format_uuid(uuid, quota->device[device].id.uuid), units_format_size(grown, more),
             units_format_size(used, ledger_current(&m->quota.ledger, index_of(m, device))),
             units_format_size(limit, quota_limit(quota, (unsigned)device)));
}

/* Charge a reading whatever the budget says. */
static void charge(struct membership *m, int device, const struct reading *reading)
{
    struct process_gap *g = process_gap(device);
    uint64_t more = 0;

    lock_take(&g->lock);
    if (reading->ticket > g->applied) {
        uint64_t bytes = target(g, reading, 0);
        more = less(bytes, load(&g->bytes));
        apply(g, reading);
        set(m, device, bytes, 0);
    }
    lock_give(&g->lock);
    if (more && over(m, device))
        tell(m, device, more);
}

static bool read_and_charge(struct membership *m, int device, unsigned attempts)
{
    struct reading reading;
    bool known = read_gap(m, device, attempts, &reading);

    if (!known)
        reading.low = reading.high = 0;
    if (known || !context_on(device))
        charge(m, device, &reading);
    return known;
}

bool gap_read(struct membership *m, int device)
{
    return read_and_charge(m, device, ATTEMPTS);
}

bool gap_fell(struct membership *m, int device, bool now)
{
    struct process_gap *g = process_gap(device);
    uint64_t before = gap_bytes(device), last = load(&g->glanced), time;
    struct timespec clock;

    if (!before)
        return false;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &clock);
    time = (uint64_t)clock.tv_sec * 1000000000 + (uint64_t)clock.tv_nsec;
    if (!now && (time - last < GLANCE_NS ||
                 !__atomic_compare_exchange_n(&g->glanced, &last, time, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)))
        return false;
    read_and_charge(m, device, now ? ATTEMPTS : 1);
    return gap_bytes(device) < before;
}

void gap_poke(struct membership *m, int device)
{
    if (!watch_poke())
        gap_read(m, device);
}

/* Charge a reading if the budget has room for it beside the expected charge, which ends here. `before` is the gap before the driver's call. */
static bool charge_within(struct membership *m, int device, const struct reading *reading, const struct quota_charge *expected,
                          uint64_t before, uint64_t likely)
{
    struct process_gap *g = process_gap(device);
    uint64_t reserved = expected ? expected->bytes : 0;
    bool fits = true;

    for (unsigned i = 0;; i++) {
        lock_take(&g->lock);
        bool newest = reading->ticket > g->applied;
        uint64_t now = load(&g->bytes), bytes = newest ? target(g, reading, likely) : now, need = less(bytes, now);
        if (need <= reserved || !fits || i == SETTLE_TRIES) {
            if (fits && newest)
                apply(g, reading);
            set(m, device, fits ? bytes : now, reserved);
            lock_give(&g->lock);
            if (gap_is_rough(device))
                watch_poke();
            /* Another reading may have charged what this call took, as growth that nobody refuses. */
            return fits && (bytes <= before || need || !over(m, device));
        }
        lock_give(&g->lock);
        struct quota_charge more;
        fits = take_reserve(m, &more, (unsigned)device, need - reserved, QUOTA_GROWTH);
        if (fits) {
            gap_expect(&more);
            reserved += more.bytes;
        }
    }
}

enum gap_verdict gap_settle(struct membership *m, const struct quota_charge *expected, uint64_t before, uint64_t likely,
                            uint64_t *took)
{
    struct reading reading;
    int device = expected->device;

    *took = 0;
    if (!read_gap(m, device, ATTEMPTS, &reading)) {
        expect(expected, false);
        return GAP_UNKNOWN;
    }
    if (!charge_within(m, device, &reading, expected, before, likely))
        return GAP_REFUSED;
    if (reading.high != UINT64_MAX)
        *took = less(reading.low, before);
    return GAP_KEPT;
}

/* ---- around calls */

/* The device's free bytes as the driver tells them, and what the tenant holds: what goes from the one and is not in the other, a call
 * took, if nobody else did meanwhile. UINT64_MAX: not known. */
static uint64_t free_bytes(struct membership *m, int device, uint64_t *tenant)
{
    size_t left, total;

    CUstreamCaptureMode mode = relaxed_enter();
    CUresult result = real.cuMemGetInfo_v2(&left, &total);
    relaxed_leave(mode);
    *tenant = ledger_current(&m->quota.ledger, index_of(m, device));
    return result == CUDA_SUCCESS ? left : UINT64_MAX;
}

static bool range(struct membership *m, int device, int *first, int *last, uint64_t *owner)
{
    *owner = 0;
    if (device == GAP_ALL) {
        *first = 0;
        *last = (int)m->quota.devices - 1;
        return true;
    }
    if (device == PROCESS_NO_DEVICE || (device == GAP_CURRENT && !context_current(m, owner, &device)))
        return false;
    *first = *last = device;
    return true;
}

void growth_begin(struct growth *growth, int device)
{
    struct membership *m = process_membership(NULL);

    *growth = (struct growth){.free = UINT64_MAX};
    if (m && range(m, device, &growth->first, &growth->last, &growth->owner)) {
        growth->membership = m;
        for (int i = growth->first; i <= growth->last; i++)
            growth->before[i] = gap_bytes(i);
        if (growth->owner && !__atomic_load_n(&process_gap(growth->first)->known, __ATOMIC_RELAXED))
            growth->free = free_bytes(m, growth->first, &growth->tenant);
    }
    guard_enter();
}

bool growth_again(struct growth *growth, CUresult result)
{
    struct membership *m = growth->membership;

    return result == CUDA_ERROR_OUT_OF_MEMORY && m && growth->first == growth->last &&
           quota_retry_oom(&m->quota, (unsigned)growth->first, &growth->attempt);
}

/* Without a figure: charge what went from the device's free memory. */
static bool charge_difference(struct growth *growth, uint64_t handle)
{
    struct membership *m = growth->membership;
    struct record record = {.key = handle, .context = growth->owner}, old;
    struct quota_charge charge;
    uint64_t tenant, now;

    if (growth->free == UINT64_MAX || !handle)
        return true;
    now = free_bytes(m, growth->first, &tenant);
    if (now >= growth->free || tenant != growth->tenant)
        return true;
    if (!take_reserve(m, &charge, (unsigned)growth->first, growth->free - now, QUOTA_GROWTH))
        return false;
    quota_keep(&m->quota, &charge, 0, &record);
    int put = records_put(process_handles(), &record, &old);
    if (put)
        quota_refund(&m->quota, put == 1 ? &old : &record);
    return put >= 0;
}

bool growth_end(struct growth *growth, CUresult result, uint64_t handle)
{
    struct membership *m = growth->membership;
    struct reading reading;

    guard_leave();
    if (!m || result != CUDA_SUCCESS)
        return true;
    for (int i = growth->first; i <= growth->last; i++) {
        if (!context_on(i))
            continue;
        if (read_gap(m, i, ATTEMPTS, &reading)) {
            if (!charge_within(m, i, &reading, NULL, growth->before[i], 0))
                return false;
        } else if (growth->owner && !charge_difference(growth, handle)) {
            return false;
        }
    }
    return true;
}

void growth_undone(struct growth *growth)
{
    for (int i = growth->first; growth->membership && i <= growth->last; i++)
        if (context_on(i))
            gap_read(growth->membership, i);
}

void shrink_begin(struct shrink *shrink, int device, uint64_t handle)
{
    struct membership *m = process_membership(NULL);
    uint64_t owner;

    *shrink = (struct shrink){0};
    if (m && range(m, device, &shrink->first, &shrink->last, &owner)) {
        shrink->membership = m;
        returns_begin();
        shrink->recorded = handle && records_take(process_handles(), handle, &shrink->record);
    }
    guard_enter();
}

void shrink_end(struct shrink *shrink, CUresult result)
{
    struct membership *m = shrink->membership;
    struct record old;

    guard_leave();
    if (!m)
        return;
    if (result == CUDA_SUCCESS || result == CUDA_ERROR_DEINITIALIZED) {
        if (shrink->recorded)
            take_refund(m, &shrink->record);
    } else if (shrink->recorded && records_put(process_handles(), &shrink->record, &old)) {
        take_refund(m, &old);
    }
    returns_end();
    for (int i = shrink->first; result == CUDA_SUCCESS && i <= shrink->last; i++)
        if (context_on(i))
            gap_read(m, i);
}
