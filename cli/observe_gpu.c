/* SPDX-License-Identifier: Apache-2.0 */
/* The GPUs as NVML shows them. Its functions are taken from the library's own tables: where this command runs with softslice preloaded, dlsym() would
 * answer with functions that show a budget. */
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../shim/defined.h"
#include "observe_internal.h"
#include "softslice/units.h"

enum { NVML_SUCCESS, NVML_ERROR_UNINITIALIZED };
#define NVML_TEXT 96
#define MIG_MOST  16 /* instances of one GPU; NVML says how many there may be */

struct memory_v1 {
    unsigned long long total, free, used;
};

struct memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};
#define MEMORY_V2 ((unsigned)(sizeof(struct memory_v2) | 2U << 24))

struct process { /* of the second and third version of NVML's lists */
    unsigned pid;
    unsigned long long bytes;
    unsigned instances[2];
};
#define PROCESSES_MAX 1024

static struct {
    int (*init)(void);
    int (*count)(unsigned *count);
    int (*handle)(unsigned index, void **device);
    int (*uuid)(void *device, char *text, unsigned size);
    int (*name)(void *device, char *text, unsigned size);
    int (*memory_v1)(void *device, struct memory_v1 *memory);
    int (*memory_v2)(void *device, struct memory_v2 *memory);
    int (*mig_mode)(void *device, unsigned *current, unsigned *pending);
    int (*mig_handle)(void *device, unsigned index, void **instance);
    int (*processes[2])(void *device, unsigned *count, struct process *found); /* of each list; NULL: there is none */
    bool ready;
} nvml;

static void *find(void *library, const char *name)
{
    struct link_map *map = NULL;

    return dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 && map ? defined_in(map->l_addr, map->l_ld, name) : NULL;
}

static void *find_newest(void *library, const char *list)
{
    char name[64];
    void *function;

    snprintf(name, sizeof(name), "%s_v3", list);
    function = find(library, name);
    snprintf(name, sizeof(name), "%s_v2", list);
    return function ? function : find(library, name);
}

static bool load(void)
{
    static void *library;

    if (nvml.ready)
        return true;
    if (!library)
        library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return false;
    *(void **)&nvml.init = find(library, "nvmlInit_v2");
    *(void **)&nvml.count = find(library, "nvmlDeviceGetCount_v2");
    *(void **)&nvml.handle = find(library, "nvmlDeviceGetHandleByIndex_v2");
    *(void **)&nvml.uuid = find(library, "nvmlDeviceGetUUID");
    *(void **)&nvml.name = find(library, "nvmlDeviceGetName");
    *(void **)&nvml.memory_v1 = find(library, "nvmlDeviceGetMemoryInfo");
    *(void **)&nvml.memory_v2 = find(library, "nvmlDeviceGetMemoryInfo_v2");
    *(void **)&nvml.mig_mode = find(library, "nvmlDeviceGetMigMode");
    *(void **)&nvml.mig_handle = find(library, "nvmlDeviceGetMigDeviceHandleByIndex");
    *(void **)&nvml.processes[0] = find_newest(library, "nvmlDeviceGetComputeRunningProcesses");
    *(void **)&nvml.processes[1] = find_newest(library, "nvmlDeviceGetMPSComputeRunningProcesses");
    nvml.ready = nvml.init && nvml.count && nvml.handle && nvml.uuid && nvml.init() == NVML_SUCCESS;
    return nvml.ready;
}

struct observe_gpu *observe_gpu_add(struct observe *seen, const uint8_t uuid[16])
{
    struct observe_gpu *grown;

    if (seen->gpus == OBSERVE_GPUS)
        return NULL;
    grown = realloc(seen->gpu, (seen->gpus + 1) * sizeof(*grown));
    if (!grown)
        return NULL;
    seen->gpu = grown;
    grown += seen->gpus++;
    *grown = (struct observe_gpu){.index = -1};
    memcpy(grown->uuid, uuid, 16);
    observe_uuid_text(uuid, grown->uuid_text);
    return grown;
}

/* Bytes that the driver keeps for itself are no program's: NVML's second version sets them apart, as nvidia-smi does. */
static void read_memory(void *device, struct observe_gpu *gpu)
{
    struct memory_v2 second = {.version = MEMORY_V2};
    struct memory_v1 first;

    if (nvml.memory_v2 && nvml.memory_v2(device, &second) == NVML_SUCCESS) {
        gpu->total = second.total;
        gpu->used = second.used;
    } else if (nvml.memory_v1 && nvml.memory_v1(device, &first) == NVML_SUCCESS) {
        gpu->total = first.total;
        gpu->used = first.used;
    }
}

