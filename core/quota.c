/* SPDX-License-Identifier: Apache-2.0 */
/* The policy between the hooks and the ledger. */
#include "softslice/quota.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "compat.h"
#include "softslice/clock.h"
#include "softslice/explain.h"
#include "softslice/compute.h"
#include "softslice/log.h"

#define GRANULE_MIN   1024
#define SLEEP_NS      10000000
#define OOM_ATTEMPTS  200                  /* LEDGER_DEAD_NS once, however many members go on dying */
#define DEAD_PATIENCE (3 * LEDGER_DEAD_NS) /* one may die while another one is waited for */

static uint64_t min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void sleep_ns(long ns)
{
    int saved = errno;

    compat_sleep(ns);
    errno = saved;
}

/* `bytes` rounded up to `granule`, a power of two; UINT64_MAX where that does not fit, which is over every limit. */
static uint64_t round_up(uint64_t bytes, uint64_t granule)
{
    return bytes > UINT64_MAX - (granule - 1) ? UINT64_MAX : (bytes + (granule - 1)) & ~(granule - 1);
}

/* What binds this process alone, of its own sources. */
static uint64_t own_limit(const struct quota *quota, const struct quota_device *device)
{
    if (device->own != UINT64_MAX && !ledger_own_binds(&quota->ledger, (unsigned)device->index, device->own))
        return UINT64_MAX;
    return device->own;
}

static uint64_t cap_of(const struct quota *quota, const struct quota_device *device)
{
    return min(min(own_limit(quota, device), device->admin),
               min(__atomic_load_n(&device->native, __ATOMIC_RELAXED), device->id.physical));
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
    if (granule < GRANULE_MIN || (granule & (granule - 1))) {
        log_format(quota->ledger.error, sizeof(quota->ledger.error), "allocation granularity of %llu bytes is not a power of two",
                   (unsigned long long)granule);
        return -EINVAL;
    }
    if (quota->devices == QUOTA_DEVICES) {
        log_format(quota->ledger.error, sizeof(quota->ledger.error), "more than %d devices", QUOTA_DEVICES);
        return -ENOSPC;
    }
    if (config_arms_vram(config))
        ledger_arm(&quota->ledger, LEDGER_ARMS_VRAM);
    index = ledger_add_device(&quota->ledger, id->uuid, own);
    if (index < 0)
        return index;
    *device = (struct quota_device){
        .id = *id,
        .index = index,
        /* Who sets the ledger's limit is bound by that, and so by its replacement, not by what it once set. */
        .own = quota->ledger.first ? UINT64_MAX : own,
        .admin = config_vram_admin(config, id, NULL),
        .native = UINT64_MAX,
        .headroom = config->headroom,
        .granule = granule,
    };
    compute_enter(quota, device, config);
    memcpy(quota->tenant, config->tenant_named ? config->tenant : "", config->tenant_named ? sizeof(quota->tenant) : 1);
    return (int)quota->devices++;
}

uint64_t quota_limit(const struct quota *quota, unsigned device)
{
    const struct quota_device *d = &quota->device[device];

    return min(cap_of(quota, d), ledger_limit(&quota->ledger, (unsigned)d->index));
}

void quota_info(struct quota *quota, unsigned device, uint64_t physical_free, uint64_t *total, uint64_t *free_bytes)
{
    uint64_t limit = quota_limit(quota, device);
    uint64_t current = ledger_current(&quota->ledger, (unsigned)quota->device[device].index);

    *total = limit;
    current = current > UINT64_MAX - quota->device[device].headroom ? UINT64_MAX : current + quota->device[device].headroom;
    *free_bytes = min(limit > current ? limit - current : 0, physical_free);
}

/* Up to where a family may fill the budget: all of it is for what the driver takes by itself, and for what was granted before. */
static uint64_t room_for(const struct quota *quota, unsigned device, enum quota_family family)
{
    const struct quota_device *d = &quota->device[device];
    uint64_t limit;

    if (!d->headroom || family == QUOTA_CONTEXT || family == QUOTA_GROWTH || family == QUOTA_RESTORED)
        return cap_of(quota, d);
    limit = quota_limit(quota, device);
    return limit > d->headroom ? limit - d->headroom : 0;
}

