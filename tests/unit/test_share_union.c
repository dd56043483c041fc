/* SPDX-License-Identifier: Apache-2.0 */
/* Several processes of a tenant claim the same time: it is charged once, in whatever order they come. And words that no claim wrote. */
#include "share_helper.h"

Test(share_union, what_overlaps_is_charged_once)
{
    struct share share = fresh(5000);

    now += 1000 * MS;
    cr_assert_eq(share_claim(&share, now - 100 * MS, now - 50 * MS, now), 50 * MS);
    cr_assert_eq(share_claim(&share, now - 100 * MS, now - 50 * MS, now), 0);
    cr_assert_eq(share_claim(&share, now - 70 * MS, now - 40 * MS, now), 10 * MS);
    cr_assert_eq(share_claim(&share, now - 70 * MS, now - 60 * MS, now), 0);
    cr_assert_eq(share_claim(&share, now - 40 * MS, now + 40 * MS, now), 40 * MS, "what has not been yet does not count");
    cr_assert_eq(share_claim(&share, now + 1, now + 40 * MS, now), 0);
    cr_assert_eq(share_claim(&share, now, now - 5 * MS, now), 0);
    cr_assert_eq(account.busy, 100 * MS);
}

Test(share_union, who_begins_after_an_idle_time_does_not_pay_for_it)
{
    struct share share = fresh(5000);

    kernel(&share, 5 * MS, 10 * S);
    now += 100 * MS;
    share_begin(&share, now, true);
    cr_assert_eq(account.edge, now - 100 * MS, "somebody is at work");
    share_begin(&share, now, false);
    cr_assert_eq(account.edge, now);
    cr_assert_eq(share_claim(&share, 0, now + 1 * MS, now + 1 * MS), 1 * MS);
    share_begin(&share, now, false);
    cr_assert_eq(account.edge, now + 1 * MS, "never back");
}

Test(share_union, a_claim_that_comes_late_finds_its_time)
{
    struct share share = fresh(5000);
    uint64_t t = 5000 * S / 1024 * 1024, u = 1024;

    kernel(&share, 1 * MS, 10 * S);
    now = t + 10 * S;
    share_begin(&share, t, false);
    cr_assert_eq(share_claim(&share, t + 1000 * u, t + 1100 * u, now), 100 * u);
    cr_assert_eq(share_claim(&share, t + 2000 * u, t + 2100 * u, now), 100 * u);
    cr_assert_eq(share_claim(&share, t + 400 * u, t + 500 * u, now), 100 * u, "out of the middle of a gap");
    cr_assert_eq(share_claim(&share, t, t + 1050 * u, now), 900 * u, "what is left of it, on both sides");
    cr_assert_eq(share_claim(&share, t, t + 1100 * u, now), 0);
    cr_assert_eq(share_claim(&share, t + 1500 * u + 1, t + 1600 * u - 1, now), 98 * u, "whole microseconds only");
    cr_assert_eq(share_claim(&share, t, t + 2200 * u, now), (800 + 2 + 100) * u);
    cr_assert_eq(account.busy, 1 * MS + 2200 * u);
    cr_assert_eq(account.gaps[0] | account.gaps[1] | account.gaps[2] | account.gaps[3], 0);
}

Test(share_union, a_late_claim_of_seconds_finds_most_of_them)
{
    struct share share = fresh(5000);

    share_begin(&share, now, false);
    now += 6 * S;
    cr_assert_eq(share_claim(&share, now - 1 * MS, now, now), 1 * MS);
    cr_assert_geq(share_claim(&share, now - 3 * S, now, now), 3 * S - 1 * MS - 4 * US);
    cr_assert_leq(account.busy, 3 * S);
}

Test(share_union, what_was_idle_cannot_be_claimed_late)
{
    struct share share = fresh(5000);

    share_begin(&share, now, false);
    cr_assert_eq(share_claim(&share, now + 10 * MS, now + 11 * MS, now + 11 * MS), 1 * MS);
    now += 20 * MS;
    share_begin(&share, now, false);
    cr_assert_eq(share_claim(&share, now - 20 * MS, now, now), 0);
}

/* Four processes whose kernels run beside each other: who is at work claims every 2 ms and when a kernel ends, now and then a little late. */
struct peer {
    uint64_t from, until; /* its kernel; before `from` it does something else */
    uint64_t claims;      /* next */
};

static uint64_t length_of(unsigned peer)
{
    static const uint64_t lengths[] = {1 * MS, 200 * US, 200 * MS, 30 * MS};

    return lengths[peer % 4] / 2 + dice(lengths[peer % 4]);
}

static double charged_of_union(uint64_t gap)
{
    struct share share = fresh(SHARE_WHOLE);
    struct peer peer[4];
    uint64_t began = now, united = 0, reached = now;

    for (unsigned i = 0; i < 4; i++)
        peer[i] = (struct peer){now, now, now};
    while (now < began + 20 * S) {
        struct peer *next = &peer[0];

        for (unsigned i = 1; i < 4; i++)
            if (peer[i].claims < next->claims)
                next = &peer[i];
        now = next->claims > now ? next->claims : now;
        share_claim(&share, next->from, now < next->until ? now : next->until, now);
        /* the union up to now, of all kernels that have begun */
        for (uint64_t at = reached; at < now;) {
            uint64_t covered = at, opens = now;

            for (unsigned i = 0; i < 4; i++) {
                if (peer[i].from <= at && peer[i].until > covered)
                    covered = peer[i].until;
                if (peer[i].from > at && peer[i].from < opens)
                    opens = peer[i].from;
            }
            covered = covered < now ? covered : now;
            united += covered - at;
            at = covered > at ? covered : opens;
            reached = now;
        }
        if (now >= next->until) {
            next->from = now + (gap ? dice(gap) : 0);
            next->until = next->from + length_of((unsigned)(next - peer));
        }
        next->claims = (now < next->from ? next->from : now) + 2 * MS;
        if (next->claims > next->until)
            next->claims = next->until + dice(4) * 50 * US;
        cr_assert_leq(account.busy, united, "more than there was, at %lu", (unsigned long)(now - began));
    }
    return (double)account.busy / (double)united;
}

