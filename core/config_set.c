/* SPDX-License-Identifier: Apache-2.0 */
/* One value at a time: is its text good, and does it count? */
#include <errno.h>

#include "config_internal.h"

#define WEIGHT_MAX 10000

void config_fail(struct config_loader *loader, const char *format, ...)
{
    va_list args;

    if (*loader->config->error)
        return;
    va_start(args, format);
    log_vformat(loader->config->error, sizeof(loader->config->error), format, args);
    va_end(args);
    for (char *c = loader->config->error; *c; c++) {
        if (text_is_control(*c))
            *c = '?';
    }
}

const char *config_quote(char quote[CONFIG_QUOTE_MAX], struct text text)
{
    size_t length = 0;

    while (length < text.length && length < CONFIG_QUOTE_MAX - 4) {
        char c = text.at[length];

        quote[length++] = text_is_control(c) || (c & 0x80) ? '?' : c;
    }
    log_format(quote + length, CONFIG_QUOTE_MAX - length, "%s", length < text.length ? "..." : "");
    return quote;
}

bool config_is_tenant(struct text name)
{
    if (name.length == 0 || name.length >= CONFIG_TENANT_MAX || name.at[0] == '.')
        return false;
    for (size_t i = 0; i < name.length; i++) {
        if (!text_is_alnum(name.at[i]) && name.at[i] != '.' && name.at[i] != '_' && name.at[i] != '-')
            return false;
    }
    return true;
}

static bool refuse(struct config_loader *loader, const char *reason)
{
    log_format(loader->reason, sizeof(loader->reason), "%s", reason);
    return false;
}

/* Precedence: a later source over an earlier one, and of an ini file's sections the tenant's. */
static unsigned rank_of(const struct config_at *at)
{
    static const uint8_t order[] = {[CONFIG_DEFAULT] = 0,  [CONFIG_NVIDIA] = 1,      [CONFIG_HAMI] = 2,
                                    [CONFIG_USER_INI] = 3, [CONFIG_ENVIRONMENT] = 4, [CONFIG_ADMIN] = 5};

    return 2 * order[at->source] + (at->section == CONFIG_FOR_TENANT);
}

bool config_claim(struct config_loader *loader, enum config_key key, const struct config_at *at)
{
    unsigned rank = rank_of(at);

    if (rank < loader->rank[key])
        return false;
    loader->rank[key] = (uint8_t)rank;
    loader->config->from[key].source = (uint8_t)at->source;
    loader->config->from[key].line = (uint16_t)at->line;
    log_format(loader->config->from[key].name, CONFIG_NAME_MAX, "%s", at->name);
    return true;
}

static bool same_device(const struct units_device *a, const struct units_device *b)
{
    if (a->kind != b->kind)
        return false;
    if (a->kind == UNITS_DEVICE_UUID)
        return memcmp(a->uuid, b->uuid, sizeof(a->uuid)) == 0;
    return a->kind == UNITS_DEVICE_ALL || a->ordinal == b->ordinal;
}

bool config_add_rule(struct config_loader *loader, struct config_rules *rules, const struct units_device *device,
                     const struct units_amount *amount, const struct config_at *at)
{
    struct config_rule rule = {.device = *device,
                               .amount = *amount,
                               .source = (uint8_t)at->source,
                               .section = (uint8_t)at->section,
                               .line = (uint16_t)at->line};

    rule.specificity = (at->section == CONFIG_FOR_TENANT ? 1 : 0) + (device->kind == UNITS_DEVICE_ALL ? 0 : 2);
    for (unsigned i = 0; i < rules->count; i++) {
        const struct config_rule *other = &rules->rule[i];

        if (other->source == rule.source && other->specificity == rule.specificity && same_device(&other->device, device))
            return refuse(loader, device->kind == UNITS_DEVICE_ALL ? "two limits for all devices" : "two limits for one device");
    }
    if (rules->count == CONFIG_RULES_MAX)
        return refuse(loader, "more than 64 limits");
    rules->rule[rules->count++] = rule;
    return true;
}

static bool parse_limit(struct config_loader *loader, enum config_key key, struct text text, struct units_amount *amount)
{
    int rc = units_parse_amount(text.at, text.length, amount);

    if (rc == 0 && (key == CONFIG_VRAM || amount->kind == UNITS_PERCENT))
        return true;
    if (key == CONFIG_COMPUTE)
        return refuse(loader, rc == -ERANGE ? "a share must be above 0% and at most 100%"
                                            : "not a share of GPU time (write 30%, or per device 0=30%)");
    if (rc == -ERANGE)
        return refuse(loader, "out of range: a limit is above 0, and at most 100% or 2^63-1 bytes");
    text = text_trim(text);
    if (text.length > 2 && text_lower(text.at[text.length - 1]) == 'b' &&
        text_find((struct text){"kmgt", 4}, text_lower(text.at[text.length - 2])) < 4)
        return refuse(loader, "not a size: KB, MB, GB and TB are ambiguous, write GiB");
    return refuse(loader, "not a size or percentage (write 20GiB, 512MiB, 25%, or per device 0=20GiB,GPU-<uuid>=25%)");
}

