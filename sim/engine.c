/* SPDX-License-Identifier: Apache-2.0 */
/* The GPU as this process sees it: work handed to the machine's timeline, and waiting for it. */
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#include "sim.h"
#include "virtual.h"

#pragma weak virtual_now
#pragma weak virtual_spend

#define SLEEP_MAX_NS UINT64_C(5000000)
#define SPIN_NS      UINT64_C(60000)

/* The ends of this process' last launches on a device, as many as may be unfinished. */
struct queue {
    uint64_t *mark;
    uint64_t count;
};

static struct queue queues[SIM_MAX_GPUS];
static uint64_t queue_size;

static void settle(int dev)
{
    sim_timeline_advance(sim->machine, sim_gpu(dev), sim_now_ns());
}

/* Half of the history was written since the events of this process were last looked at. */
static void keep_times(int dev)
{
    static uint32_t looked[SIM_MAX_GPUS];

    if (sim_client(dev)->slices - looked[dev] < SIM_HISTORY / 2)
        return;
    looked[dev] = sim_client(dev)->slices;
    sim_events_settle();
}

uint64_t sim_engine_submit(int dev, uint64_t ns, uint64_t gate)
{
    struct sim_client *c = sim_client(dev);
    uint64_t mark;

    keep_times(dev);
    sim_machine_lock(sim->machine);
    /* Settled first: the new work begins now, not when somebody last looked. */
    settle(dev);
    if (gate) {
        c->gate[c->gates_made++ % SIM_GATES] = (struct sim_gate){.mark = c->submitted_ns, .key = gate};
        sim->machine->gated = 1;
    }
    c->submitted_ns += ns;
    mark = c->submitted_ns;
    sim_machine_unlock(sim->machine);
    return mark;
}

void sim_engine_insert(int dev, uint64_t place, uint64_t ns)
{
    struct sim_client *c = sim_client(dev);
    struct queue *q = &queues[dev];

    sim_engine_submit(dev, ns, 0);
    for (uint64_t i = 0; q->mark && i < q->count && i < queue_size; i++)
        if (q->mark[i] > place)
            q->mark[i] += ns;
    sim_machine_lock(sim->machine);
    for (uint32_t i = c->gates_passed; i != c->gates_made; i++)
        if (c->gate[i % SIM_GATES].mark > place)
            c->gate[i % SIM_GATES].mark += ns;
    sim_machine_unlock(sim->machine);
}

uint64_t sim_engine_served(int dev)
{
    uint64_t served;

    sim_machine_lock(sim->machine);
    settle(dev);
    served = sim_client(dev)->served_ns;
    sim_machine_unlock(sim->machine);
    return served;
}

uint64_t sim_engine_time_of(int dev, uint64_t mark)
{
    const struct sim_client *c = sim_client(dev);
    uint64_t at = 0;

    sim_machine_lock(sim->machine);
    for (uint32_t back = 1; back <= c->slices && back <= SIM_HISTORY; back++) {
        const struct sim_slice *s = &c->history[(c->slices - back) % SIM_HISTORY];

        at = s->wall_ns;
        if (s->served_ns < mark) {
            at += mark - s->served_ns < s->length_ns ? mark - s->served_ns : s->length_ns;
            break;
        }
    }
    sim_machine_unlock(sim->machine);
    return at;
}

bool sim_engine_left(int dev, uint64_t mark, uint64_t *ns)
{
    uint64_t now = sim_now_ns(), until = 0;

    sim_machine_lock(sim->machine);
    sim_timeline_advance(sim->machine, sim_gpu(dev), now);
    if (mark > sim_client(dev)->served_ns)
        until = sim_timeline_expect(sim->machine, sim_gpu(dev), (unsigned int)sim->row, mark);
    sim_machine_unlock(sim->machine);
    *ns = until > now ? until - now : 0;
    return until != 0;
}

void sim_engine_sleep(int dev, uint64_t mark)
{
    bool virtual = virtual_now && virtual_now();
    uint64_t left;

    if (!sim_engine_left(dev, mark, &left))
        return;
    sim_unlock();
    if (left <= SPIN_NS && !virtual) {
        sched_yield();
    } else {
        struct timespec ts = {.tv_nsec = (long)(left < SLEEP_MAX_NS ? left : SLEEP_MAX_NS)};

        nanosleep(&ts, NULL);
        if (left <= SLEEP_MAX_NS)
            sim_spend(SIM_COST_WAKE, 1);
    }
    sim_lock();
}

uint64_t sim_engine_wait(int dev)
{
    struct queue *q = &queues[dev];
    const struct sim_client *c = sim_client(dev);
    uint64_t first;

    if (!queue_size)
        queue_size = sim_env_number("SOFTSIM_QUEUE", 1024);
    if (!queue_size)
        queue_size = 1;
    if (!q->mark)
        q->mark = calloc(queue_size, sizeof(q->mark[0]));
    if (c->gates_made - __atomic_load_n(&c->gates_passed, __ATOMIC_RELAXED) == SIM_GATES)
        return c->gate[c->gates_passed % SIM_GATES].mark + 1;
    if (!q->mark || q->count < queue_size)
        return 0;
    first = q->mark[q->count % queue_size];
    return sim_engine_served(dev) < first ? first : 0;
}

void sim_engine_launched(int dev, uint64_t mark)
{
    struct queue *q = &queues[dev];

    if (q->mark)
        q->mark[q->count++ % queue_size] = mark;
}

void sim_spend(enum sim_cost cost, unsigned int times)
{
    static uint64_t ns[SIM_COSTS]; /* atomic; one more than it is, 0: not read yet */
    static const struct {
        const char *name;
        uint64_t otherwise;
    } known[SIM_COSTS] = {{"SOFTSIM_LAUNCH_NS", 2500}, {"SOFTSIM_RECORD_NS", 700}, {"SOFTSIM_WAKE_NS", 0}};
    uint64_t one;

    if (!virtual_now || !virtual_now())
        return;
    one = __atomic_load_n(&ns[cost], __ATOMIC_RELAXED);
    if (!one) {
        one = sim_env_number(known[cost].name, known[cost].otherwise) + 1;
        __atomic_store_n(&ns[cost], one, __ATOMIC_RELAXED);
    }
    virtual_spend((one - 1) * times);
}
