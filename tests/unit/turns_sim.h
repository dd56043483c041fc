/* SPDX-License-Identifier: Apache-2.0 */
/* Tenants that take turns on simulated GPUs in one process, by a clock that the test moves. A tenant's program has work all the time or in bursts; its
 * gate asks, runs a mark at a time, asks at each whether it must go, lets one more mark drain, and releases. Who runs at once shares the GPU. */
#ifndef SOFTSLICE_TESTS_TURNS_SIM_H
#define SOFTSLICE_TESTS_TURNS_SIM_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "softslice/turns.h"

#define SIM_TENANTS 8
#define SIM_US      UINT64_C(1000)
#define SIM_MS      UINT64_C(1000000)
#define SIM_S       UINT64_C(1000000000)
#define SIM_STEP    (20 * SIM_US)
#define SIM_WAITS   100000

enum sim_state { SIM_OFF, SIM_IDLE, SIM_WAITS_TURN, SIM_RUNS, SIM_DRAINS, SIM_LINGERS };

struct sim_tenant {
    struct turns turns;
    enum sim_state state;
    uint64_t devices;                   /* the mask that it works on */
    uint64_t mark;                      /* GPU time between two marks */
    uint64_t burst, period, next_burst; /* 0: has work all the time */
    uint64_t think;                     /* after each mark the program waits for it and then does something else for so long */
    uint64_t backlog, left, used, ask_at, began, thinks_until;
    uint64_t stopped_until; /* SIGSTOP: what is in flight ends */
    uint64_t tick;          /* 0: asks whether it must go at its marks alone */
    unsigned depth, queue;  /* with a tick: marks in flight behind the one that runs, and left of them when it must go */
    bool goes;
    bool kept; /* stalled: never calls again while it holds */
    uint32_t *word, seen;
    /* measured */
    uint64_t gpu, alone, longest_wait, wait_since;
    uint64_t waits[SIM_WAITS], bursts;
    unsigned lost;
};

static struct sim_tenant sim[SIM_TENANTS];
static uint64_t sim_now, sim_overlap, sim_busy;
static int sim_dir = -1;
static unsigned sim_devices = 1;
static const unsigned *sim_tenant_of; /* where several are processes of one tenant */
static const uint8_t sim_uuid[4][16] = {{9, 1}, {3, 2}, {7, 3}, {1, 4}};

