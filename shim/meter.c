/* SPDX-License-Identifier: Apache-2.0 */
/* Keeps and reads meters. */
#include "meter.h"

#include <errno.h>
#include <limits.h>

#include "../core/lock.h"
#include "gap.h"
#include "graphs.h"
#include "real.h"
#include "relaxed.h"
#include "softslice/log.h"

/* Assumed of drivers: a pool takes memory from the device in whole chunks of this. And what is more is no chunk. */
#define STEP_FIRST (UINT64_C(32) << 20)
#define STEP_MOST  (UINT64_C(1) << 30)

enum { FREE, LIVE, ENDING, ORPHAN };

/* How long the end of a pool is put off while another thread asks the driver about it. */
#define END_ATTEMPTS 20000
#define END_SLEEP_NS 50000

struct meters {
    uint32_t lock;                        /* of who makes and ends meters */
    uint32_t used;                        /* atomic: all behind this are free */
    uint32_t full;                        /* atomic: told that there are no more */
    uint64_t changes;                     /* atomic: meters_changes() */
    struct meter *current[QUOTA_DEVICES]; /* atomic */
    uint64_t step;                        /* atomic: meters_step(), 0 until more than the first was seen */
    uint64_t shrinking, shrunk;           /* atomic: refunds that were begun, and that were done */
    uint64_t key[METERS_MAX];             /* atomic: the handle of a live one, else 0 */
    struct meter meter[METERS_MAX];
} __attribute__((aligned(64)));

size_t meters_size(void)
{
    return sizeof(struct meters);
}

#define HOLD ((UINT64_C(1) << 32) + 1)

static uint32_t holders(uint64_t users)
{
    return (uint32_t)users;
}

bool meter_hold(struct meter *meter, uint64_t *order)
{
    *order = __atomic_fetch_add(&meter->users, HOLD, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&meter->state, __ATOMIC_SEQ_CST) == LIVE)
        return true;
    meter_let_go(meter);
    return false;
}

void meter_let_go(struct meter *meter)
{
    __atomic_fetch_sub(&meter->users, 1, __ATOMIC_SEQ_CST);
}

bool meter_alone(const struct meter *meter, uint64_t order)
{
    return holders(order) == 0 && __atomic_load_n(&meter->users, __ATOMIC_SEQ_CST) == order + HOLD;
}

/* Handles are addresses, and numbers of devices are smaller than any. */
static struct meter *find(struct meters *all, uint64_t handle)
{
    uint32_t used = __atomic_load_n(&all->used, __ATOMIC_ACQUIRE);

    for (uint32_t i = 0; i < used; i++)
        if (__atomic_load_n(&all->key[i], __ATOMIC_ACQUIRE) == handle)
            return &all->meter[i];
    return NULL;
}

/* Under the lock: a place for one more, METERS_MAX if there is none. */
static uint32_t free_place(struct meters *all)
{
    uint32_t i = 0;

    while (i < METERS_MAX && (__atomic_load_n(&all->meter[i].state, __ATOMIC_ACQUIRE) != FREE ||
                              holders(__atomic_load_n(&all->meter[i].users, __ATOMIC_ACQUIRE))))
        i++;
    return i;
}

/* With `changes` not NULL only where there has been no change since. */
static struct meter *make(struct meters *all, uint64_t handle, unsigned device, enum meter_kind kind, const uint64_t *changes)
{
    struct meter *meter;
    uint32_t place = METERS_MAX;

    lock_take(&all->lock);
    meter = find(all, handle);
    if (!meter && changes && !meters_unchanged(*changes)) {
        lock_give(&all->lock);
        return NULL;
    }
    if (!meter)
        place = free_place(all);
    if (place < METERS_MAX) {
        meter = &all->meter[place];
        meter->handle = handle;
        meter->device = (uint16_t)device;
        meter->kind = kind;
        __atomic_store_n(&meter->state, LIVE, __ATOMIC_RELEASE);
        __atomic_store_n(&all->key[place], handle, __ATOMIC_RELEASE);
        if (all->used <= place)
            __atomic_store_n(&all->used, place + 1, __ATOMIC_RELEASE);
    }
    lock_give(&all->lock);
    if (!meter && !__atomic_exchange_n(&all->full, 1, __ATOMIC_RELAXED))
        log_warn("more than %d memory pools at a time: allocations from further ones are refused", METERS_MAX);
    return meter;
}

static struct meter *find_or_make(uint64_t handle, unsigned device, enum meter_kind kind)
{
    struct meters *all = process_meters();
    struct meter *meter = all ? find(all, handle) : NULL;

    return meter || !all ? meter : make(all, handle, device, kind, NULL);
}