Test(share_union, processes_beside_each_other_are_a_union)
{
    cr_assert_geq(charged_of_union(0), 0.99);
    cr_assert_geq(charged_of_union(100 * US), 0.99);
    cr_assert_geq(charged_of_union(20 * MS), 0.99);
}

/* ---- words that no claim wrote, and clocks that jump */

static uint64_t absurd_word(void)
{
    switch (dice(5)) {
    case 0:
        return UINT64_MAX - dice(3);
    case 1:
        return dice(3);
    case 2:
        return now + dice(10 * S);
    case 3:
        return now - dice(10 * S);
    default:
        return dice(UINT64_MAX);
    }
}

/* How long until the gate opens, asked as a launch asks: max_stall at most. */
static uint64_t wait_for(struct share *share)
{
    uint64_t began = now, opens;

    while ((opens = share_opens(share, now))) {
        cr_assert_leq(opens, now + share->max_stall);
        now = opens;
        cr_assert_leq(now - began, share->max_stall + SHARE_DUE_SLACK);
    }
    return now - began;
}

Test(share_union, nobody_waits_longer_because_of_an_absurd_word)
{
    struct share share = fresh(3000);

    for (unsigned i = 0; i < 100000; i++) {
        uint64_t *words = (uint64_t *)&account;

        for (unsigned w = 0; w < sizeof(account) / 8; w++)
            words[w] = dice(2) ? words[w] : absurd_word();
        share.burst = dice(4) ? 8 * MS : dice(2) ? 0 : UINT64_MAX;
        share.rate = (uint32_t)dice(12000);
        if (dice(2))
            share_begin(&share, now, dice(2));
        share_claim(&share, dice(2) ? now - dice(S) : absurd_word(), dice(2) ? now : absurd_word(), now);
        share_throttled(&share, now - dice(S), now);
        share_period(&share, now);
        wait_for(&share);
        now += dice(100 * MS);
    }
}

Test(share_union, an_account_from_the_future_heals)
{
    struct share share = fresh(5000);
    uint64_t later;

    kernel(&share, 100 * MS, 2 * MS);
    account.due = UINT64_MAX;
    cr_assert_eq(wait_for(&share), 2 * S);
    cr_assert_eq(account.repaired, 1);
    account.edge = UINT64_MAX;
    account.throttle_edge = UINT64_MAX;
    account.periods_until = UINT64_MAX;
    account.busy = account.throttled = account.nr_periods = 0;
    cr_assert_eq(share_claim(&share, now, now + 10 * MS, now + 10 * MS), 10 * MS);
    now += 10 * MS;
    cr_assert_eq(account.repaired, 2);
    cr_assert_eq(account.nr_periods, 1);
    share_throttled(&share, now - 1 * MS, now);
    cr_assert_eq(account.throttled, 1 * MS);
    cr_assert_eq(account.repaired, 3);
    account.edge = UINT64_MAX - 1;
    share_begin(&share, now, false);
    cr_assert_eq(account.edge, now);
    cr_assert_eq(account.repaired, 4);

    account.edge = UINT64_MAX;
    cr_assert_eq(share_claim(&share, now - 500 * S, now, now), SHARE_EDGE_SLACK,
                 "who has been busy for long does not pay again for all of it");
    account.repaired--;

    account.edge = later = now + SHARE_EDGE_SLACK;
    cr_assert_eq(share_claim(&share, now - 1 * MS, now, now), 0, "a caller that was held up believes it");
    cr_assert_eq(account.edge, later);
    cr_assert_eq(account.repaired, 4);
}

/* Whichever way the clock jumps: once max_stall is over the tenant has its share again. */
Test(share_union, a_clock_that_jumps_is_survived)
{
    for (int64_t jump = -(int64_t)(1000 * S); jump <= (int64_t)(1000 * S); jump += (int64_t)(1000 * S) / 16) {
        struct share share = fresh(2500);
        uint64_t busy = 0, began, old;

        for (unsigned i = 0; i < 200; i++) {
            pass(&share);
            kernel(&share, 5 * MS, 2 * MS);
        }
        old = now;
        now += (uint64_t)jump;
        share_claim(&share, old < now ? old : now - MS, now, now); /* as a claim that reaches over the jump would look */
        began = now;
        wait_for(&share);
        now = began + 4 * S;
        wait_for(&share);
        began = now;
        while (now < began + 10 * S) {
            wait_for(&share);
            busy += kernel(&share, 5 * MS, 2 * MS);
        }
        wait_for(&share);
        cr_assert_float_eq((double)busy / (double)(now - began), 0.25, 0.002, "%ld s: %f", (long)(jump / (int64_t)S),
                           (double)busy / (double)(now - began));
    }
}
