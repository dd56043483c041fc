/* SPDX-License-Identifier: Apache-2.0 */
/* The table of settings, and questions to a loaded configuration. */
#include <errno.h>

#include "config_internal.h"

const struct config_key_info config_keys[CONFIG_KEYS] = {
#define CONFIG_KEY(key, NAME, type, fallback, help) {#key, "SOFTSLICE_" #NAME, fallback, help},
#include "softslice/config.def"
};

enum config_type config_type_of(enum config_key key)
{
    static const uint8_t types[CONFIG_KEYS] = {
#define CONFIG_KEY(key, NAME, type, fallback, help) CONFIG_TYPE_##type,
#include "softslice/config.def"
    };

    return types[key];
}

const char *const *config_choices(enum config_key key)
{
    static const char *const none[] = {NULL};
    static const char *const mode[] = {"cap", "share", NULL};
    static const char *const on_error[] = {"closed", "open", NULL};
    static const char *const managed[] = {"charge", "resident", "forbid", NULL};
    static const char *const spill[] = {"off", "host", NULL};
    static const char *const keep_asleep[] = {"off", "on", NULL};
    static const char *const log[] = {"off", "error", "warn", "info", "debug", NULL};

    switch (key) {
    case CONFIG_MODE:
        return mode;
    case CONFIG_ON_ERROR:
        return on_error;
    case CONFIG_MANAGED:
        return managed;
    case CONFIG_SPILL:
        return spill;
    case CONFIG_KEEP_ASLEEP:
        return keep_asleep;
    case CONFIG_LOG:
        return log;
    default:
        return none;
    }
}

enum config_key config_find(struct text name)
{
    unsigned key = 0;

    while (key < CONFIG_KEYS &&
           (strlen(config_keys[key].key) != name.length || memcmp(config_keys[key].key, name.at, name.length) != 0))
        key++;
    return key;
}

/* How many letters must be put in, taken out or changed to come from one name to the other. */
static unsigned distance(struct text a, struct text b)
{
    unsigned row[32];

    for (unsigned j = 0; j <= b.length; j++)
        row[j] = j;
    for (unsigned i = 0; i < a.length; i++) {
        unsigned diagonal = row[0];

        row[0] = i + 1;
        for (unsigned j = 0; j < b.length; j++) {
            unsigned change = diagonal + (text_lower(a.at[i]) != text_lower(b.at[j]));
            unsigned other = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;

            diagonal = row[j + 1];
            row[j + 1] = change < other ? change : other;
        }
    }
    return row[b.length];
}

enum config_key config_nearest(struct text name)
{
    enum config_key nearest = CONFIG_KEYS;
    unsigned least = 4;

    if (name.length > 31)
        return CONFIG_KEYS;
    for (unsigned key = 0; key < CONFIG_KEYS; key++) {
        struct text candidate = text_of(config_keys[key].key);
        unsigned d = distance(name, candidate);

        if (d < least && d < candidate.length) {
            nearest = key;
            least = d;
        }
    }
    return nearest;
}

static bool is_for(const struct config_rule *rule, const struct config_device *device)
{
    switch (rule->device.kind) {
    case UNITS_DEVICE_ORDINAL:
        return device->ordinal >= 0 && (unsigned)device->ordinal == rule->device.ordinal;
    case UNITS_DEVICE_UUID:
        return memcmp(rule->device.uuid, device->uuid, sizeof(device->uuid)) == 0;
    case UNITS_DEVICE_ALL:
        break;
    }
    return true;
}

/* The most specific rule of one source for a device; of two equally specific ones (an ordinal and a UUID) the smaller. */
static const struct config_rule *rule_of(const struct config_rules *rules, enum config_source source,
                                         const struct config_device *device, uint64_t whole)
{
    const struct config_rule *best = NULL;

    for (unsigned i = 0; i < rules->count; i++) {
        const struct config_rule *rule = &rules->rule[i];

        if (rule->source != source || !is_for(rule, device))
            continue;
        if (!best || rule->specificity > best->specificity ||
            (rule->specificity == best->specificity && units_bytes_of(&rule->amount, whole) < units_bytes_of(&best->amount, whole)))
            best = rule;
    }
    return best;
}

static uint64_t limit_of(const struct config_rule *rule, uint64_t whole)
{
    return rule ? units_bytes_of(&rule->amount, whole) : UINT64_MAX;
}