struct meter *meter_of_found(CUmemoryPool pool, unsigned device, uint64_t changes)
{
    struct meters *all = process_meters();
    struct meter *meter = meter_find(pool);

    return meter || !all ? meter : make(all, (uint64_t)(uintptr_t)pool, device, METER_POOL, &changes);
}

struct meter *meter_of_pool(struct membership *m, CUmemoryPool pool, unsigned device)
{
    (void)m;
    return find_or_make((uint64_t)(uintptr_t)pool, device, METER_POOL);
}

struct meter *meter_of_graphs(struct membership *m, unsigned device)
{
    (void)m;
    return find_or_make(1 + (uint64_t)device, device, METER_GRAPHS);
}

struct meter *meter_find(CUmemoryPool pool)
{
    struct meters *all = process_meters();

    return all && pool ? find(all, (uint64_t)(uintptr_t)pool) : NULL;
}

struct meter *meter_current(unsigned device)
{
    struct meters *all = process_meters();

    return all ? __atomic_load_n(&all->current[device], __ATOMIC_ACQUIRE) : NULL;
}

void meter_set_current(struct meter *meter, uint64_t changes)
{
    struct meters *all = process_meters();

    lock_take(&all->lock);
    if (meters_unchanged(changes))
        __atomic_store_n(&all->current[meter->device], meter, __ATOMIC_RELEASE);
    lock_give(&all->lock);
}

/* In the low bits the changes that are on their way, above the ones that were made. */
#define CHANGING UINT64_C(1)
#define CHANGED  (UINT64_C(1) << 20)

void meters_change_begin(void)
{
    struct meters *all = process_meters();

    if (!all)
        return;
    lock_take(&all->lock);
    __atomic_store_n(&all->changes, all->changes + CHANGING, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < QUOTA_DEVICES; i++)
        __atomic_store_n(&all->current[i], NULL, __ATOMIC_SEQ_CST);
    lock_give(&all->lock);
}

void meters_change_end(void)
{
    struct meters *all = process_meters();

    if (!all)
        return;
    lock_take(&all->lock);
    __atomic_store_n(&all->changes, all->changes + CHANGED - CHANGING, __ATOMIC_SEQ_CST);
    lock_give(&all->lock);
}

uint64_t meters_changes(void)
{
    struct meters *all = process_meters();

    return all ? __atomic_load_n(&all->changes, __ATOMIC_SEQ_CST) : 0;
}

bool meters_unchanged(uint64_t before)
{
    return before % CHANGED == 0 && meters_changes() == before;
}

uint64_t meters_step(void)
{
    struct meters *all = process_meters();
    uint64_t step = all ? __atomic_load_n(&all->step, __ATOMIC_RELAXED) : 0;

    return step ? step : STEP_FIRST;
}

void meters_saw_growth(uint64_t bytes, uint64_t grown)
{
    struct meters *all = process_meters();
    uint64_t step = meters_step();

    while (step < STEP_MOST && (bytes + (step - 1)) / step * step < grown)
        step *= 2;
    if (all)
        __atomic_store_n(&all->step, step, __ATOMIC_RELAXED);
}

/* What the driver says. */
static bool ask(const struct membership *m, const struct meter *meter, uint64_t *bytes)
{
    CUstreamCaptureMode mode = relaxed_enter();
    cuuint64_t value = 0;
    CUresult result;

    if (meter->kind == METER_POOL)
        result = called.cuMemPoolGetAttribute((CUmemoryPool)(uintptr_t)meter->handle, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &value);
    else
        result = called.cuDeviceGetGraphMemAttribute(m->device[meter->device], CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &value);
    relaxed_leave(mode);
    *bytes = value;
    return result == CUDA_SUCCESS;
}

uint64_t meters_shrunk(void)
{
    struct meters *all = process_meters();

    return all ? __atomic_load_n(&all->shrunk, __ATOMIC_SEQ_CST) : 0;
}

bool meters_shrank(uint64_t before)
{
    struct meters *all = process_meters();

    return all && __atomic_load_n(&all->shrinking, __ATOMIC_SEQ_CST) != before;
}

static void shrink(struct membership *m, unsigned index, uint64_t bytes)
{
    struct meters *all = process_meters();

    __atomic_fetch_add(&all->shrinking, 1, __ATOMIC_SEQ_CST);
    ledger_refund(&m->quota.ledger, index, bytes);
    __atomic_fetch_add(&all->shrunk, 1, __ATOMIC_SEQ_CST);
}

/* The charge becomes `bytes`; under the meter's lock, so that the ledger sees changes in their order. */
static uint64_t charge(struct membership *m, struct meter *meter, uint64_t bytes)
{
    unsigned index = (unsigned)m->quota.device[meter->device].index;
    uint64_t before = meter->charged;

    __atomic_store_n(&meter->charged, bytes, __ATOMIC_RELAXED);
    if (bytes > before)
        ledger_settle(&m->quota.ledger, index, 0, bytes - before);
    else if (bytes < before)
        shrink(m, index, before - bytes);
    return bytes > before ? bytes - before : 0;
}