/* What the bytes of a family are for, as the line about a refusal says it. */
static const char *const purpose[QUOTA_FAMILIES] = {
    [QUOTA_LINEAR] = "",
    [QUOTA_MANAGED] = " of managed memory",
    [QUOTA_CONTEXT] = " for a context",
    [QUOTA_ARRAY] = " for an array",
    [QUOTA_VMM] = " by cuMemCreate",
    [QUOTA_POOL] = " by a memory pool",
    [QUOTA_GRAPH] = " by a graph's memory nodes",
    [QUOTA_GROWTH] = " for what the driver keeps",
    [QUOTA_SPILLED] = " on the host",
    [QUOTA_RESTORED] = " for a process that is restored",
};

/* Numbered from 1 on. */
static uint64_t span_of(uint64_t time)
{
    return time / (EXPLAIN_LATELY / QUOTA_SPANS) + 1;
}

static void remember_refusal(struct quota_device *device, uint64_t asked)
{
    uint64_t now = clock_now(), span = span_of(now);
    struct quota_refusals *lately = &device->lately[span % QUOTA_SPANS];

    if (__atomic_exchange_n(&lately->span, span, __ATOMIC_RELAXED) != span) {
        __atomic_store_n(&lately->count, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&lately->most, 0, __ATOMIC_RELAXED);
    }
    __atomic_fetch_add(&lately->count, 1, __ATOMIC_RELAXED);
    if (asked < __atomic_load_n(&lately->most, __ATOMIC_RELAXED))
        return;
    __atomic_store_n(&lately->at, now, __ATOMIC_RELAXED);
    __atomic_store_n(&lately->most, asked, __ATOMIC_RELAXED);
}

struct quota_refused quota_refused(const struct quota *quota, unsigned index)
{
    struct quota_refused all = {0};
    uint64_t now = clock_now();

    for (unsigned i = 0; i < QUOTA_SPANS; i++) {
        const struct quota_refusals *lately = &quota->device[index].lately[i];
        uint64_t span = __atomic_load_n(&lately->span, __ATOMIC_RELAXED), at = __atomic_load_n(&lately->at, __ATOMIC_RELAXED),
                 most = __atomic_load_n(&lately->most, __ATOMIC_RELAXED);

        if (!span || span > span_of(now) || span_of(now) - span >= QUOTA_SPANS)
            continue;
        all.count += __atomic_load_n(&lately->count, __ATOMIC_RELAXED);
        if (most < all.most)
            continue;
        all.most = most;
        all.ago = now > at ? now - at : 1;
    }
    return all.most ? all : (struct quota_refused){0};
}

int quota_refuse(struct quota *quota, unsigned index, uint64_t asked, enum quota_family family)
{
    struct quota_device *device = &quota->device[index];
    char uuid[UNITS_TEXT_MAX], refused[UNITS_TEXT_MAX], used[UNITS_TEXT_MAX], limit[UNITS_TEXT_MAX], kept[UNITS_TEXT_MAX];
    bool named = quota->tenant[0], spared = room_for(quota, index, family) < quota_limit(quota, index);

    ledger_count(&quota->ledger, (unsigned)device->index, LEDGER_EVENT_REFUSED);
    remember_refusal(device, asked);
    ledger_tell_storm(&quota->ledger, LEDGER_REFUSED, (unsigned)device->index, asked, quota_limit(quota, index), family);
    if (__atomic_fetch_add(&device->refusals, 1, __ATOMIC_RELAXED))
        return -ENOMEM;
    log_warn("%s%s%s%s: refused %s%s: %s of %s in use%s%s%s", named ? "tenant \"" : "", quota->tenant, named ? "\", " : "",
             units_format_uuid(uuid, device->id.uuid), units_format_size(refused, asked),
             family < QUOTA_FAMILIES ? purpose[family] : "",
             units_format_size(used, ledger_current(&quota->ledger, (unsigned)device->index)),
             units_format_size(limit, quota_limit(quota, index)), spared ? ", " : "",
             spared ? units_format_size(kept, device->headroom) : "", spared ? " kept as headroom" : "");
    return -ENOMEM;
}

