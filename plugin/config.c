/* SPDX-License-Identifier: Apache-2.0 */
/* The plugin's part of the admin's file: [device-plugin], and the menu of [slice NAME] sections. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "plugin.h"
#include "softslice/ini.h"

#define RESERVE (UINT64_C(1) << 30)

/* XIDs that an application causes, by NVIDIA's list of XIDs; the GPU goes on. */
static const unsigned of_applications[] = {13, 31, 43, 45, 68, 109};

/* What every container's ini has, given here once; a slice's own comes before it. */
static const char *const handed_on[] = {"managed", "spill", "headroom", "keep_asleep", "period", "quantum", "max_stall"};

struct reading {
    struct settings *settings;
    const char *path;
    bool ours;
    struct cli_error *error;
};

/* ---- values */

/* 30s, 5min, 500ms, 1h. */
static bool take_time(const char *text, double *seconds)
{
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"ms", 0.001}, {"s", 1}, {"min", 60}, {"m", 60}, {"h", 3600}};
    char *end;
    double number = *text >= '0' && *text <= '9' ? strtod(text, &end) : -1;

    for (unsigned i = 0; number > 0 && number < 1e6 && i < sizeof(units) / sizeof(*units); i++) {
        if (strcmp(end + strspn(end, " "), units[i].unit) != 0)
            continue;
        *seconds = number * units[i].seconds;
        return *seconds >= 0.01 && *seconds <= 86400;
    }
    return false;
}

static bool take_word(const char *text, const char *const *words, unsigned *which)
{
    for (*which = 0; words[*which]; ++*which) {
        if (strcmp(text, words[*which]) == 0)
            return true;
    }
    return false;
}

static bool take_xids(const char *text, struct settings *settings)
{
    settings->ignored_xids = 0;
    if (strcmp(text, "none") == 0)
        return true;
    while (settings->ignored_xids < sizeof(settings->ignored_xid) / sizeof(*settings->ignored_xid)) {
        char *end;
        unsigned long xid = *text >= '0' && *text <= '9' ? strtoul(text, &end, 10) : 0;

        if (!xid || xid > 100000)
            return false;
        settings->ignored_xid[settings->ignored_xids++] = (unsigned)xid;
        end += strspn(end, " ");
        if (!*end)
            return true;
        if (*end != ',')
            return false;
        text = end + 1 + strspn(end + 1, " ");
    }
    return false;
}

static bool take_path(const char *text, char *path, size_t size)
{
    return *text == '/' && (size_t)snprintf(path, size, "%s", text) < size;
}

/* ---- [device-plugin] */

