/* SPDX-License-Identifier: Apache-2.0 */
/* NVML's events, and lost GPUs. SOFTSIM_NVML_EVENTS names a file that is read again whenever somebody asks: `lost INDEX` is true while it stands there, each
 * `xid INDEX NUMBER` (`xid INDEX/GPU-INSTANCE NUMBER`) happens once to each event set, when it is written behind what was there when the set was made. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "nvml_events.h"
#include "shared.h"

#define EXPORT  __attribute__((visibility("default")))
#define POLL_MS 5

struct nvmlEventSet_st {
    unsigned long line; /* of the file: the first that has not been told */
    nvmlDevice_t device[SIM_MAX_GPUS];
};

static FILE *events(void)
{
    const char *path = getenv("SOFTSIM_NVML_EVENTS");

    return path && *path ? fopen(path, "re") : NULL;
}

/* Whole lines only: the last one may still be being written. */
static bool next_line(FILE *file, char line[128])
{
    return fgets(line, 128, file) && line[0] && line[__builtin_strlen(line) - 1] == '\n';
}

bool sim_nvml_lost(unsigned int index)
{
    FILE *file = events();
    unsigned int lost;
    bool is = false;
    char line[128];

    while (file && next_line(file, line))
        is |= sscanf(line, "lost %u", &lost) == 1 && lost == index;
    if (file)
        fclose(file);
    return is;
}

EXPORT nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set);
EXPORT nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
    nvmlEventSet_t made;
    char line[128];
    FILE *file;

    FAIL();
    made = set ? calloc(1, sizeof(*made)) : NULL;
    if (!made)
        return set ? NVML_ERROR_MEMORY : NVML_ERROR_INVALID_ARGUMENT;
    file = events();
    while (file && next_line(file, line))
        made->line++;
    if (file)
        fclose(file);
    *set = made;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set);
EXPORT nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    FAIL();
    free(set);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long eventTypes, nvmlEventSet_t set);
EXPORT nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long eventTypes, nvmlEventSet_t set)
{
    unsigned int index;
    nvmlReturn_t r;

    FAIL();
    r = sim_nvml_index(device, &index);
    if (r != NVML_SUCCESS)
        return r;
    if (!set)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (eventTypes != NVML_EVENT_XID)
        return NVML_ERROR_NOT_SUPPORTED;
    set->device[index] = device;
    return NVML_SUCCESS;
}

/* The first event behind set->line, if there is one. A lost GPU is an error for whoever waits. */
static nvmlReturn_t look(nvmlEventSet_t set, nvmlEventData_t *data)
{
    FILE *file = events();
    nvmlReturn_t r = NVML_ERROR_TIMEOUT;
    unsigned int index;
    unsigned long long xid;
    unsigned int instance;
    char line[128];

    for (unsigned long n = 0; file && r == NVML_ERROR_TIMEOUT && next_line(file, line); n++) {
        if (sscanf(line, "lost %u", &index) == 1 && index < SIM_MAX_GPUS && set->device[index])
            r = NVML_ERROR_GPU_IS_LOST;
        if (n < set->line)
            continue;
        set->line = n + 1;
        instance = ~0u;
        if ((sscanf(line, "xid %u/%u %llu", &index, &instance, &xid) != 3 && sscanf(line, "xid %u %llu", &index, &xid) != 2) ||
            index >= SIM_MAX_GPUS || !set->device[index])
            continue;
        *data = (nvmlEventData_t){set->device[index], NVML_EVENT_XID, xid, instance, instance == ~0u ? ~0u : 0};
        r = NVML_SUCCESS;
    }
    if (file)
        fclose(file);
    return r;
}

EXPORT nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeoutms);
EXPORT nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeoutms)
{
    nvmlReturn_t r;

    FAIL();
    if (!set || !data)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned int waited = 0; (r = look(set, data)) == NVML_ERROR_TIMEOUT && waited < timeoutms; waited += POLL_MS)
        poll(NULL, 0, POLL_MS);
    return r;
}
