/* SPDX-License-Identifier: Apache-2.0 */
/* Charges. Who may hold how much is decided here, without a lock.
 *
 * A charge is counted from before it is granted until it is given back: in `tentative` first, then in `committed`, with a moment in
 * both and none in neither. Whoever adds to its own tentative and then sums all slots, reading each slot's tentative before its
 * committed, sees every charge that was added earlier and not given back: of two that race, the later one sees both. All accesses
 * are sequentially consistent. */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "ledger_internal.h"
#include "ledger_sys.h"
#include "softslice/clock.h"

#define RESERVE_PATIENCE UINT64_C(1000000000) /* ns that a refusal may be put off while others' charges are unsettled */
#define JUST_NOW         UINT64_C(50000000)   /* ns since a dead member's bytes were taken off */
#define CONTEXT_CAP      (UINT64_C(1) << 40)  /* a context's size above it was scribbled */

static struct ledger_hold *own_hold(const struct ledger *ledger, unsigned device)
{
    return &ledger_holds(ledger, device)[ledger->slot];
}

static uint64_t saturate(unsigned __int128 sum)
{
    return sum > UINT64_MAX ? UINT64_MAX : (uint64_t)sum;
}

uint64_t ledger_total(const struct ledger *ledger, unsigned device)
{
    const struct ledger_hold *hold = ledger_holds(ledger, device);
    uint32_t used = ledger_used(ledger);
    unsigned __int128 tentative = 0, committed = 0;

    for (uint32_t i = 0; i < used; i++) {
        tentative += ledger_load(&hold[i].tentative);
        committed += ledger_counted_bytes(ledger_load(&hold[i].committed));
    }
    return saturate(tentative + committed);
}

/* The committed part, what the dead were asking for with it, and a fingerprint of who holds how much of that. `alive` leaves the dead out. */
static uint64_t settled(const struct ledger *ledger, unsigned device, bool alive, uint64_t *fingerprint)
{
    const struct ledger_hold *hold = ledger_holds(ledger, device);
    uint32_t used = ledger_used(ledger);
    unsigned __int128 sum = 0;

    *fingerprint = used;
    for (uint32_t i = 0; i < used; i++) {
        bool dead = ledger_load(&ledger_slot_at(ledger, i)->state) == LEDGER_SLOT_DEAD;
        uint64_t asked = dead ? ledger_load(&hold[i].tentative) : 0;
        uint64_t committed = ledger_settled_bytes(ledger_load(&hold[i].committed));

        if (dead && alive)
            continue;
        sum += committed;
        sum += asked;
        committed += asked;
        *fingerprint = ledger_mix(*fingerprint ^ committed) + i;
    }
    return saturate(sum);
}

