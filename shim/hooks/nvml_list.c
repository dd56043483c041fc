/* SPDX-License-Identifier: Apache-2.0 */
/* NVML's lists of processes show the tenant's members, each with what the ledger says that it holds: their sum is what the memory calls say
 * is used. Whatever else is told of a process is the driver's, and so is the word on bad arguments. */
#include <sys/mman.h>

#include "../guard.h"
#include "../view.h"

#define UNKNOWN        (~0u)
#define DRIVER_ENTRIES 256 /* that the driver is asked for; where it has more, what it knows of ours counts as unknown */

/* One entry of the driver's. */
struct known {
    unsigned pid, gpu_instance, compute_instance;
    unsigned long long protected_bytes;
};

/* Too large for the stack of a small thread. */
struct scratch {
    struct view_process member[LEDGER_SLOTS];
    struct known known[DRIVER_ENTRIES], under_mps[DRIVER_ENTRIES];
    nvmlProcessDetail_v1_t raw[DRIVER_ENTRIES]; /* the largest of the driver's types */
};

typedef nvmlReturn_t list_function(nvmlDevice_t, unsigned int *, void *);

/* A type of entry. */
struct shape {
    size_t size;
    void (*read)(const void *entry, struct known *known);
    void (*write)(void *entry, const struct view_process *member, const struct known *known);
};

static void read_v1(const void *entry, struct known *known)
{
    *known = (struct known){((const nvmlProcessInfo_v1_t *)entry)->pid, UNKNOWN, UNKNOWN, 0};
}

static void write_v1(void *entry, const struct view_process *member, const struct known *known)
{
    (void)known;
    *(nvmlProcessInfo_v1_t *)entry = (nvmlProcessInfo_v1_t){member->pid, member->bytes};
}

static void read_v2(const void *entry, struct known *known)
{
    const nvmlProcessInfo_v2_t *info = entry;

    *known = (struct known){info->pid, info->gpuInstanceId, info->computeInstanceId, 0};
}

static void write_v2(void *entry, const struct view_process *member, const struct known *known)
{
    *(nvmlProcessInfo_v2_t *)entry =
        (nvmlProcessInfo_v2_t){member->pid, member->bytes, known->gpu_instance, known->compute_instance};
}

static void read_detail(const void *entry, struct known *known)
{
    const nvmlProcessDetail_v1_t *detail = entry;

    *known = (struct known){detail->pid, detail->gpuInstanceId, detail->computeInstanceId, detail->usedGpuCcProtectedMemory};
}

static void write_detail(void *entry, const struct view_process *member, const struct known *known)
{
    *(nvmlProcessDetail_v1_t *)entry =
        (nvmlProcessDetail_v1_t){member->pid, member->bytes, known->gpu_instance, known->compute_instance, known->protected_bytes};
}

static const struct shape shape_v1 = {sizeof(nvmlProcessInfo_v1_t), read_v1, write_v1};
static const struct shape shape_v2 = {sizeof(nvmlProcessInfo_v2_t), read_v2, write_v2};
static const struct shape shape_detail = {sizeof(nvmlProcessDetail_v1_t), read_detail, write_detail};

