/* SPDX-License-Identifier: Apache-2.0 */
/* The environment: SOFTSLICE_* variables, and those of other enforcers in their own grammar. */
#include "config_internal.h"

#define PREFIX        "SOFTSLICE_"
#define ORDINALS      32 /* CUDA_DEVICE_MEMORY_LIMIT_0 to _31 */
#define HAMI_MEMORY   "CUDA_DEVICE_MEMORY_LIMIT"
#define HAMI_SM       "CUDA_DEVICE_SM_LIMIT"
#define NVIDIA_MEMORY "NVIDIA_GPU_MEMORY_LIMIT"

const char *config_variable(const struct config_loader *loader, const char *name)
{
    const char *value = loader->input->getenv(loader->input->context, name);

    return value && *value ? value : NULL;
}

void config_fail_variable(struct config_loader *loader, const char *name, const char *value)
{
    char quote[CONFIG_QUOTE_MAX];

    config_fail(loader, "%s='%s': %s", name, config_quote(quote, text_of(value)), loader->reason);
}

static bool starts_with(struct text text, const char *prefix)
{
    size_t length = strlen(prefix);

    return text.length >= length && memcmp(text.at, prefix, length) == 0;
}

/* Kubernetes and Docker links put variables of this shape into every container beside a service of that name: for a service
 * "softslice-exporter", SOFTSLICE_EXPORTER_SERVICE_HOST, SOFTSLICE_EXPORTER_PORT and SOFTSLICE_EXPORTER_PORT_80_TCP_ADDR. */
static bool is_service_link(struct text name)
{
    static const char *const marks[] = {"SERVICE_HOST", "SERVICE_PORT", "PORT"};

    for (unsigned m = 0; m < 3; m++) {
        size_t length = strlen(marks[m]);

        for (size_t i = 0; i + length <= name.length; i++) {
            bool starts = i == 0 || name.at[i - 1] == '_';
            bool ends = i + length == name.length || name.at[i + length] == '_';

            if (starts && ends && memcmp(name.at + i, marks[m], length) == 0)
                return true;
        }
    }
    return false;
}

/* Refuse a SOFTSLICE_* name that is none: a misspelt limit must not mean no limit. */
static void check_name(struct config_loader *loader, struct text name)
{
    struct text key = {name.at + sizeof(PREFIX) - 1, name.length - (sizeof(PREFIX) - 1)};
    char quote[CONFIG_QUOTE_MAX];
    enum config_key nearest;

    for (unsigned i = 0; i < CONFIG_KEYS; i++) {
        if (strlen(config_keys[i].variable) == name.length && memcmp(config_keys[i].variable, name.at, name.length) == 0)
            return;
    }
    /* SOFTSLICE_LIBRARY is for the command `softslice`, and no setting. */
    if (starts_with(key, "TEST_") || text_is(key, "LIBRARY") || is_service_link(key))
        return;
    nearest = config_nearest(key);
    if (nearest == CONFIG_KEYS)
        config_fail(loader, "%s: there is no such setting", config_quote(quote, name));
    else
        config_fail(loader, "%s: there is no such setting; did you mean %s?", config_quote(quote, name),
                    config_keys[nearest].variable);
}

/* Refuse CUDA_DEVICE_MEMORY_LIMIT_x where x is no ordinal that is looked for below. */
static void check_alias(struct config_loader *loader, struct text name, const char *alias)
{
    struct text suffix = {name.at + strlen(alias), name.length - strlen(alias)};
    struct units_device device;
    char quote[CONFIG_QUOTE_MAX];

    if (suffix.length == 0)
        return;
    if (suffix.at[0] == '_' && units_parse_device(suffix.at + 1, suffix.length - 1, &device) == 0 &&
        device.kind == UNITS_DEVICE_ORDINAL && device.ordinal < ORDINALS && !text_is_blank(suffix.at[1]) &&
        !text_is_blank(suffix.at[suffix.length - 1]))
        return;
    config_fail(loader, "%s: not a device from 0 to 31", config_quote(quote, name));
}

static void check_names(struct config_loader *loader)
{
    for (char **entry = loader->input->environment; entry && *entry; entry++) {
        struct text name = text_of(*entry);
        size_t equals = text_find(name, '=');

        if (equals + 1 >= name.length) /* empty: counts as unset */
            continue;
        name.length = equals;
        if (starts_with(name, PREFIX))
            check_name(loader, name);
        else if (starts_with(name, HAMI_MEMORY))
            check_alias(loader, name, HAMI_MEMORY);
        else if (starts_with(name, HAMI_SM))
            check_alias(loader, name, HAMI_SM);
    }
}

void config_read_environment(struct config_loader *loader)
{
    for (unsigned key = 0; key < CONFIG_KEYS; key++) {
        const char *name = config_keys[key].variable;
        const char *value = config_variable(loader, name);
        struct config_at at = {.source = CONFIG_ENVIRONMENT, .name = name};

        if (value && !config_set(loader, key, text_of(value), &at, true))
            config_fail_variable(loader, name, value);
    }
    check_names(loader);
}

