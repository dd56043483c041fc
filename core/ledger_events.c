/* SPDX-License-Identifier: Apache-2.0 */
/* Telling what happens: a ring in the ledger's file that every member writes and anybody who may read the file reads, without either waiting for the other.
 *
 * A ticket gives each event its place, and a check over all of an entry makes that nobody takes half of one, or a mixture of two, for an event. So a writer
 * may be killed at any instruction, or be overtaken by a whole round of the ring: what is lost is an event. */
#include <errno.h>

#include "ledger_internal.h"
#include "ledger_sys.h"
#include "softslice/clock.h"

static unsigned lane_of(enum ledger_kind kind)
{
    return kind == LEDGER_REFUSED || kind == LEDGER_OOM ? LEDGER_LANE_OFTEN : LEDGER_LANE_SELDOM;
}

/* ---- writing */

static struct ledger_event_entry *entry_at(const struct ledger *ledger, uint32_t index)
{
    return (struct ledger_event_entry *)((char *)ledger->file + ledger->event_offset + (size_t)index * ledger->event_stride);
}

static uint64_t device_bits(const struct ledger *ledger, int device)
{
    uint64_t key;

    if (device < 0 || !ledger_usable(ledger, (unsigned)device))
        return (uint64_t)LEDGER_RING_NOWHERE << 40;
    key = ledger_load(&ledger_device_at(ledger, (unsigned)device)->key);
    return (uint64_t)device << 40 | (key >> 8 & 0xff) << 48;
}

/* Write an event into the next place of its lane. What struct ledger_storm keeps of it. */
static uint64_t write_event(struct ledger *ledger, const struct ledger_told *told, int device)
{
    unsigned lane = lane_of(told->kind);
    uint64_t ticket = __atomic_fetch_add(&ledger->file->event_next[lane], 1, __ATOMIC_SEQ_CST), check;
    uint32_t index = lane * ledger->event_lane + (uint32_t)(ticket % ledger->event_lane);
    struct ledger_event_entry *entry = entry_at(ledger, index);
    struct ledger_event_entry made = {
        .sequence = ticket + 1,
        .time = sys_now(CLOCK_REALTIME),
        .bytes = told->bytes,
        .limit = told->limit,
        .current = told->current,
        .who = told->pid | told->pid_namespace << 32,
        .what = told->uid | (uint64_t)told->kind << 32 | device_bits(ledger, device) | (uint64_t)told->family << 56,
    };

    check = ledger_event_check(&made);
    ledger_store(&entry->sequence, 0);
    ledger_store(&entry->counted, check << 32 | told->count);
    ledger_store(&entry->time, made.time);
    ledger_store(&entry->bytes, made.bytes);
    ledger_store(&entry->limit, made.limit);
    ledger_store(&entry->current, made.current);
    ledger_store(&entry->who, made.who);
    ledger_store(&entry->what, made.what);
    ledger_store(&entry->sequence, made.sequence);
    return check << 32 | (index + 1);
}

void ledger_tell_of(struct ledger *ledger, const struct ledger_told *told, int device)
{
    struct ledger_told one = *told;

    one.count = 1;
    if (ledger->file && ledger->event_offset)
        write_event(ledger, &one, device);
}

/* Who a slot's owner is. */
static struct ledger_told told_of(const struct ledger *ledger, unsigned slot, enum ledger_kind kind)
{
    const struct ledger_slot *owner = ledger_slot_at(ledger, slot);
    const struct ledger_slot_more *more = ledger_slot_more(ledger, slot);

    return (struct ledger_told){.kind = kind,
                                .count = 1,
                                .pid = __atomic_load_n(&owner->pid, __ATOMIC_SEQ_CST),
                                .uid = __atomic_load_n(&owner->uid, __ATOMIC_SEQ_CST),
                                .pid_namespace = more ? ledger_load(&more->pid_namespace) : 0};
}

void ledger_tell(struct ledger *ledger, enum ledger_kind kind, int device, uint64_t bytes, uint64_t limit, uint64_t current)
{
    struct ledger_told told;

    if (!ledger->file || !ledger->event_offset)
        return;
    told = told_of(ledger, ledger->slot, kind);
    told.bytes = bytes;
    told.limit = limit;
    told.current = current;
    write_event(ledger, &told, device);
}

