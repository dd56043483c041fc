/* SPDX-License-Identifier: Apache-2.0 */
/* The balance of GPU time: a generic cell rate algorithm whose state is one moment, `due`.
 *
 * GPU time b at a share s moves `due` on by b/s. It does not lag further behind the start of new work than what a full burst takes to be
 * earned, and does not run further ahead of now than max_stall. While work goes on nothing is capped at the lower end, so a kernel of any
 * length earns while it runs, and the average of a tenant that always has work is its share exactly.
 *
 * Positions, not lengths, are converted from GPU time to time owed: the roundings of adjacent claims cancel.
 *
 * Several processes claim the same time, and in any order. Behind the edge everything is unclaimed; before it a few gaps are, each in a
 * word, so that whoever swaps the word owns what it took out of it. */
#include "softslice/share.h"

#include <stddef.h>

#define GAPS        (sizeof(((struct share_account *)NULL)->gaps) / sizeof(uint64_t))
#define GAP_SHIFT   10 /* a gap is kept in units of 1024 ns: its start, modulo 208 days, above its length, up to 1.07 s */
#define GAP_LENGTH  20
#define GAP_LONGEST ((UINT64_C(1) << GAP_LENGTH) - 1)
#define GAP_LEAST   8 /* units: the many gaps between one launch and the next do not push out the few that somebody will claim */
#define GAP_PIECES  4 /* words for one long gap */

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

static void take_back(uint64_t *counter, uint64_t amount)
{
    uint64_t seen = load(counter);

    while (amount && !swap(counter, &seen, minus(seen, amount)))
        ;
}

static uint64_t gap_start(uint64_t gap)
{
    return gap >> GAP_LENGTH;
}

/* How much later `moment` is than the start of a gap, in units: the difference that is the smallest modulo 208 days. */
static int64_t units_since(uint64_t gap, uint64_t moment)
{
    return (int64_t)((moment - gap_start(gap)) << GAP_LENGTH) / (INT64_C(1) << GAP_LENGTH);
}

/* Remember a gap of `length` units up to `end`, in a free slot or instead of the oldest one. Who meets others there every time loses it. */
static void keep_gap(struct share_account *account, uint64_t end, uint64_t length)
{
    for (unsigned tries = 0; tries < GAPS; tries++) {
        uint64_t oldest = 1;
        int64_t age = (int64_t)length;
        unsigned into = GAPS;

        for (unsigned i = 0; i < GAPS && oldest; i++) {
            uint64_t word = load(&account->gaps[i]);

            if (!word || units_since(word, end) > age) {
                age = units_since(word, end);
                oldest = word;
                into = i;
            }
        }
        if (into == GAPS || swap(&account->gaps[into], &oldest, (end - length) << GAP_LENGTH | length))
            return;
    }
}

/* The span (from, until] was left behind by the edge: its newest seconds, in whole units. */
static void keep_gaps(struct share_account *account, uint64_t from, uint64_t until)
{
    uint64_t end = until >> GAP_SHIFT, left = minus(end, plus(from, (1 << GAP_SHIFT) - 1) >> GAP_SHIFT);

    for (unsigned i = 0; i < GAP_PIECES && left >= GAP_LEAST; i++) {
        uint64_t length = least(left, GAP_LONGEST);

        keep_gap(account, end, length);
        end -= length;
        left -= length;
    }
}

static void forget_gaps(struct share_account *account)
{
    for (unsigned i = 0; i < GAPS; i++)
        if (load(&account->gaps[i]))
            __atomic_store_n(&account->gaps[i], 0, __ATOMIC_RELAXED);
}

/* Take what lies in (from, until] out of one gap. Returns how much that is, and where it begins; what is left before and behind stays a gap. */
static uint64_t take_gap(struct share_account *account, uint64_t *gap, uint64_t from, uint64_t until, uint64_t *start)
{
    uint64_t first = plus(from, (1 << GAP_SHIFT) - 1) >> GAP_SHIFT, last = until >> GAP_SHIFT;
    uint64_t seen = load(gap), begin, end, low, high;

    do {
        if (!seen)
            return 0;
        begin = last - (uint64_t)units_since(seen, last);
        end = begin + (seen & GAP_LONGEST);
        low = most(begin, first);
        high = least(end, last);
        if (low >= high)
            return 0;
    } while (!swap(gap, &seen, low > begin ? begin << GAP_LENGTH | (low - begin) : 0));
    if (end - high >= GAP_LEAST)
        keep_gap(account, end, end - high);
    *start = low << GAP_SHIFT;
    return (high - low) << GAP_SHIFT;
}