/* "20GiB" or "0=20GiB,GPU-<uuid>=25%", one element of which may be for all other devices. */
static bool parse_limits(struct config_loader *loader, enum config_key key, struct text value, const struct config_at *at,
                         struct config_rules *rules)
{
    struct text rest = value;

    for (;;) {
        struct text element = {rest.at, text_find(rest, ',')};
        size_t equals = text_find(element, '=');
        struct units_device device = {.kind = UNITS_DEVICE_ALL};
        struct units_amount amount;
        bool more = element.length < rest.length;

        rest = (struct text){rest.at + element.length + more, rest.length - element.length - more};
        if (equals < element.length) {
            if (units_parse_device(element.at, equals, &device) < 0)
                return refuse(loader, "not a device (write its ordinal, or GPU-<uuid> as nvidia-smi -L prints it)");
            if (at->section == CONFIG_FOR_GPU)
                return refuse(loader, "a [gpu] section takes one limit, without a device");
            if (at->source == CONFIG_ADMIN && device.kind == UNITS_DEVICE_ORDINAL)
                return refuse(loader, "the admin's file names devices by UUID: an ordinal depends on the process");
            element = (struct text){element.at + equals + 1, element.length - equals - 1};
        } else if (at->section == CONFIG_FOR_GPU) {
            device = at->device;
        }
        if (!parse_limit(loader, key, element, &amount) || !config_add_rule(loader, rules, &device, &amount, at))
            return false;
        if (!more)
            return true;
    }
}

static bool set_limits(struct config_loader *loader, enum config_key key, struct text value, const struct config_at *at, bool apply)
{
    struct config_rules *rules = key == CONFIG_VRAM ? &loader->config->vram : &loader->config->compute;
    struct config_rules unused;

    unused.count = 0;
    if (!parse_limits(loader, key, value, at, apply ? rules : &unused))
        return false;
    if (apply)
        config_claim(loader, key, at);
    return true;
}

/* Digits alone. Huge values come out as some large one: every caller has a maximum. */
static bool parse_integer(struct text text, uint64_t *value)
{
    *value = 0;
    for (size_t i = 0; i < text.length; i++) {
        if (!text_is_digit(text.at[i]))
            return false;
        if (*value < UINT64_MAX / 100)
            *value = *value * 10 + (uint64_t)(text.at[i] - '0');
    }
    return text.length > 0;
}

static bool set_weight(struct config_loader *loader, struct text value, const struct config_at *at, bool apply)
{
    uint64_t weight;

    if (!parse_integer(value, &weight) || weight < 1 || weight > WEIGHT_MAX)
        return refuse(loader, "a weight is a whole number from 1 to 10000");
    if (!apply)
        return true;
    /* The admin's is a maximum, so both are kept until config_load() takes the smaller. */
    if (at->source == CONFIG_ADMIN) {
        if (rank_of(at) >= loader->admin_weight_rank) {
            loader->admin_weight = (uint32_t)weight;
            loader->admin_weight_rank = (uint8_t)rank_of(at);
            loader->admin_weight_line = at->line;
            log_format(loader->admin_weight_name, CONFIG_NAME_MAX, "%s", at->name);
        }
    } else if (config_claim(loader, CONFIG_WEIGHT, at)) {
        loader->own_weight = (uint32_t)weight;
    }
    return true;
}

static bool set_time(struct config_loader *loader, enum config_key key, struct text value, const struct config_at *at, bool apply)
{
    struct config *config = loader->config;
    const struct {
        uint64_t *us, least, most;
        const char *range;
    } all[] = {{&config->period_us, 1000, 10000000, "a period is from 1ms to 10s"},
               {&config->quantum_us, 1000, 100000, "a quantum is from 1ms to 100ms"},
               {&config->max_stall_us, 10000, 60000000, "the longest stall is from 10ms to 60s"}},
      *time = &all[key == CONFIG_PERIOD    ? 0
                   : key == CONFIG_QUANTUM ? 1
                                           : 2];
    size_t digits = 0;
    uint64_t number, factor;
    struct text unit;

    while (digits < value.length && text_is_digit(value.at[digits]))
        digits++;
    unit = text_trim((struct text){value.at + digits, value.length - digits});
    factor = text_is(unit, "us") ? 1 : text_is(unit, "ms") ? 1000 : text_is(unit, "s") ? 1000000 : 0;
    if (!factor || !parse_integer((struct text){value.at, digits}, &number))
        return refuse(loader, "not a time (write 1500us, 100ms or 1s, without a fraction)");
    if (number > time->most || number * factor < time->least || number * factor > time->most)
        return refuse(loader, time->range);
    if (apply && config_claim(loader, key, at))
        *time->us = number * factor;
    return true;
}

