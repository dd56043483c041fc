/* SPDX-License-Identifier: Apache-2.0 */
/* NVML, through dlopen(): its functions are taken from the library's own tables, so that nothing that is preloaded answers instead. */
#include <dlfcn.h>
#include <link.h>
#include <string.h>

#include "../shim/defined.h"
#include "nvml.h"

#define MIG_MOST  16
#define XID_EVENT 8ULL /* nvmlEventTypeXidCriticalError */

struct memory_v1 {
    unsigned long long total, free, used;
};

struct memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};
#define MEMORY_V2 ((unsigned)(sizeof(struct memory_v2) | 2U << 24))

struct pci {
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
};

struct event_data {
    void *device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance; /* all ones: not of one */
};

static struct {
    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error)(int code);
    int (*count)(unsigned *count);
    int (*handle)(unsigned index, void **device);
    int (*uuid)(void *device, char *text, unsigned size);
    int (*minor)(void *device, unsigned *minor);
    int (*memory_v1)(void *device, struct memory_v1 *memory);
    int (*memory_v2)(void *device, struct memory_v2 *memory);
    int (*pci)(void *device, struct pci *pci);
    int (*mig_mode)(void *device, unsigned *current, unsigned *pending);
    int (*mig_handle)(void *device, unsigned index, void **instance);
    int (*gpu_instance)(void *instance, unsigned *id);
    int (*compute_instance)(void *instance, unsigned *id);
    int (*set_create)(void **set);
    int (*set_free)(void *set);
    int (*watch)(void *device, unsigned long long types, void *set);
    int (*wait)(void *set, struct event_data *data, unsigned timeout_ms);
    void *set;
    bool open;
} nvml;

static void *find(void *library, const char *name)
{
    struct link_map *map = NULL;

    return dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 && map ? defined_in(map->l_addr, map->l_ld, name) : NULL;
}

static const char *text_of(int code)
{
    const char *text = nvml.error ? nvml.error(code) : NULL;

    return text ? text : "an error of NVML's";
}

const char *nvml_open(void)
{
    static void *library;
    int result;

    if (nvml.open)
        return NULL;
    if (!library)
        library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return "libnvidia-ml.so.1 cannot be loaded (is the NVIDIA driver installed, and its libraries in this container?)";
    *(void **)&nvml.init = find(library, "nvmlInit_v2");
    *(void **)&nvml.shutdown = find(library, "nvmlShutdown");
    *(void **)&nvml.error = find(library, "nvmlErrorString");
    *(void **)&nvml.count = find(library, "nvmlDeviceGetCount_v2");
    *(void **)&nvml.handle = find(library, "nvmlDeviceGetHandleByIndex_v2");
    *(void **)&nvml.uuid = find(library, "nvmlDeviceGetUUID");
    *(void **)&nvml.minor = find(library, "nvmlDeviceGetMinorNumber");
    *(void **)&nvml.memory_v1 = find(library, "nvmlDeviceGetMemoryInfo");
    *(void **)&nvml.memory_v2 = find(library, "nvmlDeviceGetMemoryInfo_v2");
    *(void **)&nvml.pci = find(library, "nvmlDeviceGetPciInfo_v3");
    *(void **)&nvml.mig_mode = find(library, "nvmlDeviceGetMigMode");
    *(void **)&nvml.mig_handle = find(library, "nvmlDeviceGetMigDeviceHandleByIndex");
    *(void **)&nvml.gpu_instance = find(library, "nvmlDeviceGetGpuInstanceId");
    *(void **)&nvml.compute_instance = find(library, "nvmlDeviceGetComputeInstanceId");
    *(void **)&nvml.set_create = find(library, "nvmlEventSetCreate");
    *(void **)&nvml.set_free = find(library, "nvmlEventSetFree");
    *(void **)&nvml.watch = find(library, "nvmlDeviceRegisterEvents");
    *(void **)&nvml.wait = find(library, "nvmlEventSetWait_v2");
    if (!nvml.init || !nvml.shutdown || !nvml.count || !nvml.handle || !nvml.uuid || !nvml.memory_v1)
        return "libnvidia-ml.so.1 lacks functions that every NVML has";
    result = nvml.init();
    if (result != NVML_SUCCESS)
        return text_of(result);
    nvml.open = true;
    nvml.set = NULL;
    if (nvml.set_create && nvml.set_free && nvml.watch && nvml.wait && nvml.set_create(&nvml.set) != NVML_SUCCESS)
        nvml.set = NULL;
    return NULL;
}

void nvml_close(void)
{
    if (!nvml.open)
        return;
    if (nvml.set)
        nvml.set_free(nvml.set);
    nvml.shutdown();
    nvml.open = false;
}

