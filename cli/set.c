/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice set`: change the limits of a tenant that runs. */
#include <dlfcn.h>
#include <errno.h>
#include <getopt.h>
#include <string.h>
#include <sys/wait.h>

#include "cli.h"
#include "softslice/ledger.h"

enum { REFUSED = 1 };

struct request {
    const char *tenant, *device_text;
    struct units_device device; /* UNITS_DEVICE_ALL where none was named */
    struct ledger_change change;
    bool help;
};

/* ---- what is asked for */

static bool parse_weight(const char *text, uint32_t *weight)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    *weight = (uint32_t)value;
    return *text >= '0' && *text <= '9' && !*end && value >= 1 && value <= 10000;
}

static int take_vram(struct ledger_change *change, const char *value, struct cli_error *error)
{
    if (change->vram)
        return cli_fail(error, -1, "set: vram is given twice");
    if (units_parse_size(value, strlen(value), &change->limit) < 0)
        return cli_fail(error, -1, "set: vram='%s': not a size (write 20GiB or 512MiB; a percentage cannot be set)", value);
    change->vram = true;
    return 0;
}

static int take_compute(struct ledger_change *change, const char *value, struct cli_error *error)
{
    uint64_t share;
    int code = units_parse_percent(value, strlen(value), &share);

    if (change->compute)
        return cli_fail(error, -1, "set: compute is given twice");
    if (code < 0)
        return cli_fail(error, -1, "set: compute='%s': %s", value,
                        code == -ERANGE ? "a share must be above 0% and at most 100%" : "not a share of GPU time (write 30%)");
    change->compute = true;
    change->share = (uint32_t)share;
    return 0;
}

static int take_weight(struct ledger_change *change, const char *value, struct cli_error *error)
{
    if (change->weighted)
        return cli_fail(error, -1, "set: weight is given twice");
    if (!parse_weight(value, &change->weight))
        return cli_fail(error, -1, "set: weight='%s': a weight is a whole number from 1 to 10000", value);
    change->weighted = true;
    return 0;
}

static int take_assignment(struct ledger_change *change, const char *text, struct cli_error *error)
{
    static const struct {
        const char *name;
        int (*take)(struct ledger_change *change, const char *value, struct cli_error *error);
    } keys[] = {{"vram=", take_vram}, {"compute=", take_compute}, {"weight=", take_weight}};

    for (unsigned i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        if (strncmp(text, keys[i].name, strlen(keys[i].name)) == 0)
            return keys[i].take(change, text + strlen(keys[i].name), error);
    }
    return cli_fail(error, -1, "set: '%s' is not understood: what can be set is vram=SIZE, compute=SHARE and weight=N", text);
}

static int parse(int argc, char **argv, struct request *request, struct cli_error *error)
{
    static const struct option options[] = {{"device", required_argument, NULL, 'd'}, {"help", no_argument, NULL, 'h'}, {0}};
    int option;

    optind = 1;
    while ((option = cli_option(argc, argv, ":d:h", options, "set", error)) != -1) {
        if (option == '?')
            return -1;
        if (option == 'h') {
            request->help = true;
            return 0;
        }
        if (request->device_text)
            return cli_fail(error, -1, "set: --device is given twice");
        request->device_text = optarg;
    }
    if (request->device_text && units_parse_device(request->device_text, strlen(request->device_text), &request->device) < 0)
        return cli_fail(error, -1, "set: '%s' is not a device (write its ordinal, or GPU-<uuid> as nvidia-smi -L prints it)",
                        request->device_text);
    if (optind == argc)
        return cli_fail(error, -1, "set: no tenant is named (softslice set team compute=30%%)");
    request->tenant = argv[optind++];
    if (optind == argc)
        return cli_fail(error, -1, "set: nothing to set (softslice set %s compute=30%%)", request->tenant);
    for (; optind < argc; optind++) {
        if (take_assignment(&request->change, argv[optind], error))
            return -1;
    }
    return 0;
}

/* ---- the tenant's configuration, as far as it is not its processes' own: where its ledger is, and the admin's maxima */

static const char *get_variable(void *context, const char *name)
{
    if (strcmp(name, "SOFTSLICE_TENANT") == 0)
        return context;
    return strcmp(name, "SOFTSLICE_STATE_DIR") == 0 || strcmp(name, "SOFTSLICE_CONFIG") == 0 ? getenv(name) : NULL;
}

static int load(const struct request *request, struct config *config, struct cli_error *error)
{
    struct config_input input = {
        .getenv = get_variable, .context = (void *)(uintptr_t)request->tenant, .admin_file = CONFIG_ADMIN_FILE};

    if (config_load(config, &input) < 0)
        return cli_fail(error, -1, "%s", config->error);
    return 0;
}

static int above(const char *what, const char *device, const char *most, const char *origin, struct cli_error *error)
{
    return cli_fail(error, REFUSED, "set: %s is above what the admin allows%s%s: %s (%s)", what, *device ? " on " : "", device,
                    most, origin);
}

/* Members keep to the admin's file in any case: a value that cannot hold is not written. A percentage of VRAM is known to them alone. */
static int check_admin(const struct config *config, const struct ledger_change *change, const uint8_t uuid[16],
                       struct cli_error *error)
{
    struct config_device device = {.ordinal = -1, .physical = UINT64_MAX};
    char name[UNITS_TEXT_MAX], most[2 * UNITS_TEXT_MAX], origin[PATH_MAX + 256];
    const struct config_rule *rule;

    memcpy(device.uuid, uuid, sizeof(device.uuid));
    units_format_uuid(name, uuid);
    if (change->vram && change->limit > config_vram_admin(config, &device, &rule) && rule->amount.kind == UNITS_BYTES)
        return above("vram", name, config_rule_value(rule, most, sizeof(most)),
                     config_rule_origin(config, CONFIG_VRAM, rule, origin, sizeof(origin)), error);
    if (change->compute && change->share > config_compute_admin(config, &device, &rule))
        return above("compute", name, config_rule_value(rule, most, sizeof(most)),
                     config_rule_origin(config, CONFIG_COMPUTE, rule, origin, sizeof(origin)), error);
    if (change->weighted && config->admin_weight && change->weight > config->admin_weight) {
        snprintf(most, sizeof(most), "%u", config->admin_weight);
        return above("weight", "", most, config->admin_ini, error);
    }
    return 0;
}

/* ---- devices */

/* Print the UUID of a CUDA ordinal to `to`, in a process of its own: a driver that is loaded starts things. */
static void tell_uuid(unsigned ordinal, int to)
{
    void *cuda = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    int (*init)(unsigned) = cuda ? (int (*)(unsigned))dlsym(cuda, "cuInit") : NULL;
    int (*get)(int *, int) = cuda ? (int (*)(int *, int))dlsym(cuda, "cuDeviceGet") : NULL;
    int (*get_uuid)(uint8_t *, int) = cuda ? (int (*)(uint8_t *, int))dlsym(cuda, "cuDeviceGetUuid_v2") : NULL;
    uint8_t uuid[16];
    int device;

    if (!get_uuid && cuda)
        get_uuid = (int (*)(uint8_t *, int))dlsym(cuda, "cuDeviceGetUuid");
    if (init && get && get_uuid && init(0) == 0 && get(&device, (int)ordinal) == 0 && get_uuid(uuid, device) == 0 &&
        write(to, uuid, sizeof(uuid)) == sizeof(uuid))
        _exit(0);
    _exit(1);
}

static int find_uuid(struct request *request, struct cli_error *error)
{
    int ends[2], status = 1;
    ssize_t size;
    pid_t child;

    if (request->device.kind != UNITS_DEVICE_ORDINAL)
        return 0;
    if (pipe(ends) < 0 || (child = fork()) < 0)
        return cli_fail(error, -1, "set: cannot ask the driver for its GPUs: %s", strerror(errno));
    if (child == 0)
        tell_uuid(request->device.ordinal, ends[1]);
    close(ends[1]);
    size = read(ends[0], request->device.uuid, sizeof(request->device.uuid));
    close(ends[0]);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (size != (ssize_t)sizeof(request->device.uuid) || status)
        return cli_fail(error, REFUSED, "set: the driver here has no GPU %u: name it by its UUID (GPU-<uuid>)",
                        request->device.ordinal);
    request->device.kind = UNITS_DEVICE_UUID;
    return 0;
}

/* ---- the change */

static int explain(int code, const struct request *request, const struct ledger_view *before, const char *state,
                   struct cli_error *error)
{
    const char *tenant = request->tenant, *dimension = request->change.vram && !(before->arms & LEDGER_ARMS_VRAM) ? "vram"
                                                       : request->change.compute                                  ? "compute"
                                                                                                                  : "weight";

    switch (-code) {
    case ENOENT:
        return cli_fail(error, REFUSED, "set: there is no tenant '%s' in %s", tenant, state);
    case ESRCH:
        return cli_fail(error, REFUSED, "set: tenant '%s' has ended: nothing of it runs", tenant);
    case ENODEV:
        return cli_fail(error, REFUSED, "set: tenant '%s' uses no GPU%s%s yet", tenant, request->device_text ? " " : "",
                        request->device_text ? request->device_text : "");
    case EOPNOTSUPP:
        if (strcmp(dimension, "vram") == 0)
            return cli_fail(error, REFUSED,
                            "set: no process of tenant '%s' has vram armed: it was neither started with a budget nor named",
                            tenant);
        return cli_fail(error, REFUSED,
                        "set: no process of tenant '%s' has compute armed: %s takes programs that were started with a share or a "
                        "weight (100%% counts)",
                        tenant, dimension);
    case EACCES:
    case EPERM:
    case EROFS:
        return cli_fail(error, REFUSED, "set: tenant '%s': may not write its ledger in %s", tenant, state);
    case EPROTO:
    case ELOOP:
    case ENOTDIR:
        return cli_fail(error, REFUSED, "set: tenant '%s': its ledger in %s is damaged or none", tenant, state);
    case EAGAIN:
        return cli_fail(error, REFUSED, "set: a process has been joining tenant '%s' for a second: is it stopped?", tenant);
    default:
        return cli_fail(error, REFUSED, "set: tenant '%s': %s", tenant, strerror(-code));
    }
}

static const char *share_text(char text[UNITS_TEXT_MAX], unsigned hundredths)
{
    int length = snprintf(text, UNITS_TEXT_MAX, "%u.%02u", hundredths / 100, hundredths % 100);

    while (text[length - 1] == '0')
        length--;
    length -= text[length - 1] == '.';
    snprintf(text + length, UNITS_TEXT_MAX - (size_t)length, "%%");
    return text;
}

/* What the ledger said before, and what it says now. */
static void print_change(const struct ledger_change *change, const struct ledger_device_state *before)
{
    char device[UNITS_TEXT_MAX], old[UNITS_TEXT_MAX], new[UNITS_TEXT_MAX];

    units_format_uuid(device, before->uuid);
    if (change->vram)
        printf("%s vram: %s, was %s\n", device, units_format_size(new, change->limit),
               before->limit == LEDGER_NO_LIMIT ? "none" : units_format_size(old, before->limit));
    if (change->compute)
        printf("%s compute: %s, was %s\n", device, share_text(new, change->share), share_text(old, before->share));
    snprintf(old, sizeof(old), "%u", before->weight);
    if (change->weighted)
        printf("%s weight: %u, was %s\n", device, change->weight, before->weight ? old : "none");
}

static bool is_meant(const struct request *request, const uint8_t uuid[16])
{
    return request->device.kind == UNITS_DEVICE_ALL || memcmp(request->device.uuid, uuid, 16) == 0;
}

static int change(struct request *request, const struct config *config, struct cli_error *error)
{
    static struct ledger ledger;
    static struct ledger_view view;
    char path[PATH_MAX];
    CLEANUP_CLOSE int directory = ledger_state_dir(&ledger, config->state_dir, path, sizeof(path));
    int result;

    if (directory < 0)
        return cli_fail(error, REFUSED, "set: %s", ledger.error);
    result = ledger_read(directory, request->tenant, &view);
    if (result == 0 && view.members && find_uuid(request, error))
        return REFUSED;
    for (unsigned i = 0; result == 0 && i < view.devices; i++) {
        if (is_meant(request, view.device[i].uuid) && check_admin(config, &request->change, view.device[i].uuid, error))
            return REFUSED;
    }
    if (result == 0)
        result = ledger_change(directory, request->tenant, request->device.kind == UNITS_DEVICE_ALL ? NULL : request->device.uuid,
                               &request->change, &view);
    if (result < 0)
        return explain(result, request, &view, path, error);
    for (unsigned i = 0; i < view.devices; i++) {
        if (is_meant(request, view.device[i].uuid))
            print_change(&request->change, &view.device[i]);
    }
    return 0;
}

static int run(int argc, char **argv, struct cli_error *error)
{
    static struct request request;
    static struct config config;

    if (parse(argc, argv, &request, error))
        return CLI_FAILED;
    if (request.help)
        return help_print(stdout, &command_set);
    if (load(&request, &config, error))
        return CLI_FAILED;
    return change(&request, &config, error);
}

const struct command command_set = {
    .name = "set",
    .summary = "change the limits of a tenant that runs",
    .usage = "set [--device DEVICE] TENANT [vram=SIZE] [compute=SHARE] [weight=N]",
    .help =
        "Replace what the tenant's first process set, on all its GPUs or on one. It holds at once for allocations, and within two\n"
        "periods for GPU time; what is allocated stays. The admin's file remains the maximum, and a process that was itself\n"
        "started with less than the others keeps to that.\n"
        "\n"
        "    vram=SIZE        VRAM budget: 20GiB, 512MiB\n"
        "    compute=SHARE    share of GPU time: 30%\n"
        "    weight=N         1 to 10000: contended GPU time is divided by it\n"
        "    --device DEVICE  GPU-<uuid>, or the ordinal that the GPU has here\n"
        "\n"
        "Only what a process of the tenant was started with can be changed: programs without a share run without the checks\n"
        "that one takes. It lasts until the tenant's last process ends.\n"
        "\n"
        "Exit status: 0; 1 if it is refused, with nothing changed; 125 if used wrongly.\n",
    .run = run,
};
