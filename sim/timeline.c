/* SPDX-License-Identifier: Apache-2.0 */
/* The timeline of a GPU: which process has it when. Work is settled up to now by whoever looks, so nothing needs to run meanwhile. */
#include "shared.h"

/* NVML's figures are averages over a period of this length (assumed). */
#define SAMPLE_NS UINT64_C(166666667)

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

void sim_timeline_advance(struct sim_machine *m, unsigned int gpu, uint64_t now_ns)
{
    struct sim_gpu *g = &m->gpu[gpu];

    while (g->clock_ns < now_ns) {
        struct sim_client *c;
        uint64_t step;

        if (g->owner < 0 || !g->slice_left_ns || !runnable(&m->proc[g->owner], gpu)) {
            g->owner = next_owner(m, gpu, g->owner);
            g->slice_left_ns = m->set.slice_ns;
        }
        if (g->owner < 0) {
            g->clock_ns = now_ns;
            break;
        }
        c = &m->proc[g->owner].client[gpu];
        step = now_ns - g->clock_ns;
        if (step > g->slice_left_ns)
            step = g->slice_left_ns;
        if (step > c->submitted_ns - c->served_ns)
            step = c->submitted_ns - c->served_ns;
        serve(c, g->clock_ns, step);
        g->busy_ns += step;
        g->slice_left_ns -= step;
        g->clock_ns += step;
        sample(m, gpu, g->clock_ns);
    }
    sample(m, gpu, now_ns);
}
