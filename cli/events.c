/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice events`: what happened to the tenants, and what goes on happening. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "cli.h"
#include "events.h"
#include "softslice/clock.h"

#define INTERVAL UINT64_C(200000000) /* ns between two looks, */
#define COSTS    20 /* but of a look's processor time at least so often that, so that many tenants take 5 % of a processor at most */

struct options {
    struct observe_request request;
    const char **directories, **roots; /* each has room for all arguments */
    bool follow, json, help;
};

static int take_list(const char **list, const char *value, const char *name, struct cli_error *error)
{
    unsigned count = 0;

    if (!*value)
        return cli_fail(error, -1, "events: --%s is empty", name);
    while (list[count])
        count++;
    list[count] = value;
    return 0;
}

static int take(struct options *options, int option, struct cli_error *error)
{
    switch (option) {
    case 'f':
        options->follow = true;
        return 0;
    case 'j':
        options->json = true;
        return 0;
    case 'h':
        options->help = true;
        return 0;
    case 't':
        if (options->request.tenant)
            return cli_fail(error, -1, "events: --tenant is given twice");
        if (!observe_is_name(optarg))
            return cli_fail(error, -1, "events: '%s' is not a tenant's name", optarg);
        options->request.tenant = optarg;
        return 0;
    case 's':
        return take_list(options->directories, optarg, "state-dir", error);
    case 'r':
        return take_list(options->roots, optarg, "root", error);
    default:
        return -1;
    }
}

static int parse(int argc, char **argv, struct options *options, struct cli_error *error)
{
    static const struct option known[] = {{"follow", no_argument, NULL, 'f'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"tenant", required_argument, NULL, 't'},
                                          {"state-dir", required_argument, NULL, 's'},
                                          {"root", required_argument, NULL, 'r'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    int option;

    optind = 1;
    while ((option = cli_option(argc, argv, ":fjt:h", known, "events", error)) != -1) {
        if (option == '?' || take(options, option, error))
            return -1;
    }
    if (optind < argc)
        return cli_fail(error, -1, "events: '%s' is not understood (a single tenant is named with --tenant)", argv[optind]);
    options->request.directories = *options->directories ? options->directories : NULL;
    options->request.roots = *options->roots ? options->roots : NULL;
    return 0;
}

/* ---- */

static bool print(const struct options *options, const struct events *events)
{
    bool directories = options->request.roots || (options->request.directories && options->request.directories[1]), good = true;

    for (unsigned i = 0; i < events->count && good; i++)
        good = options->json ? events_print_json(&events->event[i]) : events_print_text(&events->event[i], directories);
    return good;
}

/* Wait for so long. False where nobody reads standard output any more. */
static bool wait_for(uint64_t ns)
{
    struct pollfd out = {.fd = STDOUT_FILENO};
    uint64_t end = clock_now() + ns, now;

    while ((now = clock_now()) < end) {
        int result = poll(&out, 1, (int)((end - now) / 1000000) + 1);

        if (result > 0)
            return false;
        if (result < 0 && errno != EINTR)
            return false;
    }
    return true;
}

/* One look, and what it shows. */
static int look(const struct options *options, struct watch *watch, const struct observe *seen, struct cli_error *error)
{
    struct events events = {0};
    int status = 0;

    if (!watch_look(watch, seen, !options->follow, &events) || !print(options, &events))
        status = cli_fail(error, 1, "events: out of memory");
    free(events.event);
    return status;
}

static void warn(const struct observe *seen)
{
    for (char **complaint = seen->complaints; complaint && *complaint; complaint++)
        cli_warn("%s", *complaint);
    if (seen->omitted)
        cli_warn("there are %u more folders than are looked at", seen->omitted);
}

static uint64_t processor_time(void)
{
    struct timespec used = {0};

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000 + (uint64_t)used.tv_nsec;
}

/* A tenant that is named may still come, and directories may go and come again. */
static int follow(const struct options *options, struct watch *watch, struct cli_error *error)
{
    static const struct observe nothing;
    char why[OBSERVE_ERROR_MAX];
    bool first = true;

    for (;;) {
        uint64_t begun = processor_time(), took;
        struct observe seen;
        int result = observe(&options->request, &seen, why), status;

        if (result < 0 && first && !(options->request.tenant && result == -ENOENT))
            return cli_fail(error, 1, "events: %s", why);
        if (result == 0 && first)
            warn(&seen);
        first = false;
        status = look(options, watch, result < 0 ? &nothing : &seen, error);
        if (result == 0)
            observe_free(&seen);
        if (status || fflush(stdout) == EOF || ferror(stdout))
            return status;
        took = processor_time() - begun;
        if (!wait_for(took * COSTS > INTERVAL ? took * COSTS : INTERVAL))
            return 0;
    }
}

static int show(const struct options *options, struct watch *watch, struct cli_error *error)
{
    char why[OBSERVE_ERROR_MAX];
    struct observe seen;
    int status;

    if (observe(&options->request, &seen, why) < 0)
        return cli_fail(error, 1, "events: %s", why);
    warn(&seen);
    status = look(options, watch, &seen, error);
    observe_free(&seen);
    return status;
}

static int run(int argc, char **argv, struct cli_error *error)
{
    struct options options = {.request = {.without_members = true, .without_nvml = true, .ended = true}};
    struct watch *watch = watch_new();
    int status = CLI_FAILED;

    options.directories = calloc((size_t)argc + 1, sizeof(*options.directories));
    options.roots = calloc((size_t)argc + 1, sizeof(*options.roots));
    if (!options.directories || !options.roots || !watch)
        status = cli_fail(error, 1, "events: out of memory");
    else if (parse(argc, argv, &options, error) == 0)
        status = options.help     ? help_print(stdout, &command_events)
                 : options.follow ? follow(&options, watch, error)
                                  : show(&options, watch, error);
    watch_free(watch);
    free(options.directories);
    free(options.roots);
    return status;
}

const struct command command_events = {
    .name = "events",
    .summary = "tell what happened to the tenants: refusals, deaths, changes",
    .usage = "events [--follow] [--json] [--tenant NAME] [--state-dir DIR]... [--root DIR]...",
    .help =
        "Print what the tenants' ledgers remember, in the order of time, a line each: refused allocations, GPUs that were full,\n"
        "processes that joined, left and died, limits that were set, checkpoints. The last several hundred are there; many\n"
        "refusals within a tenth of a second are one line with a count. Nobody who is looked at is stopped or slowed.\n"
        "\n"
        "    --follow         go on, also with tenants that come, and once a second with who was throttled, until nobody reads\n"
        "    --json           each line a JSON object: softslice(1) names its keys\n"
        "    --tenant NAME    this tenant alone; with --follow it may still be to come\n"
        "    --state-dir DIR  tenants of this state directory instead of the one in use; may be given again\n"
        "    --root DIR       of all state directories in this directory, as containers' are; may be given again\n"
        "\n"
        "Exit status: 0; 1 if nothing can be shown; 125 if used wrongly.\n",
    .run = run,
};
