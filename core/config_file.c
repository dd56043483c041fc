/* SPDX-License-Identifier: Apache-2.0 */
/* Ini files: which sections there are, which keys each takes, and which of them count. */
#include "config_internal.h"
#include "softslice/ini.h"

enum section { SECTION_BAD, SECTION_ALL, SECTION_TENANT, SECTION_GPU, SECTION_SLICE, SECTION_OTHERS };

struct reading {
    struct config_loader *loader;
    const char *path;
    const char *tenant; /* apply this tenant's section alone; NULL: all but tenants' */
    struct config_at at;
    enum section section;
    char name[CONFIG_NAME_MAX]; /* "[tenant a]" */
    char what[CONFIG_REASON_MAX + CONFIG_QUOTE_MAX];
    bool apply, unnamed; /* unnamed: this is [tenant default] */
};

/* The keys that a section takes. [slice] is the device plugin's, which may know more keys than this library; all of [device-plugin] is. */
static bool takes(enum section section, enum config_key key)
{
    switch (key) {
    case CONFIG_VRAM:
    case CONFIG_COMPUTE:
        return true;
    case CONFIG_WEIGHT:
    case CONFIG_MODE:
    case CONFIG_MANAGED:
    case CONFIG_SPILL:
    case CONFIG_HEADROOM:
    case CONFIG_KEEP_ASLEEP:
    case CONFIG_PERIOD:
    case CONFIG_QUANTUM:
    case CONFIG_MAX_STALL:
        return section != SECTION_GPU;
    case CONFIG_CONFIG:
        return false;
    default:
        return section == SECTION_ALL;
    }
}

/* What follows "tenant " in "tenant a"; empty if the section is of another kind. */
static struct text after(const char *section, const char *kind)
{
    size_t length = strlen(kind);

    return strncmp(section, kind, length) == 0 ? text_of(section + length) : (struct text){"", 0};
}

static bool is_slice(struct text name)
{
    for (size_t i = 0; i < name.length; i++) {
        if (!text_is_alnum(name.at[i]) && name.at[i] != '.' && name.at[i] != '_' && name.at[i] != '-')
            return false;
    }
    return name.length > 0;
}

static const char *on_section(void *context, const char *section, unsigned line)
{
    struct reading *reading = context;
    struct text tenant = after(section, "tenant ");
    struct text gpu = after(section, "gpu ");
    struct text slice = after(section, "slice ");
    char quote[CONFIG_QUOTE_MAX];

    (void)line;
    reading->section = SECTION_BAD;
    reading->apply = reading->unnamed = false;
    reading->at.section = CONFIG_FOR_ALL;
    log_format(reading->name, sizeof(reading->name), "[%s]", section);
    if (strcmp(section, "softslice") == 0) {
        reading->section = SECTION_ALL;
        reading->apply = !reading->tenant;
    } else if (tenant.length) {
        if (!config_is_tenant(tenant))
            return "not a tenant's name (A-Z a-z 0-9 . _ -, not starting with a dot)";
        reading->section = SECTION_TENANT;
        reading->at.section = CONFIG_FOR_TENANT;
        reading->apply = reading->tenant && strcmp(tenant.at, reading->tenant) == 0;
        reading->unnamed = strcmp(tenant.at, CONFIG_TENANT_UNNAMED) == 0;
    } else if (gpu.length) {
        if (text_trim(gpu).length != gpu.length || units_parse_device(gpu.at, gpu.length, &reading->at.device) < 0 ||
            reading->at.device.kind != UNITS_DEVICE_UUID)
            return "a [gpu] section names a device by its UUID (GPU-<uuid> as nvidia-smi -L prints it)";
        reading->section = SECTION_GPU;
        reading->at.section = CONFIG_FOR_GPU;
        reading->apply = !reading->tenant;
    } else if (slice.length) {
        if (!is_slice(slice))
            return "not a slice's name (A-Z a-z 0-9 . _ -)";
        reading->section = SECTION_SLICE;
    } else if (strcmp(section, "device-plugin") == 0) {
        reading->section = SECTION_OTHERS;
    } else {
        log_format(reading->what, sizeof(reading->what),
                   "there is no section [%s] (only [softslice], [tenant NAME], [gpu UUID], [slice NAME] and [device-plugin])",
                   config_quote(quote, text_of(section)));
        return reading->what;
    }
    return NULL;
}

static const char *unknown_key(struct reading *reading, const char *name, enum config_key key)
{
    char quote[CONFIG_QUOTE_MAX];
    enum config_key nearest = config_nearest(text_of(name));

    if (key < CONFIG_KEYS)
        log_format(reading->what, sizeof(reading->what), "%s cannot be set %s", config_keys[key].key,
                   key == CONFIG_CONFIG ? "in a file" : "in this section");
    else if (nearest < CONFIG_KEYS)
        log_format(reading->what, sizeof(reading->what), "there is no key %s; did you mean %s?", config_quote(quote, text_of(name)),
                   config_keys[nearest].key);
    else
        log_format(reading->what, sizeof(reading->what), "there is no key %s", config_quote(quote, text_of(name)));
    return reading->what;
}

static const char *on_value(void *context, const char *name, const char *value, unsigned line)
{
    struct reading *reading = context;
    struct config_loader *loader = reading->loader;
    enum config_key key = config_find(text_of(name));
    char quote[CONFIG_QUOTE_MAX];

    if (reading->section == SECTION_BAD || reading->section == SECTION_OTHERS || (reading->tenant && !reading->apply))
        return NULL;
    if (key == CONFIG_KEYS || !takes(reading->section, key))
        return reading->section == SECTION_SLICE ? NULL : unknown_key(reading, name, key);
    reading->at.line = line;
    if (!config_set(loader, key, text_of(value), &reading->at, reading->apply)) {
        log_format(reading->what, sizeof(reading->what), "%s = '%s': %s", name, config_quote(quote, text_of(value)),
                   loader->reason);
        return reading->what;
    }
    if (reading->at.source == CONFIG_ADMIN && reading->section != SECTION_SLICE && (key == CONFIG_VRAM || key == CONFIG_COMPUTE)) {
        loader->admin_limits = true;
        loader->admin_limits_unnamed |= reading->unnamed;
    }
    return NULL;
}

static void on_error(void *context, unsigned line, const char *what)
{
    struct reading *reading = context;

    config_fail(reading->loader, "%s:%u: %s", reading->path, line, what);
}

static void read_sections(struct config_loader *loader, struct ini_file *file, enum config_source source, const char *tenant)
{
    static const struct ini_events events = {on_section, on_value, on_error};
    struct reading reading = {.loader = loader, .tenant = tenant, .at.source = source};

    reading.path = source == CONFIG_ADMIN ? loader->config->admin_ini : loader->config->user_ini;
    reading.at.name = reading.name;
    if (!ini_file_parse(file, &events, &reading) && source == CONFIG_ADMIN)
        loader->admin_bad = true;
}

void config_read_file(struct config_loader *loader, struct ini_file *file, enum config_source source)
{
    read_sections(loader, file, source, NULL);
}

void config_read_tenant(struct config_loader *loader, struct ini_file *file, enum config_source source, const char *tenant)
{
    read_sections(loader, file, source, tenant);
}