static inline void sim_begin(const char *path)
{
    memset(sim, 0, sizeof(sim));
    sim_now = 1000 * SIM_S;
    sim_overlap = sim_busy = 0;
    sim_devices = 1;
    sim_tenant_of = NULL;
    sim_dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static inline struct sim_tenant *sim_join(unsigned index, uint32_t weight)
{
    struct turns_settings settings = {0};
    char name[16];

    snprintf(name, sizeof(name), "tenant-%u", sim_tenant_of ? sim_tenant_of[index] : index);
    for (unsigned i = 0; i < sim_devices; i++)
        settings.weight[i] = weight;
    if (turns_join(&sim[index].turns, sim_dir, name, sim_uuid, sim_devices, &settings, sim_now) != 0) {
        fprintf(stderr, "%s\n", sim[index].turns.error);
        abort();
    }
    sim[index].state = SIM_IDLE;
    sim[index].devices = 1;
    sim[index].mark = SIM_MS;
    sim[index].next_burst = sim_now;
    return &sim[index];
}

static inline void sim_end(void)
{
    for (unsigned i = 0; i < SIM_TENANTS; i++)
        turns_leave(&sim[i].turns, sim_now);
    close(sim_dir);
}

static inline bool sim_runs(const struct sim_tenant *tenant)
{
    return (tenant->state == SIM_RUNS || tenant->state == SIM_DRAINS) && tenant->left;
}

static inline void sim_start(struct sim_tenant *tenant)
{
    tenant->left = tenant->mark < tenant->backlog ? tenant->mark : tenant->backlog;
}

static inline void sim_release(struct sim_tenant *tenant)
{
    turns_release(&tenant->turns, tenant->devices, sim_now, tenant->used);
    tenant->used = 0;
    tenant->left = 0;
    tenant->goes = false;
    tenant->state = tenant->backlog ? SIM_WAITS_TURN : SIM_IDLE;
    tenant->ask_at = sim_now;
    tenant->word = NULL;
    tenant->wait_since = sim_now;
}

static inline void sim_mark(struct sim_tenant *tenant)
{
    struct turns_demand demand;

    if (tenant->goes && tenant->queue && tenant->backlog) {
        tenant->queue--;
        sim_start(tenant);
        return;
    }
    if (tenant->state == SIM_DRAINS || tenant->goes) {
        sim_release(tenant);
        return;
    }
    if (!tenant->backlog) {
        uint64_t waited = sim_now - tenant->began;

        if (tenant->period && tenant->bursts < SIM_WAITS)
            tenant->waits[tenant->bursts++] = waited;
        sim_release(tenant);
        return;
    }
    demand = turns_demand(&tenant->turns, tenant->devices, sim_now);
    tenant->lost += demand.lost;
    if (tenant->think) {
        tenant->thinks_until = sim_now + tenant->think;
        tenant->state = SIM_LINGERS;
        if (demand.must_go) {
            sim_release(tenant);
            tenant->ask_at = tenant->thinks_until;
        }
        return;
    }
    sim_start(tenant);
    if (demand.must_go)
        tenant->state = tenant->left && tenant->mark < 2 * SIM_MS ? SIM_DRAINS : SIM_RUNS;
    if (demand.must_go && tenant->state == SIM_RUNS)
        sim_release(tenant);
}

static inline void sim_tick(struct sim_tenant *tenant)
{
    if (turns_demand(&tenant->turns, tenant->devices, sim_now).must_go && !tenant->goes) {
        tenant->goes = true;
        tenant->queue = tenant->depth;
    }
}

static inline void sim_gate(struct sim_tenant *tenant)
{
    struct turns_answer answer;

    if (tenant->period && sim_now >= tenant->next_burst) {
        tenant->backlog += tenant->burst;
        tenant->began = tenant->next_burst;
        tenant->next_burst += tenant->period;
    } else if (!tenant->period && !tenant->burst) {
        tenant->backlog = SIM_S;
    }
    if (tenant->state == SIM_LINGERS && sim_now >= tenant->thinks_until) {
        tenant->state = SIM_RUNS;
        sim_start(tenant);
    }
    if (tenant->state == SIM_IDLE && tenant->backlog) {
        tenant->state = SIM_WAITS_TURN;
        tenant->ask_at = sim_now;
        tenant->word = NULL;
        tenant->wait_since = sim_now;
    }
    if (tenant->state != SIM_WAITS_TURN ||
        (sim_now < tenant->ask_at && !(tenant->word && __atomic_load_n(tenant->word, __ATOMIC_SEQ_CST) != tenant->seen)))
        return;
    answer = turns_ask(&tenant->turns, tenant->devices, sim_now);
    if (answer.mine) {
        uint64_t waited = sim_now - tenant->wait_since;

        if (waited > tenant->longest_wait)
            tenant->longest_wait = waited;
        tenant->state = SIM_RUNS;
        tenant->used = 0;
        sim_start(tenant);
    } else {
        tenant->ask_at = answer.until;
        tenant->word = answer.word;
        tenant->seen = answer.seen;
    }
}

static inline void sim_step(void)
{
    unsigned running[4] = {0};
    uint64_t active = 0;

    sim_now += SIM_STEP;
    for (unsigned i = 0; i < SIM_TENANTS; i++) {
        if (sim[i].state != SIM_OFF && sim_now >= sim[i].stopped_until && !(sim[i].kept && sim[i].state >= SIM_RUNS)) {
            turns_look(&sim[i].turns, sim_now);
            sim_gate(&sim[i]);
            if (sim[i].tick && sim_runs(&sim[i]) && sim_now % sim[i].tick == 0)
                sim_tick(&sim[i]);
        }
        if (!sim_runs(&sim[i]))
            continue;
        active |= UINT64_C(1) << i;
        for (unsigned d = 0; d < 4; d++)
            running[d] += sim[i].devices >> d & 1;
    }
    sim_overlap += running[0] > 1 ? SIM_STEP : 0;
    sim_busy += running[0] ? SIM_STEP : 0;
    for (unsigned i = 0; i < SIM_TENANTS; i++) {
        uint64_t most = 1, part;

        if (!(active >> i & 1))
            continue;
        for (unsigned d = 0; d < 4; d++)
            most = (sim[i].devices >> d & 1) && running[d] > most ? running[d] : most;
        part = SIM_STEP / most;
        part = part < sim[i].left ? part : sim[i].left;
        sim[i].left -= part;
        sim[i].backlog -= part;
        sim[i].used += SIM_STEP;
        sim[i].gpu += part;
        sim[i].alone += most == 1 ? part : 0;
        if (!sim[i].left && sim_now >= sim[i].stopped_until && !sim[i].kept)
            sim_mark(&sim[i]);
    }
    /* A mark that ended while its process was stopped is seen when it goes on. */
    for (unsigned i = 0; i < SIM_TENANTS; i++) {
        if (!(active >> i & 1) && (sim[i].state == SIM_RUNS || sim[i].state == SIM_DRAINS) && !sim[i].left &&
            sim_now >= sim[i].stopped_until && !sim[i].kept)
            sim_mark(&sim[i]);
    }
}

static inline void sim_run(uint64_t ns)
{
    for (uint64_t end = sim_now + ns; sim_now < end;)
        sim_step();
}

/* From here on. */
static inline void sim_measure(void)
{
    for (unsigned i = 0; i < SIM_TENANTS; i++) {
        sim[i].gpu = sim[i].alone = sim[i].longest_wait = sim[i].bursts = 0;
        sim[i].lost = 0;
    }
    sim_overlap = sim_busy = 0;
}

static inline int sim_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static inline uint64_t sim_percentile(struct sim_tenant *tenant, unsigned percent)
{
    qsort(tenant->waits, tenant->bursts, sizeof(tenant->waits[0]), sim_compare);
    return tenant->bursts ? tenant->waits[(tenant->bursts - 1) * percent / 100] : 0;
}

#endif
