/* SPDX-License-Identifier: Apache-2.0 */
/* A loaded configuration as text: what `softslice config` prints. */
#include "config_internal.h"

static void append(char *text, unsigned size, const char *more)
{
    size_t length = strlen(text);

    log_format(text + length, size - length, "%s", more);
}

static void format_percent(char text[UNITS_TEXT_MAX], unsigned hundredths)
{
    unsigned whole = hundredths / 100, tenths = hundredths / 10 % 10, last = hundredths % 10;

    if (last)
        log_format(text, UNITS_TEXT_MAX, "%u.%u%u%%", whole, tenths, last);
    else if (tenths)
        log_format(text, UNITS_TEXT_MAX, "%u.%u%%", whole, tenths);
    else
        log_format(text, UNITS_TEXT_MAX, "%u%%", whole);
}

const char *config_rule_value(const struct config_rule *rule, char *text, unsigned size)
{
    char device[UNITS_TEXT_MAX] = "", amount[UNITS_TEXT_MAX] = "off";

    if (rule->device.kind == UNITS_DEVICE_ORDINAL)
        log_format(device, sizeof(device), "%u", rule->device.ordinal);
    else if (rule->device.kind == UNITS_DEVICE_UUID)
        units_format_uuid(device, rule->device.uuid);
    if (rule->amount.kind == UNITS_BYTES)
        units_format_size(amount, rule->amount.value);
    else if (rule->amount.kind == UNITS_PERCENT)
        format_percent(amount, (unsigned)rule->amount.value);
    log_format(text, size, "%s%s%s", device, *device ? "=" : "", amount);
    return text;
}

const char *config_rule_origin(const struct config *config, enum config_key key, const struct config_rule *rule, char *text,
                               unsigned size)
{
    switch (rule->source) {
    case CONFIG_USER_INI:
    case CONFIG_ADMIN:
        log_format(text, size, "%s:%u", rule->source == CONFIG_ADMIN ? config->admin_ini : config->user_ini, (unsigned)rule->line);
        if (rule->section == CONFIG_FOR_TENANT) {
            append(text, size, " [tenant ");
            append(text, size, config->tenant);
            append(text, size, "]");
        } else {
            append(text, size, rule->section == CONFIG_FOR_GPU ? " [gpu]" : " [softslice]");
        }
        break;
    case CONFIG_HAMI:
        log_format(text, size, "%s", key == CONFIG_VRAM ? "CUDA_DEVICE_MEMORY_LIMIT" : "CUDA_DEVICE_SM_LIMIT");
        if (rule->device.kind == UNITS_DEVICE_ORDINAL) {
            char ordinal[16];

            log_format(ordinal, sizeof(ordinal), "_%u", rule->device.ordinal);
            append(text, size, ordinal);
        }
        break;
    case CONFIG_NVIDIA:
        log_format(text, size, "NVIDIA_GPU_MEMORY_LIMIT");
        break;
    default:
        log_format(text, size, "%s", config_keys[key].variable);
    }
    return text;
}

static void format_rules(const struct config_rules *rules, char *text, unsigned size)
{
    char value[2 * UNITS_TEXT_MAX];

    for (unsigned i = 0; i < rules->count; i++) {
        if (i)
            append(text, size, ", ");
        append(text, size, config_rule_value(&rules->rule[i], value, sizeof(value)));
    }
    if (rules->count == 0)
        append(text, size, "none");
}

static void format_time(uint64_t us, char *text, unsigned size)
{
    if (us % 1000)
        log_format(text, size, "%lluus", (unsigned long long)us);
    else if (us % 1000000)
        log_format(text, size, "%llums", (unsigned long long)us / 1000);
    else
        log_format(text, size, "%llus", (unsigned long long)us / 1000000);
}

const char *config_value(const struct config *config, enum config_key key, char *text, unsigned size)
{
    char number[UNITS_TEXT_MAX];
    const char *word = "";

    if (size == 0)
        return text;
    *text = 0;
    switch (key) {
    case CONFIG_VRAM:
        format_rules(&config->vram, text, size);
        break;
    case CONFIG_COMPUTE:
        format_rules(&config->compute, text, size);
        break;
    case CONFIG_WEIGHT:
        log_format(text, size, "%u", config->weight);
        break;
    case CONFIG_MODE:
        word = config_choices(key)[config->mode];
        break;
    case CONFIG_TENANT:
        word = config->tenant_named ? config->tenant : config_keys[key].fallback;
        break;
    case CONFIG_STATE_DIR:
        word = *config->state_dir ? config->state_dir : config_keys[key].fallback;
        break;
    case CONFIG_CONFIG:
        word = *config->user_ini ? config->user_ini : config_keys[key].fallback;
        break;
    case CONFIG_ON_ERROR:
        word = config_choices(key)[config->on_error];
        break;
    case CONFIG_MANAGED:
        word = config_choices(key)[config->managed];
        break;
    case CONFIG_SPILL:
        word = config_choices(key)[config->spill];
        break;
    case CONFIG_HEADROOM:
        if (config->headroom)
            units_format_size(number, config->headroom);
        word = config->headroom ? number : config_keys[key].fallback;
        break;
    case CONFIG_KEEP_ASLEEP:
        word = config_choices(key)[config->keep_asleep];
        break;
    case CONFIG_PERIOD:
        format_time(config->period_us, text, size);
        break;
    case CONFIG_QUANTUM:
        format_time(config->quantum_us, text, size);
        break;
    case CONFIG_MAX_STALL:
        format_time(config->max_stall_us, text, size);
        break;
    case CONFIG_LOG:
        word = config_choices(key)[config->log];
        break;
    case CONFIG_LOG_FILE:
        word = *config->log_file ? config->log_file : config_keys[key].fallback;
        break;
    case CONFIG_DISABLE:
        word = config->disable ? "1" : "0";
        break;
    case CONFIG_KEYS:
        break;
    }
    append(text, size, word);
    return text;
}

const char *config_origin(const struct config *config, enum config_key key, char *text, unsigned size)
{
    switch (config->from[key].source) {
    case CONFIG_DEFAULT:
        log_format(text, size, "default");
        break;
    case CONFIG_USER_INI:
    case CONFIG_ADMIN:
        log_format(text, size, "%s:%u %s", config->from[key].source == CONFIG_ADMIN ? config->admin_ini : config->user_ini,
                   (unsigned)config->from[key].line, config->from[key].name);
        break;
    default:
        log_format(text, size, "%s", config->from[key].name);
    }
    return text;
}