uint64_t meter_read(struct membership *m, struct meter *meter)
{
    uint64_t ticket, bytes, grown = 0;

    if (meter->kind == METER_FOREIGN)
        return 0;
    ticket = __atomic_add_fetch(&meter->tickets, 1, __ATOMIC_SEQ_CST);
    if (!ask(m, meter, &bytes))
        return METER_UNKNOWN;
    lock_take(&meter->lock);
    if (ticket > meter->applied) {
        meter->applied = ticket;
        grown = charge(m, meter, bytes);
    }
    lock_give(&meter->lock);
    return grown;
}

bool meter_claim(struct meter *meter, uint64_t bytes)
{
    uint64_t claimed = __atomic_add_fetch(&meter->claimed, bytes, __ATOMIC_SEQ_CST);
    CUmemoryPool pool = (CUmemoryPool)(uintptr_t)meter->handle;
    CUstreamCaptureMode mode = relaxed_enter();
    cuuint64_t reserved = 0, used = 0;
    bool known = called.cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used) == CUDA_SUCCESS &&
                 called.cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved) == CUDA_SUCCESS;

    relaxed_leave(mode);
    if (known && claimed >= bytes && reserved > used && reserved - used >= claimed)
        return true;
    meter_unclaim(meter, bytes);
    return false;
}

void meter_unclaim(struct meter *meter, uint64_t bytes)
{
    __atomic_fetch_sub(&meter->claimed, bytes, __ATOMIC_SEQ_CST);
}

static void end(struct membership *m, struct meter *meter)
{
    lock_take(&meter->lock);
    charge(m, meter, 0);
    gap_note_managed(meter->device, -(int64_t)meter->orphaned);
    meter->orphaned = meter->tickets = meter->applied = meter->blocks = meter->claimed = meter->threshold = 0;
    lock_give(&meter->lock);
    __atomic_store_n(&meter->state, FREE, __ATOMIC_RELEASE);
}

static uint64_t *key_of(const struct meter *meter)
{
    struct meters *all = process_meters();

    return &all->key[meter - all->meter];
}

struct meter *meter_ending(CUmemoryPool pool)
{
    struct meter *meter = meter_find(pool);
    uint8_t live = LIVE;
    int saved = errno;

