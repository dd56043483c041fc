/* SPDX-License-Identifier: Apache-2.0 */
/* The GPU as this process sees it: work handed to the machine's timeline, and waiting for it. */
#include <sched.h>
#include <time.h>

#include "sim.h"
#include "virtual.h"

#pragma weak virtual_now

#define SLEEP_MAX_NS UINT64_C(5000000)
#define SPIN_NS      UINT64_C(60000)

uint64_t sim_engine_submit(int dev, uint64_t ns)
{
    struct sim_client *c = sim_client(dev);
    uint64_t mark;

    sim_machine_lock(sim->machine);
    /* Settled first: the new work begins now, not when somebody last looked. */
    sim_timeline_advance(sim->machine, sim_gpu(dev), sim_now_ns());
    c->submitted_ns += ns;
    mark = c->submitted_ns;
    sim_machine_unlock(sim->machine);
    return mark;
}

uint64_t sim_engine_served(int dev)
{
    uint64_t served;

    sim_machine_lock(sim->machine);
    sim_timeline_advance(sim->machine, sim_gpu(dev), sim_now_ns());
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

void sim_engine_sleep(int dev, uint64_t mark)
{
    uint64_t served = sim_engine_served(dev);
    uint64_t left = mark > served ? mark - served : 0;

    if (!left)
        return;
    sim_unlock();
    if (left <= SPIN_NS && !(virtual_now && virtual_now())) {
        sched_yield();
    } else {
        struct timespec ts = {.tv_nsec = (long)(left < SLEEP_MAX_NS ? left : SLEEP_MAX_NS)};

        nanosleep(&ts, NULL);
    }
    sim_lock();
}
