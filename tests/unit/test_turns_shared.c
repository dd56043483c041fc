/* SPDX-License-Identifier: Apache-2.0 */
/* Turns of tenants with several GPUs, of several processes of one tenant, and of kernels that outlast a turn. */
#include "scratch.h"
#include "turns_internal.h"
#include "turns_sim.h"

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

TestSuite(turns_shared, .init = setup, .fini = teardown, .timeout = 120);

static double percent(uint64_t part, uint64_t of)
{
    return 100.0 * (double)part / (double)of;
}

static void print(unsigned tenants, uint64_t ns)
{
    for (unsigned i = 0; i < tenants; i++)
        printf("%u: %.2f %%, longest wait %.2f ms, lost %u\n", i, percent(sim[i].gpu, ns), (double)sim[i].longest_wait / 1e6,
               sim[i].lost);
    printf("overlap on the first GPU %.2f %%\n", percent(sim_overlap, ns));
}

/* ---- several GPUs */

/* One that needs both, beside one on each. */
Test(turns_shared, both_or_none)
{
    sim_devices = 2;
    for (unsigned i = 0; i < 3; i++)
        sim_join(i, 100);
    sim[0].devices = 3;
    sim[1].devices = 1;
    sim[2].devices = 2;
    sim_run(200 * SIM_MS);
    sim_measure();
    sim_run(5 * SIM_S);
    print(3, 5 * SIM_S);
    cr_expect_eq(sim_overlap, 0);
    cr_expect(sim[0].gpu > 1.9 * SIM_S, "both: %.3f s of 5", (double)sim[0].gpu / 1e9);
    cr_expect(sim[1].gpu > 1.9 * SIM_S && sim[2].gpu > 1.9 * SIM_S, "one: %.3f %.3f s", (double)sim[1].gpu / 1e9,
              (double)sim[2].gpu / 1e9);
}

/* Four GPUs whose tenants overlap in a ring, each naming its own first: nobody waits for ever. */
Test(turns_shared, a_ring_does_not_lock)
{
    sim_devices = 4;
    for (unsigned i = 0; i < 4; i++) {
        sim_join(i, 100);
        sim[i].devices = UINT64_C(1) << i | UINT64_C(1) << (i + 1) % 4;
    }
    sim_run(200 * SIM_MS);
    sim_measure();
    sim_run(5 * SIM_S);
    print(4, 5 * SIM_S);
    for (unsigned i = 0; i < 4; i++) {
        cr_expect(sim[i].gpu > 1.6 * SIM_S, "tenant %u: %.3f s of 5", i, (double)sim[i].gpu / 1e9);
        cr_expect(sim[i].longest_wait < 60 * SIM_MS, "tenant %u waited %llu ns", i, (unsigned long long)sim[i].longest_wait);
    }
}

Test(turns_shared, two_that_need_both)
{
    sim_devices = 2;
    for (unsigned i = 0; i < 2; i++)
        sim_join(i, 100)->devices = 3;
    sim_run(200 * SIM_MS);
    sim_measure();
    sim_run(5 * SIM_S);
    print(2, 5 * SIM_S);
    for (unsigned i = 0; i < 2; i++)
        cr_expect(sim[i].gpu > 2.4 * SIM_S, "tenant %u: %.3f s of 5", i, (double)sim[i].gpu / 1e9);
    cr_expect_eq(sim_overlap, 0);
}

static unsigned state_of(unsigned index, unsigned device)
{
    return turns_load(&sim[index].turns.room->mine[device].entry->hold, TURNS_WORD_HOLD) & 3;
}

/* Who cannot have the one does not take the other. */
Test(turns_shared, none_is_taken_without_the_other)
{
    sim_devices = 2;
    sim_join(0, 100);
    sim_join(1, 100);
    sim_now += 10 * SIM_MS;
    turns_look(&sim[0].turns, sim_now);
    cr_assert(turns_ask(&sim[1].turns, 2, sim_now).mine);
    cr_assert(!turns_ask(&sim[0].turns, 3, sim_now).mine);
    cr_assert_eq(state_of(0, 0), TURNS_FREE, "it took the one that is free");
    turns_release(&sim[1].turns, 2, sim_now, 0);
    cr_assert(turns_ask(&sim[0].turns, 3, sim_now).mine);
}

