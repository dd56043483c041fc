/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice doctor`: looks at this environment, and through a copy of itself with the library preloaded at the driver. */
#include <errno.h>
#include <getopt.h>
#include <gnu/libc-version.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>

#include "cli.h"
#include "doctor.h"
#include "softslice/ledger.h"
#include "softslice/native.h"

#define PROBE_SECONDS 30 /* a driver that does not answer by then hangs */
#define DEVICES_MAX   64
#define GLIBC_MINOR   31 /* of 2.x: the oldest that the library is built for */
#define LINE_BYTES    1024
#define LEDGER_ROOM   (UINT64_C(1) << 20) /* a named tenant's ledger needs a little more than half of this */

struct report {
    bool all_rows;
    unsigned count[FINDINGS];
    struct config config;
    bool config_good;
    struct config_device device[DEVICES_MAX];
    uint64_t driver_limit[DEVICES_MAX]; /* for our control group, NATIVE_NONE if none */
    char driver_group[PATH_MAX];
    unsigned devices;
};

static void section(const char *title)
{
    printf("\n%s\n", title);
}

static void finding_line(struct report *report, enum finding finding, const char *text)
{
    static const char *const words[] = DOCTOR_WORDS;

    report->count[finding]++;
    printf("  %-8s %s\n", words[finding], text);
}

static void found(struct report *report, enum finding finding, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void found(struct report *report, enum finding finding, const char *format, ...)
{
    char text[CLI_ERROR_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    finding_line(report, finding, text);
}

/* ---- this environment */

static void look_at_system_preload(struct report *report)
{
    char line[LINE_BYTES];
    FILE *file = fopen("/etc/ld.so.preload", "re");

    while (file && fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = '\0';
        if (*line)
            found(report, FINDING_NOTE, "/etc/ld.so.preload: %s is preloaded into every program", line);
    }
    if (file)
        fclose(file);
}

/* Whether a line of /proc/self/maps is of our library; it may stand in HAMi's place. */
static bool is_ours(char *line)
{
    char *path = strchr(line, '/'), *name = path ? strrchr(path, '/') + 1 : NULL;
    const char *why;

    line[strcspn(line, "\n")] = '\0';
    if (name && strncmp(name, CLI_LIBRARY, strlen(CLI_LIBRARY)) == 0)
        return true;
    return name && strncmp(name, "libvgpu.so", strlen("libvgpu.so")) == 0 && preload_is_library(path, &why);
}

/* Whether it is in this very process: /etc/ld.so.preload needs no variable. */
static bool is_here(void)
{
    char line[PATH_MAX + LINE_BYTES];
    FILE *maps = fopen("/proc/self/maps", "re");
    bool found = false;

    while (maps && !found && fgets(line, sizeof(line), maps))
        found = is_ours(line);
    if (maps)
        fclose(maps);
    return found;
}

static void tell_dmem(void *report, const char *text)
{
    found(report, FINDING_NOTE, "%s: where the driver keeps to it, the smaller limit holds", text);
}

static void look_at_environment(struct report *report)
{
    const char *preload = getenv("LD_PRELOAD"), *mps = getenv(NATIVE_MPS_VARIABLE), *pipes = getenv(NATIVE_MPS_PIPES);
    int minor = 0;

    section("This environment");
    if (preload && strstr(preload, CLI_LIBRARY))
        found(report, FINDING_OK, "softslice is active: LD_PRELOAD=%s", preload);
    else if (is_here())
        found(report, FINDING_OK, "softslice is active: the loader preloads it without LD_PRELOAD");
    else
        found(report, FINDING_NOTE,
              "softslice is not active in this environment: 'softslice run' makes it so for the program it starts");
    look_at_system_preload(report);
    if (sscanf(gnu_get_libc_version(), "2.%d", &minor) == 1 && minor < GLIBC_MINOR)
        found(report, FINDING_PROBLEM, "glibc %s: the library needs 2.%d or newer", gnu_get_libc_version(), GLIBC_MINOR);
    else
        found(report, FINDING_OK, "glibc %s", gnu_get_libc_version());
    if (native_mps_serves(pipes))
        found(report, FINDING_NOTE, "an MPS control daemon has its pipe in %s: programs may be its clients",
              pipes && *pipes ? pipes : "/tmp/nvidia-mps");
    if (mps)
        found(report, FINDING_NOTE, "%s=%s: %s", NATIVE_MPS_VARIABLE, mps,
              native_mps_serves(pipes) ? "MPS limits memory too, and the smaller limit holds"
                                       : "there is no MPS control daemon here, so it limits nothing");
    doctor_dmem(tell_dmem, report);
}

static void look_at_config(struct report *report)
{
    struct config *config = &report->config;

    section("Configuration");
    report->config_good = cli_config(config, false) == 0;
    if (!report->config_good)
        found(report, FINDING_PROBLEM, "%s", config->error);
    if (config->admin_present)
        found(report, FINDING_OK, "the admin's file %s is there", config->admin_ini);
    else
        found(report, FINDING_OK, "no admin's file (%s)", CONFIG_ADMIN_FILE);
    if (!report->config_good)
        return;
    if (config->disable)
        found(report, FINDING_NOTE, "softslice is switched off here (disable)");
    found(report, FINDING_NOTE, "armed here: VRAM %s, compute %s ('softslice config' tells by whom)",
          config_arms_vram(config) ? "yes" : "no", config_arms_compute(config) ? "yes" : "no");
}

static void look_at_state(struct report *report)
{
    static struct ledger ledger;
    char path[PATH_MAX], size[UNITS_TEXT_MAX];
    struct statvfs space;
    int result;
    CLEANUP_CLOSE int directory =
        ledger_state_dir(&ledger, report->config_good ? report->config.state_dir : "", path, sizeof(path));

    section("State directory");
    if (directory < 0) {
        found(report, FINDING_PROBLEM, "%s", ledger.error);
        return;
    }
    result = ledger_attach(&ledger, directory, NULL);
    if (result < 0) {
        found(report, FINDING_PROBLEM, "%s", ledger.error);
        return;
    }
    ledger_detach(&ledger);
    if (statvfs(path, &space) != 0)
        found(report, FINDING_OK, "%s works", path);
    else if (space.f_blocks && (uint64_t)space.f_bavail * space.f_frsize < LEDGER_ROOM)
        found(report, FINDING_PROBLEM, "%s has less than 1 MiB free: the next tenant's ledger may not fit, and CUDA then not start",
              path);
    else
        found(report, FINDING_OK, "%s works (%s free)", path,
              units_format_size(size, ((uint64_t)space.f_bavail * space.f_frsize) & ~(LEDGER_ROOM - 1)));
}

/* ---- the probe */

static bool take_word(const char **text, const char *word)
{
    size_t length = strlen(word);

    if (strncmp(*text, word, length) != 0 || (*text)[length] != ' ')
        return false;
    *text += length + 1;
    return true;
}

static void take_device(struct report *report, const char *text)
{
    struct config_device *device = &report->device[report->devices];
    unsigned long long physical;
    char uuid[33];

    if (report->devices == DEVICES_MAX || sscanf(text, "%d %32[0-9a-f] %llu", &device->ordinal, uuid, &physical) != 3)
        return;
    for (unsigned i = 0; i < sizeof(device->uuid); i++)
        sscanf(uuid + 2 * i, "%2hhx", &device->uuid[i]);
    device->physical = physical;
    report->driver_limit[report->devices++] = NATIVE_NONE;
}

static void take_native(struct report *report, const char *text)
{
    unsigned long long bytes;
    int ordinal, path = 0;

    if (sscanf(text, "%d %llu %n", &ordinal, &bytes, &path) != 2 || !path)
        return;
    snprintf(report->driver_group, sizeof(report->driver_group), "%s", text + path);
    for (unsigned i = 0; i < report->devices; i++)
        if (report->device[i].ordinal == ordinal)
            report->driver_limit[i] = bytes;
}

static void take_row(const struct report *report, const char *text)
{
    char symbol[LINE_BYTES], linked[16], by_dlsym[16], getproc[16];

    if (report->all_rows && sscanf(text, "%1023s %15s %15s %15s", symbol, linked, by_dlsym, getproc) == 4)
        printf("           %-44s linked %-8s dlsym %-8s cuGetProcAddress %s\n", symbol, linked, by_dlsym, getproc);
}

static void take_line(struct report *report, const char *text)
{
    static const char *const words[] = DOCTOR_WORDS;

    for (unsigned i = 0; i < FINDINGS; i++) {
        if (take_word(&text, words[i])) {
            finding_line(report, i, text);
            return;
        }
    }
    if (take_word(&text, DOCTOR_SECTION))
        section(text);
    else if (take_word(&text, DOCTOR_ROW))
        take_row(report, text);
    else if (take_word(&text, DOCTOR_DEVICE))
        take_device(report, text);
    else if (take_word(&text, DOCTOR_NATIVE))
        take_native(report, text);
    else if (*text)
        found(report, FINDING_PROBLEM, "%s", text);
}

/* Out of the probe's environment: whatever would limit it, and everything else that is softslice's. */
static void drop_settings(void)
{
    static const char *const prefixes[] = {"SOFTSLICE_", "CUDA_DEVICE_MEMORY_", "CUDA_DEVICE_SM_LIMIT", "NVIDIA_GPU_MEMORY_LIMIT",
                                           NATIVE_MPS_VARIABLE};
    char name[LINE_BYTES];

    for (char **entry = environ; *entry;) {
        bool drop = false;

        for (unsigned i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
            drop |= strncmp(*entry, prefixes[i], strlen(prefixes[i])) == 0;
        snprintf(name, sizeof(name), "%.*s", (int)strcspn(*entry, "="), *entry);
        if (drop && unsetenv(name) == 0)
            entry = environ;
        else
            entry++;
    }
}

/* Becomes the probe; limits of 100 % arm every hook and refuse nothing. */
__attribute__((noreturn)) static void become_probe(const struct report *report, const char *library, int output)
{
    char *preload = library_preload(library, getenv("LD_PRELOAD"));

    drop_settings();
    if (!preload || setenv("LD_PRELOAD", preload, 1) < 0 || setenv("SOFTSLICE_VRAM", "100%", 1) < 0 ||
        setenv("SOFTSLICE_COMPUTE", "100%", 1) < 0 || setenv("SOFTSLICE_LOG", "error", 1) < 0 ||
        (*report->config.state_dir && setenv("SOFTSLICE_STATE_DIR", report->config.state_dir, 1) < 0) ||
        dup2(output, STDOUT_FILENO) < 0 || dup2(output, STDERR_FILENO) < 0)
        _exit(CLI_FAILED);
    execl("/proc/self/exe", "softslice", "doctor", DOCTOR_PROBE, library, (char *)NULL);
    _exit(CLI_FAILED);
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Take the probe's lines until it ends. False where it did not in time. */
static bool listen_to(struct report *report, int input)
{
    int64_t end = now_ms() + PROBE_SECONDS * 1000;
    char buffer[4 * LINE_BYTES];
    size_t held = 0;

    for (;;) {
        struct pollfd ready = {.fd = input, .events = POLLIN};
        int64_t left = end - now_ms();
        char *newline;
        ssize_t got;

        if (left <= 0)
            return false;
        if (poll(&ready, 1, (int)left) <= 0)
            continue;
        got = read(input, buffer + held, sizeof(buffer) - 1 - held);
        if (got <= 0)
            return true;
        held += (size_t)got;
        buffer[held] = '\0';
        while ((newline = strchr(buffer, '\n')) || held == sizeof(buffer) - 1) {
            size_t length = newline ? (size_t)(newline - buffer) + 1 : held;

            if (newline)
                *newline = '\0';
            take_line(report, buffer);
            held -= length;
            memmove(buffer, buffer + length, held + 1);
        }
    }
}

static void probe(struct report *report, const char *library)
{
    int ends[2], status = 0;
    pid_t child;
    bool ended;

    if (pipe(ends) < 0 || fflush(stdout) == EOF || (child = fork()) < 0) {
        found(report, FINDING_PROBLEM, "cannot start the probe: %s", strerror(errno));
        return;
    }
    if (child == 0)
        become_probe(report, library, ends[1]);
    close(ends[1]);
    ended = listen_to(report, ends[0]);
    close(ends[0]);
    if (!ended)
        kill(child, SIGKILL);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (!ended)
        found(report, FINDING_PROBLEM, "the driver did not answer within %d s", PROBE_SECONDS);
    else if (WIFSIGNALED(status))
        found(report, FINDING_PROBLEM, "a program with the library and this driver was killed by signal %d (%s): please report it",
              WTERMSIG(status), strsignal(WTERMSIG(status)));
}

/* ---- limits of this environment on the GPUs that are here */

/* Which of several limits counts: `ours` is softslice's, UINT64_MAX if none. */
static void look_at_native(struct report *report, unsigned i, uint64_t ours)
{
    const struct config_device *device = &report->device[i];
    const char *text = getenv(NATIVE_MPS_VARIABLE);
    uint64_t driver = report->driver_limit[i], mps = native_mps_serves(getenv(NATIVE_MPS_PIPES))
                                                         ? native_mps_bytes(text, device->ordinal, device->uuid)
                                                         : NATIVE_NONE;
    uint64_t least = mps < driver ? mps : driver;
    char size[UNITS_TEXT_MAX];
    const char *counts = ours == UINT64_MAX ? "nobody else limits it" : "it counts, for it is the smallest";

    if (mps != NATIVE_NONE)
        found(report, FINDING_NOTE, "GPU %d: MPS allows %s (%s): %s", device->ordinal, units_format_size(size, mps),
              NATIVE_MPS_VARIABLE, mps <= least && mps < ours ? counts : "a smaller one counts");
    if (driver != NATIVE_NONE)
        found(report, FINDING_NOTE, "GPU %d: the driver allows %s to %s: %s", device->ordinal, units_format_size(size, driver),
              report->driver_group, driver <= least && driver < ours ? counts : "a smaller one counts");
}

static void look_at_share(struct report *report, unsigned i)
{
    const struct config_rule *own, *admin;
    uint32_t share = config_compute_own(&report->config, &report->device[i], &own);
    uint32_t cap = config_compute_admin(&report->config, &report->device[i], &admin);
    char origin[PATH_MAX + 256];

    if (cap < share) {
        share = cap;
        own = admin;
    }
    if (own)
        found(report, FINDING_OK, "GPU %d: %g%% of its time%s (%s)", report->device[i].ordinal, share / 100.0,
              report->config.mode == CONFIG_MODE_SHARE ? ", and what others leave" : "",
              config_rule_origin(&report->config, CONFIG_COMPUTE, own, origin, sizeof(origin)));
}

static void look_at_limits(struct report *report)
{
    char size[UNITS_TEXT_MAX], origin[PATH_MAX + 256];

    if (!report->config_good || report->config.disable || report->devices == 0)
        return;
    section("Limits in this environment");
    if (config_check_devices(&report->config, report->device, report->devices) < 0) {
        found(report, FINDING_PROBLEM, "%s", report->config.error);
        return;
    }
    for (unsigned i = 0; i < report->devices; i++) {
        const struct config_rule *own, *admin;
        uint64_t limit = config_vram_own(&report->config, &report->device[i], &own);
        uint64_t cap = config_vram_admin(&report->config, &report->device[i], &admin);

        if (cap < limit) {
            limit = cap;
            own = admin;
        }
        if (own && limit != UINT64_MAX)
            found(report, limit > report->device[i].physical ? FINDING_NOTE : FINDING_OK, "GPU %d: VRAM %s (%s)%s",
                  report->device[i].ordinal, units_format_size(size, limit),
                  config_rule_origin(&report->config, CONFIG_VRAM, own, origin, sizeof(origin)),
                  limit > report->device[i].physical ? ": more than the card has" : "");
        else
            found(report, FINDING_NOTE, "GPU %d: no VRAM limit", report->device[i].ordinal);
        look_at_native(report, i, own ? limit : UINT64_MAX);
        look_at_share(report, i);
    }
}

struct others {
    struct report *report;
    bool told;
};

static void tell_uncharged(void *context, const char *text)
{
    struct others *others = context;

    if (!others->told)
        section("Processes on the GPUs");
    others->told = true;
    found(others->report, FINDING_NOTE, "%s", text);
}

static int diagnose(struct report *report, const char *named)
{
    static struct cli_error missing;
    char library[PATH_MAX];

    printf("softslice %s\n", SOFTSLICE_VERSION);
    look_at_environment(report);
    look_at_config(report);
    look_at_state(report);
    if (library_find(named, library, &missing) == 0) {
        if (report->config.disable && report->config.from[CONFIG_DISABLE].source == CONFIG_ADMIN) {
            section("Preload");
            found(report, FINDING_NOTE, "the admin's file switches softslice off: there are no hooks to look at");
        } else {
            probe(report, library);
        }
    } else {
        section("Library");
        found(report, FINDING_PROBLEM, "%s", missing.text);
    }
    look_at_limits(report);
    doctor_uncharged(tell_uncharged, &(struct others){.report = report});
    printf("\n%u ok, %u note%s, %u problem%s\n", report->count[FINDING_OK], report->count[FINDING_NOTE],
           report->count[FINDING_NOTE] == 1 ? "" : "s", report->count[FINDING_PROBLEM],
           report->count[FINDING_PROBLEM] == 1 ? "" : "s");
    return report->count[FINDING_PROBLEM] ? 1 : 0;
}

static int run(int argc, char **argv, struct cli_error *error)
{
    static const struct option options[] = {
        {"all", no_argument, NULL, 'a'}, {"library", required_argument, NULL, 'l'}, {"help", no_argument, NULL, 'h'}, {0}};
    static struct report report;
    const char *library = NULL;
    int option;

    if (argc == 3 && strcmp(argv[1], DOCTOR_PROBE) == 0)
        return doctor_probe(argv[2]);
    optind = 1;
    while ((option = cli_option(argc, argv, "+:ah", options, "doctor", error)) != -1) {
        if (option == '?')
            return CLI_FAILED;
        if (option == 'h')
            return help_print(stdout, &command_doctor);
        if (option == 'a')
            report.all_rows = true;
        else
            library = optarg;
    }
    if (optind < argc)
        return cli_fail(error, CLI_FAILED, "doctor: '%s' is not understood: it takes options only", argv[optind]);
    return diagnose(&report, library);
}

const struct command command_doctor = {
    .name = "doctor",
    .summary = "find out what works here and what does not",
    .usage = "doctor [--all] [--library PATH]",
    .help = "Look at this environment, the settings, the state directory, the driver and its GPUs, and at every entry point that\n"
            "softslice stands in front of: whether a program gets softslice's function when it is linked with the driver, when it\n"
            "asks dlsym and when it asks cuGetProcAddress. For that it starts itself once more with the library preloaded. Of the\n"
            "processes on the GPUs it names those that should be held to a budget and are not; root sees all of them.\n"
            "\n"
            "    -a, --all        print each entry point\n"
            "    --library PATH   the " CLI_LIBRARY " to look at\n"
            "\n"
            "Each finding is 'ok', a 'note' or a 'problem'. Exit status: 0; 1 if there is a problem; 125 if used wrongly.\n",
    .run = run,
};
