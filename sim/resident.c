/* SPDX-License-Identifier: Apache-2.0 */
/* Where the pages of managed memory are. The machine knows how many bytes of them a process has on a GPU, and whoever needs the room lowers
 * that; the process then finds the pages that came first on the host. Bytes never move: they are in the host's memory all the time. */
#include <stdlib.h>

#include "sim.h"

#define HOST 0

/* Of each page, of the size of the granularity. */
struct places {
    uint64_t count;
    struct {
        uint64_t since; /* orders arrivals */
        int place;      /* HOST, or a device and 1 */
        int last;       /* where it was last prefetched to, likewise, and 1; 0: nowhere yet */
    } page[];
};

static uint64_t here[SIM_MAX_GPUS]; /* bytes of the pages that are on a device, as this process knows */

static struct places *places_of(struct sim_mem *mem)
{
    uint64_t count = (mem->size + sim_granularity() - 1) / sim_granularity();

    if (!mem->owner) {
        struct places *p = calloc(1, sizeof(*p) + count * sizeof(p->page[0]));

        if (p)
            p->count = count;
        mem->owner = p;
    }
    return mem->owner;
}

/* Pages that were sent to the host meanwhile. */
static void notice(int dev)
{
    uint64_t left;

    sim_machine_lock(sim->machine);
    left = sim_client(dev)->resident;
    sim_machine_unlock(sim->machine);
    while (here[dev] > left) {
        struct places *oldest = NULL;
        uint64_t at = 0;

        for (struct sim_mem *mem = sim_mem_next(NULL); mem; mem = sim_mem_next(mem)) {
            struct places *p = mem->kind == SIM_MEM_MANAGED ? mem->owner : NULL;

            for (uint64_t i = 0; p && i < p->count; i++)
                if (p->page[i].place == dev + 1 && (!oldest || p->page[i].since < oldest->page[at].since)) {
                    oldest = p;
                    at = i;
                }
        }
        if (!oldest)
            break;
        oldest->page[at].place = HOST;
        here[dev] -= sim_granularity();
    }
}

static bool arrive(int dev)
{
    bool fits;

    sim_machine_lock(sim->machine);
    sim_reap(sim->machine);
    fits = sim_gpu_fits(sim->machine, sim_gpu(dev), sim_granularity());
    if (fits)
        sim_client(dev)->resident += sim_granularity();
    sim_machine_unlock(sim->machine);
    if (fits)
        here[dev] += sim_granularity();
    return fits;
}

static void leave(struct places *p, uint64_t i)
{
    int dev = p->page[i].place - 1;

    if (dev < 0)
        return;
    p->page[i].place = HOST;
    here[dev] -= sim_granularity();
    sim_machine_lock(sim->machine);
    if (sim_client(dev)->resident > here[dev])
        sim_client(dev)->resident = here[dev];
    sim_machine_unlock(sim->machine);
}

/* "The Unified Memory driver may evict pages from other cuMemAllocManaged allocations to host memory in order to make room. Device memory
 * allocated using cuMemAlloc or cuArrayCreate will not be evicted". What finds no room stays where it is (assumed). */
void sim_prefetch_run(struct sim_op *op)
{
    static uint64_t arrivals;
    struct sim_mem *mem = sim_mem_find(op->copy.dst);
    struct places *p = mem && mem->kind == SIM_MEM_MANAGED ? places_of(mem) : NULL;
    uint64_t page = sim_granularity(), from, end;
    int place = (int)op->copy.value;

    if (!p)
        return;
    for (int dev = 0; dev < sim->devices; dev++)
        notice(dev);
    from = (op->copy.dst - mem->base) / page;
    end = (op->copy.dst - mem->base + op->copy.width + page - 1) / page;
    for (uint64_t i = from; i < end && i < p->count; i++)
        p->page[i].last = place + 1;
    for (uint64_t i = from; i < end && i < p->count; i++) {
        if (p->page[i].place == place)
            continue;
        if (place != HOST && !arrive(place - 1))
            break;
        leave(p, i);
        p->page[i].place = place;
        p->page[i].since = ++arrivals;
        /* The room may have been this process' own. */
        if (place != HOST)
            notice(place - 1);
    }
}

int sim_prefetched_to(const struct sim_mem *mem, uint64_t offset, uint64_t size)
{
    const struct places *p = mem->owner;
    uint64_t page = sim_granularity(), from = offset / page, end = (offset + size + page - 1) / page;

    for (uint64_t i = from; i < end; i++)
        if (!p || i >= p->count || !p->page[i].last || p->page[i].last != p->page[from].last)
            return CU_DEVICE_INVALID;
    return p->page[from].last == HOST + 1 ? CU_DEVICE_CPU : p->page[from].last - 2;
}

void sim_resident_free(struct sim_mem *mem)
{
    struct places *p = mem->owner;

    if (!p)
        return;
    for (int dev = 0; dev < sim->devices; dev++)
        notice(dev);
    for (uint64_t i = 0; i < p->count; i++)
        leave(p, i);
    free(p);
    mem->owner = NULL;
}
