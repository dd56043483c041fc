/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice cdi`: what container runtimes mount so that a container has a budget, as CDI specs. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <sys/stat.h>

#include "cdi.h"
#include "observe.h"

enum { OPTION_VRAM, OPTION_COMPUTE, OPTION_WEIGHT, OPTION_MODE, SETTINGS };

static const struct {
    const char *option, *variable, *key;
} settings[SETTINGS] = {
    [OPTION_VRAM] = {"--vram", "SOFTSLICE_VRAM", "vram"},
    [OPTION_COMPUTE] = {"--compute", "SOFTSLICE_COMPUTE", "compute"},
    [OPTION_WEIGHT] = {"--weight", "SOFTSLICE_WEIGHT", "weight"},
    [OPTION_MODE] = {"--mode", "SOFTSLICE_MODE", "mode"},
};

struct request {
    const char *value[SETTINGS]; /* NULL: not said */
    const char *tenant, *vendor, *class, *output, *merge, *library, *root, *engine;
    const char **slices, **devices; /* NULL-terminated; with room for all arguments */
    bool force, help;
    char **names;
};

static int add(const char **list, const char *value)
{
    while (*list)
        list++;
    *list = value;
    return 0;
}

/* ---- what is asked for */

static int take(struct request *request, int option, char *value, struct cli_error *error)
{
    const char **once = option < SETTINGS ? &request->value[option]
                        : option == 't'   ? &request->tenant
                        : option == 'v'   ? &request->vendor
                        : option == 'c'   ? &request->class
                        : option == 'o'   ? &request->output
                        : option == 'm'   ? &request->merge
                        : option == 'l'   ? &request->library
                        : option == 'r'   ? &request->root
                        : option == 'e'   ? &request->engine
                                          : NULL;

    if (option == 'h')
        request->help = true;
    else if (option == 'F')
        request->force = true;
    if (!value)
        return 0;
    if (!*value)
        return cli_fail(error, -1, "cdi: an option's value is empty");
    if (option == 's')
        return add(request->slices, value);
    if (option == 'd')
        return add(request->devices, value);
    if (option == 'f')
        return strcmp(value, "json") == 0
                   ? 0
                   : cli_fail(error, -1, "cdi: --format %s: the one format is json (which is YAML, too)", value);
    if (*once)
        return cli_fail(error, -1, "cdi: an option is given twice: '%s' and '%s'", *once, value);
    *once = value;
    return 0;
}

static int parse(int argc, char **argv, const char *word, struct request *request, struct cli_error *error)
{
    static const struct option for_others[] = {
        {"root", required_argument, NULL, 'r'},
        {"help", no_argument, NULL, 'h'},
        {"force", no_argument, NULL, 'F'},
        {0},
    };
    static const struct option for_mounts[] = {
        {"root", required_argument, NULL, 'r'},
        {"help", no_argument, NULL, 'h'},
        {"library", required_argument, NULL, 'l'},
        {"for", required_argument, NULL, 'e'},
        {0},
    };
    static const struct option for_generate[] = {
        {"root", required_argument, NULL, 'r'},
        {"help", no_argument, NULL, 'h'},
        {"tenant", required_argument, NULL, 't'},
        {"slices", required_argument, NULL, 's'},
        {"vram", required_argument, NULL, OPTION_VRAM},
        {"compute", required_argument, NULL, OPTION_COMPUTE},
        {"weight", required_argument, NULL, OPTION_WEIGHT},
        {"mode", required_argument, NULL, OPTION_MODE},
        {"device", required_argument, NULL, 'd'},
        {"vendor", required_argument, NULL, 'v'},
        {"class", required_argument, NULL, 'c'},
        {"output", required_argument, NULL, 'o'},
        {"format", required_argument, NULL, 'f'},
        {"merge-into", required_argument, NULL, 'm'},
        {"library", required_argument, NULL, 'l'},
        {0},
    };
    const struct option *options = strcmp(word, "generate") == 0 ? for_generate
                                   : strcmp(word, "mounts") == 0 ? for_mounts
                                                                 : for_others;
    int option;

    optind = 1;
    while ((option = cli_option(argc, argv, ":h", options, "cdi", error)) != -1) {
        if (option == '?' || take(request, option, optarg, error))
            return -1;
    }
    request->names = argv + optind;
    if (!request->root)
        request->root = CDI_ROOT;
    return 0;
}

/* As the CDI specification has it: a letter first, a letter or digit last, between them - and _ too, and in a vendor dots. */
static bool is_kind(const char *text, const char *between)
{
    size_t length = strlen(text);

    for (size_t i = 0; i < length; i++) {
        bool letter = (text[i] >= 'a' && text[i] <= 'z') || (text[i] >= 'A' && text[i] <= 'Z');
        bool digit = text[i] >= '0' && text[i] <= '9';

        if (!(letter || (i && digit) || (i && i < length - 1 && strchr(between, text[i]))))
            return false;
    }
    return length > 0 && length < 254;
}

static int check_request(const struct request *request, struct cli_error *error)
{
    bool limited = false;

    for (unsigned i = 0; i < SETTINGS; i++)
        limited |= request->value[i] != NULL;
    if (*request->names)
        return cli_fail(error, -1, "cdi: '%s' is not understood: a tenant is named with --tenant", *request->names);
    if (!request->tenant == !*request->slices)
        return cli_fail(error, -1, "cdi: name one tenant (--tenant NAME), or a file with [slice NAME] sections (--slices FILE)");
    if (*request->slices && (limited || *request->devices))
        return cli_fail(error, -1, "cdi: with --slices the limits are in the file");
    if (request->tenant && !limited)
        return cli_fail(error, -1, "cdi: no limit is set: give --vram SIZE, --compute SHARE or --weight N");
    if (request->merge && (request->vendor || request->class))
        return cli_fail(error, -1, "cdi: with --merge-into the kind is the other spec's: no --vendor, no --class");
    if (request->vendor && !is_kind(request->vendor, "-_."))
        return cli_fail(error, -1, "cdi: --vendor %s: not a vendor's name (letters, digits, - _ .; a letter first)",
                        request->vendor);
    if (request->class && !is_kind(request->class, "-_"))
        return cli_fail(error, -1, "cdi: --class %s: not a class's name (letters, digits, - _; a letter first)", request->class);
    return 0;
}

/* ---- budgets */

static const char *get_setting(void *context, const char *name)
{
    const struct request *request = context;

    for (unsigned i = 0; i < SETTINGS; i++) {
        if (strcmp(name, settings[i].variable) == 0)
            return request->value[i];
    }
    return NULL;
}

/* In the words of who gave the option, as `softslice run` does. */
static int check_settings(const struct request *request, struct cli_error *error)
{
    static struct config config;
    struct config_input input = {.getenv = get_setting, .context = (void *)(uintptr_t)request};

    if (config_load(&config, &input) == 0)
        return 0;
    for (unsigned i = 0; i < SETTINGS; i++) {
        size_t length = strlen(settings[i].variable);

        if (strncmp(config.error, settings[i].variable, length) == 0 && strchr("=:", config.error[length]))
            return cli_fail(error, -1, "cdi: %s%s", settings[i].option, config.error + length);
    }
    return cli_fail(error, -1, "cdi: %s", config.error);
}

/* Limits for single devices are sections of their own. */
static int limit_devices(const struct request *request, struct cdi_budget *budget, struct cli_error *error)
{
    char why[OBSERVE_ERROR_MAX], text[OBSERVE_UUID];
    uint8_t uuid[16];

    for (const char **device = request->devices; *device; device++) {
        if (observe_device(*device, uuid, why) < 0)
            return cli_fail(error, -1, "cdi: --device %s: %s", *device, why);
        observe_uuid_text(uuid, text);
        if (cdi_limit(budget, error, "[gpu %s]\n", text))
            return -1;
        for (unsigned i = OPTION_VRAM; i <= OPTION_COMPUTE; i++) {
            if (request->value[i] && cdi_limit(budget, error, "%s = %s\n", settings[i].key, request->value[i]))
                return -1;
        }
    }
    return 0;
}

static int make_budget(const struct request *request, struct cdi_budgets *budgets, struct cli_error *error)
{
    bool by_device = *request->devices && !request->merge;
    struct cdi_budget *budget;

    if (check_settings(request, error) || !(budget = cdi_add(budgets, request->tenant, "--tenant", error)))
        return -1;
    for (unsigned i = by_device ? OPTION_WEIGHT : OPTION_VRAM; i < SETTINGS; i++) {
        if (request->value[i] && cdi_limit(budget, error, "%s = %s\n", settings[i].key, request->value[i]))
            return -1;
    }
    return by_device ? limit_devices(request, budget, error) : 0;
}

static int make_budgets(const struct request *request, struct cdi_budgets *budgets, struct cli_error *error)
{
    int result = request->tenant ? make_budget(request, budgets, error) : 0;

    for (const char **file = request->slices; *file && !result; file++)
        result = cdi_slices(budgets, *file, error);
    for (unsigned i = 0; i < budgets->count && !result; i++)
        result = cdi_check(&budgets->budget[i], error);
    return result;
}

/* ---- the spec's file */

static bool ends_in(const char *text, const char *end)
{
    return strlen(text) > strlen(end) && strcmp(text + strlen(text) - strlen(end), end) == 0;
}

/* Its path without a symbolic link in front of the file's own name; "" for standard output. */
static int find_output(const struct request *request, char path[PATH_MAX], struct cli_error *error)
{
    char folder[PATH_MAX], named[PATH_MAX], *slash;
    const char *output = request->output ? request->output : request->merge;

    *path = '\0';
    if (output && strcmp(output, "-") == 0)
        return 0;
    if (!output && mkdir(CDI_DIRECTORY, 0755) < 0 && errno != EEXIST)
        return cli_fail(error, -1, "cdi: cannot make " CDI_DIRECTORY ": %s (name a file with --output)", strerror(errno));
    if (output ? (size_t)snprintf(named, sizeof(named), "%s%s", strchr(output, '/') ? "" : "./", output) >= sizeof(named)
               : (size_t)snprintf(named, sizeof(named), CDI_DIRECTORY "/%s-%s.json", request->vendor ? request->vendor : CDI_VENDOR,
                                  request->class ? request->class : CDI_CLASS) >= sizeof(named))
        return cli_fail(error, -1, "cdi: the spec's path is too long");
    if (!ends_in(named, ".json"))
        return cli_fail(error, -1, "cdi: %s: a spec's name has to end in .json, or no runtime reads it", named);
    slash = strrchr(named, '/');
    *slash = '\0';
    if (!realpath(slash == named ? "/" : named, folder))
        return cli_fail(error, -1, "cdi: %s: %s", named, strerror(errno));
    if (snprintf(path, PATH_MAX, "%s/%s", folder, slash + 1) >= PATH_MAX)
        return cli_fail(error, -1, "cdi: the spec's path is too long");
    return 0;
}

/* A budget that moves to another spec leaves the one that it was in. */
static int leave_other(const struct cdi_root *root, const char *name, const char *path, struct cli_error *error)
{
    struct cdi_spec spec = {0};
    struct cli_error ignored = {""};
    char before[PATH_MAX];
    int result = 0;

    if (!*path || !cdi_host_spec(root, name, before) || strcmp(before, path) == 0)
        return 0;
    if (cdi_spec_open(&spec, before, NULL, &ignored) == 0) {
        cdi_spec_drop(&spec, name);
        if (spec.changed)
            result = cdi_spec_write(&spec, error);
    }
    cdi_spec_close(&spec);
    return result;
}

static int open_spec(const struct request *request, struct cdi_spec *spec, const char *path, struct cli_error *error)
{
    char kind[512];

    snprintf(kind, sizeof(kind), "%s/%s", request->vendor ? request->vendor : CDI_VENDOR,
             request->class ? request->class : CDI_CLASS);
    if (!request->merge)
        return cdi_spec_open(spec, path, kind, error);
    if (cdi_spec_open(spec, request->merge, NULL, error))
        return -1;
    snprintf(spec->path, sizeof(spec->path), "%s", path);
    return 0;
}

/* With --merge-into, --device names the spec's device whose edits ours are added to. */
static int pick_gpu(const struct request *request, const char **gpu, struct cli_error *error)
{
    *gpu = request->merge ? *request->devices : NULL;
    if (*gpu && request->devices[1])
        return cli_fail(error, -1, "cdi: with --merge-into one --device can be given, as the spec names it");
    return 0;
}

static int make_all(const struct request *request, const struct cdi_root *root, const struct cdi_budgets *budgets,
                    const char *library, struct cli_error *error)
{
    struct cdi_spec spec = {0};
    char path[PATH_MAX];
    const char *gpu;
    int result =
        find_output(request, path, error) || pick_gpu(request, &gpu, error) || open_spec(request, &spec, path, error) ? -1 : 0;

    for (unsigned i = 0; i < budgets->count && !result; i++)
        result = cdi_spec_put(&spec, root, budgets->budget[i].name, gpu, library, error);
    /* What the spec says is there before the spec says it. */
    for (unsigned i = 0; i < budgets->count && !result; i++) {
        result = leave_other(root, budgets->budget[i].name, path, error);
        if (!result)
            result = cdi_host_make(root, &budgets->budget[i], *path ? path : NULL, error);
    }
    if (!result)
        result = cdi_spec_write(&spec, error);
    for (unsigned i = 0; i < budgets->count && !result && *path; i++)
        printf("%s=%s\n", cdi_spec_kind(&spec), budgets->budget[i].name);
    cdi_spec_close(&spec);
    return result;
}

/* The library to mount, by a path that can stand where it has to. */
static int find_library(const struct request *request, char library[PATH_MAX], struct cli_error *error)
{
    char clean[2 * PATH_MAX];

    if (library_find(request->library, library, error))
        return -1;
    if (strcmp(observe_text(clean, sizeof(clean), library, false), library) != 0)
        return cli_fail(error, -1, "cdi: the library's path '%s' cannot stand in a spec", library);
    return 0;
}

static int mounts(const struct request *request, struct cli_error *error)
{
    char library[PATH_MAX];

    if (!*request->names || request->names[1])
        return cli_fail(error, -1, "cdi: name one budget whose mounts are wanted (softslice cdi list shows the names)");
    if (find_library(request, library, error))
        return -1;
    return cdi_print_mounts(request->root, *request->names, request->engine ? request->engine : "docker", library, error);
}

static int generate(const struct request *request, struct cli_error *error)
{
    struct cdi_budgets budgets = {0};
    struct cdi_root root = {.fd = -1};
    char library[PATH_MAX];
    int result =
        check_request(request, error) || make_budgets(request, &budgets, error) || find_library(request, library, error) ? -1 : 0;

    if (!result)
        result = cdi_root_open(&root, request->root, true, error);
    if (!result)
        result = make_all(request, &root, &budgets, library, error);
    if (root.fd >= 0)
        close(root.fd);
    free(budgets.budget);
    return result;
}

/* ---- the command */

static int act(int argc, char **argv, struct request *request, struct cli_error *error)
{
    const char *word = argc > 1 ? argv[1] : "";
    bool make = strcmp(word, "generate") == 0, list = strcmp(word, "list") == 0, remove = strcmp(word, "remove") == 0,
         print = strcmp(word, "mounts") == 0;

    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        return help_print(stdout, &command_cdi);
    if (!make && !list && !remove && !print)
        return cli_fail(error, -1, "cdi: %s%s: say generate, list, mounts or remove (see 'softslice help cdi')",
                        *word ? "there is no " : "what to do", word);
    if (parse(argc - 1, argv + 1, word, request, error))
        return -1;
    if (request->help)
        return help_print(stdout, &command_cdi);
    if (make)
        return generate(request, error);
    if (print)
        return mounts(request, error);
    if (list)
        return *request->names ? cli_fail(error, -1, "cdi: list takes no name") : cdi_list(request->root, error);
    return *request->names ? cdi_remove(request->root, request->names, request->force, error)
                           : cli_fail(error, -1, "cdi: remove what? (softslice cdi list shows the names)");
}

static int run(int argc, char **argv, struct cli_error *error)
{
    struct request request = {0};
    int result;

    request.slices = calloc((size_t)argc + 1, sizeof(*request.slices));
    request.devices = calloc((size_t)argc + 1, sizeof(*request.devices));
    result = request.slices && request.devices ? act(argc, argv, &request, error) : cli_fail(error, -1, "out of memory");
    free(request.slices);
    free(request.devices);
    return result ? CLI_FAILED : 0;
}

const struct command command_cdi = {
    .name = "cdi",
    .summary = "give containers budgets: specs for podman, docker, containerd, CRI-O",
    .usage = "cdi generate --tenant NAME [--vram SIZE] [--compute SHARE] [--weight N] [options]\n"
             "softslice cdi generate --slices FILE... [options]\n"
             "softslice cdi list [--root DIR]\n"
             "softslice cdi mounts [--for docker|ctr|bwrap] [--library PATH] [--root DIR] NAME\n"
             "softslice cdi remove [--force] [--root DIR] NAME...",
    .help =
        "Write a CDI spec: `podman run --device nvidia.com/gpu=0 --device softslice.io/slice=NAME ...` then gives a container\n"
        "GPU 0 and the budget NAME. All that is started with one NAME shares its budget; each process in the container is held\n"
        "to it, whatever its environment. What is mounted is made in DIR. A container takes one such device.\n"
        "\n"
        "    --tenant NAME     one budget, with these limits:\n"
        "    --vram SIZE       VRAM: 20GiB, 25%\n"
        "    --compute SHARE   GPU time at most: 30%\n"
        "    --weight N        part of contended GPU time, 1 to 10000\n"
        "    --mode MODE       cap, or share: more than --compute where nobody else wants it\n"
        "    --device DEVICE   VRAM and GPU time of this GPU alone, a UUID or NVML's number; may be given again\n"
        "    --slices FILE     a budget for each [slice NAME] section, or NAME-0, NAME-1, ... with `replicas = N`;\n"
        "                      may be given again\n"
        "    --output FILE     the spec, in which other devices of its kind stay (default: " CDI_DIRECTORY "/VENDOR-CLASS.json);\n"
        "                      - for standard output\n"
        "    --merge-into SPEC put the devices into a spec that nvidia-ctk wrote in JSON, whose own devices stay as they are;\n"
        "                      with --device NAME each has that device's edits too\n"
        "    --vendor NAME     instead of " CDI_VENDOR "\n"
        "    --class NAME      instead of " CDI_CLASS "\n"
        "    --format json     the one format there is\n"
        "    --library PATH    the library to mount\n"
        "    --root DIR        instead of " CDI_ROOT ", also for the other commands\n"
        "    --force           remove what is in use\n"
        "\n"
        "`cdi mounts NAME` prints what a device mounts as options, for engines that read no CDI: docker's (and podman's), ctr's\n"
        "or bwrap's. docker run $(softslice cdi mounts NAME) IMAGE\n"
        "\n"
        "Exit status: 0; 125 where something is wrong, with one line that says what. Nothing is half-written.\n",
    .run = run,
};
