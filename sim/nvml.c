/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated libnvidia-ml.so.1: what the machine's file says, as NVML words it. It sees every GPU, whatever CUDA_VISIBLE_DEVICES says. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "nvml_abi.h"
#include "nvml_events.h"
#include "nvml_mig.h"
#include "nvml_pids.h"
#include "shared.h"

#define EXPORT __attribute__((visibility("default")))
/* A handle is an address inside this array: nothing that a program makes up lies there. */
struct nvmlDevice_st {
    unsigned int index;
};

static struct nvmlDevice_st handles[SIM_MAX_GPUS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sim_machine *machine; /* kept over shutdown: another thread may still read it */
static unsigned int users;
static bool counts_shared; /* SOFTSIM_NVML_SHARED: memory that several processes hold counts for each of them */
static bool bytes_unknown; /* SOFTSIM_NVML_PIDS=none: lists cannot tell what each process has */

#define NOT_AVAILABLE ~0ULL

EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned int flags);
EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    const char *pids = getenv("SOFTSIM_NVML_PIDS"), *nvml = getenv("SOFTSIM_NVML"), *shared = getenv("SOFTSIM_NVML_SHARED");
    nvmlReturn_t r = NVML_SUCCESS;

    (void)flags;
    FAIL();
    if (nvml && strcmp(nvml, "absent") == 0)
        return NVML_ERROR_DRIVER_NOT_LOADED;
    pthread_mutex_lock(&lock);
    if (!machine)
        machine = sim_machine_open();
    if (!machine)
        r = NVML_ERROR_DRIVER_NOT_LOADED;
    else if (!users++) {
        nvml_pids_begin(pids);
        bytes_unknown = pids && strcmp(pids, "none") == 0;
        counts_shared = shared && strcmp(shared, "1") == 0;
    }
    pthread_mutex_unlock(&lock);
    return r;
}

EXPORT nvmlReturn_t nvmlInit(void);
EXPORT nvmlReturn_t nvmlInit(void)
{
    FAIL();
    return nvmlInitWithFlags(0);
}

EXPORT nvmlReturn_t nvmlInit_v2(void);
EXPORT nvmlReturn_t nvmlInit_v2(void)
{
    FAIL();
    return nvmlInitWithFlags(0);
}

EXPORT nvmlReturn_t nvmlShutdown(void);
EXPORT nvmlReturn_t nvmlShutdown(void)
{
    nvmlReturn_t r = NVML_ERROR_UNINITIALIZED;

    FAIL();
    pthread_mutex_lock(&lock);
    if (users) {
        users--;
        r = NVML_SUCCESS;
    }
    pthread_mutex_unlock(&lock);
    return r;
}

#define READY()                                                                                                                    \
    do {                                                                                                                           \
        FAIL();                                                                                                                    \
        if (!__atomic_load_n(&users, __ATOMIC_ACQUIRE))                                                                            \
            return NVML_ERROR_UNINITIALIZED;                                                                                       \
    } while (0)

EXPORT const char *nvmlErrorString(nvmlReturn_t result);
EXPORT const char *nvmlErrorString(nvmlReturn_t result)
{
    switch (result) {
    case NVML_SUCCESS:
        return "Success";
    case NVML_ERROR_UNINITIALIZED:
        return "Uninitialized";
    case NVML_ERROR_INVALID_ARGUMENT:
        return "Invalid Argument";
    case NVML_ERROR_NOT_SUPPORTED:
        return "Not Supported";
    case NVML_ERROR_NO_PERMISSION:
        return "Insufficient Permissions";
    case NVML_ERROR_NOT_FOUND:
        return "Not Found";
    case NVML_ERROR_INSUFFICIENT_SIZE:
        return "Insufficient Size";
    case NVML_ERROR_DRIVER_NOT_LOADED:
        return "Driver Not Loaded";
    case NVML_ERROR_TIMEOUT:
        return "Timeout";
    case NVML_ERROR_FUNCTION_NOT_FOUND:
        return "Function Not Found";
    case NVML_ERROR_GPU_IS_LOST:
        return "GPU is lost";
    case NVML_ERROR_ARGUMENT_VERSION_MISMATCH:
        return "Argument version mismatch";
    default:
        return "Unknown Error";
    }
}