static const char *take(struct settings *settings, const char *key, const char *value)
{
    static const char *const policies[] = {"proportional", "none", "weight", NULL}, *const modes[] = {"cap", "share", NULL},
                             *const drivers[] = {"env", "cdi", NULL}, *const answers[] = {"mounts", "cdi", NULL},
                             *const places[] = {"pack", "spread", NULL};
    unsigned word;

    if (strcmp(key, "reserve") == 0) {
        settings->reserve = 0;
        return strcmp(value, "0") == 0 || units_parse_size(value, strlen(value), &settings->reserve) == 0
                   ? NULL
                   : "reserve is a size, as 1GiB or 512MiB, or 0";
    }
    if (strcmp(key, "compute") == 0) {
        if (!take_word(value, policies, &word))
            return "compute is proportional, none or weight";
        settings->compute = (enum policy_compute)word;
        return NULL;
    }
    if (strcmp(key, "mode") == 0) {
        settings->share = take_word(value, modes, &word) && word == 1;
        return modes[word] ? NULL : "mode is cap or share";
    }
    if (strcmp(key, "driver") == 0) {
        settings->driver_cdi = take_word(value, drivers, &word) && word == 1;
        return drivers[word] ? NULL : "driver is env or cdi";
    }
    if (strcmp(key, "answer") == 0) {
        settings->answer_cdi = take_word(value, answers, &word) && word == 1;
        return answers[word] ? NULL : "answer is mounts or cdi";
    }
    if (strcmp(key, "slices") == 0) {
        settings->spread = take_word(value, places, &word) && word == 1;
        return places[word] ? NULL : "slices is pack or spread";
    }
    if (strcmp(key, "ignore_xids") == 0)
        return take_xids(value, settings) ? NULL : "ignore_xids is a list of numbers, as 13,31,43, or none";
    if (strcmp(key, "keep") == 0)
        return take_time(value, &settings->keep) ? NULL : "keep is a time, as 5min or 30s";
    if (strcmp(key, "ask_pods") == 0)
        return take_time(value, &settings->ask_pods) ? NULL : "ask_pods is a time, as 1min or 30s";
    if (strcmp(key, "ask_gpus") == 0)
        return take_time(value, &settings->ask_gpus) ? NULL : "ask_gpus is a time, as 5s";
    if (strcmp(key, "dev") == 0)
        return take_path(value, settings->dev, sizeof(settings->dev)) ? NULL : "dev is an absolute path";
    if (strcmp(key, "cdi_dir") == 0)
        return take_path(value, settings->cdi, sizeof(settings->cdi)) ? NULL : "cdi_dir is an absolute path";
    if (strcmp(key, "pods") == 0)
        return take_path(value, settings->pods, sizeof(settings->pods)) ? NULL : "pods is the absolute path of a socket";
    for (unsigned i = 0; i < sizeof(handed_on) / sizeof(*handed_on); i++) {
        size_t used = strlen(settings->others), room = sizeof(settings->others) - used;

        if (strcmp(key, handed_on[i]) == 0)
            return (size_t)snprintf(settings->others + used, room, "%s = %s\n", key, value) < room ? NULL : "too many limits";
    }
    return "[device-plugin] has no such key (reserve, compute, mode, driver, answer, slices, ignore_xids, keep, ...)";
}

static const char *on_section(void *context, const char *section, unsigned line)
{
    struct reading *reading = context;

    (void)line;
    reading->ours = strcmp(section, "device-plugin") == 0;
    return NULL;
}

static const char *on_value(void *context, const char *key, const char *value, unsigned line)
{
    struct reading *reading = context;

    (void)line;
    return reading->ours ? take(reading->settings, key, value) : NULL;
}

static void on_error(void *context, unsigned line, const char *what)
{
    struct reading *reading = context;

    if (!*reading->error->text)
        cli_fail(reading->error, -1, "%s:%u: %s", reading->path, line, what);
}

/* ---- [slice NAME] */

/* The last part of a resource's name, as Kubernetes has it. */
static bool is_resource(const char *name)
{
    return strlen(name) < PLUGIN_RESOURCE && cdi_is_name(name) && strcmp(name, PLUGIN_UNITS) != 0;
}

static void copy_others(struct slice *slice)
{
    char *at = slice->others;

    for (const char *line = slice->is.budget.limits; *line; line = strchr(line, '\n') + 1) {
        size_t length = (size_t)(strchr(line, '\n') - line) + 1;

        if (strncmp(line, "vram ", 5) == 0 || strncmp(line, "compute ", 8) == 0)
            continue;
        memcpy(at, line, length);
        at += length;
    }
    *at = '\0';
}

