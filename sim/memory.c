/* SPDX-License-Identifier: Apache-2.0 */
/* Allocations: HBM and who has taken how much of it, addresses, slabs for small ones, and where the bytes are kept.
 *
 * Device memory is addresses that nobody can touch (PROT_NONE) and, once a copy first needs it, ordinary memory elsewhere that holds
 * the bytes. So 80 GiB of allocations cost nothing, and host code that dereferences a device pointer crashes as it should. */
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sim.h"

#define UNIT      512
#define SMALL_MAX ((uint64_t)1 << 20)

/* One granule of HBM shared by small allocations of a context. */
struct sim_slab {
    struct sim_slab *next;
    uint64_t base;
    unsigned char *bytes;
    unsigned int units, free_units;
    unsigned char taken[];
};

static void *tree;              /* struct sim_mem by address; see compare() */
static struct sim_mem *records; /* all of them */

uint64_t sim_round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

uint64_t sim_granularity(void)
{
    return sim->machine->set.granularity;
}

bool sim_hbm_take(int dev, uint64_t bytes)
{
    struct sim_machine *m = sim->machine;
    uint64_t own;
    bool fits;

    sim_machine_lock(m);
    sim_reap(m);
    own = sim_proc_used(m, (unsigned int)sim->row, sim_gpu(dev));
    if (bytes > sim->limit[dev] || own > sim->limit[dev] - bytes)
        fits = !bytes;
    else
        fits = !bytes || sim_gpu_fits(m, sim_gpu(dev), bytes);
    if (fits)
        sim_client(dev)->used += bytes;
    sim_machine_unlock(m);
    if (fits && bytes && own + bytes > sim->budget)
        sim_notify(dev, own + bytes - sim->budget);
    return fits;
}

void sim_hbm_give(int dev, uint64_t bytes)
{
    if (!bytes)
        return;
    sim_machine_lock(sim->machine);
    sim_client(dev)->used -= bytes;
    sim_machine_unlock(sim->machine);
}

void sim_hbm_info(int dev, uint64_t *free_bytes, uint64_t *total)
{
    struct sim_machine *m = sim->machine;
    uint64_t used, own;

    sim_machine_lock(m);
    sim_reap(m);
    used = sim_gpu_used(m, sim_gpu(dev));
    own = sim_proc_used(m, (unsigned int)sim->row, sim_gpu(dev));
    *total = m->set.mem;
    *free_bytes = used > m->set.mem ? 0 : m->set.mem - used;
    /* The limit of an MPS client shows in what is free, not in the total. */
    if (own > sim->limit[dev])
        *free_bytes = 0;
    else if (*free_bytes > sim->limit[dev] - own)
        *free_bytes = sim->limit[dev] - own;
    sim_machine_unlock(m);
}

/* Two ranges that overlap are equal: a one-byte key finds the record around an address. */
static int compare(const void *left, const void *right)
{
    const struct sim_mem *a = left, *b = right;

    if (a->base + a->size <= b->base)
        return -1;
    return a->base >= b->base + b->size;
}

struct sim_mem *sim_mem_find(uint64_t address)
{
    struct sim_mem key = {.base = address, .size = 1};
    struct sim_mem **found = tfind(&key, &tree, compare);

    return found ? *found : NULL;
}

static void *map_aligned(uint64_t size, uint64_t align)
{
    uint64_t whole = size + align, base, start;
    char *p = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    base = (uint64_t)(uintptr_t)p;
    start = sim_round_up(base, align);
    if (start > base)
        munmap(p, start - base);
    if (base + whole > start + size)
        munmap((void *)(uintptr_t)(start + size), base + whole - start - size);
    return (void *)(uintptr_t)start;
}