/* Three tenants that see each other. The first one is ahead of the others, by too little to be let in before their time is over. */
static void three_on_two(void)
{
    sim_devices = 2;
    for (unsigned i = 0; i < 3; i++)
        sim_join(i, 100);
    sim_now += 10 * SIM_MS;
    for (unsigned i = 0; i < 3; i++) {
        turns_look(&sim[i].turns, sim_now);
        for (unsigned device = 0; device < 2; device++)
            turns_store(&sim[i].turns.room->mine[device].entry->rank, TURNS_WORD_RANK,
                        turns_rank_of((i ? 201 : 200) * SIM_MS, 100));
    }
}

static uint64_t want_of(unsigned index, unsigned device)
{
    return turns_load(&sim[index].turns.room->mine[device].entry->want, TURNS_WORD_WANT);
}

/* One device becomes free in a quantum, by the rules; who has the other one goes on until then, and has to go at once then. */
Test(turns_shared, the_other_device_is_not_asked_for_too_soon)
{
    uint64_t hold;

    three_on_two();
    cr_assert(turns_ask(&sim[2].turns, 2, sim_now).mine);
    cr_assert(!turns_ask(&sim[0].turns, 3, sim_now).mine);
    cr_expect(want_of(0, 0) & TURNS_PATIENT, "it takes what is free and cannot use it");
    cr_expect(!(want_of(0, 1) & TURNS_PATIENT));
    sim_now += 3 * SIM_MS;
    cr_assert(turns_ask(&sim[1].turns, 1, sim_now).mine);
    cr_assert(!turns_ask(&sim[0].turns, 3, sim_now).mine);
    hold = turns_load(&sim[2].turns.room->mine[1].entry->hold, TURNS_WORD_HOLD);
    cr_expect(!(want_of(0, 0) & TURNS_PATIENT), "it does not press for the one that takes longest");
    cr_expect(want_of(0, 1) & TURNS_PATIENT);
    cr_expect(!turns_demand(&sim[2].turns, 2, sim_now).wanted);
    for (unsigned i = 0; i < TURNS_QUANTUM / SIM_MS - 1; i++) {
        sim_now += SIM_MS;
        cr_expect(!turns_ask(&sim[0].turns, 3, sim_now).mine);
        cr_expect(!turns_demand(&sim[2].turns, 2, sim_now).must_go, "%u ms", i);
    }
    cr_expect_eq(turns_load(&sim[2].turns.room->mine[1].entry->hold, TURNS_WORD_HOLD), hold,
                 "a turn that is waited for begins anew");
    sim_now += SIM_MS;
    cr_expect(!turns_ask(&sim[0].turns, 3, sim_now).mine);
    cr_expect(!(want_of(0, 1) & TURNS_PATIENT));
    cr_expect(turns_demand(&sim[2].turns, 2, sim_now).must_go, "what has long lasted is to end at once");
    turns_release(&sim[2].turns, 2, sim_now, 0);
    turns_release(&sim[1].turns, 1, sim_now, 0);
    cr_expect(turns_ask(&sim[0].turns, 3, sim_now).mine);
}

static struct turns_track *track_of(unsigned index, unsigned peer, unsigned device)
{
    struct turns_room *room = sim[index].turns.room;
    char name[16];

    snprintf(name, sizeof(name), "tenant-%u", peer);
    for (unsigned i = 0; i < TURNS_PEERS; i++)
        if (room->peer[i].present && strcmp(room->peer[i].name, name) == 0)
            return &room->peer[i].track[device];
    cr_assert(false, "no %s", name);
    return NULL;
}

/* Each is pressed for as long before all are expected as its holder takes to let go; one that does so sooner than that is taken. */
Test(turns_shared, what_comes_early_is_taken)
{
    three_on_two();
    cr_assert(turns_ask(&sim[1].turns, 1, sim_now).mine);
    cr_assert(turns_ask(&sim[2].turns, 2, sim_now).mine);
    track_of(0, 1, 0)->drain = 3 * SIM_MS;
    track_of(0, 2, 1)->drain = 2 * SIM_MS;
    cr_assert(!turns_ask(&sim[0].turns, 3, sim_now).mine);
    cr_expect(want_of(0, 1) & TURNS_PATIENT);
    sim_now += TURNS_QUANTUM + SIM_MS / 2;
    cr_assert(!turns_ask(&sim[0].turns, 3, sim_now).mine);
    cr_expect(want_of(0, 1) & TURNS_PATIENT, "pressed for too soon");
    sim_now += SIM_MS / 2;
    cr_assert(!turns_ask(&sim[0].turns, 3, sim_now).mine);
    cr_expect(!(want_of(0, 1) & TURNS_PATIENT), "not pressed for in time");
    turns_release(&sim[2].turns, 2, sim_now, 0);
    cr_assert(!turns_ask(&sim[0].turns, 3, sim_now).mine);
    cr_expect_geq(state_of(0, 1), TURNS_HELD, "left to others");
    turns_release(&sim[1].turns, 1, sim_now, 0);
    cr_expect(turns_ask(&sim[0].turns, 3, sim_now).mine);
}

