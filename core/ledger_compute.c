/* SPDX-License-Identifier: Apache-2.0 */
/* What a ledger knows of GPU time: a share, a weight and an account for each device, and who has work on it. */
#include <errno.h>
#include <string.h>

#include "ledger_internal.h"

/* ---- who knows, and what is armed */

static uint64_t arms_with_mark(const struct ledger *ledger, unsigned slot)
{
    const struct ledger_slot_more *more = ledger->compute_offset ? ledger_slot_more(ledger, slot) : NULL;

    return more ? ledger_mark_arms(ledger_load(&more->mark), ledger_load(&more->tag)) : 0;
}

bool ledger_knows_compute(const struct ledger *ledger, unsigned slot)
{
    return arms_with_mark(ledger, slot) != 0;
}

unsigned ledger_arms_of(const struct ledger *ledger, unsigned slot)
{
    if (ledger_load(&ledger_slot_at(ledger, slot)->state) != LEDGER_SLOT_TAKEN)
        return 0;
    return ledger_knows_compute(ledger, slot) ? (unsigned)arms_with_mark(ledger, slot) & (LEDGER_ARMS_VRAM | LEDGER_ARMS_COMPUTE)
                                              : LEDGER_ARMS_VRAM;
}

void ledger_arm(struct ledger *ledger, unsigned arms)
{
    if (ledger->file && ledger_knows_compute(ledger, ledger->slot))
        __atomic_fetch_or(&ledger_slot_more(ledger, ledger->slot)->mark, arms & (LEDGER_ARMS_VRAM | LEDGER_ARMS_COMPUTE),
                          __ATOMIC_SEQ_CST);
}

bool ledger_has_compute(const struct ledger *ledger)
{
    return ledger->file && ledger->compute_offset;
}

/* ---- shares and weights */

void ledger_begin_compute(struct ledger *ledger)
{
    for (unsigned i = 0; ledger->compute_offset && i < ledger->devices; i++) {
        ledger_store(&ledger_compute(ledger, i)->share, 0);
        ledger_store(&ledger_compute(ledger, i)->weight, 0);
    }
}

static struct ledger_compute *compute_of(const struct ledger *ledger, unsigned device)
{
    return ledger_usable(ledger, device) ? ledger_compute(ledger, device) : NULL;
}

