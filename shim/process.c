/* SPDX-License-Identifier: Apache-2.0 */
/* Attaches the process to its tenant and keeps what it holds. */
#include "process.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arm.h"
#include "figure.h"
#include "hami.h"
#include "meter.h"
#include "native.h"
#include "pace.h"
#include "real.h"
#include "softslice/log.h"

enum { ALLOCATIONS, CONTEXTS, HANDLES, BUCKETS, IMPORTS, ASLEEP, GRAPHS, RECORDS };

struct process {
    struct membership *membership;
    uint32_t failure_told;
    uint64_t owners;
    uint64_t primary[QUOTA_DEVICES];
    struct process_gap gap[QUOTA_DEVICES];
    struct process_returns returns[PROCESS_RETURNS];
    struct thread watch;
    uint32_t listed_pid;
    uint64_t asleep[QUOTA_DEVICES][2];
    struct process_hami hami;
    /* RECORDS struct records, the struct meters, a struct slabs and a struct phys follow, which want that alignment */
} __attribute__((aligned(64)));

static struct process *published;

static void *map_wiped(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    if (madvise(memory, size, MADV_WIPEONFORK) != 0) {
        munmap(memory, size);
        return NULL;
    }
    return memory;
}

static size_t process_size(void)
{
    return sizeof(struct process) + RECORDS * records_size() + meters_size() + slabs_size() + phys_size() + paces_size();
}

