/* SPDX-License-Identifier: Apache-2.0 */
/* The balance of GPU time in virtual time: what one tenant gets for its share, what it is forgiven, and what is counted. */
#include "share_helper.h"

static const uint32_t rates[] = {1000, 2500, 5000, 7500, 9000};
static const uint64_t lengths[] = {20 * US, 100 * US, 333 * US, 1 * MS, 7 * MS, 20 * MS, 51 * MS, 100 * MS, 500 * MS};

#define EACH(i, array) (unsigned i = 0; i < sizeof(array) / sizeof((array)[0]); i++)

/* Kernels out of lengths[] whose bits are in `mix`, one after the other for `span`. Returns their time. */
static uint64_t saturate(struct share *share, uint64_t span, unsigned mix, uint64_t tick)
{
    uint64_t end = now + span, busy = 0;

    while (pass(share), now < end) {
        unsigned i;

        do
            i = (unsigned)dice(9);
        while (!(mix >> i & 1));
        cr_assert_eq(kernel(share, lengths[i], tick), lengths[i]);
        busy += lengths[i];
    }
    return busy;
}

static void expect_average(uint32_t rate, unsigned mix, uint64_t tick)
{
    struct share share = fresh(rate);
    uint64_t began, busy;

    share.max_stall = 10 * S;       /* nothing is forgiven */
    saturate(&share, S, mix, tick); /* the burst is used up */
    began = now;
    busy = saturate(&share, 10 * S, mix, tick);
    cr_assert_float_eq((double)busy / (double)(now - began), rate / 1e4, 0.001, "%u, kernels %#x: %f", rate, mix,
                       (double)busy / (double)(now - began));
    cr_assert_eq(account.forgiven, 0);
    cr_assert_eq(account.repaired, 0);
}

/* A kernel that is claimed only when it ends is the hardest: what it earned while it ran must not be lost. */
Test(share, who_always_has_work_gets_the_share)
{
    for
        EACH(i, rates)
    for (unsigned mix = 1; mix < 512; mix = mix & (mix - 1) ? mix + 31 : mix * 2)
        expect_average(rates[i], mix, dice(2) ? 10 * S : 2 * MS);
    for (unsigned i = 0; i < 60; i++) {
        uint32_t rate = 100 + (uint32_t)dice(9900);

        expect_average(rate, 1 + (unsigned)dice(127), 2 * MS);
    }
}

/* Roundings do not add up either: ten million claims of a prime number of ns. */
Test(share, tiny_claims_are_owed_exactly)
{
    struct share share = fresh(9000);
    uint64_t began = now;

    share.burst = 0;
    share.max_stall = UINT64_MAX;
    for (unsigned i = 0; i < 10000000; i++) {
        share_claim(&share, now, now + 7, now + 7);
        now += 7;
    }
    cr_assert_eq(account.busy, 70000000);
    cr_assert_leq(account.due - began, (70000000 * UINT64_C(10) + 8) / 9);
    cr_assert_geq(account.due - began + 1, 70000000 * UINT64_C(10) / 9);
}

/* How much of a kernel (from, until] lies in each window of 250 ms since the beginning, and in those half a window later. */
static uint64_t window[2][200];

static void note(uint64_t began, uint64_t from, uint64_t until)
{
    for (unsigned half = 0; half < 2; half++)
        for (uint64_t at = from; at < until;) {
            uint64_t w = (at - began + half * 125 * MS) / (250 * MS), end = began + (w + 1) * 250 * MS - half * 125 * MS;

            end = end < until ? end : until;
            window[half][w] += end - at;
            at = end;
        }
}

Test(share, each_window_of_250_ms_is_within_5_points)
{
    for
        EACH(i, rates)
    for (unsigned mix = 1; mix < 16; mix++) {
        struct share share = fresh(rates[i]);
        uint64_t began = now;

        memset(window, 0, sizeof(window));
        while (now < began + 10 * S) {
            uint64_t length = lengths[dice(4)], from;

            if (!(mix & 1 << (length > 20 * US) << (length > 100 * US) << (length > 333 * US)))
                continue;
            pass(&share);
            from = now;
            kernel(&share, length, 10 * S);
            note(began, from, now);
        }
        for (unsigned w = 1; w < 39; w++)
            for (unsigned half = 0; half < 2; half++)
                cr_assert_float_eq((double)window[half][w] / (250 * MS), rates[i] / 1e4, 0.05, "%u, kernels %#x, window %u.%u",
                                   rates[i], mix, w, half);
    }
}

