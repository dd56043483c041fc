/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice run`: checks what was asked for, puts it into the environment and becomes the program. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <sys/wait.h>

#include "cli.h"
#include "softslice/ledger.h"

#define LEAST_MEANT (UINT64_C(1) << 20) /* of bytes is a limit that somebody means */

/* The options that are settings, in the order of `settings`. */
enum { OPTION_VRAM, OPTION_COMPUTE, OPTION_WEIGHT, OPTION_MODE, OPTION_TENANT, OPTION_CONFIG, SETTINGS };

static const struct {
    const char *option, *variable;
    bool list; /* given more than once, it is one list */
} settings[SETTINGS] = {
    [OPTION_VRAM] = {"--vram", "SOFTSLICE_VRAM", true},        [OPTION_COMPUTE] = {"--compute", "SOFTSLICE_COMPUTE", true},
    [OPTION_WEIGHT] = {"--weight", "SOFTSLICE_WEIGHT", false}, [OPTION_MODE] = {"--mode", "SOFTSLICE_MODE", false},
    [OPTION_TENANT] = {"--tenant", "SOFTSLICE_TENANT", false}, [OPTION_CONFIG] = {"--config", "SOFTSLICE_CONFIG", false},
};

static const struct option options[] = {
    {"vram", required_argument, NULL, OPTION_VRAM},
    {"compute", required_argument, NULL, OPTION_COMPUTE},
    {"weight", required_argument, NULL, OPTION_WEIGHT},
    {"mode", required_argument, NULL, OPTION_MODE},
    {"tenant", required_argument, NULL, OPTION_TENANT},
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"library", required_argument, NULL, 'l'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

struct request {
    char *value[SETTINGS]; /* NULL: not said */
    const char *library;
    char **program; /* argv of it */
    bool help;
};

static void free_request(struct request *request)
{
    for (unsigned i = 0; i < SETTINGS; i++)
        free(request->value[i]);
}

static int take_setting(struct request *request, int setting, const char *value, struct cli_error *error)
{
    char *before = request->value[setting], *after = NULL;

    if (!*value)
        return cli_fail(error, -1, "%s: the value is empty", settings[setting].option);
    if (before && !settings[setting].list)
        return cli_fail(error, -1, "%s is given twice", settings[setting].option);
    if (asprintf(&after, "%s%s%s", before ? before : "", before ? "," : "", value) < 0)
        return cli_fail(error, -1, "out of memory");
    free(before);
    request->value[setting] = after;
    return 0;
}

static int parse(int argc, char **argv, struct request *request, struct cli_error *error)
{
    int option;

    optind = 1;
    while ((option = cli_option(argc, argv, "+:h", options, "run", error)) != -1) {
        if (option == '?')
            return -1;
        if (option == 'h')
            request->help = true;
        else if (option == 'l')
            request->library = optarg;
        else if (take_setting(request, option, optarg, error))
            return -1;
    }
    request->program = argv + optind;
    if (!*request->program && !request->help)
        return cli_fail(error, -1, "run: no program given (softslice run --vram 20GiB -- python serve.py)");
    return 0;
}

static int set(const char *variable, const char *value, struct cli_error *error)
{
    if (setenv(variable, value, 1) < 0)
        return cli_fail(error, -1, "out of memory");
    return 0;
}

/* From the options to the environment. An outer `softslice run`'s made-up tenant is left where a budget is asked for here. */
static int set_environment(const struct request *request, struct cli_error *error)
{
    const char *tenant = getenv("SOFTSLICE_TENANT");
    char path[PATH_MAX];
    int maker;

    unsetenv("SOFTSLICE_LIBRARY"); /* is for this command alone */
    if (tenant && ledger_name_is_made(tenant, &maker) &&
        (request->value[OPTION_VRAM] || request->value[OPTION_COMPUTE] || request->value[OPTION_WEIGHT]))
        unsetenv("SOFTSLICE_TENANT");
    for (unsigned i = 0; i < SETTINGS; i++) {
        const char *value = request->value[i];

        if (!value && i == OPTION_CONFIG)
            value = getenv(settings[i].variable);
        /* The program may change its directory before it looks. */
        if (value && *value && i == OPTION_CONFIG && realpath(value, path))
            value = path;
        if (value && set(settings[i].variable, value, error))
            return -1;
    }
    return 0;
}

/* The configuration's error, in the words of who gave the option. */
static int bad_config(const struct request *request, const struct config *config, struct cli_error *error)
{
    for (unsigned i = 0; i < SETTINGS; i++) {
        const char *rest = cli_after_variable(config->error, settings[i].variable);

        if (request->value[i] && rest)
            return cli_fail(error, -1, "%s%s", settings[i].option, rest);
    }
    return cli_fail(error, -1, "%s", config->error);
}

/* A share holds in processes that were started with one. */
static void check_share(const struct config *config, int directory)
{
    static struct ledger_view view;

    if (config->tenant_named && !config_arms_compute(config) && ledger_read(directory, config->tenant, &view) == 0 &&
        view.arms & LEDGER_ARMS_COMPUTE)
        cli_warn("tenant '%s' has a share of GPU time or a weight, which does not hold for this program: start it with one too "
                 "(--compute 30%%)",
                 config->tenant);
}

static int check_state(const struct config *config, struct cli_error *error)
{
    static struct ledger ledger;
    char path[PATH_MAX];
    CLEANUP_CLOSE int directory = ledger_state_dir(&ledger, config->state_dir, path, sizeof(path));

    if (directory < 0)
        return cli_fail(error, -1, "%s", ledger.error);
    /* A tenant's folder that is there already needs no more than itself. */
    if (!(config->tenant_named && faccessat(directory, config->tenant, F_OK, AT_EACCESS) == 0) &&
        faccessat(directory, ".", W_OK | X_OK, AT_EACCESS) < 0)
        return cli_fail(error, -1, "state directory %s: cannot write: %s", path, strerror(errno));
    check_share(config, directory);
    return 0;
}

/* A number without its unit is one of bytes, and its first refusal is a late moment to learn that. */
static void check_units(const struct config *config)
{
    char size[UNITS_TEXT_MAX];

    for (unsigned i = 0; i < config->vram.count; i++) {
        const struct units_amount *amount = &config->vram.rule[i].amount;

        if (amount->kind != UNITS_BYTES || amount->value >= LEAST_MEANT)
            continue;
        cli_warn("a VRAM limit of %s leaves no room for a context; was a unit meant (20GiB)?",
                 units_format_size(size, amount->value));
        return;
    }
}

/* All that can be known before the program starts. */
static int check(const struct request *request, struct config *config, struct cli_error *error)
{
    bool open;

    if (cli_config(config, true) < 0)
        bad_config(request, config, error);
    else if (config->disable)
        cli_warn("softslice is switched off (disable): no limit will hold");
    else if (!config_arms_vram(config) && !config_arms_compute(config))
        return cli_fail(error, -1,
                        "run: no limit is set: give --vram SIZE, --compute SHARE or --weight N (or --tenant NAME, to be counted "
                        "without a limit)");
    else if (check_state(config, error) == 0)
        check_units(config);
    open = *error->text && config->on_error == CONFIG_OPEN;
    if (open) {
        cli_warn("%s; running without limits (on_error = open)", error->text);
        error->text[0] = '\0';
    }
    return *error->text ? -1 : 0;
}

/* Whether the loader finds a driver. Asked in a child: a driver that is loaded starts things of its own. */
static bool has_driver(void)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0)
        _exit(dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) ? 0 : 1);
    if (child < 0)
        return true; /* not known */
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return !WIFEXITED(status) || WEXITSTATUS(status) == 0;
}

static void warn(const char *program)
{
    char path[PATH_MAX];

    if (preload_find_program(program, path))
        preload_warn(path);
    if (!has_driver())
        cli_warn(
            "no NVIDIA driver here (libcuda.so.1 is not found): install it, or start the container with its GPUs (--gpus all); "
            "'softslice doctor' tells more");
}

static int become(char **program, struct cli_error *error)
{
    int code;

    execvp(program[0], program);
    code = errno;
    return cli_fail(error, code == ENOENT ? CLI_NOT_FOUND : CLI_NOT_EXECUTABLE, "cannot run '%s': %s", program[0], strerror(code));
}

static int run(int argc, char **argv, struct cli_error *error)
{
    __attribute__((cleanup(free_request))) struct request request = {0};
    CLEANUP_FREE char *preload = NULL;
    static struct config config;
    char library[PATH_MAX], tenant[CONFIG_TENANT_MAX];

    if (parse(argc, argv, &request, error))
        return CLI_FAILED;
    if (request.help)
        return help_print(stdout, &command_run);
    if (library_find(request.library, library, error) || set_environment(&request, error) || check(&request, &config, error))
        return CLI_FAILED;
    if (!config.tenant_named) {
        ledger_make_name(tenant);
        if (set("SOFTSLICE_TENANT", tenant, error))
            return CLI_FAILED;
    }
    preload = library_preload(library, getenv("LD_PRELOAD"));
    if (!preload)
        return cli_fail(error, CLI_FAILED, "out of memory");
    if (set("LD_PRELOAD", preload, error))
        return CLI_FAILED;
    warn(request.program[0]);
    return become(request.program, error);
}

const struct command command_run = {
    .name = "run",
    .summary = "start a program under a VRAM budget, a share of GPU time, or both",
    .usage = "run [--vram SIZE] [--compute SHARE] [--weight N] [--mode MODE] [--tenant NAME] [--config FILE] [--library PATH] "
             "[--] PROGRAM [ARGUMENT...]",
    .help = "Start PROGRAM with " CLI_LIBRARY " preloaded. Everything is checked before it starts.\n"
            "\n"
            "    --vram SIZE      VRAM budget: 20GiB, 512MiB, 25%, or per device 0=20GiB,GPU-<uuid>=25%\n"
            "    --compute SHARE  share of GPU time: 30%, or per device 0=30%\n"
            "    --weight N       1 to 10000: contended GPU time is divided by it; no limit\n"
            "    --mode MODE      cap: never above the share; share: idle time is lent (cap)\n"
            "    --tenant NAME    share the budget with all that run under this name; without it, this command and what\n"
            "                     it starts are a tenant of their own\n"
            "    --config FILE    ini file with settings: softslice.ini(5)\n"
            "    --library PATH   the " CLI_LIBRARY " to use\n"
            "\n"
            "--vram and --compute may be given more than once, as one list. Options win over the environment (SOFTSLICE_VRAM\n"
            "and so on), which wins over the file.\n"
            "\n"
            "Exit status: PROGRAM's own; 125 if softslice fails; 126 if PROGRAM cannot be run, 127 if it is not found.\n",
    .run = run,
};
