/* SPDX-License-Identifier: Apache-2.0 */
/* Turns when tenants die, stop, stall or lie: the others go on after two quanta at most, each gets its part, and who is at fault pays. */
// timeout: 300
#include <sys/mman.h>

#include "scratch.h"
#include "turns_internal.h"
#include "turns_sim.h"

/* What the turns of two others take, each a quantum, the mark that it is in, and one more to drain; and two quanta for a fault. */
#define NORMAL   (2 * (TURNS_QUANTUM + 2 * SIM_MS))
#define PATIENCE (NORMAL + 2 * TURNS_QUANTUM + TURNS_GRACE)

static uint64_t random_state = 88172645463325252;

static void setup(void)
{
    scratch_make();
    sim_begin(scratch);
}

static void teardown(void)
{
    sim_end();
    scratch_remove();
}

TestSuite(turns_faults, .init = setup, .fini = teardown, .timeout = 300);

static uint64_t random_below(uint64_t end)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % end;
}

/* The process is gone: its mapping with it, and so its lock. */
static void kill_tenant(unsigned index)
{
    struct turns_room *room = sim[index].turns.room;

    munmap(room->own, TURNS_FILE_SIZE);
    munmap(room->windows, (size_t)TURNS_PEERS * TURNS_WINDOW);
    munmap(room, sizeof(*room));
    memset(&sim[index].turns, 0, sizeof(sim[index].turns));
    sim[index].state = SIM_OFF;
}

static void run_until_it_holds(unsigned index)
{
    for (unsigned i = 0; sim[index].state != SIM_RUNS; i++) {
        cr_assert(i < 100000, "it never holds");
        sim_step();
    }
}

/* Now that tenant `index` is out of the way: who waits is let in soon, and the two others have half each. */
static void others_go_on(unsigned index)
{
    sim_measure();
    sim_run(2 * SIM_S);
    for (unsigned i = 0; i < 3; i++) {
        if (i == index)
            continue;
        cr_expect(sim[i].longest_wait <= PATIENCE, "tenant %u waited %llu ns", i, (unsigned long long)sim[i].longest_wait);
        cr_expect(sim[i].gpu > 0.96 * SIM_S, "tenant %u had %llu ns of 2 s", i, (unsigned long long)sim[i].gpu);
    }
}

static void three(void)
{
    for (unsigned i = 0; i < 3; i++)
        sim_join(i, 100);
    sim_run(100 * SIM_MS);
}

Test(turns_faults, a_dead_holder_is_passed)
{
    three();
    run_until_it_holds(1);
    kill_tenant(1);
    others_go_on(1);
}

Test(turns_faults, a_dead_waiter_is_passed)
{
    three();
    run_until_it_holds(1);
    kill_tenant(2);
    others_go_on(2);
}

Test(turns_faults, the_file_of_the_dead_is_collected)
{
    three();
    run_until_it_holds(1);
    kill_tenant(1);
    cr_assert_eq(access(scratch_path("turns/tenant-1.turns"), F_OK), 0);
    sim_run(2 * SIM_S);
    cr_assert_neq(access(scratch_path("turns/tenant-1.turns"), F_OK), 0);
    cr_assert_eq(access(scratch_path("turns/tenant-0.turns"), F_OK), 0);
}

Test(turns_faults, a_stopped_holder_is_passed_and_finds_out)
{
    struct turns_counts counts;

    three();
    run_until_it_holds(1);
    sim[1].stopped_until = sim_now + 2 * SIM_S;
    others_go_on(1);
    sim_run(200 * SIM_MS);
    turns_counts(&sim[1].turns, 0, &counts);
    cr_expect_eq(counts.lost, 1, "%llu lost", (unsigned long long)counts.lost);
    sim_measure();
    sim_run(SIM_S);
    for (unsigned i = 0; i < 3; i++)
        cr_expect(sim[i].gpu > 0.3 * SIM_S, "tenant %u has %llu ns of 1 s", i, (unsigned long long)sim[i].gpu);
    cr_expect_eq(sim_overlap, 0);
}

Test(turns_faults, a_stopped_waiter_is_passed)
{
    three();
    run_until_it_holds(1);
    sim[2].stopped_until = sim_now + 2 * SIM_S;
    others_go_on(2);
}

Test(turns_faults, a_stalled_holder_is_passed)
{
    three();
    run_until_it_holds(1);
    sim[1].kept = true;
    others_go_on(1);
}

/* ---- work that takes longer than a turn can be kept */