static bool set_headroom(struct config_loader *loader, struct text value, const struct config_at *at, bool apply)
{
    uint64_t bytes = 0;
    int rc = text_is(value, "0") ? 0 : units_parse_size(value.at, value.length, &bytes);

    if (rc < 0)
        return refuse(loader, rc == -ERANGE ? "out of range: at most 2^63-1 bytes" : "not a size (write 512MiB or 1GiB, or 0)");
    if (apply && config_claim(loader, CONFIG_HEADROOM, at))
        loader->config->headroom = bytes;
    return true;
}

static bool set_choice(struct config_loader *loader, enum config_key key, struct text value, const struct config_at *at, bool apply)
{
    const char *const *words = config_choices(key);
    struct config *config = loader->config;
    unsigned choice = 0;

    while (words[choice] && !text_is(value, words[choice]))
        choice++;
    if (!words[choice]) {
        log_format(loader->reason, sizeof(loader->reason), "not one of");
        for (choice = 0; words[choice]; choice++) {
            size_t length = strlen(loader->reason);

            log_format(loader->reason + length, sizeof(loader->reason) - length, "%s %s", choice ? "," : "", words[choice]);
        }
        return false;
    }
    if (!apply || !config_claim(loader, key, at))
        return true;
    if (key == CONFIG_MODE)
        config->mode = choice;
    else if (key == CONFIG_ON_ERROR)
        config->on_error = choice;
    else if (key == CONFIG_MANAGED)
        config->managed = choice;
    else if (key == CONFIG_SPILL)
        config->spill = choice;
    else if (key == CONFIG_KEEP_ASLEEP)
        config->keep_asleep = choice;
    else
        config->log = choice;
    return true;
}

static bool set_tenant(struct config_loader *loader, struct text value, const struct config_at *at, bool apply)
{
    if (!config_is_tenant(value))
        return refuse(loader, "not a tenant's name (1 to 63 of A-Z a-z 0-9 . _ -, not starting with a dot)");
    if (apply && config_claim(loader, CONFIG_TENANT, at)) {
        loader->config->tenant_named = true;
        memcpy(loader->config->tenant, value.at, value.length);
        loader->config->tenant[value.length] = 0;
    }
    return true;
}

static bool set_path(struct config_loader *loader, enum config_key key, struct text value, const struct config_at *at, bool apply)
{
    struct config *config = loader->config;
    char *field = key == CONFIG_STATE_DIR ? config->state_dir : key == CONFIG_LOG_FILE ? config->log_file : config->user_ini;

    if (value.length >= PATH_MAX)
        return refuse(loader, "the path is too long");
    if (key == CONFIG_STATE_DIR && value.at[0] != '/')
        return refuse(loader, "must be an absolute path: processes of one tenant may run in different directories");
    if (apply && config_claim(loader, key, at)) {
        memcpy(field, value.at, value.length);
        field[value.length] = 0;
    }
    return true;
}

static bool set_boolean(struct config_loader *loader, struct text value, const struct config_at *at, bool apply)
{
    bool yes = text_is(value, "1") || text_is(value, "true") || text_is(value, "yes");

    if (!yes && !text_is(value, "0") && !text_is(value, "false") && !text_is(value, "no"))
        return refuse(loader, "not one of 0, 1, false, true, no, yes");
    if (apply && config_claim(loader, CONFIG_DISABLE, at))
        loader->config->disable = yes;
    return true;
}

bool config_set(struct config_loader *loader, enum config_key key, struct text value, const struct config_at *at, bool apply)
{
    if (config_type_of(key) != CONFIG_TYPE_path)
        value = text_trim(value);
    switch (config_type_of(key)) {
    case CONFIG_TYPE_limits:
        return set_limits(loader, key, value, at, apply);
    case CONFIG_TYPE_integer:
        return set_weight(loader, value, at, apply);
    case CONFIG_TYPE_choice:
        return set_choice(loader, key, value, at, apply);
    case CONFIG_TYPE_name:
        return set_tenant(loader, value, at, apply);
    case CONFIG_TYPE_path:
        return set_path(loader, key, value, at, apply);
    case CONFIG_TYPE_size:
        return set_headroom(loader, value, at, apply);
    case CONFIG_TYPE_time:
        return set_time(loader, key, value, at, apply);
    case CONFIG_TYPE_boolean:
        return set_boolean(loader, value, at, apply);
    }
    return refuse(loader, "not known");
}
