/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of `softslice doctor`: with the library preloaded and every dimension armed, asks for each entry point by each road. */
#include <dlfcn.h>
#include <link.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include "cli.h"
#include "doctor.h"
#include "softslice/native.h"

#define PER_THREAD 2 /* CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM */
#define NAME_BYTES 96

/* References such as a program has that is linked with the driver. Weak: without the library in front there is nothing to bind to. */
#define HOOK(home, body, arm, base, symbol, since, per_thread, ...) extern void symbol(void) __attribute__((weak));
#include "../shim/hooks.def"
#define HOOK(home, body, arm, base, symbol, since, per_thread, ...) extern void symbol(void) __attribute__((weak));
#include "../shim/nvml.def"

static struct entry_point {
    const char *base, *symbol;
    int since, per_thread;
    void (*linked)(void);
} driver_rows[] =
    {
#define HOOK(home, body, arm, base, symbol, since, per_thread, ...) {#base, #symbol, since, per_thread, NULL},
#include "../shim/hooks.def"
},
  nvml_rows[] = {
#define HOOK(home, body, arm, base, symbol, since, per_thread, ...) {#base, #symbol, since, per_thread, NULL},
#include "../shim/nvml.def"
};
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* In code, for a linker leaves no weak reference of a table to the loader. */
static void take_links(void)
{
    struct entry_point *row = driver_rows;

#define HOOK(home, body, arm, base, symbol, since, per_thread, ...) (row++)->linked = symbol;
#include "../shim/hooks.def"
    row = nvml_rows;
#define HOOK(home, body, arm, base, symbol, since, per_thread, ...) (row++)->linked = symbol;
#include "../shim/nvml.def"
}

typedef int (*get_proc_address)(const char *name, void **function, int version, uint64_t flags, int *status);

struct probe {
    const char *library;
    void *cuda, *nvml;
    int version; /* of CUDA, as the driver tells it */
    get_proc_address get;
};

/* What a program gets for a name. */
enum bond { BOUND, ABSENT, BARE, NOT_ASKED };
static const char *const bonds[] = {[BOUND] = "bound", [ABSENT] = "absent", [BARE] = "BARE", [NOT_ASKED] = "-"};