Test(share, a_light_tenant_is_never_throttled)
{
    struct share share = fresh(5000);
    uint64_t began = now;

    for (unsigned i = 0; i < 1000; i++) {
        now = began + i * 40 * MS;
        share_begin(&share, now, false);
        for (unsigned k = 0; k < 8; k++) {
            cr_assert_eq(pass(&share), 0, "round %u, kernel %u", i, k);
            kernel(&share, MS, 10 * S);
        }
    }
    cr_assert_eq(account.busy, 8 * S);
    cr_assert_eq(account.throttled, 0);
    cr_assert_eq(account.nr_throttled, 0);
}

/* The burst is what an idle tenant may use at once, however long it was idle. */
Test(share, idle_time_earns_a_burst_and_no_more)
{
    for
        EACH(i, rates)
        {
            struct share share = fresh(rates[i]);
            uint64_t busy = 0;

            saturate(&share, S, 1, 10 * S);
            now += 1000 * S;
            while (!share_opens(&share, now)) {
                kernel(&share, 20 * US, 10 * S);
                busy += 20 * US;
            }
            /* burst = busy * (1 - rate): it earns while it runs */
            cr_assert_float_eq((double)busy, 8 * MS / (1 - rates[i] / 1e4), 40 * US, "%u: %lu", rates[i], (unsigned long)busy);
        }
}

/* 500 ms at 10 % are 5 s, of which 0.5 s passed when it ended: 2 s are waited for, 2.5 s of it are forgiven. */
Test(share, what_max_stall_cuts_is_forgiven_exactly)
{
    struct share share = fresh(1000);
    uint64_t began, before;

    pass(&share);
    kernel(&share, 500 * MS, 10 * S);
    cr_assert_eq(account.due, now + 2 * S);
    cr_assert_eq(account.forgiven, (5 * S - 500 * MS - 80 * MS - 2 * S) / 10, "the burst of 8 ms pays 80 ms: %lu",
                 (unsigned long)account.forgiven);
    pass(&share);
    before = account.forgiven;
    began = now;
    for (unsigned i = 0; i < 40; i++) {
        kernel(&share, 500 * MS, i % 2 ? 10 * S : 2 * MS);
        cr_assert_eq(pass(&share), 2 * S);
    }
    cr_assert_float_eq((double)(account.forgiven - before), 40 * 250. * MS, 40. * 250);
    cr_assert_float_eq((double)(20 * S - (account.forgiven - before)) / (double)(now - began), 0.1, 1e-6);
}

/* Each 100 ms of work are claimed whole; half of them were another tenant's slices. */
Test(share, what_others_had_is_earned_back)
{
    struct share share = fresh(5000);
    uint64_t began, busy;

    pass(&share);
    kernel(&share, 100 * MS, 10 * S);
    began = now;
    busy = account.busy;
    for (unsigned i = 0; i < 50; i++) {
        kernel(&share, 100 * MS, i % 2 ? 10 * S : 2 * MS);
        share_return(&share, 50 * MS);
        cr_assert_eq(account.busy - busy, (i + 1) * 50 * MS);
        pass(&share);
    }
    /* It works all the time, and owes nothing for that but what it did before. */
    cr_assert_leq(now - began, 5 * S + 100 * MS, "%.3f s", (double)(now - began) / S);
    share_return(&share, UINT64_MAX);
    cr_assert_eq(account.busy, 0);
    share.rate = SHARE_WHOLE;
    account.due = now;
    share_return(&share, 1);
    cr_assert_eq(account.due, now, "the whole owes nothing");
}