/* One device, or instance of one. False: no more can be had now. */
static int read_one(struct observe *seen, void *device, int index)
{
    char text[NVML_TEXT] = "";
    struct units_device parsed;
    struct observe_gpu *gpu;
    int result = nvml.uuid(device, text, sizeof(text));

    if (result == NVML_ERROR_UNINITIALIZED)
        nvml.ready = false;
    text[sizeof(text) - 1] = '\0';
    if (result != NVML_SUCCESS || units_parse_device(text, strlen(text), &parsed) < 0 || parsed.kind != UNITS_DEVICE_UUID)
        return 0;
    gpu = observe_gpu_add(seen, parsed.uuid);
    if (!gpu)
        return seen->gpus == OBSERVE_GPUS ? 0 : -ENOMEM;
    snprintf(gpu->uuid_text, sizeof(gpu->uuid_text), "%s", text);
    gpu->index = index;
    if (!nvml.name || nvml.name(device, gpu->name, sizeof(gpu->name)) != NVML_SUCCESS)
        *gpu->name = '\0';
    gpu->name[sizeof(gpu->name) - 1] = '\0';
    read_memory(device, gpu);
    return 0;
}

static int read_instances(struct observe *seen, void *device)
{
    unsigned current = 0, pending;
    void *instance;
    int result = 0;

    if (!nvml.mig_mode || !nvml.mig_handle || nvml.mig_mode(device, &current, &pending) != NVML_SUCCESS || !current)
        return 0;
    for (unsigned i = 0; i < MIG_MOST && result == 0; i++) {
        if (nvml.mig_handle(device, i, &instance) == NVML_SUCCESS)
            result = read_one(seen, instance, -1);
    }
    return result;
}

int observe_gpus_read(struct observe *seen)
{
    unsigned count = 0;
    int result = 0, answer;

    if (!load())
        return 0;
    answer = nvml.count(&count);
    if (answer != NVML_SUCCESS) {
        nvml.ready = false;
        return 0;
    }
    for (unsigned i = 0; i < count && result == 0; i++) {
        void *device;

        if (nvml.handle(i, &device) != NVML_SUCCESS)
            continue;
        result = read_one(seen, device, (int)i);
        if (result == 0)
            result = read_instances(seen, device);
    }
    return result;
}

void observe_gpu_processes(observe_gpu_process *found, void *context)
{
    unsigned count = 0;

    if (!load() || nvml.count(&count) != NVML_SUCCESS)
        return;
    for (unsigned i = 0; i < 2 * count; i++) {
        static struct process list[PROCESSES_MAX];
        unsigned processes = PROCESSES_MAX;
        void *device;

        if (!nvml.processes[i % 2] || nvml.handle(i / 2, &device) != NVML_SUCCESS ||
            nvml.processes[i % 2](device, &processes, list) != NVML_SUCCESS)
            continue;
        for (unsigned j = 0; j < processes; j++)
            found(context, (int)(i / 2), list[j].pid, list[j].bytes);
    }
}

const struct observe_gpu *observe_find_gpu(const struct observe *seen, const uint8_t uuid[16])
{
    for (unsigned i = 0; i < seen->gpus; i++) {
        if (memcmp(seen->gpu[i].uuid, uuid, 16) == 0)
            return &seen->gpu[i];
    }
    return NULL;
}

int observe_device(const char *text, uint8_t uuid[16], char error[OBSERVE_ERROR_MAX])
{
    struct observe seen = {0};
    struct units_device device;
    int result = -ENODEV;

    if (units_parse_device(text, strlen(text), &device) < 0) {
        snprintf(error, OBSERVE_ERROR_MAX,
                 "'%.80s' is not a device (write GPU-<uuid> as nvidia-smi -L prints it, or its number there)", text);
        return -EINVAL;
    }
    if (device.kind == UNITS_DEVICE_UUID) {
        memcpy(uuid, device.uuid, 16);
        return 0;
    }
    observe_gpus_read(&seen);
    for (unsigned i = 0; i < seen.gpus; i++) {
        if (seen.gpu[i].index == (int)device.ordinal) {
            memcpy(uuid, seen.gpu[i].uuid, 16);
            result = 0;
        }
    }
    if (result < 0 && seen.gpus)
        snprintf(error, OBSERVE_ERROR_MAX, "NVML shows no GPU %u here", device.ordinal);
    else if (result < 0)
        snprintf(error, OBSERVE_ERROR_MAX, "NVML shows no GPU here: name it by its UUID (GPU-<uuid>)");
    free(seen.gpu);
    return result;
}
