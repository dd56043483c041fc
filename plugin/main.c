/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice-device-plugin`: gives the slices of a node's GPUs to the kubelet as resources. Options, signals, and the loop. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>

#include "gpus.h"
#include "node.h"

#define TICK_MS    1000 /* between two looks at what no event tells of */
#define RETRY_MOST 30.0

static const char usage[] =
    "usage: softslice-device-plugin [OPTION ...]\n"
    "\n"
    "Offers the memory of this node's GPUs to Kubernetes: softslice.io/vram-gib, one device a GiB, and the slices of its ini "
    "file.\n"
    "\n"
    "  --config FILE        the ini file (" PLUGIN_CONFIG "), with [device-plugin] and [slice NAME] sections\n"
    "  --library FILE       libsoftslice.so on the node, which containers get\n"
    "  --root DIR           where containers' files are, on the node and here (" CDI_ROOT ")\n"
    "  --save-dir DIR       notes of what was given out, for after a reboot (" PLUGIN_SAVED ";\n"
    "                       with --root: none)\n"
    "  --kubelet-dir DIR    the kubelet's directory of plugins (" PLUGIN_KUBELET ")\n"
    "  --proc DIR           where the processes of the whole node are seen (/proc, if those are)\n"
    "  --pod NAMESPACE/NAME the pod that this runs in\n"
    "  --dry-run            print what would be offered as JSON, and end\n"
    "  --units N            with --dry-run: what a container with N units would get, too\n"
    "  --version, --help\n"
    "\n"
    "SIGHUP: read the ini file again. SIGTERM, SIGINT: end.\n";

struct options {
    struct node *node;
    bool dry_run;
    unsigned units;
};

/* ---- options */

static int take(struct options *options, int option, const char *value, struct cli_error *error)
{
    struct node *node = options->node;
    char *end;

    switch (option) {
    case 'c':
        node->config = value;
        node->config_named = true;
        break;
    case 'l':
        node->library = value;
        break;
    case 'r':
        node->root = value;
        break;
    case 'k':
        node->kubelet = value;
        break;
    case 's':
        node->given.saved = value;
        break;
    case 'p':
        node->proc = value;
        break;
    case 'o':
        if (!strchr(value, '/'))
            return cli_fail(error, -1, "--pod %s: not NAMESPACE/NAME", value);
        node->pod = value;
        break;
    case 'n':
        options->dry_run = true;
        return 0;
    default:
        options->units = (unsigned)strtoul(value, &end, 10);
        if (*value < '0' || *value > '9' || *end || !options->units || options->units > 1000000)
            return cli_fail(error, -1, "--units %s: not a number of units", value);
        return 0;
    }
    return *value ? 0 : cli_fail(error, -1, "an option's value is empty");
}

static int parse(int argc, char **argv, struct options *options, struct cli_error *error)
{
    static const struct option known[] = {{"config", required_argument, NULL, 'c'},
                                          {"library", required_argument, NULL, 'l'},
                                          {"root", required_argument, NULL, 'r'},
                                          {"save-dir", required_argument, NULL, 's'},
                                          {"kubelet-dir", required_argument, NULL, 'k'},
                                          {"proc", required_argument, NULL, 'p'},
                                          {"pod", required_argument, NULL, 'o'},
                                          {"dry-run", no_argument, NULL, 'n'},
                                          {"units", required_argument, NULL, 'u'},
                                          {"version", no_argument, NULL, 'v'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    int option;

    while ((option = cli_option(argc, argv, ":", known, NULL, error)) != -1) {
        if (option == 'v')
            exit(printf("softslice-device-plugin %s\n", SOFTSLICE_VERSION) < 0);
        if (option == 'h')
            exit(fputs(usage, stdout) == EOF);
        if (option == '?' || take(options, option, optarg, error))
            return -1;
    }
    if (optind < argc)
        return cli_fail(error, -1, "'%s' is not understood; --help lists what is", argv[optind]);
    /* Another root may be there after a reboot. */
    if (!options->node->root && !options->node->given.saved)
        options->node->given.saved = PLUGIN_SAVED;
    if (!options->node->root)
        options->node->root = CDI_ROOT;
    if (options->units && !options->dry_run)
        return cli_fail(error, -1, "--units is for --dry-run");
    return 0;
}

/* ---- what is offered */

static void say_offer(const struct node *node)
{
    const struct offer *offer = &node->offer;

    for (unsigned i = 0; i < offer->gpus; i++)
        say_info("%s: %u of " PLUGIN_VENDOR PLUGIN_UNITS ", %llu MiB in slices", offer->gpu[i].is.uuid, offer->gpu[i].units,
                 (unsigned long long)(offer->gpu[i].sliced >> 20));
    for (unsigned i = 0; i < node->settings.slices; i++) {
        unsigned missing = 0;

        for (unsigned j = 0; j < offer->replicas; j++)
            missing += offer->replica[j].slice == i && offer->replica[j].gpu < 0;
        if (missing && offer->gpus)
            say_error("%s:%u: %u of %u of slice '%s' (%s) fit on no GPU and are not offered", node->config,
                      node->settings.slice[i].is.line, missing, node->settings.slice[i].replicas, node->settings.slice[i].name,
                      node->settings.slice[i].is.vram);
    }
}

static void take_gpus(void *argument)
{
    static struct offer before;
    struct node *node = argument;

    if (!gpus_take(&node->gpus) || !node->configured)
        return;
    before = node->offer;
    offer_make(&node->offer, &node->settings, &node->gpus, &before);
    if (before.gpus != node->offer.gpus)
        say_offer(node);
    for (unsigned i = 0; i < SERVICES; i++)
        service_tell(&node->service[i]);
}

static void use(struct node *node, struct settings *settings)
{
    settings_free(&node->settings);
    node->settings = *settings;
    node->configured = true;
    offer_make(&node->offer, &node->settings, &node->gpus, NULL);
    kubelet_services(node);
    if (node->gpus.count)
        say_offer(node);
}

static void reload(struct node *node)
{
    static struct offer offer;
    struct cli_error error = {""};
    struct settings settings;

    if (settings_read(&settings, node->config, node->config_named, &error)) {
        say_error("%s; what was read before stays", error.text);
        return;
    }
    offer_make(&offer, &settings, &node->gpus, NULL);
    if (node->configured && node->gpus.count && offer.unplaced) {
        say_error("%s: %u of the slices' replicas fit on no GPU; what was read before stays", node->config, offer.unplaced);
        settings_free(&settings);
        return;
    }
    say_info("%s was read again", node->config);
    use(node, &settings);
    gpus_change(&node->settings);
    node->pods.next = 0;
}

/* Until it can be read. */
static void configure(struct node *node)
{
    static double next, backoff = 1;
    static struct cli_error told;
    struct cli_error error = {""};
    struct settings settings;

    if (node->configured || now_seconds() < next)
        return;
    if (settings_read(&settings, node->config, node->config_named, &error) == 0) {
        use(node, &settings);
        gpus_change(&node->settings);
        return;
    }
    if (strcmp(error.text, told.text) != 0)
        say_error("%s; nothing is offered until it can be read", error.text);
    told = error;
    next = now_seconds() + backoff;
    backoff = backoff * 2 < RETRY_MOST ? backoff * 2 : RETRY_MOST;
}

/* ---- signals, and the loop */

static int signals = -1;

static void take_signal(void *argument)
{
    struct node *node = argument;
    struct signalfd_siginfo info;

    while (read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGHUP) {
            reload(node);
            continue;
        }
        say_info("%s: ending", info.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT");
        node->stop = true;
    }
}

/* Blocked before the first thread begins, so that none takes one. */
static int open_signals(void)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -errno;
    signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return signals < 0 ? -errno : 0;
}

static int open_all(struct node *node)
{
    struct settings none = {.ask_gpus = 5};
    int result = open_signals(), gpus;

    node->loop = rpc_loop_new();
    if (result < 0 || !node->loop)
        return result < 0 ? result : -ENOMEM;
    if ((result = rpc_loop_watch(node->loop, signals, take_signal, node)) < 0 || (result = job_open(node->loop)) < 0 ||
        (result = kubelet_open(node)) < 0)
        return result;
    given_load(&node->given, node->root);
    configure(node);
    gpus = gpus_watch(node->configured ? &node->settings : &none);
    return gpus < 0 ? gpus : rpc_loop_watch(node->loop, gpus, take_gpus, node);
}

/* Until something is due that no event tells of. */
static int tick(const struct node *node)
{
    double now = now_seconds(), left = TICK_MS / 1000.0;

    if (!node->configured)
        return TICK_MS;
    if (!node->pods.busy && node->pods.next - now < left)
        left = node->pods.next - now;
    if (!node->reach.busy && node->reach.next > now && node->reach.next - now < left)
        left = node->reach.next - now;
    return left < 0 ? 0 : (int)(left * 1000) + 1;
}

static int serve(struct node *node)
{
    int result = open_all(node);

    if (result < 0) {
        say_error("cannot start: %s", strerror(-result));
        return 1;
    }
    while (!node->stop) {
        configure(node);
        if (node->configured) {
            allocate_restore(node);
            kubelet_check(node);
            pods_check(node);
        }
        if (node->stop)
            break;
        result = rpc_loop_run(node->loop, tick(node));
        if (result < 0 && result != -EINTR) {
            say_error("cannot wait: %s", strerror(-result));
            return 1;
        }
    }
    for (unsigned i = 0; i < SERVICES; i++) {
        if (node->service[i].server)
            rpc_server_free(node->service[i].server);
    }
    return node->status;
}

static int print_dry_run(struct node *node, unsigned units, struct cli_error *error)
{
    const char *why;

    if (settings_read(&node->settings, node->config, node->config_named, error))
        return -1;
    why = gpus_look(&node->gpus);
    if (why)
        cli_warn("no GPU: %s", why);
    offer_make(&node->offer, &node->settings, &node->gpus, NULL);
    return dry_run(node, units, error);
}

int main(int argc, char **argv)
{
    static struct node node = {.config = PLUGIN_CONFIG, .kubelet = PLUGIN_KUBELET};
    static struct cli_error error;
    struct options options = {.node = &node};

    if (parse(argc, argv, &options, &error)) {
        cli_say("", error.text);
        return CLI_FAILED;
    }
    if (!options.dry_run)
        return serve(&node);
    if (print_dry_run(&node, options.units, &error) == 0)
        return 0;
    cli_say("", error.text);
    return 1;
}
