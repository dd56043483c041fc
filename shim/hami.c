/* SPDX-License-Identifier: Apache-2.0 */
/* Adds up for HAMi's monitor what this process holds. */
#include "hami.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arm.h"
#include "context.h"
#include "gap.h"
#include "softslice/clock.h"
#include "softslice/compute.h"
#include "softslice/log.h"

#define HEAR_NS UINT64_C(900000000) /* how often the monitor's wish is looked for, where it matters */
#define AGAIN_NS                                                                                                                   \
    UINT64_C(4500000000) /* the monitor looks every five seconds: so often all is told again, and what others broke repaired */

struct work {
    struct membership *m;
    struct hami_told told;
    bool any; /* a context */
    struct ledger_member member[LEDGER_SLOTS];
};

static const char *cache_path(void)
{
    return arm_config()->hami.cache;
}

/* Where a device stands in the file: as in the ledger, which all processes of the container have in common. NULL: not in it. */
static struct hami_memory *memory_of(struct work *work, unsigned device)
{
    const struct quota *quota = &work->m->quota;

    if (device >= quota->devices || (unsigned)quota->device[device].index >= HAMI_DEVICES)
        return NULL;
    return &work->told.own.memory[quota->device[device].index];
}

static void add_context(void *argument, const struct record *record)
{
    struct hami_memory *memory = memory_of(argument, record->device);

    if (memory)
        memory->context += record->bytes;
}

static void add_module(void *argument, const struct record *record)
{
    struct hami_memory *memory = record->family == QUOTA_GROWTH ? memory_of(argument, record->device) : NULL;

    if (memory)
        memory->module += record->bytes;
}

static uint64_t min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The ledger's sum is what counts. What the driver keeps beside what it was asked for is called context, what has no name is data; either can have moved
 * meanwhile. */
static void finish_memory(struct work *work, unsigned device)
{
    const struct quota *quota = &work->m->quota;
    unsigned index = (unsigned)quota->device[device].index;
    struct hami_memory *memory = memory_of(work, device);

    memory->total = ledger_is_suspended(&quota->ledger, index) ? 0 : ledger_own(&quota->ledger, index);
    memory->context = min(memory->context + gap_bytes((int)device), memory->total);
    memory->module = min(memory->module, memory->total - memory->context);
    memory->data = memory->total - memory->context - memory->module;
}

/* The tenant's, without what binds this process alone. */
static uint64_t limit_of(const struct quota *quota, const struct quota_device *device)
{
    return min(min(ledger_limit(&quota->ledger, (unsigned)device->index), device->admin),
               min(__atomic_load_n(&device->native, __ATOMIC_RELAXED), device->id.physical));
}

/* What the tenant used since the last time, told by one process: the first that holds anything, for such a one has a context and looks now and then. */
static void add_utilization(struct work *work, unsigned device, unsigned members, uint64_t elapsed)
{
    struct process_hami *known = process_hami();
    struct ledger *ledger = &work->m->quota.ledger;
    unsigned index = (unsigned)work->m->quota.device[device].index;
    const struct share_account *account = ledger_account(ledger, index);
    uint64_t busy = account ? __atomic_load_n(&account->busy, __ATOMIC_RELAXED) : 0, used = busy - known->busy[index];

    known->busy[index] = busy;
    if (!elapsed || !used || used > INT64_MAX)
        return;
    work->told.worked = true;
    for (unsigned i = 0; i < members; i++) {
        if (work->member[i].dead || !work->member[i].committed)
            continue;
        if (work->member[i].slot == work->told.slot)
            work->told.own.utilization[index].sm = min(used / (elapsed / 100 + 1), 100);
        return;
    }
}