static void on_slice(void *context, const struct cdi_slice *found, const char *path, struct cli_error *error)
{
    struct settings *settings = context;
    struct slice *slice = &settings->slice[settings->slices];
    unsigned total = 0;

    if (settings->slices == PLUGIN_SLICES) {
        cli_fail(error, -1, "%s:%u: more than %u slices", path, found->line, PLUGIN_SLICES);
        return;
    }
    memset(slice, 0, sizeof(*slice));
    slice->is = *found;
    slice->replicas = found->replicas ? found->replicas : 1;
    snprintf(slice->name, sizeof(slice->name), "%s", found->budget.name);
    for (unsigned i = 0; i < settings->slices; i++)
        total += settings->slice[i].replicas;
    if (!is_resource(found->budget.name))
        cli_fail(
            error, -1,
            "%s:%u: '%s' cannot be the name of a resource (letters, digits and - . _ between them, 63 at most; not " PLUGIN_UNITS
            " or " CDI_TURNS ")",
            path, found->line, found->budget.name);
    else if (!*found->vram)
        cli_fail(error, -1, "%s:%u: slice '%s' has no vram: Kubernetes could hand out more memory than there is", path, found->line,
                 slice->name);
    else if (units_parse_amount(found->vram, strlen(found->vram), &slice->vram) < 0)
        cli_fail(error, -1, "%s:%u: slice '%s': vram = %s: not a size (as 10GiB) or a part of a GPU (as 25%%)", path, found->line,
                 slice->name, found->vram);
    else if (total + slice->replicas > PLUGIN_REPLICAS)
        cli_fail(error, -1, "%s:%u: more than %u replicas of all slices", path, found->line, PLUGIN_REPLICAS);
    if (*error->text)
        return;
    copy_others(slice);
    settings->slices++;
}

/* ---- all of it */

/* Each set of limits, as the library in a container will read it. */
static int check_limits(const struct settings *settings, const char *path, struct cli_error *error)
{
    struct cdi_budget budget = {.name = "device-plugin"};
    struct cli_error what = {""};

    snprintf(budget.limits, sizeof(budget.limits), "%s", settings->others);
    if (cdi_check(&budget, &what))
        return cli_fail(error, -1, "%s: %s", path, what.text);
    for (unsigned i = 0; i < settings->slices; i++) {
        budget = settings->slice[i].is.budget;
        if (cdi_check(&budget, &what))
            return cli_fail(error, -1, "%s:%u: %s", path, settings->slice[i].is.line, what.text);
    }
    return 0;
}

static int read_file(struct settings *settings, struct ini_file *file, const char *path, struct cli_error *error)
{
    static const struct ini_events events = {on_section, on_value, on_error};
    struct reading reading = {.settings = settings, .path = path, .error = error};

    if (file->mode & S_IWOTH)
        return cli_fail(error, -1, "%s: everybody may write it (mode %04o): make it root's alone", path, file->mode & 07777);
    ini_file_parse(file, &events, &reading);
    if (*error->text || cdi_slices_read(file, path, on_slice, settings, error) < 0)
        return -1;
    return check_limits(settings, path, error);
}

int settings_read(struct settings *settings, const char *path, bool named, struct cli_error *error)
{
    struct settings read = {.reserve = RESERVE,
                            .dev = "/dev",
                            .pods = PLUGIN_PODS,
                            .cdi = CDI_DIRECTORY,
                            .ignored_xids = sizeof(of_applications) / sizeof(*of_applications),
                            .keep = 600,
                            .ask_pods = 60,
                            .ask_gpus = 5};
    struct ini_file file;
    const char *what;
    int result;

    *error->text = '\0';
    memcpy(read.ignored_xid, of_applications, sizeof(of_applications));
    read.slice = calloc(PLUGIN_SLICES, sizeof(*read.slice));
    if (!read.slice)
        return cli_fail(error, -1, "out of memory");
    result = ini_file_open(&file, path, &what);
    if (result == 0) {
        result = read_file(&read, &file, path, error);
        ini_file_close(&file);
    } else if (result == -ENOENT && !named) {
        result = 0;
    } else {
        result = cli_fail(error, -1, "%s: %s", path, what);
    }
    if (result == 0)
        *settings = read;
    else
        free(read.slice);
    return result;
}

void settings_free(struct settings *settings)
{
    free(settings->slice);
    settings->slice = NULL;
    settings->slices = 0;
}