/* A whole number of the aliases' kind: digits without leading zeros (HAMi would read octal). */
static bool parse_plain(struct text text, uint64_t *value)
{
    *value = 0;
    if (text.length == 0 || (text.length > 1 && text.at[0] == '0'))
        return false;
    for (size_t i = 0; i < text.length; i++) {
        if (!text_is_digit(text.at[i]) || __builtin_mul_overflow(*value, 10, value) ||
            __builtin_add_overflow(*value, (uint64_t)(text.at[i] - '0'), value))
            return false;
    }
    return true;
}

/* HAMi's sizes: a whole number and one of g, m, k or nothing. HAMi itself reads what it does not understand as a number of bytes. */
static bool parse_hami_size(struct text text, uint64_t *bytes)
{
    static const char letters[] = "kmg";
    size_t unit = text.length ? text_find((struct text){letters, 3}, text_lower(text.at[text.length - 1])) : 3;
    unsigned shift = unit < 3 ? 10 * ((unsigned)unit + 1) : 0;

    text.length -= unit < 3;
    if (!parse_plain(text, bytes) || *bytes > (uint64_t)INT64_MAX >> shift)
        return false;
    *bytes <<= shift;
    return true;
}

static void read_hami_memory(struct config_loader *loader, const char *name, const struct config_at *at)
{
    const char *value = config_variable(loader, name);
    struct units_amount amount = {.kind = UNITS_BYTES};

    if (!value)
        return;
    if (!parse_hami_size(text_of(value), &amount.value)) {
        log_format(loader->reason, sizeof(loader->reason), "not a size in HAMi's grammar (a whole number and g, m, k or nothing)");
        config_fail_variable(loader, name, value);
        return;
    }
    /* 0 says nothing: in HAMi too, the variable without an ordinal then holds. */
    if (amount.value == 0)
        return;
    if (!config_add_rule(loader, &loader->config->vram, &at->device, &amount, at))
        config_fail_variable(loader, name, value);
    else
        config_claim(loader, CONFIG_VRAM, at);
}

static void read_hami_share(struct config_loader *loader, const char *name, const struct config_at *at)
{
    const char *value = config_variable(loader, name);
    struct units_amount amount = {.kind = UNITS_PERCENT};
    uint64_t percent;

    if (!value)
        return;
    if (!parse_plain(text_of(value), &percent) || percent > 100) {
        log_format(loader->reason, sizeof(loader->reason), "not a whole number from 0 to 100");
        config_fail_variable(loader, name, value);
        return;
    }
    if (percent == 0)
        return;
    amount.value = percent * 100;
    /* 100 is "off", but for one device it stands against a smaller variable for all. */
    if (percent == 100)
        amount.kind = UNITS_OFF;
    if (!config_add_rule(loader, &loader->config->compute, &at->device, &amount, at))
        config_fail_variable(loader, name, value);
    else if (percent != 100)
        config_claim(loader, CONFIG_COMPUTE, at);
}

static void read_nvidia(struct config_loader *loader)
{
    struct config_at at = {.source = CONFIG_NVIDIA, .name = NVIDIA_MEMORY};
    const char *value = config_variable(loader, NVIDIA_MEMORY);
    struct units_amount amount = {.kind = UNITS_BYTES};

    if (!value)
        return;
    if (!parse_plain(text_of(value), &amount.value) || amount.value == 0 || amount.value > INT64_MAX >> 20) {
        log_format(loader->reason, sizeof(loader->reason), "not a whole number of MiB above 0");
        config_fail_variable(loader, NVIDIA_MEMORY, value);
        return;
    }
    amount.value <<= 20;
    if (!config_add_rule(loader, &loader->config->vram, &at.device, &amount, &at))
        config_fail_variable(loader, NVIDIA_MEMORY, value);
    else
        config_claim(loader, CONFIG_VRAM, &at);
}

/* Whether any of HAMi's variables is there: with the environment at hand, one pass instead of 66 searches. */
static bool has_hami(const struct config_loader *loader)
{
    char **entry = loader->input->environment;

    while (entry && *entry && !starts_with(text_of(*entry), "CUDA_DEVICE_"))
        entry++;
    return !entry || *entry;
}

void config_read_aliases(struct config_loader *loader)
{
    struct config_at at = {.source = CONFIG_HAMI, .name = HAMI_MEMORY};
    char name[sizeof(HAMI_MEMORY) + 16];
    bool free;

    read_nvidia(loader);
    if (!has_hami(loader))
        return;
    free = config_hami_frees_compute(loader);
    read_hami_memory(loader, HAMI_MEMORY, &at);
    at.name = HAMI_SM;
    if (!free)
        read_hami_share(loader, HAMI_SM, &at);
    at.name = name;
    at.device.kind = UNITS_DEVICE_ORDINAL;
    for (at.device.ordinal = 0; at.device.ordinal < ORDINALS; at.device.ordinal++) {
        log_format(name, sizeof(name), HAMI_MEMORY "_%u", at.device.ordinal);
        read_hami_memory(loader, name, &at);
        log_format(name, sizeof(name), HAMI_SM "_%u", at.device.ordinal);
        if (!free)
            read_hami_share(loader, name, &at);
    }
    config_read_hami(loader);
}