static void add_device(struct work *work, unsigned device, uint64_t elapsed)
{
    const struct quota *quota = &work->m->quota;
    const struct quota_device *d = &quota->device[device];
    unsigned index = (unsigned)d->index, members;
    char uuid[UNITS_TEXT_MAX];
    uint32_t share = compute_tenant_share(quota, device);

    if (index >= HAMI_DEVICES)
        return;
    if (work->told.devices <= index)
        work->told.devices = index + 1;
    units_format_uuid(uuid, d->id.uuid);
    memcpy(work->told.device[index].uuid, uuid, strlen(uuid));
    work->told.device[index].limit = limit_of(quota, d);
    work->told.device[index].share = share ? (share + 99) / 100 : 1;
    finish_memory(work, device);
    work->any |= context_on((int)device);
    members = ledger_members_list(&work->m->quota.ledger, index, work->member, LEDGER_SLOTS);
    members = members < LEDGER_SLOTS ? members : LEDGER_SLOTS;
    for (unsigned i = 0; i < members; i++) {
        if (!work->member[i].dead && work->member[i].slot < HAMI_SLOTS)
            work->told.living[work->member[i].slot / 64] |= UINT64_C(1) << work->member[i].slot % 64;
    }
    add_utilization(work, device, members, elapsed);
}

static void collect(struct work *work, uint64_t now)
{
    struct process_hami *known = process_hami();
    struct hami_slot *own = &work->told.own;
    uint32_t listed = __atomic_load_n(process_listed_pid(), __ATOMIC_RELAXED);

    work->told.slot = ledger_own_slot(&work->m->quota.ledger);
    work->told.priority = arm_config()->hami.priority;
    own->pid = (int32_t)getpid();
    own->host_pid = listed ? (int32_t)listed : own->pid;
    own->status = 1;
    own->author = HAMI_AUTHOR;
    records_visit(process_contexts(), add_context, work);
    records_visit(process_handles(), add_module, work);
    for (unsigned i = 0; i < work->m->quota.devices; i++)
        add_device(work, i, known->looked ? now - known->looked : 0);
    known->looked = now;
    if (work->told.slot < HAMI_SLOTS)
        work->told.living[work->told.slot / 64] |= UINT64_C(1) << work->told.slot % 64;
    /* Who has no limit of compute is not asked for its launches: it may have work as long as it has a context. */
    work->told.active = config_arms_compute(arm_config()) ? work->told.worked : work->any;
}

/* Whether the monitor wants HAMi's limit to hold, which is all of the limit. */
static void hear(struct membership *m, bool holds)
{
    for (unsigned i = 0; i < m->quota.devices; i++)
        __atomic_store_n(&m->quota.device[i].share_yields, !holds, __ATOMIC_RELAXED);
}

static void tell(struct membership *m, bool begins)
{
    struct process_hami *known = process_hami();
    bool holds = true, listens = arm_config()->hami.yields;
    struct work *work;
    uint64_t now = clock_now(), age = known->when ? now - known->when : UINT64_MAX;
    int result;

    work = mmap(NULL, sizeof(*work), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (work == MAP_FAILED)
        return;
    work->m = m;
    collect(work, now);
    work->told.begins = begins;
    if (age >= AGAIN_NS || (listens && age >= HEAR_NS) || memcmp(&work->told, &known->told, sizeof(known->told)) != 0) {
        result = hami_tell(cache_path(), &work->told, &holds);
        known->told = work->told;
        known->when = now;
        if (listens)
            hear(m, holds);
        if (result < 0 && !__atomic_exchange_n(&known->failed, 1, __ATOMIC_RELAXED))
            log_warn("%s cannot be written (error %d%s): HAMi's monitor does not see this process", cache_path(), -result,
                     result == -EPROTO ? ", it is not such a file" : "");
    }
    munmap(work, sizeof(*work));
}

void hami_join(struct membership *m)
{
    int saved = errno;

    if (*cache_path() && config_arms_vram(arm_config()))
        tell(m, m->quota.ledger.first);
    errno = saved;
}

bool hami_tick(struct membership *m)
{
    int saved = errno;

    if (!*cache_path() || !process_hami()->when)
        return false;
    tell(m, false);
    errno = saved;
    return true;
}

void hami_end(struct membership *m)
{
    if (*cache_path() && process_hami()->when)
        hami_leave(cache_path(), ledger_own_slot(&m->quota.ledger));
}
