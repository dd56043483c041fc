/* SPDX-License-Identifier: Apache-2.0 */
/* Turns by an injected clock: who gets how much, and how soon. */
#include "scratch.h"
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

TestSuite(turns, .init = setup, .fini = teardown, .timeout = 120);

/* Tenants with so much weight and work all the time, for 10 s: each within a point of its part. */
static void divides(unsigned tenants, const uint32_t *weight, const uint64_t *mark)
{
    double all = 0, sum = 0;

    for (unsigned i = 0; i < tenants; i++) {
        sim_join(i, weight[i])->mark = mark[i];
        sum += weight[i];
    }
    sim_run(200 * SIM_MS);
    sim_measure();
    sim_run(10 * SIM_S);
    for (unsigned i = 0; i < tenants; i++)
        all += (double)sim[i].gpu;
    for (unsigned i = 0; i < tenants; i++) {
        double part = 100.0 * (double)sim[i].gpu / all, due = 100.0 * weight[i] / sum;

        printf("tenant %u: %.2f %% of %.2f, longest wait %.2f ms, lost %u\n", i, part, due, (double)sim[i].longest_wait / 1e6,
               sim[i].lost);
        cr_expect(part > due - 1 && part < due + 1, "tenant %u has %.2f %% instead of %.2f %%", i, part, due);
    }
    printf("busy %.2f %%, overlap %.3f %%\n", all / 1e8, (double)sim_overlap / 1e8);
    cr_expect(all > 0.95 * 10e9, "the GPU was busy for %.2f s of 10", all / 1e9);
    cr_expect(sim_overlap == 0, "two ran at once for %llu ns", (unsigned long long)sim_overlap);
}

static const uint64_t ms_marks[] = {SIM_MS, SIM_MS, SIM_MS, SIM_MS};

Test(turns, two_equal_tenants_have_half_each)
{
    divides(2, (uint32_t[]){100, 100}, ms_marks);
}

Test(turns, four_equal_tenants_have_a_quarter_each)
{
    divides(4, (uint32_t[]){100, 100, 100, 100}, ms_marks);
}

Test(turns, weights_divide)
{
    divides(2, (uint32_t[]){900, 100}, ms_marks);
}

Test(turns, small_weights_divide)
{
    divides(3, (uint32_t[]){1, 2, 5}, ms_marks);
}

Test(turns, four_weights_divide)
{
    divides(4, (uint32_t[]){10, 20, 30, 40}, ms_marks);
}

/* Each takes its place below the one before it, and none of them saw the others do so. */
Test(turns, who_come_from_idling_at_once_are_not_accused)
{
    char line[256];

    for (unsigned i = 0; i < SIM_TENANTS; i++) {
        sim_join(i, 100);
        sim[i].burst = i ? 3 * SIM_MS : 0;
        sim[i].period = i ? 400 * SIM_MS : 0;
    }
    sim_run(200 * SIM_MS);
    sim_measure();
    sim_run(3 * SIM_S);
    for (unsigned i = 0; i < SIM_TENANTS; i++) {
        cr_expect(!turns_report(&sim[i].turns, line, sizeof(line), NULL), "tenant %u: %s", i, line);
        cr_expect(sim[i].lost == 0, "tenant %u lost %u", i, sim[i].lost);
    }
    cr_expect(sim_overlap == 0, "two ran at once for %llu ns", (unsigned long long)sim_overlap);
}

Test(turns, short_marks_and_long_ones_have_half_each)
{
    divides(2, (uint32_t[]){100, 100}, (uint64_t[]){200 * SIM_US, 3 * SIM_MS});
}

Test(turns, a_lone_tenant_has_all)
{
    divides(1, (uint32_t[]){10}, ms_marks);
}

/* What one leaves idle is lent to the other, at once. */
Test(turns, idle_time_is_lent)
{
    sim_join(0, 100);
    sim_join(1, 100);
    sim[1].burst = 2 * SIM_MS;
    sim[1].period = 20 * SIM_MS;
    sim_run(100 * SIM_MS);
    sim_measure();
    sim_run(5 * SIM_S);
    cr_expect(sim[1].gpu > 0.098 * 5e9, "%.3f s", (double)sim[1].gpu / 1e9);
    cr_expect(sim[0].gpu > 0.88 * 5e9, "%.3f s", (double)sim[0].gpu / 1e9);
    cr_expect(sim_overlap == 0);
}

