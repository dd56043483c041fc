/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice-top`, which `softslice top` starts: its options, its observations, and what it waits for. */
#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <math.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "top.h"

volatile sig_atomic_t top_signal;
static sigset_t waiting; /* the signals that are blocked but while waiting */

/* ---- observations */

double top_clock(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int top_look(struct top *top)
{
    unsigned other = !top->newest;
    struct observe *now = &top->seen[other];
    int result = observe(&top->request, now, top->error);

    if (result == 0) {
        top->error[0] = '\0';
        result = top_model_update(&top->model, top->any ? &top->seen[top->newest] : NULL, now);
        if (result < 0) {
            observe_free(now);
            snprintf(top->error, sizeof(top->error), "out of memory");
        }
    }
    if (result < 0)
        top_model_free(&top->model);
    if (top->any)
        observe_free(&top->seen[top->newest]);
    top->newest = other;
    top->any = result == 0;
    return result;
}

bool top_has_places(const struct top *top)
{
    const struct observe *seen = &top->seen[top->newest];

    for (unsigned i = 0; top->any && i < seen->tenants; i++) {
        if (*seen->tenant[i].pod || strcmp(seen->tenant[i].directory, seen->tenant[0].directory) != 0)
            return true;
    }
    return false;
}

void top_place(char text[3 * OBSERVE_LABEL], const struct observe_tenant *tenant)
{
    const char *last = strrchr(tenant->directory, '/');

    if (*tenant->pod)
        snprintf(text, 3 * OBSERVE_LABEL, "%s%s%s%s%s", tenant->namespace, *tenant->namespace ? "/" : "", tenant->pod,
                 *tenant->container ? "/" : "", tenant->container);
    else
        snprintf(text, 3 * OBSERVE_LABEL, "%s", last && last[1] ? last + 1 : tenant->directory);
}

const char *top_gpu_text(char text[TOP_GPU_MAX], const struct observe_gpu *gpu)
{
    if (!gpu)
        snprintf(text, TOP_GPU_MAX, "-");
    else if (gpu->index >= 0)
        snprintf(text, TOP_GPU_MAX, "%d", gpu->index);
    else
        snprintf(text, TOP_GPU_MAX, "%.8s", strchr(gpu->uuid_text, '-') ? strchr(gpu->uuid_text, '-') + 1 : gpu->uuid_text);
    return text;
}

/* ---- waiting */

static void note_signal(int number)
{
    top_signal = number;
}

void top_catch_signals(void)
{
    static const int ends[] = {SIGTERM, SIGINT, SIGHUP};
    static const int others[] = {SIGWINCH, SIGTSTP, SIGCONT};
    struct sigaction action = {.sa_handler = note_signal}, before;
    sigset_t blocked;

    sigemptyset(&blocked);
    for (unsigned i = 0; i < sizeof(ends) / sizeof(*ends); i++) {
        /* What the caller ignores stays so: nohup. */
        if (sigaction(ends[i], NULL, &before) == 0 && before.sa_handler == SIG_IGN)
            continue;
        sigaction(ends[i], &action, NULL);
        sigaddset(&blocked, ends[i]);
    }
    for (unsigned i = 0; i < sizeof(others) / sizeof(*others); i++)
        sigaddset(&blocked, others[i]);
    sigprocmask(SIG_BLOCK, &blocked, &waiting);
}

int top_wait(struct pollfd *fd, double until)
{
    double left = until - top_clock();
    struct timespec time = {0};

    if (left > 0) {
        time.tv_sec = (time_t)left;
        time.tv_nsec = (long)((left - (double)time.tv_sec) * 1e9);
    }
    return ppoll(fd, 1, &time, &waiting);
}

/* End as the signal would have ended us, now that the terminal is as it was. */
static void end_by_signal(void)
{
    sigset_t one;

    fflush(stdout);
    signal(top_signal, SIG_DFL);
    sigemptyset(&one);
    sigaddset(&one, top_signal);
    raise(top_signal);
    sigprocmask(SIG_UNBLOCK, &one, NULL);
}

/* ---- options */

struct options {
    const char **directories, **roots; /* as many as there are arguments */
    unsigned directory_count, root_count;
    bool batch, help;
};

static int parse_interval(double *interval, const char *text, struct cli_error *error)
{
    char *end;

    *interval = strtod(text, &end);
    if (end == text || *end || !isfinite(*interval) || *interval < TOP_INTERVAL_MIN || *interval > TOP_INTERVAL_MAX)
        return cli_fail(error, -1, "top: --interval '%s' is not a number of seconds from 0.1 to 86400", text);
    return 0;
}

static int parse_iterations(uint64_t *iterations, const char *text, struct cli_error *error)
{
    char *end;

    errno = 0;
    *iterations = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || !*iterations)
        return cli_fail(error, -1, "top: --iterations '%s' is not a whole number above 0", text);
    return 0;
}

static int parse_sort(struct top_model *model, const char *text, struct cli_error *error)
{
    char keys[256] = "";
    int key = top_key_find(text);

    if (key >= 0) {
        model->sort = (enum top_key)key;
        return 0;
    }
    for (int i = 0; i < TOP_KEYS; i++)
        snprintf(keys + strlen(keys), sizeof(keys) - strlen(keys), "%s%s", i ? ", " : "", top_key_name((enum top_key)i));
    return cli_fail(error, -1, "top: --sort '%s' is none of %s", text, keys);
}

static int parse_device(struct top *top, const char *text, struct cli_error *error)
{
    char why[OBSERVE_ERROR_MAX];

    if (observe_device(text, top->uuid, why) < 0)
        return cli_fail(error, -1, "top: %s", why);
    top->request.uuid = top->uuid;
    return 0;
}

static int take_option(struct top *top, struct options *options, int option, struct cli_error *error)
{
    switch (option) {
    case 'd':
        return parse_interval(&top->interval, optarg, error);
    case 'n':
        return parse_iterations(&top->iterations, optarg, error);
    case 'b':
        options->batch = true;
        return 0;
    case 's':
        return parse_sort(&top->model, optarg, error);
    case 't':
        if (!observe_is_name(optarg))
            return cli_fail(error, -1, "top: '%s' is not a tenant's name", optarg);
        top->request.tenant = optarg;
        return 0;
    case 'D':
        return parse_device(top, optarg, error);
    case 'S':
        options->directories[options->directory_count++] = optarg;
        return 0;
    case 'R':
        options->roots[options->root_count++] = optarg;
        return 0;
    case 'h':
        options->help = true;
        return 0;
    default:
        return -1;
    }
}

static int parse(int argc, char **argv, struct top *top, struct options *options, struct cli_error *error)
{
    static const struct option known[] = {{"interval", required_argument, NULL, 'd'},
                                          {"iterations", required_argument, NULL, 'n'},
                                          {"batch", no_argument, NULL, 'b'},
                                          {"sort", required_argument, NULL, 's'},
                                          {"tenant", required_argument, NULL, 't'},
                                          {"device", required_argument, NULL, 'D'},
                                          {"state-dir", required_argument, NULL, 'S'},
                                          {"root", required_argument, NULL, 'R'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    int option;

    while ((option = cli_option(argc, argv, ":bd:n:s:h", known, "top", error)) != -1) {
        if (take_option(top, options, option, error))
            return -1;
    }
    if (optind < argc)
        return cli_fail(error, -1, "top: '%s' is not understood: a tenant is named with --tenant", argv[optind]);
    if (options->directory_count)
        top->request.directories = options->directories;
    if (options->root_count)
        top->request.roots = options->roots;
    return 0;
}

/* What is wrong with the request is said before there is a screen. */
static int run(struct top *top, const struct options *options, struct cli_error *error)
{
    if (!options->batch && !isatty(STDOUT_FILENO))
        return cli_fail(error, CLI_FAILED, "top: standard output is not a terminal: use --batch");
    if (top_look(top) < 0)
        return cli_fail(error, 1, "top: %s", top->error);
    return options->batch ? batch_run(top, error) : screen_run(top, error);
}

int main(int argc, char **argv)
{
    static struct cli_error error;
    static struct top top = {.interval = 2, .model = {.sort = TOP_CURRENT}};
    struct options options = {.directories = calloc((size_t)argc + 1, sizeof(char *)),
                              .roots = calloc((size_t)argc + 1, sizeof(char *))};
    int status = CLI_FAILED;

    setlocale(LC_ALL, "");
    setlocale(LC_NUMERIC, "C");
    if (!options.directories || !options.roots)
        cli_fail(&error, CLI_FAILED, "top: out of memory");
    else if (parse(argc, argv, &top, &options, &error) == 0 && options.help)
        status = puts("See 'softslice help top'.") < 0;
    else if (!*error.text)
        status = run(&top, &options, &error);
    if (top.any)
        observe_free(&top.seen[top.newest]);
    top_model_free(&top.model);
    free(options.directories);
    free(options.roots);
    if (*error.text)
        cli_say("", error.text);
    if (top_signal)
        end_by_signal();
    return status;
}