static void expect_no_report(unsigned index)
{
    char line[256];

    cr_expect(!turns_report(&sim[index].turns, line, sizeof(line), NULL), "tenant %u: %s", index, line);
}

/* Beside tenants who take so different times to let go, nobody holds a GPU in vain for long, and nobody is accused. */
static void beside(uint64_t mark, unsigned depth, uint64_t other_mark, unsigned other_depth)
{
    sim_devices = 2;
    for (unsigned i = 0; i < 3; i++)
        sim_join(i, 100)->tick = SIM_MS;
    sim[0].devices = 3;
    sim[1].devices = 1;
    sim[1].mark = mark;
    sim[1].depth = depth;
    sim[2].devices = 2;
    sim[2].mark = other_mark;
    sim[2].depth = other_depth;
    sim_run(500 * SIM_MS);
    sim_measure();
    sim_run(5 * SIM_S);
    print(3, 5 * SIM_S);
    cr_expect_eq(sim_overlap, 0);
    for (unsigned i = 0; i < 3; i++) {
        cr_expect(sim[i].gpu > 2 * SIM_S, "tenant %u: %.3f s of 5", i, (double)sim[i].gpu / 1e9);
        cr_expect(sim[i].lost == 0, "tenant %u lost %u", i, sim[i].lost);
        expect_no_report(i);
    }
}

Test(turns_shared, both_beside_short_marks_and_long_ones)
{
    beside(300 * SIM_US, 1, 2500 * SIM_US, 1);
}

Test(turns_shared, both_beside_few_marks_and_many)
{
    beside(SIM_MS, 4, SIM_MS, 0);
}

/* Holds the first device, and never lets go. */
static void goes_on(unsigned index, uint64_t ns)
{
    for (uint64_t until = sim_now + ns; sim_now < until;) {
        sim_now += SIM_MS;
        turns_demand(&sim[index].turns, 1, sim_now);
    }
}

/* The second one holds the first device for longer than its time: the first one has the other device, and waits. */
static void the_first_has_a_part(void)
{
    cr_assert(turns_ask(&sim[1].turns, 1, sim_now).mine);
    cr_assert(!turns_ask(&sim[0].turns, 3, sim_now).mine);
    goes_on(1, TURNS_QUANTUM);
    cr_assert(!turns_ask(&sim[0].turns, 3, sim_now).mine);
    cr_assert_geq(state_of(0, 1), TURNS_HELD);
}

/* What is had in vain is not kept from others for longer than a quantum, and half of one where the rest is about to come. */
Test(turns_shared, a_part_is_given_back)
{
    three_on_two();
    cr_assert(turns_ask(&sim[1].turns, 1, sim_now).mine);
    cr_assert(!turns_ask(&sim[0].turns, 3, sim_now).mine);
    cr_assert_eq(state_of(0, 1), TURNS_FREE, "it takes what it cannot use for as long as the other one has its turn");
    goes_on(1, TURNS_QUANTUM); /* and says then that it drains */
    cr_assert(!turns_ask(&sim[0].turns, 3, sim_now).mine);
    cr_assert_geq(state_of(0, 1), TURNS_HELD);
    cr_assert(!turns_ask(&sim[2].turns, 2, sim_now).mine);
    goes_on(1, TURNS_QUANTUM);
    cr_assert(!turns_ask(&sim[0].turns, 3, sim_now).mine);
    cr_assert_geq(state_of(0, 1), TURNS_HELD, "it gives back what it will be able to use");
    goes_on(1, TURNS_QUANTUM / 2 + SIM_MS);
    cr_assert(!turns_ask(&sim[0].turns, 3, sim_now).mine);
    cr_assert_eq(state_of(0, 1), TURNS_FREE, "it keeps what it cannot use");
    turns_ask(&sim[2].turns, 2, sim_now);
    sim_now += TURNS_GRACE + SIM_MS / 10;
    cr_assert(turns_ask(&sim[2].turns, 2, sim_now).mine);
}