static struct process *process(void)
{
    struct process *current = __atomic_load_n(&published, __ATOMIC_ACQUIRE);
    if (current)
        return current;
    struct process *mine = map_wiped(process_size());
    if (mine && !__atomic_compare_exchange_n(&published, &current, mine, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        munmap(mine, process_size());
        mine = current;
    }
    return mine;
}

static struct records *table(unsigned which)
{
    struct process *p = process();
    return p ? (struct records *)((char *)(p + 1) + which * records_size()) : NULL;
}

struct records *process_allocations(void)
{
    return table(ALLOCATIONS);
}

struct records *process_contexts(void)
{
    return table(CONTEXTS);
}

struct records *process_handles(void)
{
    return table(HANDLES);
}

struct records *process_buckets(void)
{
    return table(BUCKETS);
}

struct records *process_imports(void)
{
    return table(IMPORTS);
}

struct records *process_graphs(void)
{
    return table(GRAPHS);
}

struct slabs *process_slabs(void)
{
    struct process *p = process();
    return p ? (struct slabs *)((char *)(p + 1) + RECORDS * records_size() + meters_size()) : NULL;
}

struct phys *process_phys(void)
{
    struct process *p = process();
    return p ? (struct phys *)((char *)(p + 1) + RECORDS * records_size() + meters_size() + slabs_size()) : NULL;
}

struct paces *process_paces(void)
{
    struct process *p = process();
    return p ? (struct paces *)((char *)(p + 1) + RECORDS * records_size() + meters_size() + slabs_size() + phys_size()) : NULL;
}

struct records *process_asleep(void)
{
    return table(ASLEEP);
}

uint64_t *process_asleep_bytes(int device)
{
    return process()->asleep[device];
}

struct meters *process_meters(void)
{
    struct process *p = process();
    return p ? (struct meters *)((char *)(p + 1) + RECORDS * records_size()) : NULL;
}

uint64_t process_new_owner(void)
{
    return 1 + __atomic_fetch_add(&process()->owners, 1, __ATOMIC_RELAXED);
}

struct process_gap *process_gap(int device)
{
    return &process()->gap[device];
}

uint32_t *process_listed_pid(void)
{
    return &process()->listed_pid;
}

struct thread *process_watch(void)
{
    return &process()->watch;
}

struct process_hami *process_hami(void)
{
    return &process()->hami;
}

struct process_returns *process_returns(void)
{
    return process()->returns;
}

uint64_t *process_primary(int device)
{
    return &process()->primary[device];
}

int process_device(const struct membership *membership, CUdevice device)
{
    for (unsigned i = 0; i < membership->quota.devices; i++)
        if (membership->device[i] == device)
            return (int)i;
    return PROCESS_NO_DEVICE;
}

int process_device_of_uuid(const struct membership *membership, const uint8_t uuid[16])
{
    for (unsigned i = 0; i < membership->quota.devices; i++)
        if (memcmp(membership->quota.device[i].id.uuid, uuid, 16) == 0)
            return (int)i;
    return PROCESS_NO_DEVICE;
}

static uint64_t granule_of(CUdevice device)
{
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    size_t granule = 0;

    prop.location.id = device;
    if (called.cuMemGetAllocationGranularity(&granule, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM) != CUDA_SUCCESS ||
        (granule & (granule - 1)) != 0)
        return 0;
    return granule;
}

/* Enter every device. The driver's refusal, or CUDA_ERROR_OPERATING_SYSTEM with ledger.error set. */
static CUresult add_devices(struct membership *m, const struct config *config)
{
    int count = 0;
    CUresult result = called.cuDeviceGetCount(&count);

    for (int i = 0; result == CUDA_SUCCESS && i < count; i++) {
        struct config_device id = {.ordinal = i};
        CUdevice device;
        CUuuid uuid;
        size_t physical = 0;

        if ((result = called.cuDeviceGet(&device, i)) != CUDA_SUCCESS)
            break;
        /* _v2 tells a MIG instance from the GPU that it is cut from; a driver before 11.4 has only the first. */
        if ((result = called.cuDeviceGetUuid_v2(&uuid, device)) == CUDA_ERROR_NOT_FOUND)
            result = called.cuDeviceGetUuid(&uuid, device);
        if (result == CUDA_SUCCESS)
            result = real.cuDeviceTotalMem_v2(&physical, device);
        if (result != CUDA_SUCCESS)
            break;
        memcpy(id.uuid, uuid.bytes, sizeof(id.uuid));
        id.physical = physical;
        int index = quota_add_device(&m->quota, config, &id, granule_of(device));
        if (index < 0)
            return CUDA_ERROR_OPERATING_SYSTEM;
        m->device[index] = device;
        native_enter(m, (unsigned)index);
    }
    return result;
}

/* Whether the limits name only GPUs that are here: one that is misspelt would leave the GPU that was meant without its limit. If not,
 * ledger.error says so. */
static bool limits_fit(struct membership *m, const struct config *config)
{
    struct config_device devices[QUOTA_DEVICES];
    struct config *copy = mmap(NULL, sizeof(*copy), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (copy == MAP_FAILED) {
        log_format(m->quota.ledger.error, sizeof(m->quota.ledger.error), "no memory for the configuration");
        return false;
    }
    *copy = *config; /* other threads read the original */
    for (unsigned i = 0; i < m->quota.devices; i++)
        devices[i] = m->quota.device[i].id;
    bool fit = config_check_devices(copy, devices, m->quota.devices) == 0;
    if (!fit)
        log_format(m->quota.ledger.error, sizeof(m->quota.ledger.error), "%s", copy->error);
    munmap(copy, sizeof(*copy));
    return fit;
}

/* Give the slot up, and keep what ledger.error says. */
static void leave(struct ledger *ledger)
{
    char error[LEDGER_ERROR_MAX];

    memcpy(error, ledger->error, sizeof(error));
    ledger_detach(ledger);
    memcpy(ledger->error, error, sizeof(error));
}

static CUresult join(struct membership *m, const struct config *config)
{
    char path[PATH_MAX];
    int directory = ledger_state_dir(&m->quota.ledger, config->state_dir, path, sizeof(path));
    if (directory < 0)
        return CUDA_ERROR_OPERATING_SYSTEM;
    ledger_set_witness(figure_shows);
    int error = ledger_attach(&m->quota.ledger, directory, config->tenant_named ? config->tenant : NULL);
    ledger_state_dir_close(directory, path);
    if (error)
        return CUDA_ERROR_OPERATING_SYSTEM;
    CUresult result = add_devices(m, config);
    /* It has devices, for it was asked how many: one without its limit would be one without any. */
    if (result != CUDA_SUCCESS && result != CUDA_ERROR_OPERATING_SYSTEM && result != CUDA_ERROR_DEINITIALIZED) {
        log_format(m->quota.ledger.error, sizeof(m->quota.ledger.error), "the driver does not tell its devices apart (error %d)",
                   (int)result);
        result = CUDA_ERROR_OPERATING_SYSTEM;
    }
    if (result == CUDA_SUCCESS && !limits_fit(m, config))
        result = CUDA_ERROR_OPERATING_SYSTEM;
    if (result != CUDA_SUCCESS)
        leave(&m->quota.ledger);
    return result;
}

static void tell_failure(uint32_t *told, const struct config *config, const char *why)
{
    if (__atomic_exchange_n(told, 1, __ATOMIC_RELAXED))
        return;
    if (config->on_error == CONFIG_OPEN)
        log_error("%s; running without limits (on_error = open)", why);
    else
        log_error("%s; CUDA will not start (a framework may fall back to the CPU)", why);
}

/* There is no memory to keep anything in, or none that a forked child finds empty. */
static CUresult refuse_without_memory(const struct config *config)
{
    static uint32_t told;

    tell_failure(&told, config, "no memory for what this process holds (it takes MADV_WIPEONFORK, Linux 4.14)");
    return config->on_error == CONFIG_OPEN ? CUDA_SUCCESS : CUDA_ERROR_OPERATING_SYSTEM;
}

/* What ends without this has died, as far as anybody can tell. Nothing is given back here: the driver has it still. */
static void tell_left(void)
{
    struct process *p = __atomic_load_n(&published, __ATOMIC_ACQUIRE);
    struct membership *membership = p ? __atomic_load_n(&p->membership, __ATOMIC_ACQUIRE) : NULL;

    if (!membership)
        return;
    ledger_tell_left(&membership->quota.ledger);
    hami_end(membership);
}

static void tell_left_at_exit(void)
{
    static uint32_t registered; /* a forked child has its parent's handlers */

    if (!__atomic_exchange_n(&registered, 1, __ATOMIC_RELAXED))
        atexit(tell_left);
}

static void tell_joined(const struct membership *m)
{
    char uuid[UNITS_TEXT_MAX], limit[UNITS_TEXT_MAX];
    const struct quota *quota = &m->quota;

    log_info("joined %s%s%s", quota->tenant[0] ? "tenant \"" : "as a tenant of its own", quota->tenant,
             quota->tenant[0] ? "\"" : "");
    for (unsigned i = 0; i < quota->devices; i++)
        log_info("%s: limit %s, allocations in units of %llu bytes", units_format_uuid(uuid, quota->device[i].id.uuid),
                 units_format_size(limit, quota_limit(quota, i)), (unsigned long long)quota->device[i].granule);
}

CUresult process_attach(void)
{
    const struct config *config = arm_config();
    struct process *p = process();

    if (config->error[0]) /* told when it was read */
        return config->on_error == CONFIG_OPEN ? CUDA_SUCCESS : CUDA_ERROR_OPERATING_SYSTEM;
    if (!p)
        return refuse_without_memory(config);
    if (__atomic_load_n(&p->membership, __ATOMIC_ACQUIRE))
        return CUDA_SUCCESS;
    /* Once without limits, always: what was taken meanwhile is not charged, and every call would try, and perhaps wait, again. */
    if (config->on_error == CONFIG_OPEN && __atomic_load_n(&p->failure_told, __ATOMIC_RELAXED))
        return CUDA_SUCCESS;

    int count;
    CUresult result = called.cuDeviceGetCount(&count);
    if (result != CUDA_SUCCESS)
        return result; /* nothing to limit yet: no file, no slot */

    struct membership *mine = map_wiped(sizeof(*mine));
    if (!mine)
        return refuse_without_memory(config);
    result = join(mine, config);
    if (result != CUDA_SUCCESS) {
        if (__atomic_load_n(&p->membership, __ATOMIC_ACQUIRE)) {
            result = CUDA_SUCCESS; /* another thread did join */
        } else if (result == CUDA_ERROR_OPERATING_SYSTEM) {
            tell_failure(&p->failure_told, config, mine->quota.ledger.error);
            if (config->on_error == CONFIG_OPEN)
                result = CUDA_SUCCESS;
        }
        munmap(mine, sizeof(*mine));
        return result;
    }
    struct membership *nobody = NULL;
    if (!__atomic_compare_exchange_n(&p->membership, &nobody, mine, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        ledger_detach(&mine->quota.ledger);
        munmap(mine, sizeof(*mine));
    } else {
        tell_left_at_exit();
        tell_joined(mine);
        hami_join(mine);
    }
    return CUDA_SUCCESS;
}

struct membership *process_membership(CUresult *why)
{
    struct process *p = __atomic_load_n(&published, __ATOMIC_ACQUIRE);
    struct membership *membership = p ? __atomic_load_n(&p->membership, __ATOMIC_ACQUIRE) : NULL;
    CUresult result = CUDA_SUCCESS;

    if (!membership) {
        real_load(REAL_CUDA);
        result = process_attach();
        p = __atomic_load_n(&published, __ATOMIC_ACQUIRE);
        membership = p ? __atomic_load_n(&p->membership, __ATOMIC_ACQUIRE) : NULL;
    }
    if (why)
        *why = result;
    return membership;
}