static void a_long_kernel_loses_its_turn(void)
{
    struct turns_demand demand;
    bool second;

    for (unsigned i = 0; i < 2; i++)
        sim_join(i, 100);
    sim_now += SIM_S;
    for (unsigned i = 0; i < 2; i++)
        turns_look(&sim[i].turns, sim_now);
    cr_assert(turns_ask(&sim[0].turns, 1, sim_now).mine);
    do {
        sim_now += 2 * SIM_MS;
        cr_assert(sim_now < 1002 * SIM_S, "nobody else is let in");
        second = turns_ask(&sim[1].turns, 1, sim_now).mine;
        demand = turns_demand(&sim[0].turns, 1, sim_now);
    } while (!demand.lost || !second);
}

/* Both know of the other as long as that has work on the GPU, and no longer: also where it ends without a word. */
Test(turns_faults, who_lost_a_turn_and_its_neighbour_know_that_they_are_two)
{
    struct turns_demand demand;

    a_long_kernel_loses_its_turn();
    for (unsigned i = 0; i < 20; i++) {
        demand = turns_demand(&sim[0].turns, 1, sim_now);
        cr_assert(demand.lost && demand.must_go);
        cr_assert_eq(turns_crowd(&sim[0].turns, 0), 1);
        turns_demand(&sim[1].turns, 1, sim_now);
        cr_assert_eq(turns_crowd(&sim[1].turns, 0), 1);
        sim_now += 2 * SIM_MS;
    }
    turns_release(&sim[0].turns, 1, sim_now, 0);
    turns_demand(&sim[1].turns, 1, sim_now);
    cr_assert_eq(turns_crowd(&sim[1].turns, 0), 0, "its work is done");
}

Test(turns_faults, who_lost_a_turn_and_stops_is_not_counted_for_long)
{
    a_long_kernel_loses_its_turn();
    turns_demand(&sim[0].turns, 1, sim_now);
    for (unsigned i = 0; i < 6; i++) {
        sim_now += 2 * SIM_MS;
        turns_demand(&sim[1].turns, 1, sim_now);
    }
    cr_assert_eq(turns_crowd(&sim[1].turns, 0), 0);
}

/* ---- entries that lie */

enum lie {
    LIE_HOLDS,
    LIE_REFRESHES,
    LIE_FLAPS,
    LIE_NO_RANK,
    LIE_RANK_BACK,
    LIE_FUTURE,
    LIE_PAST,
    LIE_RANDOM,
    LIE_ZERO,
    LIE_WANTS,
    LIES
};

static void lie(unsigned index, enum lie what)
{
    struct turns_device *entry = sim[index].turns.room->mine[0].entry;
    uint64_t at = sim_now;

    switch (what) {
    case LIE_HOLDS:
        turns_store(&entry->hold, TURNS_WORD_HOLD, turns_moment(1000 * SIM_S, TURNS_HELD));
        break;
    case LIE_FLAPS:
        turns_store(&entry->rank, TURNS_WORD_RANK, turns_load(&sim[0].turns.room->mine[0].entry->rank, TURNS_WORD_RANK) - 100000);
        turns_store(&entry->hold, TURNS_WORD_HOLD, turns_moment(at, sim_now / SIM_STEP % 3 ? TURNS_HELD : TURNS_FREE));
        turns_store(&entry->want, TURNS_WORD_WANT, turns_moment(at, 0));
        break;
    case LIE_REFRESHES:
        turns_store(&entry->hold, TURNS_WORD_HOLD, turns_moment(at, TURNS_HELD));
        turns_store(&entry->want, TURNS_WORD_WANT, turns_moment(at, 0));
        break;
    case LIE_NO_RANK:
        turns_store(&entry->rank, TURNS_WORD_RANK, 0);
        break;
    case LIE_RANK_BACK:
        turns_store(&entry->rank, TURNS_WORD_RANK, turns_load(&sim[0].turns.room->mine[0].entry->rank, TURNS_WORD_RANK) - 1000000);
        break;
    case LIE_FUTURE:
        turns_store(&entry->hold, TURNS_WORD_HOLD, turns_moment(at + 3600 * SIM_S, TURNS_HELD));
        turns_store(&entry->want, TURNS_WORD_WANT, turns_moment(at + 3600 * SIM_S, 0));
        turns_store(&entry->since, TURNS_WORD_SINCE, turns_moment(at + 3600 * SIM_S, 0));
        break;
    case LIE_PAST:
        turns_store(&entry->hold, TURNS_WORD_HOLD, turns_moment(at - 900 * SIM_S, TURNS_HELD));
        turns_store(&entry->want, TURNS_WORD_WANT, turns_moment(at - 900 * SIM_S, 0));
        break;
    case LIE_RANDOM:
        ((uint64_t *)&entry->hold)[random_below(7)] = random_state;
        ((uint64_t *)&entry->hold)[random_below(7)] = turns_word(1 + random_below(6), random_state * 31);
        break;
    case LIE_ZERO:
        memset(&entry->hold, 0, 64);
        break;
    default: /* wants, first of all, and never comes */
        turns_store(&entry->rank, TURNS_WORD_RANK, turns_load(&sim[0].turns.room->mine[0].entry->rank, TURNS_WORD_RANK) - 100000);
        turns_store(&entry->hold, TURNS_WORD_HOLD, turns_moment(at, TURNS_FREE));
        turns_store(&entry->want, TURNS_WORD_WANT, turns_moment(at, 0));
        break;
    }
}

