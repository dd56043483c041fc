/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice exporter`: the tenants' figures for Prometheus, over HTTP or in a file for node-exporter, and the page. A program of its own, which
 * `softslice` becomes. */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "exporter.h"
#include "softslice/clock.h"

#define INTERVAL 15 /* seconds, between two files */

struct options {
    const char *listen, *textfile;
    const char **directories, **roots; /* NULL-terminated */
    unsigned directory_count, root_count;
    long interval; /* -1: not said; 0: once */
    struct exporter_request request;
};

/* ---- options */

static int take_once(const char **place, const char *name, const char *value, struct cli_error *error)
{
    if (*place)
        return cli_fail(error, -1, "exporter: %s is given twice", name);
    if (!*value)
        return cli_fail(error, -1, "exporter: %s: the value is empty", name);
    *place = value;
    return 0;
}

static int take_interval(struct options *options, const char *value, struct cli_error *error)
{
    char *end;
    long seconds = strtol(value, &end, 10);

    if (options->interval >= 0)
        return cli_fail(error, -1, "exporter: --interval is given twice");
    if (*value < '0' || *value > '9' || *end || seconds > 86400)
        return cli_fail(error, -1, "exporter: --interval '%s': not a number of seconds from 0 to 86400", value);
    options->interval = seconds;
    return 0;
}

static int take(struct options *options, int option, char *value, struct cli_error *error)
{
    switch (option) {
    case 'l':
        return take_once(&options->listen, "--listen", value, error);
    case 't':
        return take_once(&options->textfile, "--textfile", value, error);
    case 'i':
        return take_interval(options, value, error);
    case 'n':
        options->request.hami = true;
        return 0;
    case 's':
        options->directories[options->directory_count++] = value;
        return 0;
    default:
        options->roots[options->root_count++] = value;
        return 0;
    }
}

static int parse(int argc, char **argv, struct options *options, struct cli_error *error)
{
    static const struct option known[] = {{"listen", required_argument, NULL, 'l'},
                                          {"textfile", required_argument, NULL, 't'},
                                          {"interval", required_argument, NULL, 'i'},
                                          {"hami-names", no_argument, NULL, 'n'},
                                          {"state-dir", required_argument, NULL, 's'},
                                          {"root", required_argument, NULL, 'r'},
                                          {0}};
    int option;

    options->interval = -1;
    options->directories = calloc((size_t)argc + 1, sizeof(*options->directories));
    options->roots = calloc((size_t)argc + 1, sizeof(*options->roots));
    if (!options->directories || !options->roots)
        return cli_fail(error, -1, "out of memory");
    while ((option = cli_option(argc, argv, ":", known, "exporter", error)) != -1) {
        if (option == '?' || take(options, option, optarg, error))
            return -1;
    }
    if (optind < argc)
        return cli_fail(error, -1, "exporter: '%s' is not understood: it takes options only", argv[optind]);
    if (options->interval >= 0 && !options->textfile)
        return cli_fail(error, -1, "exporter: --interval is for --textfile");
    if (options->interval == 0 && options->listen)
        return cli_fail(error, -1, "exporter: --interval 0 writes the file once and ends, so it cannot --listen");
    if (!options->textfile && !options->listen)
        options->listen = EXPORTER_ADDRESS;
    if (options->interval < 0)
        options->interval = INTERVAL;
    options->request.observe.directories = options->directory_count ? options->directories : NULL;
    options->request.observe.roots = options->root_count ? options->roots : NULL;
    options->request.many = options->root_count || options->directory_count > 1;
    return 0;
}

/* ---- the sampler */

static int write_file(const struct options *options, struct cli_error *error)
{
    const struct snapshot *snapshot = snapshot_take();
    struct out out = {0};
    int result;

    if (!snapshot)
        return 0;
    metrics_write(&out, snapshot, &options->request);
    snapshot_release();
    result = textfile_write(options->textfile, &out, error);
    out_free(&out);
    return result;
}

static pthread_mutex_t stop_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t stop_asked;
static bool stopping;

/* Sleep until then. False: it is time to end. */
static bool sleep_until(uint64_t then)
{
    uint64_t now = clock_now();
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    if (then > now) {
        uint64_t ns = (uint64_t)until.tv_nsec + (then - now);

        until.tv_sec += (time_t)(ns / 1000000000);
        until.tv_nsec = (long)(ns % 1000000000);
    }
    pthread_mutex_lock(&stop_lock);
    while (!stopping && pthread_cond_timedwait(&stop_asked, &stop_lock, &until) != ETIMEDOUT)
        ;
    pthread_mutex_unlock(&stop_lock);
    return !stopping;
}

/* An error comes once, until it is another one. */
static void write_file_again(const struct options *options)
{
    static struct cli_error error, told;

    *error.text = 0;
    write_file(options, &error);
    if (*error.text && strcmp(error.text, told.text) != 0)
        cli_say("", error.text);
    told = error;
}

static void *sampler(void *context)
{
    const struct options *options = context;
    uint64_t step = EXPORTER_SAMPLE, write = (uint64_t)options->interval * 1000000000;
    uint64_t next_sample = clock_now(), next_file = next_sample + write;

    do {
        uint64_t now = clock_now();

        if (now >= next_sample) {
            snapshot_sample();
            next_sample += now - next_sample < step ? step : now - next_sample + step;
        }
        if (options->textfile && now >= next_file) {
            write_file_again(options);
            next_file += now - next_file < write ? write : now - next_file + write;
        }
    } while (sleep_until(options->textfile && next_file < next_sample ? next_file : next_sample));
    return NULL;
}

/* ---- begin and end */

static int start(struct options *options, pthread_t *thread, struct cli_error *error)
{
    pthread_condattr_t monotonic;
    char url[128];

    if (options->listen && http_begin(options->listen, &options->request, url, error))
        return -1;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&stop_asked, &monotonic);
    if (pthread_create(thread, NULL, sampler, options)) {
        http_end();
        return cli_fail(error, -1, "exporter: cannot start a thread");
    }
    if (options->listen) {
        printf("listening on %s\n", url);
        fflush(stdout);
    }
    return 0;
}

/* Where a look at the driver hangs, nothing of this process is waited for. */
static void stop(const struct options *options, pthread_t thread)
{
    pthread_mutex_lock(&stop_lock);
    stopping = true;
    pthread_cond_signal(&stop_asked);
    pthread_mutex_unlock(&stop_lock);
    if (!snapshot_end()) {
        if (options->textfile)
            unlink(options->textfile);
        _exit(0);
    }
    pthread_join(thread, NULL);
    http_end();
    if (options->textfile)
        unlink(options->textfile);
}

static int run(int argc, char **argv, struct options *options, struct cli_error *error)
{
    sigset_t signals;
    pthread_t thread;
    int taken;

    if (parse(argc, argv, options, error))
        return CLI_FAILED;
    snapshot_setup(&options->request);
    if (options->textfile && write_file(options, error))
        return CLI_FAILED;
    if (options->interval == 0)
        return 0;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    if (start(options, &thread, error)) {
        if (options->textfile)
            unlink(options->textfile);
        return CLI_FAILED;
    }
    while (sigwait(&signals, &taken))
        ;
    stop(options, thread);
    return 0;
}

int main(int argc, char **argv)
{
    static struct options options;
    static struct cli_error error;
    int status = run(argc, argv, &options, &error);

    if (*error.text)
        cli_say("", error.text);
    free(options.directories);
    free(options.roots);
    return status;
}