static nvmlReturn_t text(char *out, unsigned int length, const char *value)
{
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (strlen(value) + 1 > length)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(out, value);
    return NVML_SUCCESS;
}

/* A driver branch for a CUDA version: 13.0 came with 580. */
EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length);
EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    READY();
    return text(version, length, machine->set.driver_version >= 13040 ? "615.00.00" : "580.00.00");
}

EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length);
EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    READY();
    return text(version, length, machine->set.driver_version >= 13040 ? "13.615.00.00" : "13.580.00.00");
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version);
EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
    READY();
    if (!version)
        return NVML_ERROR_INVALID_ARGUMENT;
    *version = machine->set.driver_version;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version);
EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    FAIL();
    return nvmlSystemGetCudaDriverVersion(version);
}

nvmlReturn_t sim_nvml_index(nvmlDevice_t device, unsigned int *index)
{
    if (!__atomic_load_n(&users, __ATOMIC_ACQUIRE))
        return NVML_ERROR_UNINITIALIZED;
    if (device < handles || device >= handles + machine->set.gpus)
        return NVML_ERROR_INVALID_ARGUMENT;
    *index = (unsigned int)(device - handles);
    return sim_nvml_lost(*index) ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
}

#define DEVICE(device, index)                                                                                                      \
    do {                                                                                                                           \
        nvmlReturn_t device_;                                                                                                      \
                                                                                                                                   \
        FAIL();                                                                                                                    \
        device_ = sim_nvml_index((device), &(index));                                                                              \
        if (device_ != NVML_SUCCESS)                                                                                               \
            return device_;                                                                                                        \
    } while (0)

EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count);
EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    READY();
    if (!count)
        return NVML_ERROR_INVALID_ARGUMENT;
    *count = machine->set.gpus;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetCount(unsigned int *count);
EXPORT nvmlReturn_t nvmlDeviceGetCount(unsigned int *count)
{
    FAIL();
    return nvmlDeviceGetCount_v2(count);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device);
EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    READY();
    if (!device || index >= machine->set.gpus)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (sim_nvml_lost(index))
        return NVML_ERROR_GPU_IS_LOST;
    *device = &handles[index];
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device);
EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device)
{
    FAIL();
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

static void uuid_text(unsigned int index, char out[48])
{
    unsigned char u[16];

    sim_gpu_uuid(&machine->set, index, u);
    snprintf(out, 48, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2], u[3], u[4],
             u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device);
EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    READY();
    if (!uuid || !device)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned int i = 0; i < machine->set.gpus; i++) {
        char name[48];

        uuid_text(i, name);
        if (strcasecmp(name, uuid) == 0) {
            *device = &handles[i];
            return NVML_SUCCESS;
        }
    }
    return NVML_ERROR_NOT_FOUND;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *pciBusId, nvmlDevice_t *device);
EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *pciBusId, nvmlDevice_t *device)
{
    unsigned int domain = 0, bus, slot;

    READY();
    if (!pciBusId || !device)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (sscanf(pciBusId, "%x:%x:%x", &domain, &bus, &slot) != 3) {
        domain = 0;
        if (sscanf(pciBusId, "%x:%x", &bus, &slot) != 2)
            return NVML_ERROR_INVALID_ARGUMENT;
    }
    if (domain || slot || !bus || bus > machine->set.gpus)
        return NVML_ERROR_NOT_FOUND;
    *device = &handles[bus - 1];
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *pciBusId, nvmlDevice_t *device);
EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *pciBusId, nvmlDevice_t *device)
{
    FAIL();
    return nvmlDeviceGetHandleByPciBusId_v2(pciBusId, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length);
EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
    unsigned int index, number;
    char name[48];

    if (sim_nvml_instance(device, &index, &number)) {
        uuid_text(index, name);
        sim_nvml_mig_uuid(name, number);
        return text(uuid, length, name);
    }
    DEVICE(device, index);
    uuid_text(index, name);
    return text(uuid, length, name);
}

EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length);
EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
    unsigned int index;

    DEVICE(device, index);
    return text(name, length, "Simulated GPU");
}

EXPORT nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index);
EXPORT nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index)
{
    unsigned int i;

    DEVICE(device, i);
    if (!index)
        return NVML_ERROR_INVALID_ARGUMENT;
    *index = i;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minor);
EXPORT nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minor)
{
    FAIL();
    return nvmlDeviceGetIndex(device, minor);
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci);
EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    unsigned int index;

    DEVICE(device, index);
    if (!pci)
        return NVML_ERROR_INVALID_ARGUMENT;
    memset(pci, 0, sizeof(*pci));
    pci->bus = index + 1;
    pci->pciDeviceId = 0x233010de;
    snprintf(pci->busIdLegacy, sizeof(pci->busIdLegacy), "0000:%02X:00.0", index + 1);
    snprintf(pci->busId, sizeof(pci->busId), "00000000:%02X:00.0", index + 1);
    return NVML_SUCCESS;
}

static void memory(unsigned int index, unsigned long long *total, unsigned long long *used)
{
    sim_machine_lock(machine);
    sim_reap(machine);
    *total = machine->set.mem;
    *used = sim_gpu_used(machine, index);
    sim_machine_unlock(machine);
    if (*used > *total)
        *used = *total;
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *info);
EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *info)
{
    unsigned int index;

    DEVICE(device, index);
    if (!info)
        return NVML_ERROR_INVALID_ARGUMENT;
    memory(index, &info->total, &info->used);
    info->free = info->total - info->used;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *info);
EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *info)
{
    unsigned int index, number, parts = 1;

    if (sim_nvml_instance(device, &index, &number)) {
        parts = sim_nvml_instances(index);
        device = &handles[index];
    }
    DEVICE(device, index);
    if (!info)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (info->version != NVML_MEMORY_V2)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    memory(index, &info->total, &info->used);
    info->total /= parts;
    info->used = info->used < info->total ? info->used : info->total;
    info->reserved = 0;
    info->free = info->total - info->used;
    return NVML_SUCCESS;
}

enum mode { COMPUTE, GRAPHICS, MPS };

/* What a list says that a process has. */
static unsigned long long listed_bytes(unsigned int row, unsigned int gpu)
{
    unsigned long long bytes = sim_proc_used(machine, row, gpu);

    for (unsigned int i = 0; counts_shared && i < machine->objects_high; i++) {
        const struct sim_object *o = &machine->object[i];

        if (o->id && o->gpu == gpu && o->holds[row] && o->payer != (int32_t)row)
            bytes += o->size;
    }
    return bytes_unknown ? NOT_AVAILABLE : bytes;
}

/* The processes of one of NVML's lists on a GPU; returns how many there are, writes at most `room`. All are in one list: the MPS
 * clients' with SOFTSIM_MPS, or the compute processes'. */
static unsigned int processes(unsigned int index, enum mode mode, nvmlProcessInfo_v2_t *out, unsigned int room)
{
    struct sim_process_id self = sim_process_reader();
    unsigned int count = 0, pid;

    sim_machine_lock(machine);
    sim_reap(machine);
    for (unsigned int row = 0; row < machine->procs_high && mode == (machine->set.mps ? MPS : COMPUTE); row++) {
        const struct sim_proc *p = &machine->proc[row];

        /* A killed process is listed until the driver has taken its memory back. */
        if (p->state == SIM_PROC_FREE || (!p->client[index].contexts && !sim_proc_used(machine, row, index)))
            continue;
        if (!(pid = nvml_pids_of(machine, row, &self)))
            continue;
        if (count < room)
            out[count] = (nvmlProcessInfo_v2_t){
                .pid = pid, .usedGpuMemory = listed_bytes(row, index), .gpuInstanceId = ~0u, .computeInstanceId = ~0u};
        count++;
    }
    sim_machine_unlock(machine);
    return count;
}