/* ---- devices */

static int read_memory(void *device, struct gpu *gpu)
{
    struct memory_v2 second = {.version = MEMORY_V2};
    struct memory_v1 first = {0};
    int result;

    if (nvml.memory_v2 && nvml.memory_v2(device, &second) == NVML_SUCCESS) {
        gpu->total = second.total;
        gpu->reserved = second.reserved;
        return NVML_SUCCESS;
    }
    result = nvml.memory_v1(device, &first);
    gpu->total = result == NVML_SUCCESS ? first.total : 0;
    return result;
}

/* The node of its PCI slot; -1: there is one node, or none is known. */
static int read_numa(void *device)
{
    struct pci pci = {.bus_id = ""};
    char path[128];
    FILE *file;
    int node = -1;

    if (!nvml.pci || nvml.pci(device, &pci) != NVML_SUCCESS)
        return -1;
    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%04x:%02x:%02x.0/numa_node", pci.domain, pci.bus, pci.device);
    file = fopen(path, "re");
    if (!file)
        return -1;
    if (fscanf(file, "%d", &node) != 1)
        node = -1;
    fclose(file);
    return node;
}

/* False: it cannot even be named. */
static bool read_one(void *device, void *parent, struct nvml_gpu *gpu)
{
    struct gpu *is = &gpu->is;
    struct units_device parsed;
    unsigned number = 0;
    int result;

    *gpu = (struct nvml_gpu){.handle = parent, .is = {.minor = -1, .numa = -1, .gpu_instance = -1, .compute_instance = -1}};
    if (nvml.uuid(device, is->uuid, sizeof(is->uuid)) != NVML_SUCCESS)
        return false;
    is->uuid[sizeof(is->uuid) - 1] = '\0';
    if (units_parse_device(is->uuid, strlen(is->uuid), &parsed) < 0 || parsed.kind != UNITS_DEVICE_UUID)
        return false;
    if (nvml.minor && nvml.minor(parent, &number) == NVML_SUCCESS)
        is->minor = (int)number;
    is->numa = read_numa(parent);
    if (device != parent && nvml.gpu_instance && nvml.gpu_instance(device, &number) == NVML_SUCCESS)
        is->gpu_instance = (int)number;
    if (device != parent && nvml.compute_instance && nvml.compute_instance(device, &number) == NVML_SUCCESS)
        is->compute_instance = (int)number;
    result = read_memory(device, is);
    is->healthy = result == NVML_SUCCESS;
    if (!is->healthy)
        snprintf(is->reason, sizeof(is->reason), "NVML says: %s", text_of(result));
    return true;
}

static int read_instances(void *parent, struct nvml_gpu *gpu, int room)
{
    int found = 0;

    for (unsigned i = 0; i < MIG_MOST && found < room; i++) {
        void *instance;

        if (nvml.mig_handle(parent, i, &instance) == NVML_SUCCESS)
            found += read_one(instance, parent, &gpu[found]);
    }
    return found;
}

int nvml_read(struct nvml_gpu gpu[PLUGIN_GPUS], const char **why)
{
    unsigned count = 0, current, pending;
    int found = 0, result = nvml.count(&count);

    if (result != NVML_SUCCESS) {
        *why = text_of(result);
        return -1;
    }
    for (unsigned i = 0; i < count && found < PLUGIN_GPUS; i++) {
        void *device;

        if (nvml.handle(i, &device) != NVML_SUCCESS)
            continue;
        if (nvml.mig_mode && nvml.mig_handle && nvml.mig_mode(device, &current, &pending) == NVML_SUCCESS && current)
            found += read_instances(device, gpu + found, PLUGIN_GPUS - found);
        else
            found += read_one(device, device, &gpu[found]);
    }
    return found;
}

/* ---- events */

const char *nvml_watch(void *handle)
{
    int result;

    if (!nvml.set)
        return "this NVML has no events";
    result = nvml.watch(handle, XID_EVENT, nvml.set);
    return result == NVML_SUCCESS ? NULL : text_of(result);
}

int nvml_wait(struct nvml_event *event, int timeout_ms, const char **why)
{
    struct event_data data = {.gpu_instance = ~0u};
    int result;

    if (!nvml.set) {
        usleep((useconds_t)timeout_ms * 1000);
        return 0;
    }
    result = nvml.wait(nvml.set, &data, (unsigned)timeout_ms);
    if (result == NVML_ERROR_TIMEOUT)
        return 0;
    if (result != NVML_SUCCESS) {
        *why = text_of(result);
        return -1;
    }
    *event = (struct nvml_event){data.device, data.gpu_instance == ~0u ? -1 : (int)data.gpu_instance, data.data};
    return (data.type & XID_EVENT) != 0;
}