/* Its author runs nothing, but lies all the time: what the two others lose, and how long they wait. */
static void one_lies(enum lie what, double least, bool reported)
{
    struct turns_counts counts;
    char line[256] = "";

    for (unsigned i = 0; i < 3; i++)
        sim_join(i, 100);
    sim[2].state = SIM_OFF;
    sim_run(100 * SIM_MS);
    sim_measure();
    for (uint64_t end = sim_now + 2 * SIM_S; sim_now < end;) {
        sim_step();
        lie(2, what);
    }
    turns_counts(&sim[0].turns, 0, &counts);
    printf("lie %d: %.1f %% %.1f %%, waits %.2f %.2f ms, overlap %.2f %%\n", what, (double)sim[0].gpu / 2e7,
           (double)sim[1].gpu / 2e7, (double)sim[0].longest_wait / 1e6, (double)sim[1].longest_wait / 1e6,
           (double)sim_overlap / 2e7);
    for (unsigned i = 0; i < 2; i++) {
        /* One that comes from idling has its credit before it is at fault. */
        cr_expect(sim[i].longest_wait <= PATIENCE + TURNS_CREDIT / 2, "lie %d: tenant %u waited %llu ns", what, i,
                  (unsigned long long)sim[i].longest_wait);
        cr_expect((double)sim[i].gpu > least * SIM_S, "lie %d: tenant %u had %llu ns of 2 s", what, i,
                  (unsigned long long)sim[i].gpu);
    }
    cr_expect(!reported || counts.ignored == 1);
    cr_expect(turns_report(&sim[0].turns, line, sizeof(line), NULL) == (counts.ignored > 0));
    if (reported)
        printf("%s\n", line);
    for (unsigned i = 0; i < TURNS_NOTES; i++)
        turns_report(&sim[0].turns, line, sizeof(line), NULL);
    for (unsigned i = 0; i < 5000; i++) {
        sim_step();
        lie(2, what);
    }
    cr_expect(!turns_report(&sim[0].turns, line, sizeof(line), NULL), "reported again: %s", line);
}

#define LIE_TEST(name, what, least, reported)                                                                                      \
    Test(turns_faults, name)                                                                                                       \
    {                                                                                                                              \
        one_lies(what, least, reported);                                                                                           \
    }
LIE_TEST(holds_for_ever, LIE_HOLDS, 0.97, true)
LIE_TEST(holds_anew_all_the_time, LIE_REFRESHES, 0.95, true)
LIE_TEST(takes_every_turn, LIE_FLAPS, 0.5, false)
LIE_TEST(says_no_rank, LIE_NO_RANK, 0.97, false)
LIE_TEST(rank_goes_back, LIE_RANK_BACK, 0.97, false)
LIE_TEST(holds_in_the_future, LIE_FUTURE, 0.97, true)
LIE_TEST(holds_in_the_past, LIE_PAST, 0.97, false)
LIE_TEST(writes_anything, LIE_RANDOM, 0.9, true)
LIE_TEST(is_zeroed, LIE_ZERO, 0.97, false)
LIE_TEST(wants_and_never_comes, LIE_WANTS, 0.7, false)

/* Between reading the clock and reading the peers one may be stopped for long: what they did meanwhile is no lie. */
Test(turns_faults, who_was_held_up_accuses_nobody)
{
    struct turns_counts counts;
    char line[256] = "";

    for (unsigned i = 0; i < 3; i++)
        sim_join(i, 100);
    sim[0].state = SIM_OFF; /* it does only what follows */
    for (unsigned i = 0; i < 100; i++) {
        uint64_t before = sim_now;

        sim_run((60 + i) * SIM_MS);
        turns_ask(&sim[0].turns, 1, before + 1);
        turns_ask(&sim[0].turns, 1, sim_now);
        turns_release(&sim[0].turns, 1, sim_now, 0);
    }
    turns_counts(&sim[0].turns, 0, &counts);
    cr_expect_eq(counts.ignored, 0);
    while (turns_report(&sim[0].turns, line, sizeof(line), NULL))
        cr_expect(!strstr(line, "absurd"), "%s", line);
}

