/* SPDX-License-Identifier: Apache-2.0 */
/* Asks NVML what the driver has counted for this process. */
#include "figure.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guard.h"
#include "native.h"
#include "real.h"
#include "softslice/units.h"
#include "watch.h"

#define NOT_AVAILABLE (~0ull)
#define ALL_INSTANCES (~0u)
#define NOBODY        UINT32_MAX /* in place of our number in NVML's lists: not known */
#define LIST_BYTES    (FIGURE_PROCESSES * sizeof(nvmlProcessInfo_v2_t))
#define CONTEXT_MOST  (UINT64_C(2) << 30) /* more than any first context takes */

static uint32_t ready; /* NVML was initialised by us: it counts its users, so once is enough */

static bool nvml_ready(void)
{
    if (__atomic_load_n(&ready, __ATOMIC_ACQUIRE))
        return true;
    if (!real_load_nvml() || called.nvmlInit_v2() != NVML_SUCCESS)
        return false;
    __atomic_store_n(&ready, 1, __ATOMIC_RELEASE);
    return true;
}

static bool find_device(const uint8_t uuid[16], nvmlDevice_t *device)
{
    char text[UNITS_TEXT_MAX];

    units_format_uuid(text, uuid);
    if (called.nvmlDeviceGetHandleByUUID(text, device) == NVML_SUCCESS)
        return true;
    /* A MIG instance has the same digits under another prefix of the same length. */
    text[0] = 'M', text[1] = 'I', text[2] = 'G';
    return called.nvmlDeviceGetHandleByUUID(text, device) == NVML_SUCCESS;
}