/* NVML's protocol: too little room, or none to ask for the number, is INSUFFICIENT_SIZE with the number needed. */
static nvmlReturn_t list_v2(nvmlDevice_t device, enum mode mode, unsigned int *count, nvmlProcessInfo_v2_t *infos)
{
    unsigned int index, found, room;

    DEVICE(device, index);
    if (!count || (*count && !infos))
        return NVML_ERROR_INVALID_ARGUMENT;
    room = *count;
    found = processes(index, mode, infos, room);
    *count = found;
    return found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

static nvmlReturn_t list_v1(nvmlDevice_t device, enum mode mode, unsigned int *count, nvmlProcessInfo_v1_t *infos)
{
    static __thread nvmlProcessInfo_v2_t wide[SIM_MAX_PROCS];
    unsigned int index, found, room;

    DEVICE(device, index);
    if (!count || (*count && !infos))
        return NVML_ERROR_INVALID_ARGUMENT;
    room = *count;
    found = processes(index, mode, wide, SIM_MAX_PROCS);
    *count = found;
    if (found > room)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned int i = 0; i < found; i++)
        infos[i] = (nvmlProcessInfo_v1_t){.pid = wide[i].pid, .usedGpuMemory = wide[i].usedGpuMemory};
    return NVML_SUCCESS;
}

#define LIST_FUNCTION(name, type, answer)                                                                                          \
    EXPORT nvmlReturn_t name(nvmlDevice_t device, unsigned int *infoCount, type *infos);                                           \
    EXPORT nvmlReturn_t name(nvmlDevice_t device, unsigned int *infoCount, type *infos)                                            \
    {                                                                                                                              \
        (void)infos;                                                                                                               \
        FAIL();                                                                                                                    \
        return answer;                                                                                                             \
    }

LIST_FUNCTION(nvmlDeviceGetComputeRunningProcesses, nvmlProcessInfo_v1_t, list_v1(device, COMPUTE, infoCount, infos))
LIST_FUNCTION(nvmlDeviceGetComputeRunningProcesses_v2, nvmlProcessInfo_v2_t, list_v2(device, COMPUTE, infoCount, infos))
LIST_FUNCTION(nvmlDeviceGetComputeRunningProcesses_v3, nvmlProcessInfo_v2_t, list_v2(device, COMPUTE, infoCount, infos))
LIST_FUNCTION(nvmlDeviceGetGraphicsRunningProcesses, nvmlProcessInfo_v1_t, list_v1(device, GRAPHICS, infoCount, infos))
LIST_FUNCTION(nvmlDeviceGetGraphicsRunningProcesses_v2, nvmlProcessInfo_v2_t, list_v2(device, GRAPHICS, infoCount, infos))
LIST_FUNCTION(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlProcessInfo_v2_t, list_v2(device, GRAPHICS, infoCount, infos))
LIST_FUNCTION(nvmlDeviceGetMPSComputeRunningProcesses, nvmlProcessInfo_v1_t, list_v1(device, MPS, infoCount, infos))
LIST_FUNCTION(nvmlDeviceGetMPSComputeRunningProcesses_v2, nvmlProcessInfo_v2_t, list_v2(device, MPS, infoCount, infos))
LIST_FUNCTION(nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlProcessInfo_v2_t, list_v2(device, MPS, infoCount, infos))

/* Modes: 0 compute, 1 graphics, 2 MPS. */
EXPORT nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device, nvmlProcessDetailList_v1_t *plist);
EXPORT nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device, nvmlProcessDetailList_v1_t *plist)
{
    static __thread nvmlProcessInfo_v2_t wide[SIM_MAX_PROCS];
    unsigned int index, found, room;

    DEVICE(device, index);
    if (!plist || plist->mode > 2)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (plist->version != NVML_PROCESS_DETAIL_LIST_V1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    room = plist->procArray ? plist->numProcArrayEntries : 0;
    found = processes(index, (enum mode)plist->mode, wide, SIM_MAX_PROCS);
    plist->numProcArrayEntries = found;
    if (found > room)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned int i = 0; i < found; i++)
        plist->procArray[i] = (nvmlProcessDetail_v1_t){
            .pid = wide[i].pid, .usedGpuMemory = wide[i].usedGpuMemory, .gpuInstanceId = ~0u, .computeInstanceId = ~0u};
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization);
EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    unsigned int index;

    DEVICE(device, index);
    if (!utilization)
        return NVML_ERROR_INVALID_ARGUMENT;
    sim_machine_lock(machine);
    sim_reap(machine);
    sim_timeline_advance(machine, index, sim_now_ns());
    utilization->gpu = machine->gpu[index].utilization;
    utilization->memory = utilization->gpu / 2; /* assumed: nothing tells what a kernel reads and writes */
    sim_machine_unlock(machine);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *utilization,
                                                    unsigned int *processSamplesCount, unsigned long long lastSeenTimeStamp);
