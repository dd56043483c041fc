/* SPDX-License-Identifier: Apache-2.0 */
/* Asks NVML what the driver has counted for this process. */
#include "figure.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "guard.h"
#include "native.h"
#include "real.h"
#include "softslice/units.h"
#include "watch.h"

#define FIGURE_PROCESSES 256 /* on one device; with more of them the figure is unknown */
#define NOT_AVAILABLE    (~0ull)

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

/* The processes that use a device: false where NVML does not tell, or there are too many. */
static bool read_list(nvmlDevice_t device, nvmlProcessInfo_v2_t *list, unsigned *count)
{
    *count = FIGURE_PROCESSES;
    nvmlReturn_t result = called.nvmlDeviceGetComputeRunningProcesses_v3(device, count, list);
    if (result != NVML_SUCCESS && result != NVML_ERROR_INSUFFICIENT_SIZE) {
        *count = FIGURE_PROCESSES;
        result = called.nvmlDeviceGetComputeRunningProcesses_v2(device, count, list);
    }
    return result == NVML_SUCCESS && *count <= FIGURE_PROCESSES;
}

bool figure_of_process(const uint8_t uuid[16], uint64_t *bytes)
{
    nvmlProcessInfo_v2_t list[FIGURE_PROCESSES];
    unsigned self = (unsigned)syscall(SYS_getpid), count;
    nvmlDevice_t device;

    if (watch_over() || !nvml_ready() || !find_device(uuid, &device))
        return false;
    struct membership *m = process_membership(NULL);
    int index = m ? process_device_of_uuid(m, uuid) : PROCESS_NO_DEVICE;
    if (index != PROCESS_NO_DEVICE)
        native_look(m, (unsigned)index, device);
    if (!read_list(device, list, &count))
        return false;
    for (unsigned i = 0; i < count; i++) {
        if (list[i].pid == self && list[i].usedGpuMemory != NOT_AVAILABLE) {
            *bytes = list[i].usedGpuMemory;
            return true;
        }
    }
    return false;
}

void figure_shows(const uint8_t uuid[16], const uint32_t *pids, bool *shown, unsigned count)
{
    nvmlProcessInfo_v2_t list[FIGURE_PROCESSES];
    unsigned listed;
    nvmlDevice_t device;

    guard_enter();
    if (!nvml_ready() || !find_device(uuid, &device) || !read_list(device, list, &listed))
        listed = 0;
    guard_leave();
    for (unsigned i = 0; i < listed; i++) {
        for (unsigned j = 0; j < count; j++)
            shown[j] = shown[j] || list[i].pid == pids[j];
    }
}