static void enter(const struct ledger *ledger, uint64_t *word, uint32_t value)
{
    uint64_t before = ledger_load(word), first = ledger->first_to_share ? value : 0;
    uint64_t made = ledger_limit_encode(value | first << LEDGER_PART_SHIFT, 0);

    while (before == 0 || (ledger->first_to_share && ledger_limit_valid(before) && !(before & LEDGER_LIMIT_REPLACED))) {
        if (__atomic_compare_exchange_n(word, &before, made, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            return;
    }
}

void ledger_enter_compute(struct ledger *ledger, unsigned device, uint32_t share, uint32_t weight)
{
    struct ledger_compute *compute = compute_of(ledger, device);

    if (compute && share < SHARE_WHOLE)
        enter(ledger, &compute->share, share);
    if (compute && weight)
        enter(ledger, &compute->weight, weight);
}

/* Read at every tick of every member: nothing else hangs on the order. */
static uint64_t read_word(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

uint32_t ledger_share(const struct ledger *ledger, unsigned device)
{
    const struct ledger_compute *compute = compute_of(ledger, device);

    return compute ? ledger_part_decode(read_word(&compute->share), SHARE_WHOLE) : SHARE_WHOLE;
}

uint32_t ledger_first_share(const struct ledger *ledger, unsigned device, bool *replaced)
{
    const struct ledger_compute *compute = compute_of(ledger, device);
    uint64_t word = compute ? read_word(&compute->share) : 0;

    *replaced = word & LEDGER_LIMIT_REPLACED;
    return ledger_part_first(word);
}

static void replace(uint64_t *word, uint32_t value)
{
    uint64_t before = ledger_load(word), made;

    do
        made = ledger_limit_encode(value | (uint64_t)ledger_part_first(before) << LEDGER_PART_SHIFT, LEDGER_LIMIT_REPLACED);
    while (!__atomic_compare_exchange_n(word, &before, made, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
}

void ledger_set_share(struct ledger *ledger, unsigned device, uint32_t share)
{
    struct ledger_compute *compute = compute_of(ledger, device);

    if (compute)
        replace(&compute->share, share);
}

uint32_t ledger_weight(const struct ledger *ledger, unsigned device)
{
    const struct ledger_compute *compute = compute_of(ledger, device);

    return compute ? ledger_part_decode(read_word(&compute->weight), 0) : 0;
}

void ledger_set_weight(struct ledger *ledger, unsigned device, uint32_t weight)
{
    struct ledger_compute *compute = compute_of(ledger, device);

    if (compute)
        replace(&compute->weight, weight);
}

/* ---- the account, and who is busy */

struct share_account *ledger_account(struct ledger *ledger, unsigned device)
{
    struct ledger_compute *compute = compute_of(ledger, device);

    return compute ? &compute->account : NULL;
}

uint64_t *ledger_busy_word(struct ledger *ledger, unsigned device)
{
    return compute_of(ledger, device) ? ledger_busy_at(ledger, device, ledger->slot) : NULL;
}

void ledger_clear_busy(struct ledger *ledger, unsigned slot)
{
    for (unsigned i = 0; ledger->compute_offset && i < ledger->devices; i++)
        ledger_store(ledger_busy_at(ledger, i, slot), 0);
}

/* Whether a slot says that it has work, and since when it has not said so again. */
static bool says_busy(const struct ledger *ledger, unsigned device, unsigned slot, uint64_t *renewed)
{
    *renewed = slot == ledger->slot ? 0 : ledger_load(ledger_busy_at(ledger, device, slot));
    if (!*renewed)
        return false;
    return ledger_load(&ledger_slot_at(ledger, slot)->state) == LEDGER_SLOT_TAKEN && ledger_knows_compute(ledger, slot) &&
           !(ledger_load(&ledger_holds(ledger, device)[slot].committed) & LEDGER_SUSPENDED);
}

/* `stale`: whether one that was not renewed counts. */
static bool any_busy(const struct ledger *ledger, unsigned device, uint64_t now, bool stale, bool *seen_stale)
{
    uint32_t used = ledger_used(ledger);

    for (uint32_t i = 0; i < used; i++) {
        uint64_t renewed;

        if (!says_busy(ledger, device, i, &renewed))
            continue;
        /* A word from the future is nobody's who is well, but for what two readings of the clock are apart. */
        if (stale || (now - renewed < LEDGER_RENEW_NS || renewed - now < LEDGER_RENEW_NS))
            return true;
        *seen_stale = true;
    }
    return false;
}

bool ledger_others_busy(struct ledger *ledger, unsigned device, uint64_t now)
{
    bool seen_stale = false;

    if (!compute_of(ledger, device))
        return false;
    if (any_busy(ledger, device, now, false, &seen_stale))
        return true;
    if (!seen_stale)
        return false;
    ledger_look(ledger); /* the dead lose their words */
    return any_busy(ledger, device, now, true, &seen_stale);
}

/* ---- for people */

void ledger_tell_compute(const struct ledger_compute *compute, bool armed, struct ledger_device_state *state)
{
    if (!compute)
        return;
    state->compute = armed;
    state->share = ledger_part_decode(ledger_load(&compute->share), SHARE_WHOLE);
    state->weight = ledger_part_decode(ledger_load(&compute->weight), 0);
    state->busy = share_read(&compute->account.busy);
    state->throttled = share_read(&compute->account.throttled);
    state->forgiven = share_read(&compute->account.forgiven);
    state->nr_periods = share_read(&compute->account.nr_periods);
    state->nr_throttled = share_read(&compute->account.nr_throttled);
    state->turns_taken = share_read(&compute->account.turns_taken);
    state->turns_lost = share_read(&compute->account.turns_lost);
}