/* The first device goes to somebody else meanwhile: the part is not forgotten over that, and says at each ask that it is one. */
Test(turns_shared, a_part_is_given_back_when_another_comes_between)
{
    three_on_two();
    turns_store(&sim[2].turns.room->mine[0].entry->rank, TURNS_WORD_RANK, turns_rank_of(180 * SIM_MS, 100));
    the_first_has_a_part();
    for (unsigned i = 0; i < 2; i++) {
        goes_on(1, SIM_MS);
        cr_assert(!turns_ask(&sim[0].turns, 3, sim_now).mine);
        cr_expect_eq(want_of(0, 1) & 3, TURNS_DRAINING | TURNS_PATIENT, "ask %u: it does not say that it waits for others", i);
    }
    turns_ask(&sim[2].turns, 1, sim_now);
    turns_release(&sim[1].turns, 1, sim_now, 0);
    cr_assert(turns_ask(&sim[2].turns, 1, sim_now).mine);
    for (unsigned i = 0; i < 3; i++) {
        goes_on(2, SIM_MS);
        cr_assert(!turns_ask(&sim[0].turns, 3, sim_now).mine);
    }
    cr_expect_eq(state_of(0, 1), TURNS_FREE, "it keeps what it cannot use");
}

/* A part and the turn that it becomes are not one that lasts too long. */
Test(turns_shared, a_part_is_not_held_against_the_turn)
{
    three_on_two();
    turns_store(&sim[2].turns.room->mine[1].entry->rank, TURNS_WORD_RANK, turns_rank_of(199 * SIM_MS, 100));
    the_first_has_a_part();
    for (unsigned i = 0; i < TURNS_QUANTUM / SIM_MS + 1; i++) {
        cr_assert(!turns_ask(&sim[2].turns, 2, sim_now).mine);
        goes_on(1, SIM_MS);
        cr_assert(!turns_ask(&sim[0].turns, 3, sim_now).mine);
    }
    turns_release(&sim[1].turns, 1, sim_now, 0);
    cr_assert(turns_ask(&sim[0].turns, 3, sim_now).mine);
    for (unsigned i = 0; i < TURNS_QUANTUM / SIM_MS + 2; i++) {
        cr_expect(!turns_ask(&sim[2].turns, 2, sim_now).mine, "%u ms", i);
        sim_now += SIM_MS;
        turns_demand(&sim[0].turns, 3, sim_now);
    }
    expect_no_report(2);
}

/* Who has a device that is waited for patiently pays for what it uses of it, however long that takes. */
Test(turns_shared, nobody_lies_to_the_patient)
{
    three_on_two();
    turns_store(&sim[2].turns.room->mine[1].entry->rank, TURNS_WORD_RANK, turns_rank_of(150 * SIM_MS, 100));
    cr_assert(turns_ask(&sim[2].turns, 2, sim_now).mine);
    cr_assert(turns_ask(&sim[1].turns, 1, sim_now).mine);
    for (unsigned i = 0; i < 20; i++) {
        cr_assert(!turns_ask(&sim[0].turns, 3, sim_now).mine);
        cr_assert_eq(want_of(0, 0) & 3, TURNS_PATIENT, "%u ms", i);
        goes_on(1, SIM_MS);
        turns_demand(&sim[2].turns, 2, sim_now);
    }
    turns_release(&sim[1].turns, 1, sim_now, SIM_MS);
    cr_assert(!turns_ask(&sim[0].turns, 3, sim_now).mine);
    expect_no_report(0);
}

/* ---- several processes */

/* Two processes of one tenant beside one of another: together they have the half that is their tenant's, at once. */
Test(turns_shared, processes_of_a_tenant_go_together)
{
    sim_tenant_of = (const unsigned[]){0, 0, 1};
    for (unsigned i = 0; i < 3; i++)
        sim_join(i, 100);
    sim_run(200 * SIM_MS);
    sim_measure();
    sim_run(5 * SIM_S);
    print(3, 5 * SIM_S);
    cr_expect(sim[2].gpu > 0.46 * 5e9 && sim[2].gpu < 0.54 * 5e9, "%.2f %%", percent(sim[2].gpu, 5 * SIM_S));
    cr_expect(sim[0].gpu > 0.2 * 5e9 && sim[1].gpu > 0.2 * 5e9, "%.2f %.2f %%", percent(sim[0].gpu, 5 * SIM_S),
              percent(sim[1].gpu, 5 * SIM_S));
}