/* Addresses of the first ABI have 32 bits. */
static void *map_low(uint64_t size)
{
    for (uint64_t at = 0x10000000; at + size < 0xf0000000; at += 0x1000000) {
        void *p =
            mmap((void *)(uintptr_t)at, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

        if ((uintptr_t)p == at)
            return p;
        if (p != MAP_FAILED)
            munmap(p, size);
    }
    return NULL;
}

static struct sim_mem *record(enum sim_mem_kind kind, int dev, struct sim_ctx *ctx, uint64_t base, uint64_t size)
{
    static uint64_t last_id;
    struct sim_mem *mem = calloc(1, sizeof(*mem));
    struct sim_mem **in;

    if (!mem)
        return NULL;
    mem->base = base;
    mem->size = size;
    mem->kind = kind;
    mem->dev = dev;
    mem->ctx = ctx;
    mem->id = ++last_id;
    in = tsearch(mem, &tree, compare);
    if (!in || *in != mem) {
        free(mem);
        return NULL;
    }
    mem->next = records;
    if (records)
        records->prev = mem;
    records = mem;
    return mem;
}

struct sim_mem *sim_mem_new(enum sim_mem_kind kind, int dev, struct sim_ctx *ctx, uint64_t base, uint64_t size)
{
    uint64_t reserved = 0;
    struct sim_mem *mem;

    if (!base) {
        uint64_t align = sim_granularity() > SMALL_MAX * 2 ? sim_granularity() : SMALL_MAX * 2;

        reserved = sim_round_up(size, 4096);
        base = (uint64_t)(uintptr_t)map_aligned(reserved, align);
        if (!base)
            return NULL;
    }
    mem = record(kind, dev, ctx, base, size);
    if (!mem && reserved)
        munmap((void *)(uintptr_t)base, reserved);
    if (mem)
        mem->reserved = reserved;
    return mem;
}

static void slab_release(struct sim_ctx *ctx, struct sim_slab *slab)
{
    struct sim_slab **link = &ctx->slabs;

    while (*link != slab)
        link = &(*link)->next;
    *link = slab->next;
    munmap((void *)(uintptr_t)slab->base, sim_granularity());
    if (slab->bytes)
        munmap(slab->bytes, sim_granularity());
    sim_hbm_give(ctx->dev, sim_granularity());
    free(slab);
}

static struct sim_slab *slab_new(struct sim_ctx *ctx)
{
    uint64_t size = sim_granularity();
    unsigned int units = (unsigned int)(size / UNIT);
    struct sim_slab *slab;

    if (!sim_hbm_take(ctx->dev, size))
        return NULL;
    slab = calloc(1, sizeof(*slab) + units);
    if (slab)
        slab->base = (uint64_t)(uintptr_t)map_aligned(size, size);
    if (!slab || !slab->base) {
        free(slab);
        sim_hbm_give(ctx->dev, size);
        return NULL;
    }
    slab->units = units;
    slab->free_units = units;
    slab->next = ctx->slabs;
    ctx->slabs = slab;
    return slab;
}

/* First fit; -1 if no run of `units` is free. */
static long slab_fit(const struct sim_slab *slab, unsigned int units)
{
    unsigned int run = 0;

    for (unsigned int i = 0; i < slab->units; i++) {
        run = slab->taken[i] ? 0 : run + 1;
        if (run == units)
            return (long)(i + 1 - units);
    }
    return -1;
}

static CUresult alloc_small(struct sim_ctx *ctx, uint64_t size, struct sim_mem **out)
{
    unsigned int units = (unsigned int)((size + UNIT - 1) / UNIT);
    struct sim_slab *slab;
    struct sim_mem *mem;
    long at = -1;

    for (slab = ctx->slabs; slab; slab = slab->next)
        if (slab->free_units >= units && (at = slab_fit(slab, units)) >= 0)
            break;
    if (!slab) {
        slab = slab_new(ctx);
        at = 0;
    }
    if (!slab)
        return CUDA_ERROR_OUT_OF_MEMORY;
    mem = record(SIM_MEM_DEVICE, ctx->dev, ctx, slab->base + (uint64_t)at * UNIT, size);
    if (!mem)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memset(slab->taken + at, 1, units);
    slab->free_units -= units;
    mem->slab = slab;
    *out = mem;
    return CUDA_SUCCESS;
}

CUresult sim_mem_alloc(struct sim_ctx *ctx, uint64_t size, bool low, enum sim_mem_kind kind, struct sim_mem **out)
{
    uint64_t granularity = sim_granularity(), charge;
    uint64_t small = granularity / 2 < SMALL_MAX ? granularity / 2 : SMALL_MAX;
    struct sim_mem *mem = NULL;

    if (size <= small && !low && kind == SIM_MEM_DEVICE)
        return alloc_small(ctx, size, out);
    if (size > (uint64_t)1 << 46)
        return CUDA_ERROR_OUT_OF_MEMORY;
    charge = sim_round_up(size, granularity);
    if (!sim_hbm_take(ctx->dev, charge))
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (low) {
        uint64_t reserved = sim_round_up(size, 4096);
        void *base = map_low(reserved);

        if (base)
            mem = sim_mem_new(kind, ctx->dev, ctx, (uint64_t)(uintptr_t)base, size);
        if (mem)
            mem->reserved = reserved;
    } else {
        mem = sim_mem_new(kind, ctx->dev, ctx, 0, size);
    }
    if (!mem) {
        sim_hbm_give(ctx->dev, charge);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    mem->charged = charge;
    *out = mem;
    return CUDA_SUCCESS;
}

void sim_mem_free(struct sim_mem *mem)
{
    struct sim_slab *slab = mem->slab;

    if (mem->kind == SIM_MEM_MANAGED)
        sim_resident_free(mem);
    tdelete(mem, &tree, compare);
    if (mem->next)
        mem->next->prev = mem->prev;
    if (mem->prev)
        mem->prev->next = mem->next;
    else
        records = mem->next;
    if (mem->bytes_mapped)
        munmap(mem->bytes, mem->reserved);
    if (mem->reserved)
        munmap((void *)(uintptr_t)mem->base, mem->reserved);
    if (slab) {
        unsigned int units = (unsigned int)((mem->size + UNIT - 1) / UNIT);

        memset(slab->taken + (mem->base - slab->base) / UNIT, 0, units);
        slab->free_units += units;
        if (slab->free_units == slab->units)
            slab_release(mem->ctx, slab);
    }
    sim_hbm_give(mem->dev, mem->charged);
    if (mem->object)
        sim_share_drop(mem->object);
    free(mem);
}

void sim_mem_free_context(struct sim_ctx *ctx)
{
    struct sim_mem *next;

    for (struct sim_mem *mem = records; mem; mem = next) {
        next = mem->next;
        if (mem->ctx == ctx)
            sim_mem_free(mem);
    }
}

static unsigned char *map_bytes(uint64_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

unsigned char *sim_mem_bytes(uint64_t address, uint64_t size)
{
    struct sim_mem *mem = sim_mem_find(address);

    if (!mem)
        return (unsigned char *)(uintptr_t)address;
    if (size > mem->size - (address - mem->base))
        return NULL;
    if (mem->slab) {
        if (!mem->slab->bytes)
            mem->slab->bytes = map_bytes(sim_granularity());
        if (!mem->slab->bytes)
            return NULL;
        return mem->slab->bytes + (address - mem->slab->base);
    }
    if (mem->kind == SIM_MEM_MAPPED) {
        unsigned char *bytes = sim_phys_bytes(mem);

        return bytes ? bytes + (address - mem->base) : NULL;
    }
    if (!mem->bytes) {
        mem->bytes = map_bytes(mem->reserved);
        mem->bytes_mapped = mem->bytes != NULL;
    }
    return mem->bytes ? mem->bytes + (address - mem->base) : NULL;
}

struct sim_mem *sim_mem_next(struct sim_mem *after)
{
    return after ? after->next : records;
}
