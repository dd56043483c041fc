/* SPDX-License-Identifier: Apache-2.0 */
/* Adds up what this process holds. Nothing is stopped for it: where bytes come or go meanwhile it is added up again, and then said to be moving. */
#include "explain.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "asleep.h"
#include "context.h"
#include "gap.h"
#include "imports.h"
#include "meter.h"
#include "softslice/clock.h"
#include "softslice/explain.h"
#include "softslice/log.h"

#define ATTEMPTS 3

/* Of a device, beside what is told. */
struct rest {
    uint64_t granules, shared; /* bytes of granules that are shared, and of what is in them */
    uint64_t count;            /* of those granules */
};

struct walk {
    struct membership *m;
    struct explain explain; /* its devices are the quota's */
    struct rest rest[QUOTA_DEVICES];
    char file[EXPLAIN_FILE_MOST] __attribute__((aligned(8)));
};

static unsigned index_of(const struct membership *m, unsigned device)
{
    return (unsigned)m->quota.device[device].index;
}

/* ---- the tables. What is called here is under a lock of theirs */

static void add(struct walk *walk, enum explain_kind kind, const struct record *record)
{
    explain_add(&walk->explain.device[record->device], kind, record->bytes);
    if (record->small)
        walk->rest[record->device].shared += record->bytes;
}

static void add_allocation(void *argument, const struct record *record)
{
    struct walk *walk = argument;

    if (record->device >= walk->m->quota.devices)
        return;
    if (record->family == QUOTA_LINEAR)
        add(walk, EXPLAIN_PLAIN, record);
    else if (record->family == QUOTA_MANAGED)
        add(walk, EXPLAIN_MANAGED, record);
    else if (record->family == QUOTA_SPILLED)
        add(walk, EXPLAIN_SPILLED, record);
    else if (record->family == QUOTA_POOL) /* its bytes are a meter's number */
        walk->explain.device[record->device].blocks++;
}

/* An array without memory of its own has a number for its bytes. */
static void add_handle(void *argument, const struct record *record)
{
    struct walk *walk = argument;

    if (record->device >= walk->m->quota.devices)
        return;
    if (record->family == QUOTA_ARRAY)
        add(walk, EXPLAIN_ARRAY, record);
    else if (record->family == QUOTA_GROWTH)
        add(walk, EXPLAIN_MODULE, record);
}

static void add_context(void *argument, const struct record *record)
{
    struct walk *walk = argument;

    if (record->device < walk->m->quota.devices)
        explain_add(&walk->explain.device[record->device], EXPLAIN_CONTEXT, record->bytes);
}

static void add_granules(struct walk *walk, unsigned device, uint64_t count)
{
    walk->rest[device].count += count;
    walk->rest[device].granules += count * walk->m->quota.device[device].granule;
}

static void add_slab(void *argument, const struct record *slab)
{
    struct walk *walk = argument;

    if (slab->small && slab->device < walk->m->quota.devices)
        add_granules(walk, slab->device, 1);
}

static void add_bucket(void *argument, const struct record *sum)
{
    struct walk *walk = argument;
    uint64_t granule;

    if (sum->device >= walk->m->quota.devices)
        return;
    granule = walk->m->quota.device[sum->device].granule;
    add_granules(walk, sum->device, (sum->bytes + granule - 1) / granule);
}

static void add_physical(void *argument, unsigned device, uint64_t bytes)
{
    struct walk *walk = argument;

    if (device < walk->m->quota.devices)
        explain_add(&walk->explain.device[device], EXPLAIN_VMM, bytes);
}

static void add_meter(void *argument, const struct meter_told *told)
{
    struct walk *walk = argument;
    struct explain_device *device = &walk->explain.device[told->device];
    bool pool = told->kind == METER_POOL;

    if (!told->charged)
        return;
    explain_add(device, pool ? EXPLAIN_POOL : EXPLAIN_GRAPH, told->charged);
    if (told->orphan)
        device->orphaned += told->charged;
    if (!told->known) /* then none of it is called cached */
        *(pool ? &device->pools_used : &device->graphs_used) += told->charged;
    else
        *(pool ? &device->pools_used : &device->graphs_used) += told->used < told->charged ? told->used : told->charged;
    if (told->known)
        device->flags |= pool ? EXPLAIN_POOLS_ASKED : EXPLAIN_GRAPHS_ASKED;
}

/* ---- a device */

