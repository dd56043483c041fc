/* SPDX-License-Identifier: Apache-2.0 */
/* The balance of GPU time: a generic cell rate algorithm whose state is one moment, `due`.
 *
 * GPU time b at a share s moves `due` on by b/s. It does not lag further behind the start of new work than what a full burst takes to be
 * earned, and does not run further ahead of now than max_stall. While work goes on nothing is capped at the lower end, so a kernel of any
 * length earns while it runs, and the average of a tenant that always has work is its share exactly.
 *
 * Positions, not lengths, are converted from GPU time to time owed: the roundings of adjacent claims cancel. */
#include "softslice/share.h"

static uint64_t load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

/* If *word was not *seen any more, *seen is what it is. The words say nothing about each other, so their order is nobody's business. */
static bool swap(uint64_t *word, uint64_t *seen, uint64_t new)
{
    return __atomic_compare_exchange_n(word, seen, new, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

static uint64_t plus(uint64_t a, uint64_t b)
{
    uint64_t sum;

    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* value * by / of, rounded to the nearest; saturates. */
static uint64_t scale(uint64_t value, uint64_t by, uint64_t of)
{
    __extension__ unsigned __int128 product = (unsigned __int128)value * by + of / 2;

    return product / of > UINT64_MAX ? UINT64_MAX : (uint64_t)(product / of);
}

static uint64_t rate_of(const struct share *share)
{
    return share->rate ? share->rate : 1;
}

static bool never_closes(const struct share *share)
{
    return share->never_closes || share->rate >= SHARE_WHOLE;
}

void share_count(uint64_t *counter, uint64_t amount)
{
    uint64_t seen = load(counter);

    while (amount && seen != UINT64_MAX && !swap(counter, &seen, plus(seen, amount)))
        ;
}

/* Move an edge on to `until`. Returns what of (from, until] lies beyond it, and in *start where that begins. An edge beyond `sane` is not
 * believed. */
static uint64_t advance(struct share_account *account, uint64_t *edge, uint64_t from, uint64_t until, uint64_t sane,
                        uint64_t *start)
{
    uint64_t seen = load(edge);
    bool damaged;

    do {
        damaged = seen > sane;
        *start = damaged ? from : most(from, seen);
        if (until <= *start)
            return 0;
    } while (!swap(edge, &seen, until));
    share_count(&account->repaired, damaged);
    return until - *start;
}

void share_begin(struct share *share, uint64_t now, bool others_busy)
{
    struct share_account *account = share->account;
    uint64_t seen = load(&account->edge), sane = plus(now, SHARE_EDGE_SLACK);

    while (!others_busy && (seen < now || seen > sane)) {
        if (swap(&account->edge, &seen, now)) {
            share_count(&account->repaired, seen > now);
            break;
        }
    }
}

/* What GPU time up to a moment is in time owed, modulo 2^64: only differences mean anything. */
static uint64_t owed_until(uint64_t moment, uint64_t rate)
{
    return moment / rate * SHARE_WHOLE + moment % rate * SHARE_WHOLE / rate;
}

/* `due` as it may be believed: nobody owes more than max_stall. */
static uint64_t due_of(const struct share *share, uint64_t due, uint64_t now)
{
    uint64_t latest = plus(now, share->max_stall);

    return due > plus(latest, SHARE_DUE_SLACK) ? latest : due;
}

/* Earn (start, start + length]. */
static void owe(struct share *share, uint64_t start, uint64_t length, uint64_t now)
{
    struct share_account *account = share->account;
    uint64_t rate = rate_of(share), seen = load(&account->due), due, full, new;
    uint64_t earliest = minus(start, scale(share->burst, SHARE_WHOLE, rate));
    uint64_t debt = length >> 50 ? UINT64_MAX : owed_until(start + length, rate) - owed_until(start, rate);

    do {
        due = due_of(share, seen, now);
        full = plus(most(due, earliest), debt);
        new = least(full, most(plus(now, share->max_stall), due));
    } while (!swap(&account->due, &seen, new));
    share_count(&account->repaired, due != seen);
    share_count(&account->forgiven, scale(full - new, rate, SHARE_WHOLE));
}

/* Count the periods from `from` to `until` that begin where the last counted one ended, or later. */
static void count_periods(struct share *share, uint64_t *counted_until, uint64_t *counter, uint64_t from, uint64_t until)
{
    uint64_t seen = load(counted_until), first, last;

    if (!share->period)
        return;
    last = until - until % share->period;
    do {
        first = from - from % share->period;
        if (seen <= plus(until, plus(share->period, SHARE_COUNT_SLACK)))
            first = most(first, seen);
        if (first > last)
            return;
    } while (!swap(counted_until, &seen, plus(last, share->period)));
    share_count(counter, (last - first) / share->period + 1);
}

void share_period(struct share *share, uint64_t now)
{
    count_periods(share, &share->account->periods_until, &share->account->nr_periods, now, now);
}

uint64_t share_claim(struct share *share, uint64_t from, uint64_t until, uint64_t now)
{
    struct share_account *account = share->account;
    uint64_t start, charged;

    until = least(until, now);
    charged = advance(account, &account->edge, from, until, plus(now, SHARE_EDGE_SLACK), &start);
    if (!charged)
        return 0;
    share_count(&account->busy, charged);
    if (!never_closes(share))
        owe(share, start, charged, now);
    count_periods(share, &account->periods_until, &account->nr_periods, start, until);
    return charged;
}

uint64_t share_opens(const struct share *share, uint64_t now)
{
    struct share_account *account = share->account;
    uint64_t seen = load(&account->due), due;

    if (seen <= now || never_closes(share))
        return 0;
    due = due_of(share, seen, now);
    if (due != seen && swap(&account->due, &seen, due))
        share_count(&account->repaired, 1);
    due = least(due, plus(now, share->max_stall));
    return due > now ? due : 0;
}

void share_throttled(struct share *share, uint64_t from, uint64_t until)
{
    struct share_account *account = share->account;
    uint64_t start;
    uint64_t waited = advance(account, &account->throttle_edge, from, until, plus(until, SHARE_COUNT_SLACK), &start);

    if (!waited)
        return;
    share_count(&account->throttled, waited);
    count_periods(share, &account->periods_until, &account->nr_periods, start, until);
    count_periods(share, &account->waited_until, &account->nr_throttled, start, until);
}
