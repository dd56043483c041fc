/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice config`: each setting as a program started from here would see it, and who said it. */
#include <getopt.h>
#include <string.h>

#include "cli.h"
#include "observe.h"
#include "softslice/native.h"

#define VALUE_MAX  (CONFIG_RULES_MAX * 2 * UNITS_TEXT_MAX)
#define ORIGIN_MAX (PATH_MAX + 256)

static const char *get_variable(void *context, const char *name)
{
    (void)context;
    return getenv(name);
}

int cli_config(struct config *config, bool preloaded)
{
    struct config_input input = {.getenv = get_variable, .environment = environ, .admin_file = CONFIG_ADMIN_FILE};

    if (!preloaded)
        input.is_drop_in = observe_in_hamis_place;
    return config_load(config, &input);
}

static void print_setting(const char *name, const char *value, const char *origin)
{
    printf("%-11s %-24s %s\n", name, value, origin);
}

/* The one that `device` is held to; two, where the process's own and the admin's are the same. */
static bool decides(const struct config *config, enum config_key key, const struct config_rule *rule,
                    const struct config_device *device)
{
    const struct config_rule *own, *admin;
    uint64_t most = 0, allowed = 0;

    if (key == CONFIG_VRAM) {
        most = config_vram_own(config, device, &own);
        allowed = config_vram_admin(config, device, &admin);
    } else {
        most = config_compute_own(config, device, &own);
        allowed = config_compute_admin(config, device, &admin);
    }
    return (rule == own && most <= allowed) || (rule == admin && allowed <= most);
}

/* Whether there can be a GPU that is held to it: one that a rule names, or another. A percentage is the smaller one of a small GPU, and bytes of a
 * large one. */
static bool counts(const struct config *config, enum config_key key, const struct config_rules *rules,
                   const struct config_rule *rule)
{
    static const uint64_t sizes[] = {UINT64_C(1) << 20, UINT64_C(1) << 50};

    for (unsigned i = 0; i <= rules->count; i++) {
        const struct units_device *named = i < rules->count ? &rules->rule[i].device : NULL;
        struct config_device device = {.ordinal = -1};

        if (named && named->kind == UNITS_DEVICE_ORDINAL)
            device.ordinal = (int)named->ordinal;
        if (named && named->kind == UNITS_DEVICE_UUID)
            memcpy(device.uuid, named->uuid, sizeof(device.uuid));
        for (unsigned j = 0; j < sizeof(sizes) / sizeof(*sizes); j++) {
            device.physical = sizes[j];
            if (decides(config, key, rule, &device))
                return true;
        }
    }
    return false;
}

static void print_limits(const struct config *config, enum config_key key, const struct config_rules *rules)
{
    char value[2 * UNITS_TEXT_MAX], origin[ORIGIN_MAX];

    for (unsigned i = 0; i < rules->count; i++) {
        const struct config_rule *rule = &rules->rule[i];
        size_t length = strlen(config_rule_origin(config, key, rule, origin, sizeof(origin)));

        if (!counts(config, key, rules, rule))
            snprintf(origin + length, sizeof(origin) - length, ", does not count");
        print_setting(i ? "" : config_keys[key].key, config_rule_value(rule, value, sizeof(value)), origin);
    }
    if (rules->count == 0)
        print_setting(config_keys[key].key, config_keys[key].fallback, "default");
}

/* Not a setting of ours, but a limit that counts where it is the smaller one. */
static void print_mps(void)
{
    const char *text = getenv(NATIVE_MPS_VARIABLE);

    if (text && native_mps_serves(getenv(NATIVE_MPS_PIPES)))
        print_setting("", text, NATIVE_MPS_VARIABLE ", which MPS keeps");
}

static void print_config(const struct config *config)
{
    static char value[VALUE_MAX], origin[ORIGIN_MAX];

    for (unsigned key = 0; key < CONFIG_KEYS; key++) {
        if (key == CONFIG_VRAM) {
            print_limits(config, key, &config->vram);
            print_mps();
        } else if (key == CONFIG_COMPUTE) {
            print_limits(config, key, &config->compute);
        } else {
            print_setting(config_keys[key].key, config_value(config, key, value, sizeof(value)),
                          config_origin(config, key, origin, sizeof(origin)));
        }
    }
}

static int run(int argc, char **argv, struct cli_error *error)
{
    static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {0}};
    static struct config config;
    int option;

    optind = 1;
    while ((option = cli_option(argc, argv, "+:h", options, "config", error)) != -1) {
        if (option == '?')
            return CLI_FAILED;
        return help_print(stdout, &command_config);
    }
    if (optind < argc)
        return cli_fail(error, CLI_FAILED, "config: '%s' is not understood: it takes no argument", argv[optind]);
    if (cli_config(&config, false) < 0)
        return cli_fail(error, 1, "%s", config.error);
    print_config(&config);
    return 0;
}

const struct command command_config = {
    .name = "config",
    .summary = "print each setting and who said it",
    .usage = "config",
    .help = "Print what a program that is started from here would be given: each setting, its value, and the variable or the\n"
            "line of a file that said it. Where several sources give a limit, each has a line: they combine by the minimum,\n"
            "but a variable stands in for the user's file, and a limit for one device or tenant for the one for all. One that no\n"
            "GPU can be held to for that is said not to count.\n"
            "\n"
            "Exit status: 0; 1 if a setting is bad, which is then told; 125 if used wrongly.\n",
    .run = run,
};
