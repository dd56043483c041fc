/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice status`: the tenants and what they have, once. The table is in status_table.c. */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <string.h>
#include <time.h>

#include "cdi.h"
#include "cli.h"
#include "observe.h"
#include "status.h"

#define INTERVAL_TABLE 0.5 /* s between the two looks that a busy share needs: some of the accounts' periods */
#define INTERVAL_MOST  3600.0

struct options {
    struct observe_request request;
    const char **directories, **roots; /* each has room for all arguments */
    const char *device;
    double interval; /* s; negative: not said */
    bool json, help;
};

static int take_interval(const char *text, double *interval, struct cli_error *error)
{
    char *end;

    *interval = strtod(text, &end);
    if (end == text || *end || !(*interval >= 0 && *interval <= INTERVAL_MOST))
        return cli_fail(error, -1, "status: interval='%s': seconds, from 0 to %.0f", text, INTERVAL_MOST);
    return 0;
}

/* The first of two values is kept: no option may be given twice. */
static int take_once(const char **kept, const char *value, const char *name, struct cli_error *error)
{
    if (*kept)
        return cli_fail(error, -1, "status: --%s is given twice", name);
    if (!*value)
        return cli_fail(error, -1, "status: --%s is empty", name);
    *kept = value;
    return 0;
}

static int take(struct options *options, int option, struct cli_error *error)
{
    unsigned count = 0;

    switch (option) {
    case 'j':
        options->json = true;
        return 0;
    case 'a':
        options->request.ended = true;
        return 0;
    case 'm':
        options->request.without_members = false;
        return 0;
    case 'h':
        options->help = true;
        return 0;
    case 't':
        if (*optarg && !observe_is_name(optarg))
            return cli_fail(error, -1, "status: '%s' is not a tenant's name", optarg);
        return take_once(&options->request.tenant, optarg, "tenant", error);
    case 'd':
        return take_once(&options->device, optarg, "device", error);
    case 'i':
        return take_interval(optarg, &options->interval, error);
    case 's':
    case 'r': {
        const char **list = option == 's' ? options->directories : options->roots;

        if (!*optarg)
            return cli_fail(error, -1, "status: --%s is empty", option == 's' ? "state-dir" : "root");
        while (list[count])
            count++;
        list[count] = optarg;
        return 0;
    }
    default:
        return -1;
    }
}

static int parse(int argc, char **argv, struct options *options, struct cli_error *error)
{
    static const struct option known[] = {{"json", no_argument, NULL, 'j'},         {"tenant", required_argument, NULL, 't'},
                                          {"device", required_argument, NULL, 'd'}, {"state-dir", required_argument, NULL, 's'},
                                          {"root", required_argument, NULL, 'r'},   {"all", no_argument, NULL, 'a'},
                                          {"members", no_argument, NULL, 'm'},      {"interval", required_argument, NULL, 'i'},
                                          {"help", no_argument, NULL, 'h'},         {0}};
    int option;

    optind = 1;
    while ((option = cli_option(argc, argv, ":jamt:d:i:h", known, "status", error)) != -1) {
        if (option == '?' || take(options, option, error))
            return -1;
    }
    if (optind < argc)
        return cli_fail(error, -1, "status: '%s' is not understood (a single tenant is named with --tenant)", argv[optind]);
    options->request.directories = *options->directories ? options->directories : NULL;
    options->request.roots = *options->roots ? options->roots : NULL;
    return 0;
}

/* ---- */

static int show_json(const struct observe *before, const struct observe *seen, struct cli_error *error)
{
    struct json_object *document = observe_json_since(before, seen);

    if (!document)
        return cli_fail(error, 1, "status: out of memory");
    puts(json_object_to_json_string_ext(document,
                                        JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE | JSON_C_TO_STRING_SPACED));
    json_object_put(document);
    return 0;
}

static bool any_compute(const struct observe *seen)
{
    for (unsigned i = 0; i < seen->tenants; i++) {
        if (seen->tenant[i].view.arms & LEDGER_ARMS_COMPUTE)
            return true;
    }
    return false;
}

static void sleep_for(double seconds)
{
    struct timespec rest = {(time_t)seconds, (long)(1e9 * (seconds - (double)(time_t)seconds))};

    while (nanosleep(&rest, &rest) < 0 && errno == EINTR)
        ;
}

/* Look, and once more after the interval where that is to show a share of time. `before` stays all zeros else. */
static int look(const struct options *options, struct observe *before, struct observe *seen, char why[OBSERVE_ERROR_MAX])
{
    double interval = options->interval >= 0 ? options->interval : options->json ? 0 : INTERVAL_TABLE;
    int result = observe(&options->request, seen, why);

    if (result < 0 || interval == 0 || !any_compute(seen))
        return result;
    *before = *seen;
    sleep_for(interval);
    return observe(&options->request, seen, why);
}

static int show(struct options *options, struct cli_error *error)
{
    struct observe before = {0}, seen;
    char why[OBSERVE_ERROR_MAX];
    uint8_t uuid[16];
    int status = 0;

    if (options->device) {
        int result = observe_device(options->device, uuid, why);

        if (result < 0)
            return cli_fail(error, result == -EINVAL ? CLI_FAILED : 1, "status: %s", why);
        options->request.uuid = uuid;
    }
    if (look(options, &before, &seen, why) < 0) {
        observe_free(&before);
        return cli_fail(error, 1, "status: %s", why);
    }
    if (options->json)
        status = show_json(before.clock ? &before : NULL, &seen, error);
    else
        status_table(before.clock ? &before : NULL, &seen,
                     !options->request.directories && !options->request.roots && access(CDI_ROOT, F_OK) == 0);
    for (char **complaint = seen.complaints; !options->json && complaint && *complaint; complaint++)
        cli_warn("%s", *complaint);
    if (seen.omitted)
        cli_warn("there are %u more folders than are looked at", seen.omitted);
    if (seen.members_omitted)
        cli_warn("there are %u more processes than are listed", seen.members_omitted);
    observe_free(&before);
    observe_free(&seen);
    return status;
}

static int run(int argc, char **argv, struct cli_error *error)
{
    struct options options = {.interval = -1, .request.without_members = true};
    int status = CLI_FAILED;

    options.directories = calloc((size_t)argc + 1, sizeof(*options.directories));
    options.roots = calloc((size_t)argc + 1, sizeof(*options.roots));
    if (!options.directories || !options.roots)
        cli_fail(error, 1, "status: out of memory");
    else if (parse(argc, argv, &options, error) == 0)
        status = options.help ? help_print(stdout, &command_status) : show(&options, error);
    free(options.directories);
    free(options.roots);
    return status;
}

const struct command command_status = {
    .name = "status",
    .summary = "show the tenants: VRAM, compute share, processes",
    .usage = "status [--json] [--tenant NAME] [--device DEVICE] [--state-dir DIR]... [--root DIR]... [--members] [--all] "
             "[--interval SEC]",
    .help =
        "Show each tenant on each of its GPUs: what it has of its VRAM budget and had at most, its share of GPU time, how much of\n"
        "the time it was busy and throttled, its processes and how often it was refused memory. What is not known is a '-'.\n"
        "Nobody who is looked at is stopped or slowed.\n"
        "\n"
        "    --json            a JSON document, described in status.schema.json\n"
        "    --tenant NAME     this tenant alone, also when nothing of it runs\n"
        "    --device DEVICE   this GPU alone: GPU-<uuid>, or its number in nvidia-smi\n"
        "    --state-dir DIR   tenants of this state directory instead of the one in use; may be given again\n"
        "    --root DIR        of all state directories in this directory, as containers' are; may be given again\n"
        "    --members         the processes too, with the numbers that they have here where they are in a PID namespace\n"
        "    --all             tenants too in which nothing runs\n"
        "    --interval SEC    look twice, so far apart, to tell busy and throttled (0.5, where a tenant has a share; with\n"
        "                      --json 0: not); 0: the two are not told\n"
        "\n"
        "Exit status: 0; 1 if nothing can be shown, a tenant or GPU that is named is not there; 125 if used wrongly.\n",
    .run = run,
};
