/* SPDX-License-Identifier: Apache-2.0 */
/* The menu of slices: [slice NAME] sections of an ini file, each a budget or, with `replicas`, several of one size. */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "cdi.h"

#define REPLICAS_MAX 1000

bool cdi_is_name(const char *name)
{
    size_t length = strlen(name);

    if (!length || length >= CONFIG_TENANT_MAX || strcmp(name, CDI_TURNS) == 0 || strcmp(name, CDI_LABELS) == 0)
        return false;
    for (size_t i = 0; i < length; i++) {
        char c = name[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');

        if (!plain && (i == 0 || i == length - 1 || !strchr("-._", c)))
            return false;
    }
    return true;
}

struct cdi_budget *cdi_add(struct cdi_budgets *budgets, const char *name, const char *said_by, struct cli_error *error)
{
    struct cdi_budget *grown, *added;

    if (!cdi_is_name(name)) {
        cli_fail(error, -1,
                 "cdi: %s '%s': not a name for a device (letters, digits and - . _ between them, %d at most, not '" CDI_TURNS
                 "' or '" CDI_LABELS "')",
                 said_by, name, CONFIG_TENANT_MAX - 1);
        return NULL;
    }
    for (unsigned i = 0; i < budgets->count; i++) {
        if (strcmp(budgets->budget[i].name, name) == 0) {
            cli_fail(error, -1, "cdi: %s '%s': there are two of this name", said_by, name);
            return NULL;
        }
    }
    grown = budgets->count < CDI_BUDGETS_MAX ? realloc(budgets->budget, (budgets->count + 1) * sizeof(*grown)) : NULL;
    if (!grown) {
        cli_fail(error, -1, "cdi: too many budgets");
        return NULL;
    }
    budgets->budget = grown;
    added = &grown[budgets->count++];
    memset(added, 0, sizeof(*added));
    snprintf(added->name, sizeof(added->name), "%s", name);
    return added;
}

int cdi_limit(struct cdi_budget *budget, struct cli_error *error, const char *format, ...)
{
    size_t used = strlen(budget->limits), room = sizeof(budget->limits) - used;
    va_list args;
    int length;

    va_start(args, format);
    length = vsnprintf(budget->limits + used, room, format, args);
    va_end(args);
    if (length >= 0 && (size_t)length < room)
        return 0;
    budget->limits[used] = '\0';
    return cli_fail(error, -1, "cdi: too many limits for '%s'", budget->name);
}

/* ---- reading */

struct reading {
    cdi_slice_found *found;
    void *context;
    struct cdi_slice slice;
    bool in_slice, limited;
    unsigned slices;
    struct cli_error *error;
    const char *path;
};

static void fail_at(struct reading *reading, unsigned line, const char *what)
{
    if (!*reading->error->text)
        cli_fail(reading->error, -1, "%s:%u: %s", reading->path, line, what);
}

/* What was read of a section is handed on. */
static void finish(struct reading *reading)
{
    const struct cdi_slice *slice = &reading->slice;

    if (!reading->in_slice || *reading->error->text)
        return;
    reading->in_slice = false;
    if (!reading->limited)
        fail_at(reading, slice->line, "a slice has a limit: vram, compute or weight");
    else
        reading->found(reading->context, slice, reading->path, reading->error);
}

/* What softslice.ini(5) has besides. */
static bool is_other(const char *section)
{
    return strcmp(section, "softslice") == 0 || strcmp(section, "device-plugin") == 0 || strncmp(section, "tenant ", 7) == 0 ||
           strncmp(section, "gpu ", 4) == 0;
}

static const char *unknown(const char *section)
{
    static char text[256];

    snprintf(text, sizeof(text),
             "there is no section [%.100s] (only [slice NAME], [device-plugin], [softslice], [tenant NAME] and [gpu UUID])",
             section);
    return text;
}

static const char *on_section(void *context, const char *section, unsigned line)
{
    struct reading *reading = context;

    finish(reading);
    if (strncmp(section, "slice ", 6) != 0)
        return is_other(section) ? NULL : unknown(section);
    memset(&reading->slice, 0, sizeof(reading->slice));
    reading->slice.line = line;
    reading->in_slice = true;
    reading->limited = false;
    reading->slices++;
    snprintf(reading->slice.budget.name, sizeof(reading->slice.budget.name), "%s", section + 6);
    return NULL;
}

static const char *on_value(void *context, const char *key, const char *value, unsigned line)
{
    static const char *const taken[] = {"vram",     "compute",     "weight", "mode",    "managed",  "spill",
                                        "headroom", "keep_asleep", "period", "quantum", "max_stall"};
    struct reading *reading = context;

    (void)line;
    if (!reading->in_slice)
        return NULL;
    if (strcmp(key, "replicas") == 0) {
        char *end;
        unsigned long count = strtoul(value, &end, 10);

        if (*value < '0' || *value > '9' || *end || count < 1 || count > REPLICAS_MAX)
            return "replicas is a whole number from 1 to 1000";
        reading->slice.replicas = (unsigned)count;
        return NULL;
    }
    for (unsigned i = 0; i < sizeof(taken) / sizeof(*taken); i++) {
        if (strcmp(key, taken[i]) != 0)
            continue;
        reading->limited |= i < 3;
        if (i < 2)
            snprintf(i ? reading->slice.compute : reading->slice.vram, CDI_AMOUNT_MAX, "%s", value);
        reading->slice.weighted |= i == 2;
        return cdi_limit(&reading->slice.budget, reading->error, "%s = %s\n", key, value) ? "too many limits" : NULL;
    }
    return "a slice has no such key (vram, compute, weight, mode, replicas, ...)";
}

static void on_error(void *context, unsigned line, const char *what)
{
    fail_at(context, line, what);
}

int cdi_slices_read(struct ini_file *file, const char *path, cdi_slice_found *found, void *context, struct cli_error *error)
{
    static const struct ini_events events = {on_section, on_value, on_error};
    struct reading reading = {.found = found, .context = context, .error = error, .path = path};

    ini_file_parse(file, &events, &reading);
    finish(&reading);
    return *error->text ? -1 : (int)reading.slices;
}

/* ---- as budgets */

static void add_slice(void *context, const struct cdi_slice *slice, const char *path, struct cli_error *error)
{
    char said_by[PATH_MAX + 32], name[2 * CONFIG_TENANT_MAX];

    snprintf(said_by, sizeof(said_by), "%s:%u: slice", path, slice->line);
    for (unsigned i = 0; i < (slice->replicas ? slice->replicas : 1); i++) {
        struct cdi_budget *budget;

        snprintf(name, sizeof(name), slice->replicas ? "%s-%u" : "%s", slice->budget.name, i);
        budget = cdi_add(context, name, said_by, error);
        if (!budget)
            return;
        memcpy(budget->limits, slice->budget.limits, sizeof(budget->limits));
    }
}

int cdi_slices(struct cdi_budgets *budgets, const char *path, struct cli_error *error)
{
    struct ini_file file;
    const char *what;
    int result;

    if (ini_file_open(&file, path, &what) < 0)
        return cli_fail(error, -1, "cdi: --slices %s: %s", path, what);
    result = cdi_slices_read(&file, path, add_slice, budgets, error);
    ini_file_close(&file);
    if (result == 0)
        return cli_fail(error, -1, "cdi: --slices %s: there is no [slice NAME] section in it", path);
    return result < 0 ? -1 : 0;
}