static void tell(enum finding finding, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void tell(enum finding finding, const char *format, ...)
{
    static const char *const words[] = DOCTOR_WORDS;
    va_list args;

    printf("%s ", words[finding]);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

static bool is_ours(const struct probe *probe, const void *address)
{
    Dl_info info;

    return address && dladdr(address, &info) && info.dli_fname && strcmp(info.dli_fname, probe->library) == 0;
}

static enum bond bond_of(const struct probe *probe, const void *address)
{
    return !address ? ABSENT : is_ours(probe, address) ? BOUND : BARE;
}

static void *ask(const struct probe *probe, const char *base, int version, uint64_t flags)
{
    void *function = NULL;
    int status = 0;

    return probe->get(base, &function, version, flags, &status) == 0 ? function : NULL;
}

struct tally {
    unsigned bound, absent, bare;
};

/* One entry point by every road. `getproc` is false for NVML, which has no such road. */
static void probe_row(const struct probe *probe, const struct entry_point *row, void *library, bool getproc, struct tally *tally)
{
    void *looked_up = dlsym(library, row->symbol), *asked = NULL;
    enum bond by_link = bond_of(probe, (const void *)row->linked), by_dlsym = bond_of(probe, looked_up), by_get = NOT_ASKED;

    if (getproc && probe->get) {
        asked = ask(probe, row->base, row->since, row->per_thread ? PER_THREAD : 0);
        by_get = bond_of(probe, asked);
    }
    printf(DOCTOR_ROW " %s %s %s %s\n", row->symbol, bonds[by_link], bonds[by_dlsym], bonds[by_get]);
    if (by_link == ABSENT || by_link == BARE || by_dlsym == BARE || by_get == BARE) {
        tally->bare++;
        tell(FINDING_PROBLEM, "%s is not held: linked %s, dlsym %s, cuGetProcAddress %s", row->symbol, bonds[by_link],
             bonds[by_dlsym], bonds[by_get]);
    } else if (by_dlsym == ABSENT && by_get != BOUND) {
        tally->absent++;
    } else {
        tally->bound++;
    }
}

static void probe_rows(const struct probe *probe, const struct entry_point *rows, size_t count, void *library, const char *name)
{
    struct tally tally = {0};
    const char *roads = library != probe->cuda ? "linked and by dlsym"
                        : probe->get           ? "linked, by dlsym and by cuGetProcAddress"
                                               : "linked and by dlsym (this driver has no cuGetProcAddress)";

    for (size_t i = 0; i < count; i++)
        probe_row(probe, &rows[i], library, library == probe->cuda, &tally);
    tell(tally.bound ? FINDING_OK : FINDING_PROBLEM, "%s: %u of %zu entry points bind %s; %u are not in this driver", name,
         tally.bound, count, roads, tally.absent);
}

/* Versions that the driver would hand to a program built for it, and that no row knows. */
static void probe_unknown(const struct probe *probe)
{
    unsigned unknown = 0;

    for (size_t i = 0; i < COUNT(driver_rows); i++) {
        const struct entry_point *row = &driver_rows[i];

        if (i && strcmp(row->base, driver_rows[i - 1].base) == 0)
            continue;
        for (uint64_t flags = 0; flags <= PER_THREAD; flags += PER_THREAD) {
            void *function = ask(probe, row->base, probe->version, flags);

            if (bond_of(probe, function) != BARE)
                continue;
            unknown++;
            tell(FINDING_PROBLEM,
                 "%s: the driver's version for CUDA %d.%d is one that this softslice does not know, and is not held", row->base,
                 probe->version / 1000, probe->version % 1000 / 10);
            break;
        }
    }
    if (!unknown)
        tell(FINDING_OK, "the driver offers no version of them that is not known");
}

static const char *error_name(const struct probe *probe, int code)
{
    int (*get)(int, const char **) = (int (*)(int, const char **))dlsym(probe->cuda, "cuGetErrorName");
    const char *name = NULL;

    return get && get(code, &name) == 0 && name ? name : "unknown error";
}

/* The driver's own limit for this control group, which r615 keeps and NVML tells. */
static void probe_native(const struct probe *probe, int ordinal, const uint8_t uuid[16])
{
    struct {
        const char *path;
        unsigned long long soft, hard, used;
    } limits = {.hard = NATIVE_NONE};
    int (*get)(void *, void *) = probe->nvml ? (int (*)(void *, void *))dlsym(probe->nvml, "nvmlDeviceGetMemoryLimits_v1") : NULL;
    int (*find)(const char *, void **) =
        probe->nvml ? (int (*)(const char *, void **))dlsym(probe->nvml, "nvmlDeviceGetHandleByUUID") : NULL;
    char text[UNITS_TEXT_MAX], path[PATH_MAX];
    void *device;

    limits.path = path;
    if (get && find && native_cgroup(path, sizeof(path)) && find(units_format_uuid(text, uuid), &device) == 0 &&
        get(device, &limits) == 0 && limits.hard != NATIVE_NONE)
        printf(DOCTOR_NATIVE " %d %llu %s\n", ordinal, limits.hard, path);
}

static void probe_device(const struct probe *probe, int ordinal)
{
    int (*get)(int *, int) = (int (*)(int *, int))dlsym(probe->cuda, "cuDeviceGet");
    int (*get_name)(char *, int, int) = (int (*)(char *, int, int))dlsym(probe->cuda, "cuDeviceGetName");
    int (*get_uuid)(uint8_t *, int) = (int (*)(uint8_t *, int))dlsym(probe->cuda, "cuDeviceGetUuid_v2");
    int (*get_total)(size_t *, int) = (int (*)(size_t *, int))dlsym(probe->cuda, "cuDeviceTotalMem_v2");
    char name[NAME_BYTES] = "", text[UNITS_TEXT_MAX], size[UNITS_TEXT_MAX];
    uint8_t uuid[16] = {0};
    size_t total = 0;
    int device = 0, code;

    if (!get_uuid)
        get_uuid = (int (*)(uint8_t *, int))dlsym(probe->cuda, "cuDeviceGetUuid");
    if (!get || !get_name || !get_uuid || !get_total)
        return tell(FINDING_PROBLEM, "GPU %d: the driver cannot tell what it is", ordinal);
    if ((code = get(&device, ordinal)) || (code = get_name(name, sizeof(name) - 1, device)) || (code = get_uuid(uuid, device)) ||
        (code = get_total(&total, device)))
        return tell(FINDING_PROBLEM, "GPU %d: %s", ordinal, error_name(probe, code));
    tell(FINDING_OK, "GPU %d: %s, %s, %s", ordinal, name, units_format_uuid(text, uuid), units_format_size(size, total));
    printf(DOCTOR_DEVICE " %d ", ordinal);
    for (unsigned i = 0; i < sizeof(uuid); i++)
        printf("%02x", uuid[i]);
    printf(" %zu\n", total);
    probe_native(probe, ordinal, uuid);
}

static void probe_devices(const struct probe *probe)
{
    int (*init)(unsigned) = (int (*)(unsigned))dlsym(probe->cuda, "cuInit");
    int (*get_count)(int *) = (int (*)(int *))dlsym(probe->cuda, "cuDeviceGetCount");
    int count = 0, code;

    puts(DOCTOR_SECTION " GPUs");
    if (!init || !get_count)
        return tell(FINDING_PROBLEM, "%s", "the driver has no cuInit");
    fflush(stdout); /* what the library says of it comes in order */
    if ((code = init(0)) || (code = get_count(&count)))
        return tell(FINDING_PROBLEM, "CUDA does not start: %s%s", error_name(probe, code),
                    access("/dev/nvidiactl", F_OK) < 0
                        ? " (there is no /dev/nvidiactl: no GPU was given to this machine or container)"
                        : "");
    if (count == 0)
        tell(FINDING_PROBLEM, "the driver shows no GPU%s", getenv("CUDA_VISIBLE_DEVICES") ? ": see CUDA_VISIBLE_DEVICES" : "");
    for (int i = 0; i < count; i++)
        probe_device(probe, i);
}

static void tell_path(void *handle, const char *what)
{
    struct link_map *map = NULL;
    char path[PATH_MAX];

    if (dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 && realpath(map->l_name, path))
        tell(FINDING_OK, "%s: %s", what, path);
}

static void probe_cuda(struct probe *probe)
{
    int (*get_version)(int *);

    puts(DOCTOR_SECTION " Driver");
    probe->cuda = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!probe->cuda)
        return tell(FINDING_PROBLEM, "no driver: %s (install the NVIDIA driver, or start the container with its GPUs)", dlerror());
    tell_path(probe->cuda, "the CUDA driver");
    get_version = (int (*)(int *))dlsym(probe->cuda, "cuDriverGetVersion");
    if (get_version && get_version(&probe->version) == 0)
        tell(FINDING_OK, "CUDA %d.%d", probe->version / 1000, probe->version % 1000 / 10);
    probe->get = (get_proc_address)dlsym(probe->cuda, "cuGetProcAddress_v2");

    puts(DOCTOR_SECTION " Hooks");
    probe_rows(probe, driver_rows, COUNT(driver_rows), probe->cuda, "CUDA");
    if (probe->get)
        probe_unknown(probe);
}

static void probe_nvml(struct probe *probe)
{
    void *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    int (*init)(void), (*get_version)(char *, unsigned);
    char version[NAME_BYTES] = "";

    if (!nvml)
        return tell(FINDING_NOTE, "no NVML: %s (nvidia-smi and monitoring do not work here)", dlerror());
    probe_rows(probe, nvml_rows, COUNT(nvml_rows), nvml, "NVML");
    puts(DOCTOR_SECTION " NVML and native limits");
    tell_path(nvml, "NVML");
    init = (int (*)(void))dlsym(nvml, "nvmlInit_v2");
    get_version = (int (*)(char *, unsigned))dlsym(nvml, "nvmlSystemGetDriverVersion");
    if (init && get_version && init() == 0) {
        if (get_version(version, sizeof(version)) == 0)
            tell(FINDING_OK, "driver %s", version);
        probe->nvml = nvml; /* which stays initialised for the questions that follow */
    }
    if (dlsym(nvml, "nvmlDeviceGetMemoryLimits_v1"))
        tell(FINDING_NOTE, "the driver can limit memory by cgroup itself: where it does, the smaller limit holds");
    else
        tell(FINDING_NOTE, "the driver has no memory limits of its own (they come with r615): softslice's are the only ones");
}

int doctor_probe(const char *library)
{
    struct probe probe = {.library = library};

    take_links();
    puts(DOCTOR_SECTION " Preload");
    if (!is_ours(&probe, (const void *)driver_rows[0].linked)) {
        tell(FINDING_PROBLEM, "the loader does not preload %s", library);
        return 1;
    }
    tell(FINDING_OK, "%s is preloaded, and linked programs bind to it", library);
    probe_cuda(&probe);
    if (probe.cuda) {
        probe_nvml(&probe);
        probe_devices(&probe);
    }
    return 0;
}