/* Take `bytes` off a word, at most what is there. Whether all of it was there. */
static bool take_off(uint64_t *word, uint64_t bytes)
{
    uint64_t before = ledger_load(word);

    while (
        !__atomic_compare_exchange_n(word, &before, before > bytes ? before - bytes : 0, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
    return before >= bytes;
}

/* The same for committed bytes, which stay suspended where they are. */
static bool take_off_committed(uint64_t *word, uint64_t bytes)
{
    uint64_t before = ledger_load(word), held, after;

    do {
        held = ledger_committed_bytes(before);
        after = before - held + (held > bytes ? held - bytes : 0);
    } while (!__atomic_compare_exchange_n(word, &before, after, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    return held >= bytes;
}

static void note_peak(const struct ledger *ledger, unsigned device, uint64_t now)
{
    uint64_t *peak = &ledger_device_at(ledger, device)->peak, before = ledger_load(peak);

    while (now > before && !__atomic_compare_exchange_n(peak, &before, now, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
}

/* Have bytes counted as tentative: new ones, or those that another member's suspended word has (then nobody else is restoring them). */
static bool begin_asking(const struct ledger *ledger, unsigned device, uint64_t bytes, uint64_t *suspended)
{
    if (suspended)
        return ledger_begin_restoring(suspended, ledger->slot);
    __atomic_fetch_add(&own_hold(ledger, device)->tentative, bytes, __ATOMIC_SEQ_CST);
    return true;
}

static bool try_reserve(const struct ledger *ledger, unsigned device, uint64_t bytes, uint64_t limit, uint64_t *suspended)
{
    uint64_t sum;

    if (!begin_asking(ledger, device, bytes, suspended))
        return true;
    sum = ledger_total(ledger, device);
    if (sum <= limit) {
        note_peak(ledger, device, sum);
        return true;
    }
    if (suspended)
        ledger_end_restoring(suspended, ledger->slot);
    else
        __atomic_fetch_sub(&own_hold(ledger, device)->tentative, bytes, __ATOMIC_SEQ_CST);
    return false;
}

/* Whether `bytes` are over the limit even with tentative charges set apart. Slots are read one after the other, and a member may free
 * while another takes; two equal readings show that there was a moment at which the sum was this. */
static bool settled_over(const struct ledger *ledger, unsigned device, uint64_t bytes, uint64_t limit)
{
    uint64_t first, second, sum = settled(ledger, device, false, &first);

    if (sum <= limit - bytes)
        return false;
    return settled(ledger, device, false, &second) == sum && first == second;
}

static uint64_t effective(const struct ledger *ledger, unsigned device, uint64_t cap)
{
    uint64_t limit = ledger_limit(ledger, device);

    return limit < cap ? limit : cap;
}

static int reserve_contended(struct ledger *ledger, unsigned device, uint64_t bytes, uint64_t cap, uint64_t *suspended)
{
    uint64_t start = 0, random = (uintptr_t)&start;
    bool buried = false;

    for (unsigned attempt = 0;; attempt++) {
        uint64_t limit = effective(ledger, device, cap), now;

        if (bytes > limit)
            return -ENOMEM;
        if (settled_over(ledger, device, bytes, limit)) {
            if (buried)
                return -ENOMEM;
            ledger_bury(ledger);
            buried = true;
        } else if (attempt < 4) {
            syscall(SYS_sched_yield);
        } else {
            uint64_t most = UINT64_C(16000) << (attempt < 11 ? attempt - 4 : 7);

            now = sys_now(CLOCK_MONOTONIC);
            if (!start)
                start = now;
            if (now - start > RESERVE_PATIENCE)
                return -ENOMEM;
            random = ledger_mix(random + now);
            sys_sleep(random % most);
            /* What blocks us may be the tentative charge of one who died with it. */
            if (attempt % 8 == 7)
                ledger_bury(ledger);
        }
        if (try_reserve(ledger, device, bytes, limit, suspended))
            return 0;
    }
}

static inline __attribute__((always_inline)) int reserve(struct ledger *ledger, unsigned device, uint64_t bytes, uint64_t cap,
                                                         uint64_t *suspended)
{
    uint64_t limit;
    int saved, result;

    if (!ledger_usable(ledger, device))
        return -EINVAL;
    limit = effective(ledger, device, cap);
    /* The second bound keeps sums of many threads' tentative charges far from wrapping. */
    if (bytes > limit || bytes > LEDGER_BYTES_CAP)
        return -ENOMEM;
    if (__builtin_expect(try_reserve(ledger, device, bytes, limit, suspended), 1))
        return 0;
    saved = errno;
    result = reserve_contended(ledger, device, bytes, cap, suspended);
    errno = saved;
    return result;
}

int ledger_reserve(struct ledger *ledger, unsigned device, uint64_t bytes, uint64_t cap)
{
    return reserve(ledger, device, bytes, cap, NULL);
}

int ledger_reserve_suspended(struct ledger *ledger, unsigned device, uint64_t *suspended, uint64_t cap)
{
    return reserve(ledger, device, ledger_committed_bytes(ledger_load(suspended)), cap, suspended);
}

bool ledger_fits_without_dead(const struct ledger *ledger, unsigned device, uint64_t bytes, uint64_t cap)
{
    uint64_t limit, fingerprint, alive;

    if (!ledger_usable(ledger, device))
        return false;
    limit = effective(ledger, device, cap);
    if (bytes > limit)
        return false;
    alive = settled(ledger, device, true, &fingerprint);
    if (alive > limit - bytes)
        return false;
    /* What others are asking for is no matter of the dead: there have to be some, or to have been a moment ago. */
    return settled(ledger, device, false, &fingerprint) > alive || ledger_total(ledger, device) <= limit - bytes ||
           clock_now() - ledger_last_burial(ledger, device) < JUST_NOW;
}

void ledger_settle(struct ledger *ledger, unsigned device, uint64_t reserved, uint64_t actual)
{
    struct ledger_hold *own;

    if (!ledger_usable(ledger, device))
        return;
    own = own_hold(ledger, device);
    if (actual) {
        uint64_t bytes = actual < LEDGER_BYTES_CAP ? actual : LEDGER_BYTES_CAP;

        /* Far above any device's size: what is added there would only bring the word nearer to wrapping. */
        if (ledger_committed_bytes(__atomic_fetch_add(&own->committed, bytes, __ATOMIC_SEQ_CST)) > UINT64_C(1) << 62)
            take_off_committed(&own->committed, bytes);
    }
    if (reserved)
        take_off(&own->tentative, reserved);
    if (actual > reserved)
        note_peak(ledger, device, ledger_total(ledger, device));
}

void ledger_refund(struct ledger *ledger, unsigned device, uint64_t bytes)
{
    if (ledger_usable(ledger, device) && !take_off_committed(&own_hold(ledger, device)->committed, bytes))
        ledger_count(ledger, device, LEDGER_EVENT_UNDERFLOW);
}

uint64_t ledger_current(struct ledger *ledger, unsigned device)
{
    if (!ledger_usable(ledger, device))
        return 0;
    ledger_look(ledger);
    return ledger_total(ledger, device);
}

uint64_t ledger_own(const struct ledger *ledger, unsigned device)
{
    return ledger_usable(ledger, device) ? ledger_committed_bytes(ledger_load(&own_hold(ledger, device)->committed)) : 0;
}

uint64_t ledger_own_tentative(const struct ledger *ledger, unsigned device)
{
    return ledger_usable(ledger, device) ? ledger_load(&own_hold(ledger, device)->tentative) : 0;
}

/* ---- devices */

/* Finish what claiming a device began, whoever began it. */
static int complete_device(struct ledger_device *device, const uint64_t words[2])
{
    if (ledger_load(&device->complete) != LEDGER_COMPLETE) {
        ledger_store(&device->uuid[0], words[0]);
        ledger_store(&device->uuid[1], words[1]);
        ledger_store(&device->complete, LEDGER_COMPLETE);
    }
    return ledger_load(&device->uuid[0]) == words[0] && ledger_load(&device->uuid[1]) == words[1] ? 0 : -EPROTO;
}

static void enter_limit(const struct ledger *ledger, struct ledger_device *device, uint64_t limit)
{
    uint64_t before = ledger_load(&device->limit);

    if (limit == LEDGER_NO_LIMIT)
        return;
    while (before == 0 || (ledger->first && ledger_limit_valid(before) && !(before & LEDGER_LIMIT_REPLACED))) {
        if (__atomic_compare_exchange_n(&device->limit, &before, ledger_limit_encode(limit, 0), false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST))
            return;
    }
}

int ledger_add_device(struct ledger *ledger, const uint8_t uuid[16], uint64_t limit)
{
    uint64_t words[2], key;
    int result;

    memcpy(words, uuid, sizeof(words));
    if (!ledger->file || (!words[0] && !words[1]))
        return ledger_fail(ledger, -EINVAL, "a device without a UUID cannot be accounted");
    key = ledger_key(words);
    for (uint32_t i = 0; i < ledger->devices; i++) {
        struct ledger_device *device = ledger_device_at(ledger, i);
        uint64_t found = 0;

        if (!__atomic_compare_exchange_n(&device->key, &found, key, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) && found != key)
            continue;
        result = complete_device(device, words);
        if (result < 0)
            return ledger_fail(ledger, result, "ledger %s is damaged: scribbled over (devices)", ledger->path);
        enter_limit(ledger, device, limit);
        return (int)i;
    }
    return ledger_fail(ledger, -ENOSPC, "ledger %s has no room for another device: it holds %u", ledger->path, ledger->devices);
}

uint64_t ledger_limit(const struct ledger *ledger, unsigned device)
{
    return ledger_usable(ledger, device) ? ledger_limit_decode(ledger_load(&ledger_device_at(ledger, device)->limit))
                                         : LEDGER_NO_LIMIT;
}

void ledger_set_limit(struct ledger *ledger, unsigned device, uint64_t limit)
{
    struct ledger_device *entry;
    uint64_t before;

    if (!ledger_usable(ledger, device))
        return;
    entry = ledger_device_at(ledger, device);
    before = ledger_load(&entry->limit);
    /* The first member may be entering its own meanwhile: what is kept is what is replaced. */
    do {
        if (!(before & LEDGER_LIMIT_REPLACED))
            ledger_store(&entry->replaced, before);
    } while (!__atomic_compare_exchange_n(&entry->limit, &before, ledger_limit_encode(limit, LEDGER_LIMIT_REPLACED), false,
                                          __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
}

bool ledger_own_binds(const struct ledger *ledger, unsigned device, uint64_t own)
{
    const struct ledger_device *entry;
    uint64_t replaced;

    if (!ledger_usable(ledger, device))
        return true;
    entry = ledger_device_at(ledger, device);
    if (!(ledger_load(&entry->limit) & LEDGER_LIMIT_REPLACED))
        return true;
    replaced = ledger_load(&entry->replaced);
    return !ledger_limit_valid(replaced) || own < ledger_limit_decode(replaced);
}

uint64_t ledger_last_burial(const struct ledger *ledger, unsigned device)
{
    return ledger_usable(ledger, device) ? ledger_load(&ledger_device_at(ledger, device)->last_burial) : 0;
}

void ledger_count(struct ledger *ledger, unsigned device, enum ledger_event event)
{
    if (ledger_usable(ledger, device) && event < LEDGER_EVENTS)
        __atomic_fetch_add(&ledger_device_at(ledger, device)->events[event], 1, __ATOMIC_SEQ_CST);
}

uint64_t ledger_context_bytes(const struct ledger *ledger, unsigned device)
{
    uint64_t bytes = ledger_usable(ledger, device) ? ledger_load(&ledger_device_at(ledger, device)->context_bytes) : 0;

    return bytes < CONTEXT_CAP ? bytes : 0;
}

void ledger_set_context_bytes(struct ledger *ledger, unsigned device, uint64_t bytes)
{
    if (ledger_usable(ledger, device))
        ledger_store(&ledger_device_at(ledger, device)->context_bytes, bytes);
}

int ledger_device_state(struct ledger *ledger, unsigned device, struct ledger_device_state *state)
{
    const struct ledger_hold *hold;
    const struct ledger_device *entry;
    unsigned __int128 tentative = 0, spilled = 0;
    unsigned arms = 0;
    uint32_t used;

    if (!ledger_usable(ledger, device))
        return -EINVAL;
    entry = ledger_device_at(ledger, device);
    hold = ledger_holds(ledger, device);
    used = ledger_used(ledger);
    for (uint32_t i = 0; i < used; i++) {
        tentative += ledger_load(&hold[i].tentative);
        spilled += ledger_spilled(ledger, device, i);
        arms |= ledger_arms_of(ledger, i);
    }
    *state = (struct ledger_device_state){.limit = ledger_limit(ledger, device),
                                          .current = ledger_current(ledger, device),
                                          .peak = ledger_load(&entry->peak),
                                          .tentative = saturate(tentative),
                                          .spilled = saturate(spilled),
                                          .context_bytes = ledger_context_bytes(ledger, device)};
    for (unsigned i = 0; i < 2; i++) {
        uint64_t word = ledger_load(&entry->uuid[i]);

        memcpy(state->uuid + 8 * i, &word, sizeof(word));
    }
    for (unsigned i = 0; i < LEDGER_EVENTS; i++)
        state->events[i] = ledger_load(&entry->events[i]);
    ledger_tell_compute(ledger_compute(ledger, device), arms & LEDGER_ARMS_COMPUTE, state);
    return 0;
}
