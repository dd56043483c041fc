/* SPDX-License-Identifier: Apache-2.0 */
/* The policy between the hooks and the ledger.
 *
 * Small allocations share slabs of one granule. Each device has one atomic word: how many 512-byte units are in use, how many
 * threads are busy between the word and the ledger, and how often one finished. Slabs are not counted, they follow from the units: the ledger is charged for
 * exactly slabs_of(units) granules, with one rule that keeps it safe: a granule is committed in the ledger before the word says
 * units that need it, and refunded after the word no longer does. So the ledger never holds less than what the word promises,
 * and nobody can stand on a granule whose allocation the driver may yet refuse. */
#include "softslice/quota.h"

#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "softslice/log.h"

#define UNIT      512
#define SMALL_MAX (UINT64_C(1) << 20)       /* what is larger is not put into a slab, whatever the granule */
#define USED_MASK ((UINT64_C(1) << 36) - 1) /* units: 32 TiB of small allocations */
#define BUSY      (UINT64_C(1) << 36)       /* one busy thread, of at most 4,095 */
#define BUSY_MASK (UINT64_C(0xfff) * BUSY)
#define TURN      (UINT64_C(1) << 48) /* counts, in the bits above, how often a thread ceased to be busy */

#define PATIENCE_NS   UINT64_C(250000000)
#define OOM_WINDOW_NS UINT64_C(2000000000)
#define OOM_SLEEP_NS  10000000
#define OOM_ATTEMPTS  200 /* the window once, however many members go on dying */

static uint64_t min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void sleep_ns(long ns)
{
    int saved = errno;

    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
    errno = saved;
}

/* `bytes` rounded up to `granule`, a power of two; UINT64_MAX where that does not fit, which is over every limit. */
static uint64_t round_up(uint64_t bytes, uint64_t granule)
{
    return bytes > UINT64_MAX - (granule - 1) ? UINT64_MAX : (bytes + (granule - 1)) & ~(granule - 1);
}

static bool is_small(const struct quota_device *device, uint64_t bytes, unsigned family)
{
    return bytes && bytes <= min(device->granule / 2, SMALL_MAX) && (family == QUOTA_LINEAR || family == QUOTA_MANAGED);
}

static uint64_t units_of(uint64_t bytes)
{
    return (bytes + UNIT - 1) / UNIT;
}

/* How many granules so many units fill. */
static uint64_t slabs_of(const struct quota_device *device, uint64_t units)
{
    return (units * UNIT + device->granule - 1) >> __builtin_ctzll(device->granule);
}

static uint64_t cap_of(const struct quota_device *device)
{
    return min(min(device->own, device->admin), min(device->native, device->id.physical));
}

int quota_add_device(struct quota *quota, const struct config *config, const struct config_device *id, uint64_t granule)
{
    struct quota_device *device = &quota->device[quota->devices];
    uint64_t own = config_vram_own(config, id, NULL);
    int index;

    for (unsigned i = 0; i < quota->devices; i++)
        if (!memcmp(quota->device[i].id.uuid, id->uuid, sizeof(id->uuid)))
            return (int)i;
    if (!granule)
        granule = QUOTA_GRANULE;
    if (granule < 2 * UNIT || (granule & (granule - 1))) {
        log_format(quota->ledger.error, sizeof(quota->ledger.error), "allocation granularity of %llu bytes is not a power of two",
                   (unsigned long long)granule);
        return -EINVAL;
    }
    if (quota->devices == QUOTA_DEVICES) {
        log_format(quota->ledger.error, sizeof(quota->ledger.error), "more than %d devices", QUOTA_DEVICES);
        return -ENOSPC;
    }
    index = ledger_add_device(&quota->ledger, id->uuid, own);
    if (index < 0)
        return index;
    *device = (struct quota_device){
        .id = *id,
        .index = index,
        /* Who set the ledger's limit is bound by that, and so by its replacement, not by what it once set. */
        .own = own < ledger_limit(&quota->ledger, (unsigned)index) ? own : UINT64_MAX,
        .admin = config_vram_admin(config, id, NULL),
        .native = UINT64_MAX,
        .granule = granule,
    };
    memcpy(quota->tenant, config->tenant_named ? config->tenant : "", config->tenant_named ? sizeof(quota->tenant) : 1);
    return (int)quota->devices++;
}