static void add_rest(struct walk *walk, unsigned i)
{
    struct explain_device *device = &walk->explain.device[i];
    const struct process_gap *gap = process_gap((int)i);
    struct explain_sum *rounding = &device->kind[EXPLAIN_ROUNDING].all;
    uint64_t waking, asleep = asleep_bytes((int)i, &waking), imported = imports_bytes(i), charged = gap_bytes((int)i);

    if (asleep + waking)
        explain_add(device, EXPLAIN_ASLEEP, asleep + waking);
    if (charged)
        explain_add(device, EXPLAIN_DRIVER, charged);
    if (imported)
        explain_add(device, EXPLAIN_IMPORTED, imported);
    rounding->count = walk->rest[i].count;
    rounding->bytes = walk->rest[i].granules > walk->rest[i].shared ? walk->rest[i].granules - walk->rest[i].shared : 0;
    if (__atomic_load_n(&gap->known, __ATOMIC_RELAXED))
        device->flags |= EXPLAIN_FIGURE;
}

static void add_all(struct walk *walk, bool ask)
{
    records_visit(process_allocations(), add_allocation, walk);
    records_visit(process_handles(), add_handle, walk);
    records_visit(process_contexts(), add_context, walk);
    records_visit(process_buckets(), add_bucket, walk);
    slabs_visit(process_slabs(), add_slab, walk);
    phys_visit(process_phys(), add_physical, walk);
    meters_tell(walk->m, ask, add_meter, walk);
    for (unsigned i = 0; i < walk->m->quota.devices; i++)
        add_rest(walk, i);
}

/* False where bytes moved meanwhile. */
static bool try(struct walk *walk, bool ask)
{
    const struct quota *quota = &walk->m->quota;
    uint64_t before[QUOTA_DEVICES];
    bool still = true;

    memset(&walk->explain, 0, sizeof(walk->explain));
    memset(walk->rest, 0, sizeof(walk->rest));
    walk->explain.devices = quota->devices;
    for (unsigned i = 0; i < quota->devices; i++)
        before[i] = ledger_own(&quota->ledger, index_of(walk->m, i));
    add_all(walk, ask);
    for (unsigned i = 0; i < quota->devices; i++) {
        struct explain_device *device = &walk->explain.device[i];

        device->tentative = ledger_own_tentative(&quota->ledger, index_of(walk->m, i));
        device->committed = ledger_own(&quota->ledger, index_of(walk->m, i));
        if (device->committed != before[i] || device->committed != explain_charged(device)) {
            device->flags |= EXPLAIN_MOVING;
            still = false;
        }
    }
    return still;
}

static void finish_device(struct membership *m, unsigned i, struct explain_device *device)
{
    struct quota_device *known = &m->quota.device[i];
    struct quota_refused refused = quota_refused(&m->quota, i);

    memcpy(device->uuid, known->id.uuid, sizeof(device->uuid));
    device->granule = known->granule;
    device->limit = quota_limit(&m->quota, i);
    device->refused = refused.most;
    device->refused_ago = refused.ago;
    device->refusals = refused.count;
    if (ledger_is_suspended(&m->quota.ledger, (unsigned)known->index))
        device->flags |= EXPLAIN_SUSPENDED;
}

static bool is_of_interest(const struct explain_device *device)
{
    if (device->committed || device->tentative || device->refused)
        return true;
    for (unsigned i = 0; i < EXPLAIN_KINDS; i++)
        if (device->kind[i].all.count)
            return true;
    return false;
}

static bool is_suspended(const struct membership *m)
{
    for (unsigned i = 0; i < m->quota.devices; i++)
        if (ledger_is_suspended(&m->quota.ledger, index_of(m, i)))
            return true;
    return false;
}

static size_t account(struct walk *walk, uint64_t request)
{
    struct membership *m = walk->m;
    struct explain *explain = &walk->explain;
    uint64_t begun = clock_now();
    unsigned kept = 0;

    /* The driver answers no question about a process that is checkpointed. */
    for (unsigned i = 0; !try(walk, !is_suspended(m)) && i + 1 < ATTEMPTS; i++)
        ;
    explain->request = request;
    explain->tag = ledger_own_since(&m->quota.ledger);
    explain->pid = (uint32_t)getpid();
    explain->when = begun;
    explain->took = clock_now() - begun;
    for (unsigned i = 0; i < m->quota.devices; i++) {
        finish_device(m, i, &explain->device[i]);
        if (is_of_interest(&explain->device[i]))
            explain->device[kept++] = explain->device[i];
    }
    explain->devices = kept;
    return explain_pack(explain, walk->file, sizeof(walk->file));
}

void explain_answer(struct membership *m)
{
    uint64_t request;
    struct walk *walk;
    int saved = errno, result;

    if (!ledger_is_asked(&m->quota.ledger, &request))
        return;
    walk = mmap(NULL, sizeof(*walk), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (walk != MAP_FAILED) {
        walk->m = m;
        result = ledger_answer(&m->quota.ledger, request, walk->file, account(walk, request));
        if (result < 0)
            log_debug("where this process's bytes are cannot be told: error %d", -result);
        munmap(walk, sizeof(*walk));
    }
    errno = saved;
}

void explain_tidy(struct membership *m, bool now)
{
    ledger_withdraw_answer(&m->quota.ledger, now);
}