/* It takes part, and says that it used nothing. */
Test(turns_faults, who_hides_what_it_uses_gains_little)
{
    for (unsigned i = 0; i < 3; i++)
        sim_join(i, 100);
    sim_run(100 * SIM_MS);
    sim_measure();
    for (uint64_t end = sim_now + 5 * SIM_S; sim_now < end;) {
        sim_step();
        turns_store(&sim[2].turns.room->mine[0].entry->rank, TURNS_WORD_RANK, 1);
    }
    printf("%.1f %.1f %.1f %%\n", (double)sim[0].gpu / 5e7, (double)sim[1].gpu / 5e7, (double)sim[2].gpu / 5e7);
    cr_expect(sim[0].gpu > 0.28 * 5e9 && sim[1].gpu > 0.28 * 5e9);
}

/* A clock that is an hour ahead for a while, and one that is behind. */
static void jumps(int64_t by)
{
    three();
    sim_measure();
    for (uint64_t end = sim_now + 2 * SIM_S; sim_now < end;) {
        uint64_t true_now;

        sim_step();
        if (sim_now / SIM_MS % 200)
            continue;
        true_now = sim_now;
        sim_now += (uint64_t)by;
        turns_ask(&sim[2].turns, 1, sim_now);
        turns_demand(&sim[2].turns, 1, sim_now);
        sim_now = true_now;
    }
    for (unsigned i = 0; i < 2; i++) {
        printf("jump %lld: %.1f %%, waits %.2f ms\n", (long long)by, (double)sim[i].gpu / 2e7, (double)sim[i].longest_wait / 1e6);
        cr_expect(sim[i].longest_wait <= PATIENCE, "%llu ns", (unsigned long long)sim[i].longest_wait);
        cr_expect(sim[i].gpu > 0.3 * 2e9, "%llu ns of 2 s", (unsigned long long)sim[i].gpu);
    }
}

Test(turns_faults, a_clock_jumps_ahead)
{
    jumps((int64_t)(3600 * SIM_S));
}

Test(turns_faults, a_clock_jumps_back)
{
    jumps(-(int64_t)(600 * SIM_S));
}

/* 100,000 turns of four tenants, of which some are killed, stopped, stalled or scribbled over all the time. */
Test(turns_faults, a_hundred_thousand_turns)
{
    uint64_t turns = 0, faults = 0, last[4] = {0}, until[4] = {0}, worst = 0;
    struct turns_counts counts;

    for (unsigned i = 0; i < 4; i++)
        sim_join(i, 100)->mark = 200 * SIM_US;
    while (turns < 100000) {
        for (unsigned step = 0; step < 500; step++)
            sim_step();
        for (unsigned i = 0; i < 4; i++) {
            turns_counts(&sim[i].turns, 0, &counts);
            turns += counts.taken > last[i] ? counts.taken - last[i] : 0;
            last[i] = counts.taken;
            if (sim[i].longest_wait > worst && i < 2)
                worst = sim[i].longest_wait;
            if (i < 2 || sim_now < until[i])
                continue;
            sim[i].kept = false;
            if (sim[i].state == SIM_OFF)
                sim_join(i, 100)->mark = 200 * SIM_US, last[i] = 0;
            if (random_below(3))
                continue;
            faults++;
            until[i] = sim_now + random_below(50 * SIM_MS);
            switch (random_below(4)) {
            case 0:
                kill_tenant(i);
                last[i] = 0;
                break;
            case 1:
                sim[i].stopped_until = until[i];
                break;
            case 2:
                sim[i].kept = true;
                break;
            default:
                lie(i, (enum lie)random_below(LIES));
            }
        }
    }
    printf("%llu turns, %llu faults, %.0f s: overlap %.2f %%, busy %.2f %%, longest wait %.2f ms, %.1f %.1f %.1f %.1f %%\n",
           (unsigned long long)turns, (unsigned long long)faults, (double)(sim_now - 1000 * SIM_S) / 1e9,
           100 * (double)sim_overlap / (double)(sim_now - 1000 * SIM_S), 100 * (double)sim_busy / (double)(sim_now - 1000 * SIM_S),
           (double)worst / 1e6, 100 * (double)sim[0].gpu / (double)(sim_now - 1000 * SIM_S),
           100 * (double)sim[1].gpu / (double)(sim_now - 1000 * SIM_S), 100 * (double)sim[2].gpu / (double)(sim_now - 1000 * SIM_S),
           100 * (double)sim[3].gpu / (double)(sim_now - 1000 * SIM_S));
    cr_expect((double)sim_overlap < 0.05 * (double)(sim_now - 1000 * SIM_S));
    cr_expect(sim[0].gpu > 0.25 * (double)(sim_now - 1000 * SIM_S) && sim[1].gpu > 0.25 * (double)(sim_now - 1000 * SIM_S));
    /* Many faults fall into one wait, and who had more than others while those were out of order lets them have as much. */
    cr_expect(worst <= 250 * SIM_MS, "waited %llu ns", (unsigned long long)worst);
}