uint64_t quota_limit(const struct quota *quota, unsigned device)
{
    const struct quota_device *d = &quota->device[device];

    return min(cap_of(d), ledger_limit(&quota->ledger, (unsigned)d->index));
}

void quota_info(struct quota *quota, unsigned device, uint64_t physical_free, uint64_t *total, uint64_t *free_bytes)
{
    uint64_t limit = quota_limit(quota, device);
    uint64_t current = ledger_current(&quota->ledger, (unsigned)quota->device[device].index);

    *total = limit;
    *free_bytes = min(limit > current ? limit - current : 0, physical_free);
}

static int refuse(struct quota *quota, struct quota_device *device, uint64_t asked)
{
    char uuid[UNITS_TEXT_MAX], refused[UNITS_TEXT_MAX], used[UNITS_TEXT_MAX], limit[UNITS_TEXT_MAX];
    bool named = quota->tenant[0];

    ledger_count(&quota->ledger, (unsigned)device->index, LEDGER_EVENT_REFUSED);
    if (__atomic_fetch_add(&device->refusals, 1, __ATOMIC_RELAXED))
        return -ENOMEM;
    log_warn("%s%s%s%s: refused %s: %s of %s in use", named ? "tenant \"" : "", quota->tenant, named ? "\", " : "",
             units_format_uuid(uuid, device->id.uuid), units_format_size(refused, asked),
             units_format_size(used, ledger_current(&quota->ledger, (unsigned)device->index)),
             units_format_size(limit, quota_limit(quota, (unsigned)(device - quota->device))));
    return -ENOMEM;
}

