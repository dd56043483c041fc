/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice set`: change the limits of a tenant that runs. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>

#include "set.h"

/* ---- what is asked for */

static bool parse_weight(const char *text, uint32_t *weight)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    *weight = (uint32_t)value;
    return *text >= '0' && *text <= '9' && !*end && value >= 1 && value <= 10000;
}

static int take_vram(struct set_request *request, const char *value, struct cli_error *error)
{
    struct ledger_change *change = &request->change;
    struct units_amount amount = {.kind = UNITS_BYTES, .value = LEDGER_NO_LIMIT};

    if (change->vram)
        return cli_fail(error, -1, "set: vram is given twice");
    request->most = strcmp(value, "max") == 0;
    if (!request->most && units_parse_amount(value, strlen(value), &amount) < 0)
        return cli_fail(error, -1,
                        "set: vram='%s': not a size (write 20GiB, 512MiB or 25%%; max for no limit but the admin's and the GPU's)",
                        value);
    change->vram = true;
    change->limit = amount.value;
    request->percent = amount.kind == UNITS_PERCENT ? amount.value : 0;
    return 0;
}

static int take_compute(struct set_request *request, const char *value, struct cli_error *error)
{
    uint64_t share = SHARE_WHOLE;
    int code = strcmp(value, "max") == 0 ? 0 : units_parse_percent(value, strlen(value), &share);

    if (request->change.compute)
        return cli_fail(error, -1, "set: compute is given twice");
    if (code < 0)
        return cli_fail(error, -1, "set: compute='%s': %s", value,
                        code == -ERANGE ? "a share must be above 0% and at most 100%"
                                        : "not a share of GPU time (write 30%; max for no limit but the admin's)");
    request->change.compute = true;
    request->change.share = (uint32_t)share;
    request->most_compute = strcmp(value, "max") == 0;
    return 0;
}

static int take_weight(struct set_request *request, const char *value, struct cli_error *error)
{
    struct ledger_change *change = &request->change;

    if (change->weighted)
        return cli_fail(error, -1, "set: weight is given twice");
    if (!parse_weight(value, &change->weight))
        return cli_fail(error, -1, "set: weight='%s': a weight is a whole number from 1 to 10000", value);
    change->weighted = true;
    return 0;
}

/* What can be set: `name`=VALUE, or --name VALUE. */
static const struct {
    const char *name;
    int (*take)(struct set_request *request, const char *value, struct cli_error *error);
} keys[] = {{"vram", take_vram}, {"compute", take_compute}, {"weight", take_weight}};

static int take_assignment(struct set_request *request, const char *text, struct cli_error *error)
{
    for (unsigned i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        size_t length = strlen(keys[i].name);

        if (strncmp(text, keys[i].name, length) == 0 && text[length] == '=')
            return keys[i].take(request, text + length + 1, error);
    }
    return cli_fail(error, -1, "set: '%s' is not understood: what can be set is vram=SIZE, compute=SHARE and weight=N", text);
}

static int take_once(const char **place, const char *option, const char *value, struct cli_error *error)
{
    if (*place)
        return cli_fail(error, -1, "set: --%s is given twice", option);
    if (!*value)
        return cli_fail(error, -1, "set: --%s needs a value", option);
    *place = value;
    return 0;
}

static int take_option(struct set_request *request, int option, const char *value, struct cli_error *error)
{
    switch (option) {
    case 'd':
        return take_once(&request->device_text, "device", value, error);
    case 's':
        return take_once(&request->state_dir, "state-dir", value, error);
    case 'r':
        return take_once(&request->root, "root", value, error);
    case 'h':
        request->help = true;
        return 0;
    default:
        return keys[option - '0'].take(request, value, error);
    }
}

static int parse(int argc, char **argv, struct set_request *request, struct cli_error *error)
{
    static const struct option options[] = {{"vram", required_argument, NULL, '0'},
                                            {"compute", required_argument, NULL, '1'},
                                            {"weight", required_argument, NULL, '2'},
                                            {"device", required_argument, NULL, 'd'},
                                            {"state-dir", required_argument, NULL, 's'},
                                            {"root", required_argument, NULL, 'r'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    int option;

    optind = 1;
    while (!request->help && (option = cli_option(argc, argv, ":d:h", options, "set", error)) != -1) {
        if (option == '?' || take_option(request, option, optarg, error))
            return -1;
    }
    if (request->help)
        return 0;
    if (request->device_text && units_parse_device(request->device_text, strlen(request->device_text), &request->device) < 0)
        return cli_fail(error, -1, "set: '%s' is not a device (write GPU-<uuid> as nvidia-smi -L prints it, or its number there)",
                        request->device_text);
    if (request->root && request->state_dir)
        return cli_fail(error, -1, "set: --root and --state-dir name two places: give one of them");
    if (optind == argc || strchr(argv[optind], '='))
        return cli_fail(error, -1, "set: no tenant is named (softslice set team --compute 30%%)");
    request->tenant = argv[optind++];
    for (; optind < argc; optind++) {
        if (take_assignment(request, argv[optind], error))
            return -1;
    }
    if (!request->change.vram && !request->change.compute && !request->change.weighted)
        return cli_fail(error, -1, "set: nothing to set (softslice set %s --compute 30%%)", request->tenant);
    return 0;
}

/* ---- the tenant's configuration, as far as it is not its processes' own: the admin's maxima */

static const char *get_variable(void *context, const char *name)
{
    if (strcmp(name, "SOFTSLICE_TENANT") == 0)
        return context;
    return strcmp(name, "SOFTSLICE_STATE_DIR") == 0 || strcmp(name, "SOFTSLICE_CONFIG") == 0 ? getenv(name) : NULL;
}

/* The tenant is the argument, whatever the variable of that meaning says. */
static int load(const struct set_request *request, struct config *config, struct cli_error *error)
{
    struct config_input input = {
        .getenv = get_variable, .context = (void *)(uintptr_t)request->tenant, .admin_file = CONFIG_ADMIN_FILE};

    if (config_load(config, &input) == 0)
        return 0;
    const char *rest = cli_after_variable(config->error, "SOFTSLICE_TENANT");
    if (rest)
        return cli_fail(error, -1, "set: tenant%s", rest);
    return cli_fail(error, -1, "%s", config->error);
}

static int above(const char *what, const char *device, const char *most, const char *origin, struct cli_error *error)
{
    return cli_fail(error, SET_REFUSED, "set: %s is above what the admin allows%s%s: %s (%s)", what, *device ? " on " : "", device,
                    most, origin);
}

/* Members keep to the admin's file in any case: a value that cannot hold is not written. A percentage of a GPU that NVML does not show is known to
 * them alone. */
static int check_admin_vram(const struct config *config, const struct set_request *request, const char *path,
                            struct config_device *device, struct cli_error *error)
{
    char name[UNITS_TEXT_MAX], most[2 * UNITS_TEXT_MAX], origin[PATH_MAX + 256];
    const struct config_rule *rule;

    if (!request->change.vram || request->most || config_vram_admin(config, device, &rule) == UINT64_MAX || !rule)
        return 0;
    if (rule->amount.kind == UNITS_PERCENT)
        device->physical = set_physical(path, request->tenant, device->uuid);
    if (!device->physical || request->change.limit <= config_vram_admin(config, device, &rule))
        return 0;
    return above("vram", units_format_uuid(name, device->uuid), config_rule_value(rule, most, sizeof(most)),
                 config_rule_origin(config, CONFIG_VRAM, rule, origin, sizeof(origin)), error);
}

static int check_admin(const struct config *config, const struct set_request *request, const char *path, const uint8_t uuid[16],
                       struct cli_error *error)
{
    struct config_device device = {.ordinal = -1, .physical = UINT64_MAX};
    char name[UNITS_TEXT_MAX], most[2 * UNITS_TEXT_MAX], origin[PATH_MAX + 256];
    const struct ledger_change *change = &request->change;
    const struct config_rule *rule;

    memcpy(device.uuid, uuid, sizeof(device.uuid));
    if (check_admin_vram(config, request, path, &device, error))
        return SET_REFUSED;
    if (change->compute && !request->most_compute && change->share > config_compute_admin(config, &device, &rule))
        return above("compute", units_format_uuid(name, uuid), config_rule_value(rule, most, sizeof(most)),
                     config_rule_origin(config, CONFIG_COMPUTE, rule, origin, sizeof(origin)), error);
    if (change->weighted && config->admin_weight && change->weight > config->admin_weight) {
        snprintf(most, sizeof(most), "%u", config->admin_weight);
        return above("weight", "", most, config->admin_ini, error);
    }
    return 0;
}

/* ---- the change */

static int explain_unarmed(const struct set_request *request, const struct ledger_view *before, struct cli_error *error)
{
    if (request->change.vram && !(before->arms & LEDGER_ARMS_VRAM))
        return cli_fail(error, SET_REFUSED,
                        "set: no process of tenant '%s' has vram armed: it was neither started with a budget nor named",
                        request->tenant);
    return cli_fail(error, SET_REFUSED,
                    "set: tenant '%s' was started without a share or a weight: %s cannot be changed (start it with --compute 100%% "
                    "or a weight to be able to)",
                    request->tenant, request->change.compute ? "its share" : "its weight");
}

static int explain(int code, const struct set_request *request, const struct ledger_view *before, int directory, const char *state,
                   struct cli_error *error)
{
    const char *tenant = request->tenant;

    switch (-code) {
    case ENOENT:
        return cli_fail(error, SET_REFUSED, "set: there is no tenant '%s' in %s", tenant, state);
    case ESRCH:
        return cli_fail(error, SET_REFUSED, "set: tenant '%s' has ended: nothing of it runs", tenant);
    case ENODEV:
        return cli_fail(error, SET_REFUSED, "set: tenant '%s' uses no GPU%s%s yet", tenant, request->device_text ? " " : "",
                        request->device_text ? request->device_text : "");
    case EOPNOTSUPP:
        return explain_unarmed(request, before, error);
    case EPERM:
        return cli_fail(error, SET_REFUSED, "set: tenant '%s' in %s is another user's: only that user and root may change it",
                        tenant, state);
    case EACCES:
    case EROFS:
        return cli_fail(error, SET_REFUSED,
                        "set: tenant '%s': may not write its ledger in %s: only its user and root may change it", tenant, state);
    case EPROTO:
        return cli_fail(error, SET_REFUSED, "set: tenant '%s': its ledger in %s is damaged or none: %s", tenant, state,
                        ledger_read_fault(directory, tenant));
    case ELOOP:
    case ENOTDIR:
        return cli_fail(error, SET_REFUSED,
                        "set: tenant '%s': its ledger in %s is damaged or none: a symbolic link, or no directory", tenant, state);
    case EMLINK:
        return cli_fail(error, SET_REFUSED, "set: tenant '%s': its ledger in %s is another tenant's too (a hard link)", tenant,
                        state);
    case EAGAIN:
        return cli_fail(error, SET_REFUSED, "set: a process has been joining tenant '%s' for a second: is it stopped?", tenant);
    case ESTALE:
        return cli_fail(error, SET_REFUSED, "set: tenant '%s': its folder in %s keeps being replaced", tenant, state);
    default:
        return cli_fail(error, SET_REFUSED, "set: tenant '%s': %s", tenant, strerror(-code));
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

static const char *limit_text(char text[UNITS_TEXT_MAX], uint64_t limit)
{
    return limit == LEDGER_NO_LIMIT ? "none" : units_format_size(text, limit);
}

/* What the ledger said before, and what it says now. */
static void print_change(const struct ledger_change *change, const struct ledger_device_state *before)
{
    char device[UNITS_TEXT_MAX], old[UNITS_TEXT_MAX], new[UNITS_TEXT_MAX];

    units_format_uuid(device, before->uuid);
    if (change->vram)
        printf("%s vram: %s, was %s\n", device, limit_text(new, change->limit), limit_text(old, before->limit));
    if (change->compute)
        printf("%s compute: %s, was %s\n", device, share_text(new, change->share), share_text(old, before->share));
    snprintf(old, sizeof(old), "%u", before->weight);
    if (change->weighted)
        printf("%s weight: %u, was %s\n", device, change->weight, before->weight ? old : "none");
}

/* The limits that `softslice cdi` gave a container are above what its ledger says, and stay. */
static void print_held(const struct ledger_change *change, const struct ledger_device_state *held)
{
    static const char why[] = "holds, for its container is allowed no more";
    char device[UNITS_TEXT_MAX], most[UNITS_TEXT_MAX];

    units_format_uuid(device, held->uuid);
    if (change->vram && held->limit < change->limit)
        printf("%s vram: %s %s\n", device, units_format_size(most, held->limit), why);
    if (change->compute && held->share < change->share)
        printf("%s compute: %s %s\n", device, share_text(most, held->share), why);
    if (change->weighted && held->weight && held->weight < change->weight)
        printf("%s weight: %u %s\n", device, held->weight, why);
}

/* What is in use stays, so a smaller budget can be one that is exceeded. */
static void print_excess(const struct config *config, const struct set_request *request, const struct ledger_view *now,
                         const uint8_t uuid[16], uint64_t held)
{
    struct config_device device = {.ordinal = -1, .physical = UINT64_MAX};
    char name[UNITS_TEXT_MAX], used[UNITS_TEXT_MAX], most[UNITS_TEXT_MAX];
    uint64_t limit;

    memcpy(device.uuid, uuid, sizeof(device.uuid));
    limit = config_vram_admin(config, &device, NULL);
    limit = request->change.limit < limit ? request->change.limit : limit;
    limit = held < limit ? held : limit;
    for (unsigned i = 0; request->change.vram && i < now->devices; i++) {
        if (memcmp(now->device[i].uuid, uuid, 16) == 0 && now->device[i].current > limit)
            printf("%s vram: current use is %s: nothing new is granted until it falls below %s\n", units_format_uuid(name, uuid),
                   units_format_size(used, now->device[i].current), units_format_size(most, limit));
    }
}

static bool is_meant(const struct set_request *request, const uint8_t uuid[16])
{
    return request->device.kind == UNITS_DEVICE_ALL || memcmp(request->device.uuid, uuid, 16) == 0;
}

/* The members of a tenant of another user can cut its file short while it is mapped here. */
static void on_bus_error(int number)
{
    static const char text[] = "softslice: set: the ledger was cut short while it was changed\n";

    (void)number;
    _exit(write(STDERR_FILENO, text, sizeof(text) - 1) < 0 ? CLI_FAILED : SET_REFUSED);
}

/* What is to be written for one device: a percentage is of its memory. */
static int resolve(struct set_request *request, const char *path, const uint8_t uuid[16], struct cli_error *error)
{
    struct units_amount amount = {.kind = UNITS_PERCENT, .value = request->percent};
    char name[UNITS_TEXT_MAX];
    uint64_t physical;

    if (!request->percent)
        return 0;
    physical = set_physical(path, request->tenant, uuid);
    if (!physical)
        return cli_fail(error, SET_REFUSED, "set: NVML does not say how much memory %s has: write a size (20GiB)",
                        units_format_uuid(name, uuid));
    request->change.limit = units_bytes_of(&amount, physical);
    return request->change.limit
               ? 0
               : cli_fail(error, SET_REFUSED, "set: that percentage of %s is nothing", units_format_uuid(name, uuid));
}

/* Everything is looked at before anything is changed. */
static int check(struct set_request *request, const struct config *config, const char *path, const struct ledger_view *view,
                 struct cli_error *error)
{
    for (unsigned i = 0; i < view->devices; i++) {
        const uint8_t *uuid = view->device[i].uuid;

        if (is_meant(request, uuid) && (resolve(request, path, uuid, error) || check_admin(config, request, path, uuid, error)))
            return SET_REFUSED;
    }
    return 0;
}

/* As ledger_change(): with a percentage, for one device after the other. */
static int write_change(struct set_request *request, int directory, const char *path, const struct ledger_view *view,
                        struct ledger_view *before, struct cli_error *error)
{
    const uint8_t *only = request->device.kind == UNITS_DEVICE_ALL ? NULL : request->device.uuid;
    static struct ledger_view one;
    int result = -ENODEV;

    if (!request->percent)
        return ledger_change(directory, request->tenant, only, &request->change, before);
    *before = *view;
    for (unsigned i = 0; i < view->devices; i++) {
        if (!is_meant(request, view->device[i].uuid))
            continue;
        if (resolve(request, path, view->device[i].uuid, error))
            return -ENODEV;
        result = ledger_change(directory, request->tenant, view->device[i].uuid, &request->change, &one);
        if (result < 0) {
            *before = one;
            return result;
        }
        for (unsigned j = 0; j < one.devices; j++) {
            if (memcmp(one.device[j].uuid, view->device[i].uuid, 16) == 0)
                before->device[i] = one.device[j];
        }
    }
    return result;
}

static int change(struct set_request *request, const struct config *config, struct cli_error *error)
{
    static struct ledger_view view, before, after;
    struct ledger_device_state held;
    bool is_held;
    char path[PATH_MAX];
    int status;
    CLEANUP_CLOSE int directory = set_find_directory(request, path, &status, error);
    int result;

    if (directory < 0)
        return status;
    result = ledger_read(directory, request->tenant, &view);
    if (result == 0 && view.members && (status = set_find_uuid(request, error)))
        return status;
    if (result == 0 && view.members && check(request, config, path, &view, error))
        return SET_REFUSED;
    signal(SIGBUS, on_bus_error);
    if (result == 0)
        result = write_change(request, directory, path, &view, &before, error);
    if (*error->text)
        return SET_REFUSED;
    if (result < 0)
        return explain(result, request, &before, directory, path, error);
    if (ledger_read(directory, request->tenant, &after) < 0)
        after.devices = 0;
    for (unsigned i = 0; i < before.devices; i++) {
        const uint8_t *uuid = before.device[i].uuid;

        if (!is_meant(request, uuid) || resolve(request, path, uuid, error))
            continue;
        print_change(&request->change, &before.device[i]);
        is_held = set_held(path, request->tenant, uuid, &held);
        if (is_held)
            print_held(&request->change, &held);
        print_excess(config, request, &after, uuid, is_held ? held.limit : UINT64_MAX);
    }
    return 0;
}

static int run(int argc, char **argv, struct cli_error *error)
{
    static struct set_request request;
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
    .usage = "set [OPTION...] TENANT [vram=SIZE] [compute=SHARE] [weight=N]",
    .help =
        "Replace what the tenant's first process set, on all its GPUs or on one. It holds for the next allocation, and within two\n"
        "periods for GPU time. What is allocated stays: a budget below that grants nothing new until enough was freed. The admin's "
        "file\n"
        "remains the maximum, and a process that was itself started with less than the others keeps to that.\n"
        "\n"
        "    --vram SIZE      VRAM budget: 20GiB, 512MiB, 25%; max is no limit but the admin's and the GPU's\n"
        "    --compute SHARE  share of GPU time: 30%; max is no limit but the admin's\n"
        "    --weight N       1 to 10000: contended GPU time is divided by it\n"
        "    --device DEVICE  this GPU alone: GPU-<uuid>, or its number in nvidia-smi\n"
        "    --state-dir DIR  the state directory that the tenant is in, of whatever user\n"
        "    --root DIR       look for it in the state directories below DIR, as containers have them\n"
        "\n"
        "vram=SIZE, compute=SHARE and weight=N mean the same as the options.\n"
        "\n"
        "Only what a process of the tenant was started with can be changed: programs without a share run without the checks\n"
        "that one takes. Only the tenant's user and root may. It lasts until the tenant's last process ends.\n"
        "\n"
        "Exit status: 0; 1 if it is refused, with nothing changed; 125 if used wrongly.\n",
    .run = run,
};