/* Room for NVML's lists. Not on the stack, which may be as small as a thread's can be, and whose rest is the driver's. NULL: no host memory. */
static nvmlProcessInfo_v2_t *make_list(void)
{
    int saved = errno;
    void *list = mmap(NULL, LIST_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    errno = saved;
    return list == MAP_FAILED ? NULL : list;
}

static void end_list(nvmlProcessInfo_v2_t *list)
{
    if (list)
        munmap(list, LIST_BYTES);
}

typedef nvmlReturn_t list_function(nvmlDevice_t device, unsigned *count, void *infos);

/* Append one of NVML's lists: false where there are too many. */
static bool append(nvmlDevice_t device, list_function *newest, list_function *older, nvmlProcessInfo_v2_t *list, unsigned *count,
                   bool *told)
{
    unsigned more = FIGURE_PROCESSES - *count;
    nvmlReturn_t result = newest(device, &more, list + *count);

    if (result != NVML_SUCCESS && result != NVML_ERROR_INSUFFICIENT_SIZE) {
        more = FIGURE_PROCESSES - *count;
        result = older(device, &more, list + *count);
    }
    if (result != NVML_SUCCESS)
        return result != NVML_ERROR_INSUFFICIENT_SIZE;
    *told = true;
    *count += more;
    return *count <= FIGURE_PROCESSES;
}

/* The processes that use a device, clients of MPS first (there are `clients` of them). False where NVML does not tell, or there are too many. */
static bool read_list(nvmlDevice_t device, nvmlProcessInfo_v2_t *list, unsigned *count, unsigned *clients)
{
    unsigned instance;
    bool told = false, complete;

    *count = 0;
    complete = append(device, called.nvmlDeviceGetMPSComputeRunningProcesses_v3, called.nvmlDeviceGetMPSComputeRunningProcesses_v2,
                      list, count, &told);
    *clients = *count;
    told = false;
    if (!complete ||
        !append(device, called.nvmlDeviceGetComputeRunningProcesses_v3, called.nvmlDeviceGetComputeRunningProcesses_v2, list, count,
                &told) ||
        !told)
        return false;
    /* Of an instance of a GPU some drivers list what is on the others too. */
    if (called.nvmlDeviceGetGpuInstanceId(device, &instance) != NVML_SUCCESS)
        return true;
    unsigned kept = 0, kept_clients = 0;
    for (unsigned i = 0; i < *count; i++) {
        if (list[i].gpuInstanceId != instance && list[i].gpuInstanceId != ALL_INSTANCES)
            continue;
        kept_clients += i < *clients;
        list[kept++] = list[i];
    }
    *count = kept;
    *clients = kept_clients;
    return true;
}

static unsigned own_pid(void)
{
    return (unsigned)syscall(SYS_getpid);
}

/* Our number in NVML's lists, as far as is known. */
static unsigned listed_pid(void)
{
    uint32_t learned = __atomic_load_n(process_listed_pid(), __ATOMIC_ACQUIRE);

    return learned ? learned : own_pid();
}

bool figure_of_process(const uint8_t uuid[16], uint64_t *bytes)
{
    nvmlProcessInfo_v2_t *list;
    unsigned self = listed_pid(), count = 0, clients;
    nvmlDevice_t device;
    bool found = false;

    if (thread_over() || !nvml_ready() || !find_device(uuid, &device))
        return false;
    struct membership *m = process_membership(NULL);
    int index = m ? process_device_of_uuid(m, uuid) : PROCESS_NO_DEVICE;
    if (index != PROCESS_NO_DEVICE)
        native_look(m, (unsigned)index, device);
    if (self == NOBODY || !(list = make_list()))
        return false;
    if (!read_list(device, list, &count, &clients))
        count = 0;
    for (unsigned i = 0; i < count; i++) {
        if (list[i].pid != self || list[i].usedGpuMemory == NOT_AVAILABLE || (found && list[i].usedGpuMemory >= *bytes))
            continue;
        *bytes = list[i].usedGpuMemory;
        found = true;
    }
    end_list(list);
    return found;
}

void figure_look(const uint8_t uuid[16], struct figure_seen *seen)
{
    uint32_t learned = __atomic_load_n(process_listed_pid(), __ATOMIC_ACQUIRE);
    nvmlProcessInfo_v2_t *list;
    unsigned clients;
    nvmlDevice_t device;

    seen->known = false;
    if ((learned && learned != NOBODY) || thread_over() || !nvml_ready() || !find_device(uuid, &device) || !(list = make_list()))
        return;
    seen->known = read_list(device, list, &seen->count, &clients);
    for (unsigned i = 0; seen->known && i < seen->count; i++)
        seen->pid[i] = list[i].pid;
    end_list(list);
}

static bool among(const struct figure_seen *seen, unsigned pid)
{
    for (unsigned i = 0; i < seen->count; i++)
        if (seen->pid[i] == pid)
            return true;
    return false;
}

/* Of a part of the lists, the only process that was not there before; NOBODY where there is none or more than one, *some saying which. */
static unsigned newcomer(const struct figure_seen *seen, const nvmlProcessInfo_v2_t *list, unsigned count, uint64_t least,
                         bool *some)
{
    unsigned found = NOBODY;

    *some = false;
    for (unsigned i = 0; i < count; i++) {
        if (among(seen, list[i].pid) || list[i].pid == found)
            continue;
        if (*some)
            return NOBODY;
        *some = true;
        if (list[i].usedGpuMemory != NOT_AVAILABLE && list[i].usedGpuMemory >= least &&
            list[i].usedGpuMemory - least <= CONTEXT_MOST)
            found = list[i].pid;
    }
    return found;
}

/* From the lists after the first context: our number, NOBODY where there are several newcomers, 0 where there is none. */
static unsigned learn(const struct figure_seen *seen, const nvmlProcessInfo_v2_t *list, unsigned count, unsigned clients,
                      uint64_t least)
{
    unsigned self = own_pid(), learned;
    bool listed = false, some;

    for (unsigned i = 0; i < count; i++)
        listed |= list[i].pid == self;
    if (listed && !among(seen, self))
        return self;
    /* The server of MPS is among the compute processes, and may have come with us. */
    learned = newcomer(seen, list, clients, least, &some);
    if (!some)
        learned = newcomer(seen, list + clients, count - clients, least, &some);
    return some ? learned : 0;
}

void figure_learn(const uint8_t uuid[16], const struct figure_seen *seen, uint64_t least)
{
    unsigned learned = 0, count, clients;
    nvmlProcessInfo_v2_t *list;
    nvmlDevice_t device;

    if (!seen->known || !find_device(uuid, &device) || !(list = make_list()))
        return;
    if (read_list(device, list, &count, &clients))
        learned = learn(seen, list, count, clients, least);
    end_list(list);
    if (learned)
        __atomic_store_n(process_listed_pid(), learned, __ATOMIC_RELEASE);
}

bool figure_forget(void)
{
    uint32_t learned = __atomic_load_n(process_listed_pid(), __ATOMIC_ACQUIRE);

    if (!learned || learned == NOBODY || learned == own_pid())
        return false;
    __atomic_store_n(process_listed_pid(), NOBODY, __ATOMIC_RELEASE);
    return true;
}

void figure_shows(const uint8_t uuid[16], const uint32_t *pids, bool *shown, unsigned count)
{
    nvmlProcessInfo_v2_t *list = make_list();
    unsigned listed, clients;
    nvmlDevice_t device;

    guard_enter();
    if (!list || thread_over() || !nvml_ready() || !find_device(uuid, &device) || !read_list(device, list, &listed, &clients))
        listed = 0;
    guard_leave();
    for (unsigned i = 0; i < listed; i++) {
        for (unsigned j = 0; j < count; j++)
            shown[j] = shown[j] || list[i].pid == pids[j];
    }
    end_list(list);
}