bool quota_try_reserve(struct quota *quota, struct quota_charge *charge, unsigned device, uint64_t bytes, enum quota_family family)
{
    struct quota_device *d = &quota->device[device];
    uint64_t size = round_up(bytes, d->granule);

    *charge = (struct quota_charge){.device = (uint16_t)device, .family = (uint8_t)family};
    if (size && ledger_reserve(&quota->ledger, (unsigned)d->index, size, room_for(quota, device, family)))
        return false;
    charge->bytes = size;
    return true;
}

int quota_reserve(struct quota *quota, struct quota_charge *charge, unsigned device, uint64_t bytes, enum quota_family family)
{
    uint64_t since = 0;

    while (!quota_try_reserve(quota, charge, device, bytes, family)) {
        if (!quota_await_dead(quota, device, bytes, family, &since))
            return quota_refuse(quota, device, bytes, family);
    }
    return 0;
}

bool quota_await_dead(struct quota *quota, unsigned device, uint64_t bytes, enum quota_family family, uint64_t *since)
{
    struct quota_device *d = &quota->device[device];
    uint64_t now = clock_now();

    if (!*since)
        *since = now;
    if (now - *since >= DEAD_PATIENCE ||
        !ledger_fits_without_dead(&quota->ledger, (unsigned)d->index, round_up(bytes, d->granule), room_for(quota, device, family)))
        return false;
    sleep_ns(SLEEP_NS);
    return true;
}

void quota_keep(struct quota *quota, const struct quota_charge *charge, uint64_t actual, struct record *record)
{
    struct quota_device *device = &quota->device[charge->device];

    record->device = charge->device;
    record->family = charge->family;
    record->small = false;
    record->bytes = actual ? round_up(actual, device->granule) : charge->bytes;
    if (charge->bytes || record->bytes)
        ledger_settle(&quota->ledger, (unsigned)device->index, charge->bytes, record->bytes);
}

void quota_cancel(struct quota *quota, const struct quota_charge *charge)
{
    if (charge->bytes)
        ledger_settle(&quota->ledger, (unsigned)quota->device[charge->device].index, charge->bytes, 0);
}

void quota_refund(struct quota *quota, const struct record *record)
{
    if (record->bytes)
        ledger_refund(&quota->ledger, (unsigned)quota->device[record->device].index, record->bytes);
}

int quota_resume(struct quota *quota, const struct ledger_peer *peer, struct ledger_refusal *refusal)
{
    uint64_t cap[LEDGER_DEVICES], since = 0;
    int result;

    for (unsigned i = 0; i < LEDGER_DEVICES; i++)
        cap[i] = LEDGER_NO_LIMIT;
    for (unsigned i = 0; i < quota->devices; i++)
        cap[quota->device[i].index] = cap_of(quota, &quota->device[i]);
    do {
        result = ledger_resume(&quota->ledger, peer, cap, refusal);
        for (unsigned i = 0; result < 0 && i <= quota->devices; i++) {
            if (i == quota->devices || (unsigned)quota->device[i].index == refusal->device) {
                refusal->device = i;
                break;
            }
        }
    } while (result < 0 && refusal->device < quota->devices &&
             quota_await_dead(quota, refusal->device, refusal->bytes, QUOTA_RESTORED, &since));
    return result;
}

bool quota_retry_oom(struct quota *quota, unsigned device, unsigned *attempt)
{
    unsigned index = (unsigned)quota->device[device].index;
    uint64_t burial, now;

    if (*attempt == 0) {
        ledger_count(&quota->ledger, index, LEDGER_EVENT_OOM);
        ledger_tell_storm(&quota->ledger, LEDGER_OOM, index, 0, quota_limit(quota, device), 0);
        ledger_current(&quota->ledger, index); /* buries who died unnoticed */
    }
    burial = ledger_last_burial(&quota->ledger, index);
    now = clock_now();
    /* One in the future is of an earlier boot: the ledger is on a disk. */
    if (!burial || burial > now || *attempt >= OOM_ATTEMPTS || now - burial >= LEDGER_DEAD_NS)
        return false;
    ++*attempt;
    sleep_ns(SLEEP_NS);
    return true;
}