    if (!meter || !__atomic_compare_exchange_n(&meter->state, &live, ENDING, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        return NULL;
    __atomic_store_n(key_of(meter), 0, __ATOMIC_SEQ_CST);
    for (int i = 0; i < END_ATTEMPTS && holders(__atomic_load_n(&meter->users, __ATOMIC_SEQ_CST)); i++)
        compat_sleep(END_SLEEP_NS);
    errno = saved;
    return meter;
}

void meter_ended(struct membership *m, struct meter *meter, bool gone)
{
    uint8_t orphan = ORPHAN;

    if (!gone) {
        __atomic_store_n(&meter->state, LIVE, __ATOMIC_SEQ_CST);
        __atomic_store_n(key_of(meter), meter->handle, __ATOMIC_SEQ_CST);
        return;
    }
    lock_take(&meter->lock);
    meter->orphaned = meter->charged;
    gap_note_managed(meter->device, (int64_t)meter->orphaned); /* how much of it is still there, nobody can be asked */
    lock_give(&meter->lock);
    __atomic_store_n(&meter->state, ORPHAN, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&meter->blocks, __ATOMIC_SEQ_CST) == 0 &&
        __atomic_compare_exchange_n(&meter->state, &orphan, ENDING, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        end(m, meter);
}

struct meter *meter_new(struct membership *m, CUmemoryPool pool, unsigned device, enum meter_kind kind)
{
    struct meter *old = meter_ending(pool);

    if (old) {
        meters_change_begin();
        meter_ended(m, old, true);
        meters_change_end();
    }
    return find_or_make((uint64_t)(uintptr_t)pool, device, kind);
}

uint64_t meter_number(const struct meter *meter)
{
    return (uint64_t)(meter - process_meters()->meter);
}

void meter_block(struct meter *meter)
{
    __atomic_fetch_add(&meter->blocks, 1, __ATOMIC_SEQ_CST);
}

void meter_unblock(struct membership *m, uint64_t number)
{
    struct meter *meter = &process_meters()->meter[number];
    uint8_t orphan = ORPHAN;

    if (__atomic_sub_fetch(&meter->blocks, 1, __ATOMIC_SEQ_CST) == 0 &&
        __atomic_load_n(&meter->state, __ATOMIC_SEQ_CST) == ORPHAN &&
        __atomic_compare_exchange_n(&meter->state, &orphan, ENDING, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        end(m, meter);
}

#define ALL_DEVICES UINT_MAX

/* Call `each` for every meter of a device that stands for memory, with the meter held. */
static void for_each(struct membership *m, unsigned device, void (*each)(struct membership *m, struct meter *meter, void *argument),
                     void *argument)
{
    struct meters *all = process_meters();
    uint32_t used = all ? __atomic_load_n(&all->used, __ATOMIC_ACQUIRE) : 0;
    uint64_t order;

    for (uint32_t i = 0; i < used; i++) {
        struct meter *meter = &all->meter[i];

        if (__atomic_load_n(&meter->state, __ATOMIC_ACQUIRE) != LIVE || !meter_hold(meter, &order))
            continue;
        if ((device == ALL_DEVICES || meter->device == device) && meter->kind != METER_FOREIGN)
            each(m, meter, argument);
        meter_let_go(meter);
    }
}

static void read_one(struct membership *m, struct meter *meter, void *argument)
{
    (void)argument;
    meter_read(m, meter);
}

void meters_read(struct membership *m, unsigned device)
{
    int saved = errno;

    for_each(m, device, read_one, NULL);
    errno = saved;
}

static void read_released(struct membership *m, struct meter *meter, void *argument)
{
    (void)argument;
    if (meter->kind == METER_POOL &&
        __atomic_load_n(&meter->charged, __ATOMIC_RELAXED) > __atomic_load_n(&meter->threshold, __ATOMIC_RELAXED))
        meter_read(m, meter);
}

void meters_read_released(void)
{
    struct meters *all = process_meters();
    struct membership *m;
    int saved = errno;

    if (!all || !__atomic_load_n(&all->used, __ATOMIC_ACQUIRE) || !(m = process_membership(NULL)))
        return;
    for_each(m, ALL_DEVICES, read_released, NULL);
    errno = saved;
}

static bool ask_used(const struct membership *m, struct meter *meter, uint64_t *used)
{
    CUstreamCaptureMode mode;
    cuuint64_t value = 0;
    CUresult result;
    uint64_t order;

    if (!meter_hold(meter, &order))
        return false;
    mode = relaxed_enter();
    if (meter->kind == METER_POOL)
        result = called.cuMemPoolGetAttribute((CUmemoryPool)(uintptr_t)meter->handle, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &value);
    else
        result = called.cuDeviceGetGraphMemAttribute(m->device[meter->device], CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, &value);
    relaxed_leave(mode);
    meter_let_go(meter);
    *used = value;
    return result == CUDA_SUCCESS;
}

void meters_tell(struct membership *m, bool ask, void (*each)(void *argument, const struct meter_told *told), void *argument)
{
    struct meters *all = process_meters();
    uint32_t used = all ? __atomic_load_n(&all->used, __ATOMIC_ACQUIRE) : 0;
    int saved = errno;

    for (uint32_t i = 0; i < used; i++) {
        struct meter *meter = &all->meter[i];
        struct meter_told told = {.charged = __atomic_load_n(&meter->charged, __ATOMIC_RELAXED)};

        if (!told.charged || meter->kind == METER_FOREIGN)
            continue;
        told.device = meter->device;
        told.kind = meter->kind;
        told.orphan = __atomic_load_n(&meter->state, __ATOMIC_SEQ_CST) == ORPHAN;
        told.known = ask && ask_used(m, meter, &told.used);
        each(argument, &told);
    }
    errno = saved;
}

static void trim_one(struct membership *m, struct meter *meter, void *came_back)
{
    uint64_t before = __atomic_load_n(&meter->charged, __ATOMIC_RELAXED);
    CUstreamCaptureMode mode;

    if (!before)
        return;
    if (meter->kind == METER_GRAPHS) {
        struct graphs_trim trim;
        if (!graphs_trim_begin(&trim, m, meter->device, false))
            return;
        mode = relaxed_enter();
        real.cuDeviceGraphMemTrim(m->device[meter->device]);
        relaxed_leave(mode);
        if (graphs_trim_end(&trim, m))
            *(bool *)came_back = true;
        return;
    }
    mode = relaxed_enter();
    real.cuMemPoolTrimTo((CUmemoryPool)(uintptr_t)meter->handle, 0);
    relaxed_leave(mode);
    meter_read(m, meter);
    if (__atomic_load_n(&meter->charged, __ATOMIC_RELAXED) < before)
        *(bool *)came_back = true;
}

bool meters_give_back(struct membership *m, unsigned device)
{
    bool came_back = false;
    int saved = errno;

    for_each(m, device, trim_one, &came_back);
    errno = saved;
    return came_back;
}