/* A kernel of 500 ms at 10 % that shared the GPU with somebody: the stall is as long as if it had been alone, and no more is forgiven. */
Test(share, what_others_had_is_not_forgiven_twice)
{
    struct share share = fresh(1000);
    uint64_t before;

    share.max_stall = 2 * S;
    now += S;
    cr_assert_eq(share_claim(&share, now - S, now, now), S);
    share_return(&share, 500 * MS);
    cr_assert_eq(account.busy, 500 * MS);
    cr_assert_eq(share_opens(&share, now), now + 2 * S);
    cr_assert_eq(account.forgiven, (5 * S - S - 80 * MS - 2 * S) / 10);

    /* Nothing of it is left to forgive where the own part is short. */
    share = (struct share){.account = &account, .rate = 1000, .max_stall = 2 * S};
    now += 2 * S;
    before = account.forgiven;
    now += S;
    share_claim(&share, now - S, now, now);
    share_return(&share, 950 * MS);
    cr_assert_eq(account.forgiven, before);
    cr_assert_eq(share_opens(&share, now), 0, "50 ms are earned while it waits for the others");
}

/* What is told beforehand is what a claim makes it: at any credit and debt, of work that begins and of work that goes on. */
static void expect_foretold(struct share *share, unsigned step)
{
    struct share_account before;
    uint64_t work = dice(step % 2 ? 10 * MS : 300 * MS), told, from;

    now += S;
    memset(&account, 0, sizeof(account));
    account.edge = now;
    account.due = now + dice(300 * MS) - 150 * MS;
    now += dice(3) ? 0 : dice(20 * MS);
    from = step % 3 ? now : account.edge;
    before = account;
    told = share_opens_after(share, from, work, now);
    cr_assert_eq(memcmp(&account, &before, sizeof(account)), 0, "nothing is charged by asking");
    cr_assert_leq(told, now + share->max_stall);
    share_claim(share, from, from + work, from + work);
    if (account.due > from + work && account.due > now && account.due < now + share->max_stall)
        cr_assert_lt(told > account.due ? told - account.due : account.due - told, 3, "%lu, but %lu", (unsigned long)told,
                     (unsigned long)account.due);
}

Test(share, it_is_known_when_it_opens_after_some_work)
{
    for
        EACH(i, rates)
        {
            struct share share = fresh(rates[i]);

            for (unsigned step = 0; step < 2000; step++)
                expect_foretold(&share, step);
        }
    struct share share = fresh(5000);
    cr_assert_eq(share_opens_after(&share, now, 8 * MS, now), 0, "what an idle tenant has");
    cr_assert_eq(share_opens_after(&share, now, 9 * MS, now), now + 2 * MS);
    cr_assert_eq(share_opens_after(&share, now, 100 * S, now), now + 2 * S);
    cr_assert_eq(share_opens_after(&share, now, UINT64_MAX, now), now + 2 * S);
    share.rate = SHARE_WHOLE;
    cr_assert_eq(share_opens_after(&share, now, 100 * S, now), 0);
}

Test(share, a_new_rate_holds_from_then_on)
{
    struct share share = fresh(1000);
    uint64_t due;

    saturate(&share, S, 1 << 3, 10 * S);
    kernel(&share, 10 * MS, 10 * S);
    due = share_opens(&share, now);
    share.rate = 5000;
    cr_assert_eq(share_opens(&share, now), due, "a debt is a time");
    pass(&share);
    kernel(&share, 20 * MS, 10 * S);
    cr_assert_leq(share_opens(&share, now), now + 20 * MS + 2);
    cr_assert_geq(share_opens(&share, now), now + 20 * MS - 2);
}

Test(share, the_whole_never_closes_and_is_counted)
{
    for (unsigned i = 0; i < 3; i++) {
        struct share share = fresh(i == 2 ? 2000 : SHARE_WHOLE + i);

        share.never_closes = i == 2;
        kernel(&share, 100 * S, 2 * MS);
        cr_assert_eq(share_opens(&share, now), 0);
        cr_assert_eq(account.busy, 100 * S);
        cr_assert_eq(account.forgiven, 0);
        share = (struct share){.account = &account, .max_stall = 2 * S, .rate = 5000};
        cr_assert_eq(share_opens(&share, now), 0, "nothing is owed from that time");
    }
}