static struct scratch *scratch_map(void)
{
    void *memory = mmap(NULL, sizeof(struct scratch), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

/* Whether it is an answer: the rest are errors. */
static bool answered(nvmlReturn_t result)
{
    return result == NVML_SUCCESS || result == NVML_ERROR_INSUFFICIENT_SIZE;
}

/* Take the driver's entries out of scratch->raw. */
static unsigned take_known(const struct scratch *scratch, const struct shape *shape, nvmlReturn_t result, unsigned count,
                           struct known *known)
{
    if (result != NVML_SUCCESS || count > DRIVER_ENTRIES)
        return 0;
    for (unsigned i = 0; i < count; i++)
        shape->read((const char *)scratch->raw + i * shape->size, &known[i]);
    return count;
}

static const struct known *find(const struct known *known, unsigned count, unsigned pid)
{
    for (unsigned i = 0; i < count; i++)
        if (known[i].pid == pid)
            return &known[i];
    return NULL;
}

/* Write the `members` of scratch->member that belong into a list of `mode`, of which the driver has the `count` entries in scratch->known:
 * `room` of them at `out` if that is not NULL. Returns how many there are. */
static unsigned fill(struct scratch *scratch, nvmlDevice_t device, unsigned mode, unsigned members, unsigned count,
                     const struct shape *shape, void *out, unsigned room)
{
    static const struct known nothing = {.gpu_instance = UNKNOWN, .compute_instance = UNKNOWN};
    unsigned under_mps = 0, told = 0;

    if (mode == NVML_PROCESS_MODE_COMPUTE) {
        unsigned found = DRIVER_ENTRIES;
        nvmlReturn_t result = real.nvmlDeviceGetMPSComputeRunningProcesses_v3(device, &found, scratch->raw);
        under_mps = take_known(scratch, &shape_v2, result, found, scratch->under_mps);
    }
    for (unsigned i = 0; i < members; i++) {
        const struct view_process *member = &scratch->member[i];
        const struct known *known = find(scratch->known, count, member->pid);

        /* The driver knows who draws and who goes by way of MPS; who holds memory computes. */
        if ((mode == NVML_PROCESS_MODE_GRAPHICS || mode == NVML_PROCESS_MODE_MPS) && !known)
            continue;
        if (!known && find(scratch->under_mps, under_mps, member->pid))
            continue;
        if (out && told < room)
            shape->write((char *)out + told * shape->size, member, known ? known : &nothing);
        told++;
    }
    return told;
}

static nvmlReturn_t list(list_function *ask, const struct shape *shape, unsigned mode, nvmlDevice_t device, unsigned *count,
                         void *infos)
{
    struct scratch *scratch = count ? scratch_map() : NULL;
    int members = scratch ? view_processes(device, scratch->member, LEDGER_SLOTS) : -1;
    unsigned room = infos && count ? *count : 0, found = DRIVER_ENTRIES;
    nvmlReturn_t result = NVML_SUCCESS;

    /* Without a place to write to, the driver has the word on the arguments, which are the program's own. */
    if (members < 0 || !infos)
        result = ask(device, count, infos);
    if (members >= 0 && answered(result)) {
        nvmlReturn_t driver = ask(device, &found, scratch->raw);
        if (answered(driver)) {
            unsigned known = take_known(scratch, shape, driver, found, scratch->known);
            *count = fill(scratch, device, mode, (unsigned)members, known, shape, infos, room);
            result = *count > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
        } else {
            result = driver;
        }
    }
    if (scratch)
        munmap(scratch, sizeof(*scratch));
    return result;
}

#define LIST(symbol, shape, mode)                                                                                                  \
    nvmlReturn_t symbol(nvmlDevice_t device, unsigned int *count, void *infos)                                                     \
    {                                                                                                                              \
        if (!guard_acts(RESOLVE_VRAM))                                                                                             \
            return real.symbol(device, count, infos);                                                                              \
        guard_enter();                                                                                                             \
        nvmlReturn_t result = list(real.symbol, &shape, mode, device, count, infos);                                               \
        guard_leave();                                                                                                             \
        return result;                                                                                                             \
    }

LIST(nvmlDeviceGetComputeRunningProcesses, shape_v1, NVML_PROCESS_MODE_COMPUTE)
LIST(nvmlDeviceGetComputeRunningProcesses_v2, shape_v2, NVML_PROCESS_MODE_COMPUTE)
LIST(nvmlDeviceGetComputeRunningProcesses_v3, shape_v2, NVML_PROCESS_MODE_COMPUTE)
LIST(nvmlDeviceGetGraphicsRunningProcesses, shape_v1, NVML_PROCESS_MODE_GRAPHICS)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, shape_v2, NVML_PROCESS_MODE_GRAPHICS)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, shape_v2, NVML_PROCESS_MODE_GRAPHICS)
LIST(nvmlDeviceGetMPSComputeRunningProcesses, shape_v1, NVML_PROCESS_MODE_MPS)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v2, shape_v2, NVML_PROCESS_MODE_MPS)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, shape_v2, NVML_PROCESS_MODE_MPS)

static nvmlReturn_t detail_list(nvmlDevice_t device, nvmlProcessDetailList_v1_t *told)
{
    struct scratch *scratch = told && told->version == NVML_PROCESS_DETAIL_LIST_V1 ? scratch_map() : NULL;
    int members = scratch ? view_processes(device, scratch->member, LEDGER_SLOTS) : -1;
    nvmlReturn_t result;

    if (members < 0) {
        result = real.nvmlDeviceGetRunningProcessDetailList(device, told);
    } else {
        nvmlProcessDetailList_v1_t asked = *told;
        unsigned room = told->procArray ? told->numProcArrayEntries : 0;

        asked.numProcArrayEntries = DRIVER_ENTRIES;
        asked.procArray = scratch->raw;
        result = real.nvmlDeviceGetRunningProcessDetailList(device, &asked);
        if (answered(result)) {
            unsigned known = take_known(scratch, &shape_detail, result, asked.numProcArrayEntries, scratch->known);
            told->numProcArrayEntries =
                fill(scratch, device, told->mode, (unsigned)members, known, &shape_detail, told->procArray, room);
            result = told->numProcArrayEntries > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
        }
    }
    if (scratch)
        munmap(scratch, sizeof(*scratch));
    return result;
}

nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device, nvmlProcessDetailList_v1_t *told)
{
    if (!guard_acts(RESOLVE_VRAM))
        return real.nvmlDeviceGetRunningProcessDetailList(device, told);
    guard_enter();
    nvmlReturn_t result = detail_list(device, told);
    guard_leave();
    return result;
}