void ledger_tell_member(struct ledger *ledger, unsigned slot, enum ledger_kind kind, int device, uint64_t bytes)
{
    struct ledger_told told;

    if (!ledger->event_offset)
        return;
    told = told_of(ledger, slot, kind);
    told.bytes = bytes;
    told.limit = ledger_load(&ledger_slot_at(ledger, slot)->since);
    told.current = device < 0 ? 0 : ledger_total(ledger, (unsigned)device);
    write_event(ledger, &told, device);
}

void ledger_tell_end(struct ledger *ledger, unsigned slot, enum ledger_kind kind)
{
    struct ledger_slot *owner = ledger_slot_at(ledger, slot);
    uint64_t since = ledger_load(&owner->since);
    bool told = false;

    if (!ledger->event_offset || __atomic_exchange_n(&owner->told, since, __ATOMIC_SEQ_CST) == since)
        return;
    for (uint32_t i = 0; i < ledger->devices; i++) {
        const struct ledger_hold *hold = &ledger_holds(ledger, i)[slot];
        uint64_t bytes = ledger_load(&hold->tentative) + ledger_committed_bytes(ledger_load(&hold->committed));

        if (!bytes)
            continue;
        ledger_tell_member(ledger, slot, kind, (int)i, bytes);
        told = true;
    }
    if (!told)
        ledger_tell_member(ledger, slot, kind, -1, 0);
}

void ledger_tell_left(struct ledger *ledger)
{
    if (ledger->file)
        ledger_tell_end(ledger, ledger->slot, LEDGER_LEFT);
}

/* ---- storms */

/* Raise the count of the storm's event. False where it has been overwritten, or is not there yet. */
static bool add_to(struct ledger *ledger, const struct ledger_storm *storm, uint64_t number)
{
    uint64_t place = ledger_load(&storm->entry), before, count;
    struct ledger_event_entry *entry;

    if (!place)
        return false;
    entry = entry_at(ledger, (uint32_t)place - 1);
    before = ledger_load(&entry->counted);
    do {
        if (before >> 32 != place >> 32)
            return false;
        count = (before & UINT32_MAX) + number;
        count = count < UINT32_MAX ? count : UINT32_MAX;
    } while (!__atomic_compare_exchange_n(&entry->counted, &before, place >> 32 << 32 | count, false, __ATOMIC_SEQ_CST,
                                          __ATOMIC_SEQ_CST));
    return true;
}

static void flush(struct ledger *ledger, struct ledger_storm *storm)
{
    uint64_t number = ledger_load(&storm->pending) ? __atomic_exchange_n(&storm->pending, 0, __ATOMIC_SEQ_CST) : 0;

    if (number && !add_to(ledger, storm, number))
        __atomic_fetch_add(&storm->pending, number, __ATOMIC_SEQ_CST);
}

static void count_one(struct ledger *ledger, struct ledger_storm *storm)
{
    if (add_to(ledger, storm, 1))
        return;
    __atomic_fetch_add(&storm->pending, 1, __ATOMIC_SEQ_CST);
    /* The event may have got its place meanwhile. */
    if (ledger_load(&storm->entry))
        flush(ledger, storm);
}

void ledger_tell_storm(struct ledger *ledger, enum ledger_kind kind, unsigned device, uint64_t bytes, uint64_t limit,
                       unsigned family)
{
    struct ledger_storm *storm;
    struct ledger_told told;
    uint64_t now, until;

    if (!ledger_usable(ledger, device) || !ledger->event_offset)
        return;
    storm = &ledger->storm[kind == LEDGER_OOM][device];
    now = clock_now();
    until = ledger_load(&storm->until);
    if (now < until ||
        !__atomic_compare_exchange_n(&storm->until, &until, now + LEDGER_STORM_NS, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        count_one(ledger, storm);
        return;
    }
    ledger_store(&storm->entry, 0);
    told = told_of(ledger, ledger->slot, kind);
    told.bytes = bytes;
    told.limit = limit;
    told.current = ledger_total(ledger, device);
    told.family = family;
    now = __atomic_exchange_n(&storm->pending, 0, __ATOMIC_SEQ_CST);
    told.count = now < UINT32_MAX ? (uint32_t)now + 1 : UINT32_MAX;
    ledger_store(&storm->entry, write_event(ledger, &told, (int)device));
    flush(ledger, storm);
}