/* The process's own limit: its first source that says anything about the device, and no more than other enforcers give. */
static uint64_t own_limit(const struct config_rules *rules, const struct config_device *device, uint64_t whole,
                          const struct config_rule **rule)
{
    static const enum config_source enforcers[] = {CONFIG_HAMI, CONFIG_NVIDIA};
    const struct config_rule *own = rule_of(rules, CONFIG_ENVIRONMENT, device, whole);

    if (!own)
        own = rule_of(rules, CONFIG_USER_INI, device, whole);
    for (unsigned i = 0; i < 2; i++) {
        const struct config_rule *other = rule_of(rules, enforcers[i], device, whole);

        if (limit_of(other, whole) < limit_of(own, whole))
            own = other;
    }
    if (rule)
        *rule = own;
    return limit_of(own, whole);
}

/* The admin's limit: what the tenant's section says and what the GPU's says both hold, so the smaller does; [softslice] is for whom neither
 * names. */
static uint64_t admin_limit(const struct config_rules *rules, const struct config_device *device, uint64_t whole,
                            const struct config_rule **rule)
{
    const struct config_rule *admin = rule_of(rules, CONFIG_ADMIN, device, whole);

    for (unsigned i = 0; i < rules->count; i++) {
        const struct config_rule *other = &rules->rule[i];
        bool tenants = other->section == CONFIG_FOR_TENANT;

        /* The best rule stands for its own kind; the other kind's count beside it, its general ones only where no special one is. */
        if (other->source == CONFIG_ADMIN && other->specificity && is_for(other, device) &&
            tenants != (admin->section == CONFIG_FOR_TENANT) && limit_of(other, whole) < limit_of(admin, whole))
            admin = other;
    }
    if (rule)
        *rule = admin;
    return limit_of(admin, whole);
}

uint64_t config_vram_own(const struct config *config, const struct config_device *device, const struct config_rule **rule)
{
    return own_limit(&config->vram, device, device->physical, rule);
}

uint64_t config_vram_admin(const struct config *config, const struct config_device *device, const struct config_rule **rule)
{
    return admin_limit(&config->vram, device, device->physical, rule);
}

uint32_t config_compute_own(const struct config *config, const struct config_device *device, const struct config_rule **rule)
{
    uint64_t share = own_limit(&config->compute, device, 10000, rule);

    return share < 10000 ? (uint32_t)share : 10000;
}

uint32_t config_compute_admin(const struct config *config, const struct config_device *device, const struct config_rule **rule)
{
    uint64_t share = admin_limit(&config->compute, device, 10000, rule);

    return share < 10000 ? (uint32_t)share : 10000;
}

static bool has_limit(const struct config_rules *rules)
{
    for (unsigned i = 0; i < rules->count; i++) {
        if (rules->rule[i].amount.kind != UNITS_OFF)
            return true;
    }
    return false;
}

bool config_arms_vram(const struct config *config)
{
    return !config->disable && (config->tenant_named || has_limit(&config->vram));
}

bool config_arms_compute(const struct config *config)
{
    return !config->disable && (config->weight_set || has_limit(&config->compute));
}

static bool is_present(const struct config_rule *rule, const struct config_device *devices, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (is_for(rule, &devices[i]))
            return true;
    }
    return false;
}

static bool check_rules(struct config *config, enum config_key key, const struct config_rules *rules,
                        const struct config_device *devices, unsigned count)
{
    const struct config_rule *absent = NULL, *limit;
    bool unlimited = false;
    char value[UNITS_TEXT_MAX * 2], origin[CONFIG_ERROR_MAX - 200];

    for (unsigned i = 0; i < count; i++) {
        own_limit(rules, &devices[i], key == CONFIG_VRAM ? devices[i].physical : 10000, &limit);
        unlimited |= !limit;
    }
    for (unsigned i = 0; i < rules->count && !absent; i++) {
        const struct config_rule *rule = &rules->rule[i];

        if ((rule->source == CONFIG_ENVIRONMENT || (rule->source == CONFIG_USER_INI && unlimited)) &&
            !is_present(rule, devices, count))
            absent = rule;
    }
    if (!absent)
        return true;
    log_format(config->error, sizeof(config->error), "%s: %s: there is no such GPU here%s",
               config_rule_origin(config, key, absent, origin, sizeof(origin)), config_rule_value(absent, value, sizeof(value)),
               absent->source == CONFIG_USER_INI ? ", and one that is here has no limit" : "");
    return false;
}

int config_check_devices(struct config *config, const struct config_device *devices, unsigned count)
{
    if (config->disable || (check_rules(config, CONFIG_VRAM, &config->vram, devices, count) &&
                            check_rules(config, CONFIG_COMPUTE, &config->compute, devices, count)))
        return 0;
    return -EINVAL;
}