Test(share, the_whole_opens_at_once)
{
    struct share share = fresh(1000);

    kernel(&share, 100 * MS, 10 * S);
    cr_assert_gt(share_opens(&share, now), now);
    share.rate = SHARE_WHOLE;
    cr_assert_eq(share_opens(&share, now), 0, "whatever was owed");
    share.rate = 1000;
    share.never_closes = true;
    cr_assert_eq(share_opens(&share, now), 0);
}

Test(share, no_rate_is_the_smallest)
{
    struct share share = fresh(0);

    share.burst = 0;
    kernel(&share, 100 * US, 10 * S);
    cr_assert_eq(share_opens(&share, now), now + S - 100 * US);
}

Test(share, no_stall_at_all_never_closes)
{
    struct share share = fresh(1000);

    share.max_stall = 0;
    kernel(&share, 10 * S, 10 * S);
    cr_assert_eq(share_opens(&share, now), 0);
    cr_assert_gt(account.forgiven, 8 * S);
}

Test(share, periods_are_counted_like_cpu_stat)
{
    struct share share = fresh(2500);

    now = 1000 * S;
    kernel(&share, 20 * MS, 10 * S); /* owes 80 ms, less the burst's 32 and 20: until 48 */
    cr_assert_eq(account.nr_periods, 1);
    share_period(&share, now + 79 * MS);
    cr_assert_eq(account.nr_periods, 1, "still the same one");
    cr_assert_eq(pass(&share), 28 * MS);
    cr_assert_eq(account.throttled, 28 * MS);
    cr_assert_eq(account.nr_throttled, 1);
    now = 1000 * S + 500 * MS;
    share_period(&share, now);
    cr_assert_eq(account.nr_periods, 2, "the idle ones do not count");
    kernel(&share, 250 * MS, 10 * S);
    cr_assert_eq(account.nr_periods, 4, "a long kernel is at work in each");
    pass(&share); /* from 750 until 500 + 4 * 250 - 32 = 1468 */
    cr_assert_eq(now, 1000 * S + 1468 * MS);
    cr_assert_eq(account.nr_throttled, 1 + 8, "700 to 1400");
    cr_assert_eq(account.nr_periods, 4 + 7);
    cr_assert_eq(account.throttled, (28 + 718) * MS);
    share_throttled(&share, now - 300 * MS, now - 10 * MS);
    cr_assert_eq(account.throttled, (28 + 718) * MS, "two that wait at once wait once");
    cr_assert_eq(account.nr_throttled, 9);
}

Test(share, a_period_that_was_waited_in_is_a_period)
{
    struct share share = fresh(2500);

    now = 1000 * S;
    share_period(&share, now);
    share_period(&share, now + 900 * MS);
    share_throttled(&share, now, now + 950 * MS);
    cr_assert_eq(account.nr_throttled, 10);
    cr_assert_eq(account.nr_periods, 10);
}

Test(share, another_period_goes_on_counting)
{
    struct share share = fresh(5000);

    now = 1000 * S;
    share_period(&share, now);
    share.period = 10 * MS;
    share_period(&share, now + 50 * MS);
    cr_assert_eq(account.nr_periods, 1, "counted already");
    share_period(&share, now + 105 * MS);
    cr_assert_eq(account.nr_periods, 2);
    share.period = 1 * S;
    share_period(&share, now + 900 * MS);
    share_period(&share, now + 1100 * MS);
    cr_assert_eq(account.nr_periods, 3);
    share.period = 0;
    share_claim(&share, now, now + 5 * S, now + 5 * S);
    cr_assert_eq(account.nr_periods, 3);
}

Test(share, counters_saturate)
{
    uint64_t counter = UINT64_MAX - 5;

    share_count(&counter, 3);
    cr_assert_eq(counter, UINT64_MAX - 2);
    share_count(&counter, 3);
    cr_assert_eq(counter, UINT64_MAX);
    share_count(&counter, 1);
    cr_assert_eq(share_read(&counter), UINT64_MAX);
}