/* The last one to release lets the turn go. */
Test(turns_shared, the_last_process_releases)
{
    struct turns a = {0}, b = {0}, other = {0};
    struct turns_settings settings = {0};
    uint64_t now = sim_now;

    cr_assert_eq(turns_join(&a, sim_dir, "tenant", sim_uuid, 1, &settings, now), 0, "%s", a.error);
    cr_assert_eq(turns_join(&b, sim_dir, "tenant", sim_uuid, 1, &settings, now), 0, "%s", b.error);
    cr_assert_eq(turns_join(&other, sim_dir, "other", sim_uuid, 1, &settings, now), 0, "%s", other.error);
    cr_assert_neq(a.room->slot, b.room->slot);
    now += 10 * SIM_MS;
    turns_look(&a, now);
    turns_look(&b, now);
    cr_assert(turns_ask(&a, 1, now).mine);
    cr_assert(turns_ask(&b, 1, now).mine);
    cr_assert(!turns_ask(&other, 1, now).mine);
    now += SIM_MS;
    turns_release(&a, 1, now, SIM_MS);
    cr_assert(!turns_ask(&other, 1, now).mine, "the turn was let go while a process uses it");
    turns_release(&b, 1, now, 0);
    cr_assert(turns_ask(&other, 1, now).mine);
    cr_assert(!turns_ask(&a, 1, now).mine);
    turns_leave(&a, now);
    turns_leave(&b, now);
    turns_leave(&other, now);
}

/* One of two processes is killed while it uses the turn: the other one's release lets it go as soon as the slot is stale. */
Test(turns_shared, a_killed_process_does_not_keep_the_turn)
{
    struct turns a = {0}, b = {0}, other = {0};
    struct turns_settings settings = {0};
    uint64_t now = sim_now;

    turns_join(&a, sim_dir, "tenant", sim_uuid, 1, &settings, now);
    turns_join(&b, sim_dir, "tenant", sim_uuid, 1, &settings, now);
    turns_join(&other, sim_dir, "other", sim_uuid, 1, &settings, now);
    now += 10 * SIM_MS;
    turns_look(&a, now);
    cr_assert(turns_ask(&a, 1, now).mine && turns_ask(&b, 1, now).mine);
    /* `b` is never heard of again. */
    for (unsigned i = 0; i < 10; i++) {
        now += SIM_MS;
        turns_demand(&a, 1, now);
    }
    turns_release(&a, 1, now, SIM_MS);
    cr_assert(turns_ask(&other, 1, now).mine);
    turns_leave(&a, now);
    turns_leave(&b, now);
    turns_leave(&other, now);
}

/* ---- waiting */

Test(turns_shared, a_release_changes_the_word_that_was_given)
{
    struct turns_answer answer;

    sim_join(0, 100);
    sim_join(1, 100);
    sim_now += 10 * SIM_MS;
    cr_assert(turns_ask(&sim[0].turns, 1, sim_now).mine);
    answer = turns_ask(&sim[1].turns, 1, sim_now);
    cr_assert(!answer.mine && answer.word);
    cr_assert_eq(__atomic_load_n(answer.word, __ATOMIC_SEQ_CST), answer.seen);
    cr_assert(answer.until > sim_now && answer.until <= sim_now + 2 * TURNS_QUANTUM);
    turns_release(&sim[0].turns, 1, sim_now, 0);
    cr_assert_neq(__atomic_load_n(answer.word, __ATOMIC_SEQ_CST), answer.seen);
    cr_assert(turns_ask(&sim[1].turns, 1, sim_now).mine);
}

/* ---- kernels longer than a turn */

static void long_kernels(uint64_t mark, unsigned depth, double points)
{
    sim_join(0, 100);
    sim_join(1, 100);
    sim[1].mark = mark;
    sim[1].tick = 2 * SIM_MS;
    sim[1].depth = depth;
    sim_run(500 * SIM_MS);
    sim_measure();
    sim_run(10 * SIM_S);
    print(2, 10 * SIM_S);
    for (unsigned i = 0; i < 2; i++)
        cr_expect(percent(sim[i].gpu, 10 * SIM_S) > 50 - points, "tenant %u: %.2f %%", i, percent(sim[i].gpu, 10 * SIM_S));
    cr_expect_eq(sim_overlap, 0);
}

Test(turns_shared, kernels_of_5_ms)
{
    long_kernels(5 * SIM_MS, 0, 2);
}

Test(turns_shared, kernels_of_20_ms)
{
    long_kernels(20 * SIM_MS, 0, 2);
}

/* A second one is queued behind the one that runs. */
Test(turns_shared, kernels_of_20_ms_in_a_queue)
{
    long_kernels(20 * SIM_MS, 1, 2);
}
