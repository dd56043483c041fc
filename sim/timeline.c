/* SPDX-License-Identifier: Apache-2.0 */
/* The timeline of a GPU: which process has it when. Work is settled up to now by whoever looks, so nothing needs to run meanwhile. */
#include "shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* NVML's figures are averages over a period of this length (assumed). */
#define SAMPLE_NS UINT64_C(166666667)
/* Steps that are looked ahead; beyond that who waits looks again. */
#define AHEAD 256

static bool runnable(const struct sim_proc *p, unsigned int gpu)
{
    return p->state == SIM_PROC_LIVE && p->client[gpu].submitted_ns > p->client[gpu].served_ns;
}

/* The next process after `after` that has work, round robin; -1 if none has. */
static int next_owner(const struct sim_machine *m, unsigned int gpu, int after)
{
    int rows = (int)m->procs_high;

    for (int i = 1; i <= rows; i++) {
        int row = (after + i + rows) % rows;

        if (runnable(&m->proc[row], gpu))
            return row;
    }
    return -1;
}

/* ---- the file */

void sim_timeline_write(struct sim_machine *m)
{
    char text[1024]; /* threads may have small stacks */
    size_t used = 0;
    int error = errno, fd = -1;

    for (unsigned int gpu = 0; m->set.timeline[0] && gpu < m->set.gpus; gpu++) {
        struct sim_record *r = &m->gpu[gpu].record;

        if (r->begin_ns != r->end_ns && m->records < SIM_RECORDS)
            m->record[m->records++] = *r;
        r->begin_ns = r->end_ns;
    }
    if (m->set.timeline[0] && m->records)
        fd = open(m->set.timeline, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    for (unsigned int i = 0; fd >= 0 && i < m->records; i++) {
        const struct sim_record *r = &m->record[i];

        used += (size_t)snprintf(text + used, sizeof(text) - used, "%u %u %llu %llu\n", r->gpu, r->pid,
                                 (unsigned long long)r->begin_ns, (unsigned long long)r->end_ns);
        if (used < sizeof(text) - 100 && i + 1 < m->records)
            continue;
        if (write(fd, text, used) != (ssize_t)used)
            break;
        used = 0;
    }
    if (fd >= 0)
        close(fd);
    m->records = 0;
    errno = error;
}

static void record(struct sim_machine *m, unsigned int gpu, uint32_t pid, uint64_t begin_ns, uint64_t length_ns)
{
    struct sim_record *r = &m->gpu[gpu].record;

    if (!m->set.timeline[0])
        return;
    if (r->begin_ns != r->end_ns && (r->pid != pid || r->end_ns != begin_ns)) {
        m->record[m->records++] = *r;
        r->begin_ns = r->end_ns;
        /* Room stays for what goes on at all GPUs. */
        if (m->records > SIM_RECORDS - SIM_MAX_GPUS)
            sim_timeline_write(m);
    }
    if (r->begin_ns == r->end_ns)
        *r = (struct sim_record){.gpu = gpu, .pid = pid, .begin_ns = begin_ns};
    r->end_ns = begin_ns + length_ns;
}

/* ---- what a process receives */

static void serve(struct sim_client *c, uint64_t wall_ns, uint64_t length_ns)
{
    struct sim_slice *last = c->slices ? &c->history[(c->slices - 1) % SIM_HISTORY] : NULL;

    if (last && last->wall_ns + last->length_ns == wall_ns) {
        last->length_ns += length_ns;
    } else {
        c->history[c->slices % SIM_HISTORY] =
            (struct sim_slice){.wall_ns = wall_ns, .served_ns = c->served_ns, .length_ns = length_ns};
        c->slices++;
    }
    c->served_ns += length_ns;
}

static uint32_t percent(uint64_t part, uint64_t whole)
{
    uint64_t p = whole ? part * 100 / whole : 0;

    return (uint32_t)(p > 100 ? 100 : p);
}

static void sample(struct sim_machine *m, unsigned int gpu, uint64_t now_ns)
{
    struct sim_gpu *g = &m->gpu[gpu];
    uint64_t period = now_ns - g->sampled_at_ns;

    if (period < SAMPLE_NS)
        return;
    g->utilization = percent(g->busy_ns - g->sampled_busy_ns, period);
    g->sampled_busy_ns = g->busy_ns;
    g->sampled_at_ns = now_ns;
    for (unsigned int row = 0; row < m->procs_high; row++) {
        struct sim_client *c = &m->proc[row].client[gpu];

        c->utilization = percent(c->served_ns - c->sampled_ns, period);
        c->sampled_ns = c->served_ns;
    }
}

/* ---- gates */

static const struct sim_gate *next_gate(const struct sim_client *c)
{
    return c->gates_passed < c->gates_made ? &c->gate[c->gates_passed % SIM_GATES] : NULL;
}

static unsigned int ones(uint32_t bits)
{
    return (unsigned int)__builtin_popcount(bits);
}

/* The process has come to a gate on this GPU: whether its partners have come to all the others. */
static bool meet(struct sim_machine *m, unsigned int gpu, uint64_t key)
{
    struct sim_meeting *at = NULL;
    uint32_t bit = 1u << gpu;

    for (unsigned int i = 0; i < SIM_MEETINGS; i++) {
        if (m->meeting[i].key == key) {
            at = &m->meeting[i];
            break;
        }
        if (!m->meeting[i].key && !at)
            at = &m->meeting[i];
    }
    if (!at)
        return true; /* more of them than there is room for: this one does not wait */
    at->key = key;
    at->arrived |= bit;
    if (ones(at->arrived) < key % SIM_GATE_GPUS)
        return false;
    at->passed |= bit;
    if (ones(at->passed) >= key % SIM_GATE_GPUS)
        *at = (struct sim_meeting){0};
    return true;
}

void sim_timeline_drop(struct sim_machine *m, unsigned int row)
{
    for (unsigned int gpu = 0; gpu < m->set.gpus; gpu++) {
        struct sim_client *c = &m->proc[row].client[gpu];
        const struct sim_gate *gate;

        while ((gate = next_gate(c))) {
            for (unsigned int i = 0; i < SIM_MEETINGS; i++)
                if (m->meeting[i].key == gate->key)
                    m->meeting[i] = (struct sim_meeting){0};
            c->gates_passed++;
        }
        c->submitted_ns = c->served_ns;
    }
    sim_timeline_write(m);
}

/* ---- time passes */

/* What a GPU does from its clock on, and for how long at most. */
struct step {
    enum { IDLE, SWITCHES, WORKS, SPINS } what;
    uint64_t ns;
};

static struct step plan(struct sim_machine *m, unsigned int gpu, uint64_t now_ns)
{
    struct sim_gpu *g = &m->gpu[gpu];
    struct step step = {.what = WORKS, .ns = now_ns - g->clock_ns};
    const struct sim_gate *gate;
    struct sim_client *c;

    if (g->owner < 0 || !g->slice_left_ns || !runnable(&m->proc[g->owner], gpu)) {
        g->owner = next_owner(m, gpu, g->owner);
        g->slice_left_ns = m->set.slice_ns;
        if (g->owner >= 0 && g->last >= 0 && g->last != g->owner)
            g->switch_left_ns = m->set.switch_ns;
        if (g->owner >= 0)
            g->last = g->owner;
    }
    if (g->owner < 0) {
        step.what = IDLE;
        return step;
    }
    if (g->switch_left_ns) {
        step.what = SWITCHES;
        if (step.ns > g->switch_left_ns)
            step.ns = g->switch_left_ns;
        return step;
    }
    if (step.ns > g->slice_left_ns)
        step.ns = g->slice_left_ns;
    c = &m->proc[g->owner].client[gpu];
    while ((gate = next_gate(c)) && gate->mark <= c->served_ns) {
        if (!meet(m, gpu, gate->key)) {
            step.what = SPINS;
            return step;
        }
        c->gates_passed++;
    }
    if (step.ns > c->submitted_ns - c->served_ns)
        step.ns = c->submitted_ns - c->served_ns;
    if (gate && step.ns > gate->mark - c->served_ns)
        step.ns = gate->mark - c->served_ns;
    return step;
}

static void take(struct sim_machine *m, unsigned int gpu, struct step step)
{
    struct sim_gpu *g = &m->gpu[gpu];

    if (step.what == SWITCHES)
        g->switch_left_ns -= step.ns;
    if (step.what == WORKS || step.what == SPINS) {
        record(m, gpu, m->proc[g->owner].outer, g->clock_ns, step.ns);
        if (step.what == WORKS)
            serve(&m->proc[g->owner].client[gpu], g->clock_ns, step.ns);
        g->busy_ns += step.ns;
        g->slice_left_ns -= step.ns;
    }
    g->clock_ns += step.ns;
    sample(m, gpu, g->clock_ns);
}

static bool any_gate(const struct sim_machine *m)
{
    for (unsigned int row = 0; row < m->procs_high; row++)
        for (unsigned int gpu = 0; m->proc[row].state == SIM_PROC_LIVE && gpu < m->set.gpus; gpu++)
            if (next_gate(&m->proc[row].client[gpu]))
                return true;
    return false;
}

/* All GPUs together, the one that is behind first: who spins for another may not run ahead of it. */
static void advance_all(struct sim_machine *m, uint64_t now_ns)
{
    for (;;) {
        struct step steps[SIM_MAX_GPUS], step = {0};
        uint64_t clock = now_ns, until = now_ns;
        int first = -1;

        for (unsigned int gpu = 0; gpu < m->set.gpus; gpu++)
            if (m->gpu[gpu].clock_ns < clock)
                clock = m->gpu[gpu].clock_ns;
        if (clock == now_ns)
            return;
        /* Only those at this moment come to gates now, and each may let others through. */
        for (int again = 0; again < 2; again++)
            for (unsigned int gpu = 0; gpu < m->set.gpus; gpu++)
                if (m->gpu[gpu].clock_ns == clock)
                    steps[gpu] = plan(m, gpu, now_ns);
        for (unsigned int gpu = 0; gpu < m->set.gpus; gpu++) {
            bool here = m->gpu[gpu].clock_ns == clock;
            uint64_t next = here ? clock + steps[gpu].ns : m->gpu[gpu].clock_ns;

            if (next < until)
                until = next;
            if (here && (first < 0 || step.what == SPINS)) {
                first = (int)gpu;
                step = steps[gpu];
            }
        }
        if (step.what == SPINS)
            step.ns = until - clock;
        take(m, (unsigned int)first, step);
    }
}

void sim_timeline_advance(struct sim_machine *m, unsigned int gpu, uint64_t now_ns)
{
    struct sim_gpu *g = &m->gpu[gpu];

    if (g->clock_ns < now_ns && m->gated && any_gate(m))
        advance_all(m, now_ns);
    while (g->clock_ns < now_ns)
        take(m, gpu, plan(m, gpu, now_ns));
    sample(m, gpu, now_ns);
}

uint64_t sim_timeline_expect(const struct sim_machine *m, unsigned int gpu, unsigned int row, uint64_t mark)
{
    const struct sim_gpu *g = &m->gpu[gpu];
    uint64_t left[SIM_MAX_PROCS], clock = g->clock_ns, slice = g->slice_left_ns, change = g->switch_left_ns;
    int owner = g->owner, rows = (int)m->procs_high;

    for (int i = 0; i < rows; i++)
        left[i] = runnable(&m->proc[i], gpu) ? m->proc[i].client[gpu].submitted_ns - m->proc[i].client[gpu].served_ns : 0;
    /* Of its own work, only what comes before the mark counts. */
    if (left[row])
        left[row] = mark > m->proc[row].client[gpu].served_ns ? mark - m->proc[row].client[gpu].served_ns : 0;
    for (int i = 0; i < AHEAD && left[row]; i++) {
        uint64_t step;

        if (owner < 0 || !slice || !left[owner]) {
            int next = owner;

            do
                next = (next + 1) % rows;
            while (!left[next]);
            change = owner >= 0 && next != owner ? m->set.switch_ns : 0;
            owner = next;
            slice = m->set.slice_ns;
        }
        step = left[owner] < slice ? left[owner] : slice;
        clock += step + change;
        change = 0;
        left[owner] -= step;
        slice -= step;
    }
    return clock;
}