EXPORT nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *utilization,
                                                    unsigned int *processSamplesCount, unsigned long long lastSeenTimeStamp)
{
    struct sim_process_id self = sim_process_reader();
    unsigned int index, count = 0, room, pid;
    unsigned long long stamp;

    DEVICE(device, index);
    if (!processSamplesCount)
        return NVML_ERROR_INVALID_ARGUMENT;
    room = utilization ? *processSamplesCount : 0;
    sim_machine_lock(machine);
    sim_reap(machine);
    sim_timeline_advance(machine, index, sim_now_ns());
    stamp = machine->gpu[index].sampled_at_ns / 1000;
    for (unsigned int row = 0; row < machine->procs_high && stamp > lastSeenTimeStamp; row++) {
        const struct sim_proc *p = &machine->proc[row];

        if (p->state != SIM_PROC_LIVE || !p->client[index].contexts || !(pid = nvml_pids_of(machine, row, &self)))
            continue;
        if (count < room)
            utilization[count] =
                (nvmlProcessUtilizationSample_t){.pid = pid, .timeStamp = stamp, .smUtil = p->client[index].utilization};
        count++;
    }
    sim_machine_unlock(machine);
    *processSamplesCount = count;
    if (!utilization || count > room)
        return count ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_ERROR_NOT_FOUND;
    return count ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t device, unsigned int *mode);
EXPORT nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t device, unsigned int *mode)
{
    unsigned int index;

    DEVICE(device, index);
    if (!mode)
        return NVML_ERROR_INVALID_ARGUMENT;
    *mode = 0;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor);
EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    unsigned int index;

    DEVICE(device, index);
    if (!major || !minor)
        return NVML_ERROR_INVALID_ARGUMENT;
    *major = 9;
    *minor = 0;
    return NVML_SUCCESS;
}

/* "No limit is set when softLimit is 0 and hardLimit is NVML_DEVICE_MEMORY_LIMIT_MAX". What SOFTSIM_MEMORY_LIMITS=SOFT:HARD says, of any
 * cgroup that exists; nothing holds allocations to it here. */
EXPORT nvmlReturn_t nvmlDeviceGetMemoryLimits_v1(nvmlDevice_t device, nvmlGetMemoryLimits_v1_t *limits);
EXPORT nvmlReturn_t nvmlDeviceGetMemoryLimits_v1(nvmlDevice_t device, nvmlGetMemoryLimits_v1_t *limits)
{
    const char *text = getenv("SOFTSIM_MEMORY_LIMITS"), *colon = text ? strchr(text, ':') : NULL;
    unsigned long long total;
    unsigned int index;
    char soft[32];

    DEVICE(device, index);
    if (machine->set.driver_version < 13040)
        return NVML_ERROR_FUNCTION_NOT_FOUND;
    if (!limits || !limits->nameSpace)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (access(limits->nameSpace, F_OK) < 0)
        return NVML_ERROR_NOT_FOUND;
    snprintf(soft, sizeof(soft), "%.*s", colon ? (int)(colon - text) : 0, text ? text : "");
    limits->softLimit = sim_number(soft, 0);
    limits->hardLimit = sim_number(colon ? colon + 1 : NULL, NVML_DEVICE_MEMORY_LIMIT_MAX);
    memory(index, &total, &limits->currentUsed);
    return NVML_SUCCESS;
}