/* Take `units` if the slabs that are charged already have room for them. */
static bool take_room(struct quota_device *device, uint64_t units)
{
    uint64_t old = __atomic_load_n(&device->slabs, __ATOMIC_SEQ_CST);

    do {
        uint64_t used = old & USED_MASK;

        if (slabs_of(device, used + units) > slabs_of(device, used) || used + units > USED_MASK)
            return false;
    } while (!__atomic_compare_exchange_n(&device->slabs, &old, old + units, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    return true;
}

/* The word did not change hands: nobody is busy, and nobody who was has finished since it was `before`. */
static bool is_quiet(uint64_t before, uint64_t after)
{
    return !(after & BUSY_MASK) && after / TURN == before / TURN;
}

/* Let others go on for a moment. False once PATIENCE_NS have been spent, counted from the first call. */
static bool wait_a_little(uint64_t *deadline, unsigned *round)
{
    if (!*deadline)
        *deadline = now_ns() + PATIENCE_NS;
    else if (now_ns() >= *deadline)
        return false;
    if (++*round <= 8)
        sched_yield();
    else
        sleep_ns(*round < 20 ? 50000 : 1000000);
    return true;
}

bool quota_try_reserve(struct quota *quota, struct quota_charge *charge, unsigned device, uint64_t bytes, enum quota_family family)
{
    struct quota_device *d = &quota->device[device];
    uint64_t size = round_up(bytes, d->granule);

    *charge = (struct quota_charge){.asked = bytes, .device = (uint16_t)device, .family = (uint8_t)family};
    if (size > quota_limit(quota, device) || ledger_reserve(&quota->ledger, (unsigned)d->index, size, cap_of(d)))
        return false;
    charge->bytes = size;
    return true;
}

int quota_reserve(struct quota *quota, struct quota_charge *charge, unsigned device, uint64_t bytes, enum quota_family family)
{
    struct quota_device *d = &quota->device[device];
    bool small = is_small(d, bytes, family);
    uint64_t size = small ? d->granule : round_up(bytes, d->granule), units = units_of(bytes), deadline = 0;
    unsigned round = 0;

    *charge = (struct quota_charge){.asked = bytes, .device = (uint16_t)device, .family = (uint8_t)family, .small = small};
    if (!bytes)
        return 0;
    for (;;) {
        uint64_t before = __atomic_load_n(&d->slabs, __ATOMIC_SEQ_CST);

        if (small && take_room(d, units))
            return 0;
        if (!ledger_reserve(&quota->ledger, (unsigned)d->index, size, cap_of(d))) {
            charge->bytes = size;
            if (small)
                __atomic_fetch_add(&d->slabs, BUSY, __ATOMIC_SEQ_CST);
            return 0;
        }
        /* Final only if nobody was between the word and the ledger, where a granule is seen in neither or in both. */
        if (is_quiet(before, __atomic_load_n(&d->slabs, __ATOMIC_SEQ_CST)) || size > quota_limit(quota, device) ||
            !wait_a_little(&deadline, &round))
            return refuse(quota, d, bytes);
    }
}

/* Turn `out` units of the word into `in`, and the ledger's charge with it: `held` bytes (one granule, or none) stand there as a
 * tentative charge of this caller, who is counted as busy if so. */
static void change(struct quota *quota, struct quota_device *device, uint64_t held, uint64_t out, uint64_t in)
{
    uint64_t old = __atomic_load_n(&device->slabs, __ATOMIC_SEQ_CST), committed = 0, surplus, new;
    bool busy = held, unfinished;

    do {
        uint64_t used = old & USED_MASK;
        uint64_t next = (used > out ? used - out : 0) + in;
        uint64_t before = slabs_of(device, used) * device->granule, after = slabs_of(device, next) * device->granule;

        if (before + committed < after) {
            ledger_settle(&quota->ledger, (unsigned)device->index, held, after - before - committed);
            committed = after - before;
            held = 0;
        }
        surplus = before + committed - after;
        unfinished = surplus || held;
        new = (old & ~USED_MASK) + next;
        if (busy && !unfinished)
            new += TURN - BUSY;
        else if (!busy && unfinished)
            new += BUSY;
    } while (!__atomic_compare_exchange_n(&device->slabs, &old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    if (!unfinished)
        return;
    if (held)
        ledger_settle(&quota->ledger, (unsigned)device->index, held, 0);
    if (surplus)
        ledger_refund(&quota->ledger, (unsigned)device->index, surplus);
    __atomic_fetch_add(&device->slabs, TURN - BUSY, __ATOMIC_SEQ_CST);
}

/* End a small charge that did not become a small allocation: `actual` bytes are committed instead. */
static void leave_slabs(struct quota *quota, struct quota_device *device, const struct quota_charge *charge, uint64_t actual)
{
    if (charge->bytes || actual)
        ledger_settle(&quota->ledger, (unsigned)device->index, charge->bytes, actual);
    if (charge->bytes)
        __atomic_fetch_add(&device->slabs, TURN - BUSY, __ATOMIC_SEQ_CST);
    else
        change(quota, device, 0, units_of(charge->asked), 0);
}

void quota_keep(struct quota *quota, const struct quota_charge *charge, uint64_t actual, struct record *record)
{
    struct quota_device *device = &quota->device[charge->device];
    uint64_t size = actual ? actual : charge->asked;

    record->device = charge->device;
    record->family = charge->family;
    record->small = charge->small && is_small(device, size, charge->family);
    if (record->small) {
        record->bytes = units_of(size) * UNIT;
        change(quota, device, charge->bytes, charge->bytes ? 0 : units_of(charge->asked), units_of(size));
        return;
    }
    record->bytes = round_up(size, device->granule);
    if (charge->small)
        leave_slabs(quota, device, charge, record->bytes);
    else if (charge->bytes || record->bytes)
        ledger_settle(&quota->ledger, (unsigned)device->index, charge->bytes, record->bytes);
}

void quota_cancel(struct quota *quota, const struct quota_charge *charge)
{
    struct quota_device *device = &quota->device[charge->device];

    if (charge->small)
        leave_slabs(quota, device, charge, 0);
    else if (charge->bytes)
        ledger_settle(&quota->ledger, (unsigned)device->index, charge->bytes, 0);
}

void quota_refund(struct quota *quota, const struct record *record)
{
    struct quota_device *device = &quota->device[record->device];

    if (record->small)
        change(quota, device, 0, record->bytes / UNIT, 0);
    else if (record->bytes)
        ledger_refund(&quota->ledger, (unsigned)device->index, record->bytes);
}

bool quota_retry_oom(struct quota *quota, unsigned device, unsigned *attempt)
{
    unsigned index = (unsigned)quota->device[device].index;
    uint64_t burial;

    if (*attempt == 0) {
        ledger_count(&quota->ledger, index, LEDGER_EVENT_OOM);
        ledger_current(&quota->ledger, index); /* buries who died unnoticed */
    }
    burial = ledger_last_burial(&quota->ledger, index);
    if (!burial || *attempt >= OOM_ATTEMPTS || now_ns() >= burial + OOM_WINDOW_NS)
        return false;
    ++*attempt;
    sleep_ns(OOM_SLEEP_NS);
    return true;
}