/* Move an edge on to `until`. Returns what of (from, until] lies beyond where it was, which is *passed. An edge beyond `sane` is not believed;
 * it was SHARE_EDGE_SLACK ago, so that of a process which has been busy for hours not all of them are charged again. */
static uint64_t advance(struct share_account *account, uint64_t *edge, uint64_t from, uint64_t until, uint64_t sane,
                        uint64_t *passed)
{
    uint64_t seen = load(edge);

    do {
        *passed = seen > sane ? minus(until, SHARE_EDGE_SLACK) : seen;
        if (until <= most(from, *passed))
            return 0;
    } while (!swap(edge, &seen, until));
    share_count(&account->repaired, seen > sane);
    return until - most(from, *passed);
}

void share_begin(struct share *share, uint64_t now, bool others_busy)
{
    struct share_account *account = share->account;
    uint64_t seen = load(&account->edge), sane = plus(now, SHARE_EDGE_SLACK);

    while (!others_busy && (seen < now || seen > sane)) {
        if (swap(&account->edge, &seen, now)) {
            share_count(&account->repaired, seen > now);
            forget_gaps(account);
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
    uint64_t cut = scale(full - new, rate, SHARE_WHOLE);
    share_count(&account->forgiven, cut);
    share->cut = plus(share->cut, cut);
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

/* (start, start + length] was not charged before. */
static void charge(struct share *share, uint64_t start, uint64_t length, uint64_t now)
{
    share_count(&share->account->busy, length);
    if (!never_closes(share))
        owe(share, start, length, now);
    count_periods(share, &share->account->periods_until, &share->account->nr_periods, start, start + length);
}

uint64_t share_claim(struct share *share, uint64_t from, uint64_t until, uint64_t now)
{
    struct share_account *account = share->account;
    uint64_t edge, start, charged, part;

    until = least(until, now);
    charged = advance(account, &account->edge, from, until, plus(now, SHARE_EDGE_SLACK), &edge);
    if (charged)
        charge(share, most(from, edge), charged, now);
    if (charged && edge && edge < from)
        keep_gaps(account, edge, from);
    until = least(edge, until);
    for (unsigned i = 0; i < GAPS && from < until; i++) {
        part = take_gap(account, &account->gaps[i], from, until, &start);
        if (part)
            charge(share, start, part, now);
        charged += part;
    }
    return charged;
}

void share_return(struct share *share, uint64_t ns)
{
    struct share_account *account = share->account;
    uint64_t uncut = least(ns, share->cut), earned = scale(ns - uncut, SHARE_WHOLE, rate_of(share)), due = load(&account->due);

    share->cut -= uncut;
    take_back(&account->busy, ns);
    take_back(&account->forgiven, uncut);
    while (!never_closes(share) && !swap(&account->due, &due, minus(due, earned)))
        ;
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

uint64_t share_opens_after(const struct share *share, uint64_t from, uint64_t work, uint64_t now)
{
    uint64_t rate = rate_of(share), due = due_of(share, load(&share->account->due), now);
    uint64_t earliest = minus(from, scale(share->burst, SHARE_WHOLE, rate));

    due = least(plus(most(due, earliest), scale(work, SHARE_WHOLE, rate)), plus(now, share->max_stall));
    return due > now && !never_closes(share) ? due : 0;
}

uint64_t share_credit(const struct share *share, uint64_t now)
{
    uint64_t due = load(&share->account->due);

    if (never_closes(share))
        return UINT64_MAX;
    if (due >= now)
        return 0;
    if (now - due > UINT64_C(1000000000000))
        return share->burst;
    return least(share->burst, (now - due) * (share->rate ? share->rate : 1) / SHARE_WHOLE);
}

/* A wait that is told late has periods before those that were counted already. Who is counting some at this moment may count them twice. */
static void raise_to(uint64_t *counter, uint64_t least_value)
{
    uint64_t seen = load(counter);

    while (seen < least_value && !swap(counter, &seen, least_value))
        ;
}

void share_throttled(struct share *share, uint64_t from, uint64_t until)
{
    struct share_account *account = share->account;
    uint64_t edge, start;
    uint64_t waited = advance(account, &account->throttle_edge, from, until, plus(until, SHARE_COUNT_SLACK), &edge);

    if (!waited)
        return;
    start = most(from, edge);
    share_count(&account->throttled, waited);
    count_periods(share, &account->periods_until, &account->nr_periods, start, until);
    count_periods(share, &account->waited_until, &account->nr_throttled, start, until);
    raise_to(&account->nr_periods, load(&account->nr_throttled));
}
