/* SPDX-License-Identifier: Apache-2.0 */
/* NVML's MIG instances. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvml_events.h"
#include "nvml_mig.h"
#include "shared.h"

#define EXPORT    __attribute__((visibility("default")))
#define MOST      7
#define FIRST_ID  3 /* of GPU instances: a real one's ids have gaps, too (assumed) */
#define OF(index) ((nvmlDevice_t)(void *)&instances[(index)])

/* A handle is an address inside this array. */
static char instances[SIM_MAX_GPUS * MOST];

unsigned int sim_nvml_instances(unsigned int gpu)
{
    const char *at = getenv("SOFTSIM_NVML_MIG");
    unsigned int index, count;

    for (; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        if (sscanf(at, "%u:%u", &index, &count) == 2 && index == gpu && count <= MOST)
            return count;
    }
    return 0;
}

bool sim_nvml_instance(nvmlDevice_t device, unsigned int *gpu, unsigned int *number)
{
    const char *at = (const char *)device;

    if (at < instances || at >= instances + sizeof(instances))
        return false;
    *gpu = (unsigned int)(at - instances) / MOST;
    *number = (unsigned int)(at - instances) % MOST;
    return *number < sim_nvml_instances(*gpu) && !sim_nvml_lost(*gpu);
}

void sim_nvml_mig_uuid(char text[48], unsigned int number)
{
    memcpy(text, "MIG", 3);
    text[4] = (char)('0' + number);
}

EXPORT nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *currentMode, unsigned int *pendingMode);
EXPORT nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *currentMode, unsigned int *pendingMode)
{
    unsigned int index;
    nvmlReturn_t r;

    FAIL();
    r = sim_nvml_index(device, &index);
    if (r != NVML_SUCCESS)
        return r;
    if (!currentMode || !pendingMode)
        return NVML_ERROR_INVALID_ARGUMENT;
    *currentMode = *pendingMode = sim_nvml_instances(index) > 0;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *migDevice);
EXPORT nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *migDevice)
{
    unsigned int gpu;
    nvmlReturn_t r;

    FAIL();
    r = sim_nvml_index(device, &gpu);
    if (r != NVML_SUCCESS)
        return r;
    if (!migDevice)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (index >= sim_nvml_instances(gpu))
        return NVML_ERROR_NOT_FOUND;
    *migDevice = OF(gpu * MOST + index);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *id);
EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *id)
{
    unsigned int gpu, number;

    FAIL();
    if (!id || !sim_nvml_instance(device, &gpu, &number))
        return NVML_ERROR_INVALID_ARGUMENT;
    *id = FIRST_ID + number;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned int *id);
EXPORT nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned int *id)
{
    unsigned int gpu, number;

    FAIL();
    if (!id || !sim_nvml_instance(device, &gpu, &number))
        return NVML_ERROR_INVALID_ARGUMENT;
    *id = 0;
    return NVML_SUCCESS;
}