/* 8 ms in every 40 ms beside one that has work all the time. */
static void light(uint64_t mark)
{
    sim_join(0, 100)->mark = mark;
    sim_join(1, 100);
    sim[1].burst = 8 * SIM_MS;
    sim[1].period = 40 * SIM_MS + 13 * SIM_US;
    sim_run(200 * SIM_MS);
    sim_measure();
    sim_run(10 * SIM_S);
    printf("light: p50 %.2f p99 %.2f ms, longest wait %.2f ms; saturating %.2f %%\n", (double)sim_percentile(&sim[1], 50) / 1e6,
           (double)sim_percentile(&sim[1], 99) / 1e6, (double)sim[1].longest_wait / 1e6, (double)sim[0].gpu / 1e8);
    cr_expect(sim[1].longest_wait <= 3 * SIM_MS, "%llu ns until it was let in", (unsigned long long)sim[1].longest_wait);
    cr_expect(sim_percentile(&sim[1], 99) <= 12 * SIM_MS, "%llu ns for 8 ms", (unsigned long long)sim_percentile(&sim[1], 99));
    cr_expect(sim[0].gpu > 0.75 * 10e9);
}

Test(turns, a_light_tenant_is_let_in_at_once)
{
    light(SIM_MS);
}

Test(turns, a_light_tenant_is_let_in_at_once_beside_short_marks)
{
    light(100 * SIM_US);
}

/* Launches 1 ms, waits for it, thinks for 30 us, beside one that never waits. */
Test(turns, who_waits_for_each_kernel_has_its_part)
{
    sim_join(0, 100);
    sim_join(1, 100)->think = 40 * SIM_US;
    sim_run(200 * SIM_MS);
    sim_measure();
    sim_run(10 * SIM_S);
    printf("%.2f %.2f %%\n", (double)sim[0].gpu / 1e8, (double)sim[1].gpu / 1e8);
    cr_expect(sim[1].gpu > 0.47 * 10e9, "%.2f %%", (double)sim[1].gpu / 1e8);
    cr_expect(sim[0].gpu > 0.47 * 10e9, "%.2f %%", (double)sim[0].gpu / 1e8);
}

/* One that was away does not have what it did not use. */
Test(turns, idling_saves_up_no_more_than_the_credit)
{
    sim_join(0, 100);
    sim_join(1, 100);
    sim_run(500 * SIM_MS);
    sim[1].burst = 1; /* no more work */
    sim[1].backlog = 0;
    sim_run(2 * SIM_S);
    sim[1].burst = 0;
    sim_measure();
    sim_run(500 * SIM_MS);
    cr_expect(sim[1].gpu < 275 * SIM_MS, "%llu ns of 500 ms", (unsigned long long)sim[1].gpu);
    cr_expect(sim[1].gpu > 235 * SIM_MS, "%llu ns of 500 ms", (unsigned long long)sim[1].gpu);
}

/* Whoever had the GPU alone owes nothing for it. */
Test(turns, time_that_nobody_wanted_is_not_owed)
{
    sim_join(0, 100);
    sim_join(1, 100);
    sim[1].burst = 1;
    sim_run(3 * SIM_S);
    sim[1].burst = 0;
    sim_run(50 * SIM_MS);
    sim_measure();
    sim_run(500 * SIM_MS);
    cr_expect(sim[0].gpu > 235 * SIM_MS, "%llu ns of 500 ms", (unsigned long long)sim[0].gpu);
}

Test(turns, newcomers_and_leavers)
{
    sim_join(0, 100);
    sim_join(1, 100);
    sim_run(SIM_S);
    sim_join(2, 100);
    sim_run(150 * SIM_MS);
    sim_measure();
    sim_run(3 * SIM_S);
    for (unsigned i = 0; i < 3; i++)
        cr_expect(sim[i].gpu > 0.32 * 3e9 && sim[i].gpu < 0.35 * 3e9, "tenant %u: %.3f s", i, (double)sim[i].gpu / 1e9);
    cr_expect(sim_overlap == 0);
    turns_leave(&sim[1].turns, sim_now);
    sim[1].state = SIM_OFF;
    sim_run(150 * SIM_MS);
    sim_measure();
    sim_run(2 * SIM_S);
    cr_expect(sim[0].gpu > 0.48 * 2e9 && sim[2].gpu > 0.48 * 2e9, "%.3f %.3f s", (double)sim[0].gpu / 1e9,
              (double)sim[2].gpu / 1e9);
}

Test(turns, off_is_always_mine)
{
    struct turns off = {0};

    cr_assert(turns_ask(&off, 1, sim_now).mine);
    cr_assert(turns_ask(&off, 1, sim_now).until == UINT64_MAX);
    cr_assert(!turns_demand(&off, 1, sim_now).must_go);
    turns_release(&off, 1, sim_now, 0);
    turns_leave(&off, sim_now);
}
