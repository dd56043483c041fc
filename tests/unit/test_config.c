/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration from all sources: precedence, combination, and that nothing bad is ever read as "no limit". */
#include "softslice/config.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "scratch.h"

#define GIB      (UINT64_C(1) << 30)
#define MIB      (UINT64_C(1) << 20)
#define UUID_A   "GPU-00000000-0000-0000-0000-00000000000a"
#define UUID_B   "GPU-00000000-0000-0000-0000-00000000000b"
#define NO_LIMIT UINT64_MAX

static const struct config_device gpu_a = {.uuid = {[15] = 0x0a}, .ordinal = 0, .physical = 80 * GIB};
static const struct config_device gpu_b = {.uuid = {[15] = 0x0b}, .ordinal = 1, .physical = 40 * GIB};

/* A test's environment, its admin file, and what came of them. */
static char *variables[200];
static char variable_text[1 << 16];
static size_t variable_used;
static unsigned variable_count;
static char admin_path[PATH_MAX];
static unsigned admin_owner;
static struct config config;

static void start(void)
{
    scratch_make();
    strcpy(admin_path, scratch_path("admin.ini"));
    admin_owner = geteuid();
}

TestSuite(config, .init = start, .fini = scratch_remove, .timeout = 20);

static const char *lookup(void *context, const char *name)
{
    size_t length = strlen(name);

    for (char **entry = context; *entry; entry++) {
        if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=')
            return *entry + length + 1;
    }
    return NULL;
}

static void set(const char *name, const char *value)
{
    char *entry = variable_text + variable_used;

    variable_used += (size_t)snprintf(entry, sizeof(variable_text) - variable_used, "%s=%s", name, value) + 1;
    cr_assert(variable_used < sizeof(variable_text));
    variables[variable_count++] = entry;
}

static int load(void)
{
    struct config_input input = {lookup, variables, variables, admin_path, admin_owner};

    memset(&config, 0xff, sizeof(config));
    return config_load(&config, &input);
}

static void write_admin(const char *text)
{
    scratch_write("admin.ini", text, strlen(text));
}

/* A user's ini named by SOFTSLICE_CONFIG. */
static void write_user(const char *text)
{
    const char *path = scratch_write("user.ini", text, strlen(text));

    if (!lookup(variables, "SOFTSLICE_CONFIG"))
        set("SOFTSLICE_CONFIG", path);
}

static void forget(void)
{
    memset(variables, 0, sizeof(variables));
    variable_count = 0;
    variable_used = 0;
    unlink(admin_path);
}

/* Criterion keeps a skipped test's reason to itself. */
static void skip(const char *reason)
{
    fprintf(stderr, "test_config: skipped: %s\n", reason);
    cr_skip("%s", reason);
}

static void expect_good(int line)
{
    cr_expect(load() == 0, "line %d: %s", line, config.error);
    cr_expect(config.error[0] == 0, "line %d: %s", line, config.error);
}

/* The error must be a single line that says `what`. */
static void expect_bad(int line, const char *what)
{
    cr_expect(load() == -EINVAL, "line %d: taken", line);
    cr_expect(strstr(config.error, what) != NULL, "line %d: '%s' is not in '%s'", line, what, config.error);
    cr_expect(strlen(config.error) < CONFIG_ERROR_MAX);
    for (const char *c = config.error; *c; c++)
        cr_expect((unsigned char)*c >= 0x20 && (unsigned char)*c < 0x7f, "line %d: %s", line, config.error);
    cr_expect(config.on_error == CONFIG_CLOSED, "line %d: open", line);
}

#define GOOD()    expect_good(__LINE__)
#define BAD(what) expect_bad(__LINE__, what)

static uint64_t own(const struct config_device *device)
{
    return config_vram_own(&config, device, NULL);
}

static uint64_t admin(const struct config_device *device)
{
    return config_vram_admin(&config, device, NULL);
}

static const char *value_of(enum config_key key)
{
    static char text[8192];

    return config_value(&config, key, text, sizeof(text));
}

static const char *origin_of(enum config_key key)
{
    static char text[8192];

    return config_origin(&config, key, text, sizeof(text));
}

#define EXPECT_TEXT(got, expected) cr_expect(strcmp(got, expected) == 0, "'%s', expected '%s'", got, expected)

static void expect_from(enum config_key key, const char *file, const char *rest)
{
    char expected[PATH_MAX + 128];

    snprintf(expected, sizeof(expected), "%s/%s:%s", scratch, file, rest);
    EXPECT_TEXT(origin_of(key), expected);
}

/* ---- one source at a time */

Test(config, nothing_said)
{
    GOOD();
    cr_expect(own(&gpu_a) == NO_LIMIT && admin(&gpu_a) == NO_LIMIT);
    cr_expect(config_compute_own(&config, &gpu_a, NULL) == 10000 && config_compute_admin(&config, &gpu_a, NULL) == 10000);
    cr_expect(!config_arms_vram(&config) && !config_arms_compute(&config));
    cr_expect(!config.tenant_named && !config.admin_present && !config.disable && !config.weight_set);
    for (unsigned key = 0; key < CONFIG_KEYS; key++) {
        EXPECT_TEXT(value_of(key), config_keys[key].fallback);
        EXPECT_TEXT(origin_of(key), "default");
    }
}

Test(config, every_variable)
{
    set("SOFTSLICE_VRAM", "20GiB");
    set("SOFTSLICE_COMPUTE", "30%");
    set("SOFTSLICE_WEIGHT", "250");
    set("SOFTSLICE_MODE", "share");
    set("SOFTSLICE_TENANT", "team-a.web_1");
    set("SOFTSLICE_STATE_DIR", "/run/x");
    set("SOFTSLICE_ON_ERROR", "open");
    set("SOFTSLICE_MANAGED", "forbid");
    set("SOFTSLICE_SPILL", "host");
    set("SOFTSLICE_PERIOD", "1500us");
    set("SOFTSLICE_LOG", "debug");
    set("SOFTSLICE_LOG_FILE", "/tmp/a b");
    write_user("; nothing\n");
    GOOD();
    cr_expect(own(&gpu_a) == 20 * GIB && config_compute_own(&config, &gpu_b, NULL) == 3000);
    cr_expect(config.weight == 250 && config.weight_set && config.mode == CONFIG_MODE_SHARE);
    cr_expect(config.tenant_named && config.on_error == CONFIG_OPEN && config.managed == CONFIG_MANAGED_FORBID);
    cr_expect(config.spill == CONFIG_SPILL_HOST && config.period_us == 1500 && config.log == LOG_DEBUG);
    cr_expect(config_arms_vram(&config) && config_arms_compute(&config));
    EXPECT_TEXT(config.tenant, "team-a.web_1");
    EXPECT_TEXT(config.state_dir, "/run/x");
    EXPECT_TEXT(config.log_file, "/tmp/a b");
    EXPECT_TEXT(value_of(CONFIG_VRAM), "20 GiB");
    EXPECT_TEXT(value_of(CONFIG_COMPUTE), "30%");
    EXPECT_TEXT(value_of(CONFIG_PERIOD), "1500us");
    for (unsigned key = 0; key < CONFIG_KEYS; key++) {
        if (key != CONFIG_DISABLE)
            EXPECT_TEXT(origin_of(key), config_keys[key].variable);
    }
}

/* Every value that must be refused, of every variable. None may leave the process without a limit. */
Test(config, bad_values_of_variables)
{
    static const char *const bad[][2] = {
        {"SOFTSLICE_VRAM", "3GB!"},
        {"SOFTSLICE_VRAM", "20GB"},
        {"SOFTSLICE_VRAM", "0"},
        {"SOFTSLICE_VRAM", "0%"},
        {"SOFTSLICE_VRAM", "101%"},
        {"SOFTSLICE_VRAM", "25.125%"},
        {"SOFTSLICE_VRAM", "-1"},
        {"SOFTSLICE_VRAM", "9223372036854775808"},
        {"SOFTSLICE_VRAM", "18446744073709551616"},
        {"SOFTSLICE_VRAM", "none"},
        {"SOFTSLICE_VRAM", "unlimited"},
        {"SOFTSLICE_VRAM", " "},
        {"SOFTSLICE_VRAM", "20GiB\n"},
        {"SOFTSLICE_VRAM", "\xff\xfe"},
        {"SOFTSLICE_VRAM", "0=20GiB,"},
        {"SOFTSLICE_VRAM", ",0=20GiB"},
        {"SOFTSLICE_VRAM", "0=20GiB,,1=20GiB"},
        {"SOFTSLICE_VRAM", "0=20GiB;1=20GiB"},
        {"SOFTSLICE_VRAM", "0=20GiB 1=20GiB"},
        {"SOFTSLICE_VRAM", "0="},
        {"SOFTSLICE_VRAM", "=20GiB"},
        {"SOFTSLICE_VRAM", "0=1=20GiB"},
        {"SOFTSLICE_VRAM", "0=20GiB,0=10GiB"},
        {"SOFTSLICE_VRAM", UUID_A "=20GiB,gpu-00000000-0000-0000-0000-00000000000A=10GiB"},
        {"SOFTSLICE_VRAM", "20GiB,10GiB"},
        {"SOFTSLICE_VRAM", "cuda:0=20GiB"},
        {"SOFTSLICE_VRAM", "GPU-0=20GiB"},
        {"SOFTSLICE_VRAM", "-1=20GiB"},
        {"SOFTSLICE_COMPUTE", "30"},
        {"SOFTSLICE_COMPUTE", "0%"},
        {"SOFTSLICE_COMPUTE", "101%"},
        {"SOFTSLICE_COMPUTE", "-5"},
        {"SOFTSLICE_COMPUTE", "abc"},
        {"SOFTSLICE_COMPUTE", "20GiB"},
        {"SOFTSLICE_COMPUTE", "0=30%,0=20%"},
        {"SOFTSLICE_WEIGHT", "0"},
        {"SOFTSLICE_WEIGHT", "10001"},
        {"SOFTSLICE_WEIGHT", "-1"},
        {"SOFTSLICE_WEIGHT", "1.5"},
        {"SOFTSLICE_WEIGHT", "4294967297"},
        {"SOFTSLICE_WEIGHT", "18446744073709551617"},
        {"SOFTSLICE_WEIGHT", "100%"},
        {"SOFTSLICE_MODE", "max"},
        {"SOFTSLICE_MODE", "cap,share"},
        {"SOFTSLICE_TENANT", ".hidden"},
        {"SOFTSLICE_TENANT", ".."},
        {"SOFTSLICE_TENANT", "a/b"},
        {"SOFTSLICE_TENANT", "a b"},
        {"SOFTSLICE_TENANT", "b\xc3\xbcro"},
        {"SOFTSLICE_TENANT", "a\nb"},
        {"SOFTSLICE_TENANT", "1234567890123456789012345678901234567890123456789012345678901234"},
        {"SOFTSLICE_STATE_DIR", "run/softslice"},
        {"SOFTSLICE_ON_ERROR", "opened"},
        {"SOFTSLICE_MANAGED", "yes"},
        {"SOFTSLICE_SPILL", "on"},
        {"SOFTSLICE_PERIOD", "0"},
        {"SOFTSLICE_PERIOD", "0ms"},
        {"SOFTSLICE_PERIOD", "100"},
        {"SOFTSLICE_PERIOD", "999us"},
        {"SOFTSLICE_PERIOD", "11s"},
        {"SOFTSLICE_PERIOD", "1m"},
        {"SOFTSLICE_PERIOD", "ms"},
        {"SOFTSLICE_PERIOD", "18446744073709551s"},
        {"SOFTSLICE_PERIOD", "18446744073710s"}, /* times 10^6 just above 2^64 */
        {"SOFTSLICE_LOG", "verbose"},
        {"SOFTSLICE_LOG", "3"},
        {"SOFTSLICE_DISABLE", "2"},
        {"SOFTSLICE_DISABLE", "off"},
        {"CUDA_DEVICE_MEMORY_LIMIT", "3Gi"},
        {"CUDA_DEVICE_MEMORY_LIMIT", "3GiB"},
        {"CUDA_DEVICE_MEMORY_LIMIT", "3gb"},
        {"CUDA_DEVICE_MEMORY_LIMIT", "3t"},
        {"CUDA_DEVICE_MEMORY_LIMIT", "1.5g"},
        {"CUDA_DEVICE_MEMORY_LIMIT", "-1"},
        {"CUDA_DEVICE_MEMORY_LIMIT", "25%"},
        {"CUDA_DEVICE_MEMORY_LIMIT", "m"},
        {"CUDA_DEVICE_MEMORY_LIMIT", "0x10g"},
        {"CUDA_DEVICE_MEMORY_LIMIT", "010g"}, /* octal for HAMi */
        {"CUDA_DEVICE_MEMORY_LIMIT", " 3g"},
        {"CUDA_DEVICE_MEMORY_LIMIT", "3 g"},
        {"CUDA_DEVICE_MEMORY_LIMIT", "9223372036854775808"},
        {"CUDA_DEVICE_MEMORY_LIMIT", "8589934592g"},
        {"CUDA_DEVICE_MEMORY_LIMIT", "17179869185g"}, /* 1 GiB modulo 2^64 */
        {"CUDA_DEVICE_MEMORY_LIMIT", "18446744073709551616"},
        {"CUDA_DEVICE_MEMORY_LIMIT_0", "lots"},
        {"CUDA_DEVICE_MEMORY_LIMIT_31", "lots"},
        {"CUDA_DEVICE_SM_LIMIT", "101"},
        {"CUDA_DEVICE_SM_LIMIT", "30%"},
        {"CUDA_DEVICE_SM_LIMIT", "-1"},
        {"CUDA_DEVICE_SM_LIMIT", "half"},
        {"CUDA_DEVICE_SM_LIMIT_31", "x"},
        {"NVIDIA_GPU_MEMORY_LIMIT", "0"},
        {"NVIDIA_GPU_MEMORY_LIMIT", "4Gi"},
        {"NVIDIA_GPU_MEMORY_LIMIT", "4096Mi"},
        {"NVIDIA_GPU_MEMORY_LIMIT", "-1"},
        {"NVIDIA_GPU_MEMORY_LIMIT", "8796093022208"},  /* 2^63 bytes */
        {"NVIDIA_GPU_MEMORY_LIMIT", "17592186044417"}, /* 1 MiB modulo 2^64 */
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char name[128];

        forget();
        set(bad[i][0], bad[i][1]);
        snprintf(name, sizeof(name), "%s='", bad[i][0]);
        cr_expect(load() == -EINVAL, "%s=%s was taken", bad[i][0], bad[i][1]);
        cr_expect(strncmp(config.error, name, strlen(name)) == 0, "%s=%s: %s", bad[i][0], bad[i][1], config.error);
        BAD(bad[i][0]);
        /* Among good ones too, whichever comes first. */
        set("SOFTSLICE_SPILL", "off");
        set("NVIDIA_GPU_MEMORY_LIMIT_", "");
        BAD(bad[i][0]);
    }
}

Test(config, good_values_of_variables)
{
    set("SOFTSLICE_VRAM", " 0 = 20GiB , 1=25% , " UUID_B " = 1G ");
    set("SOFTSLICE_MODE", "CAP");
    set("SOFTSLICE_PERIOD", "10s");
    set("SOFTSLICE_DISABLE", "No");
    set("SOFTSLICE_TENANT", "123456789012345678901234567890123456789012345678901234567890123");
    GOOD();
    cr_expect(own(&gpu_a) == 20 * GIB);
    cr_expect(own(&gpu_b) == GIB, "of an ordinal and a UUID for one device the smaller holds");
    cr_expect(config.period_us == 10000000);
    EXPECT_TEXT(value_of(CONFIG_VRAM), "0=20 GiB, 1=25%, " UUID_B "=1 GiB");
}

Test(config, what_arms)
{
    set("SOFTSLICE_TENANT", "a");
    GOOD();
    cr_expect(config_arms_vram(&config) && !config_arms_compute(&config), "a tenant's ledger counts its VRAM");
    forget();
    set("SOFTSLICE_COMPUTE", "100%");
    GOOD();
    cr_expect(!config_arms_vram(&config) && config_arms_compute(&config), "100 %% is a share");
    forget();
    set("SOFTSLICE_WEIGHT", "100");
    GOOD();
    cr_expect(!config_arms_vram(&config) && config_arms_compute(&config), "the default, but said");
    forget();
    set("SOFTSLICE_MODE", "share");
    GOOD();
    cr_expect(!config_arms_vram(&config) && !config_arms_compute(&config));
}

Test(config, a_limit_for_all_others)
{
    set("SOFTSLICE_VRAM", "10GiB,1=50%");
    GOOD();
    cr_expect(own(&gpu_a) == 10 * GIB && own(&gpu_b) == 20 * GIB);
}

Test(config, unknown_ordinal_gets_no_ordinals_limit)
{
    struct config_device nvml = gpu_a;

    nvml.ordinal = -1;
    set("SOFTSLICE_VRAM", "0=10GiB," UUID_B "=1GiB");
    GOOD();
    cr_expect(own(&nvml) == NO_LIMIT && own(&gpu_b) == GIB);
}

Test(config, empty_is_unset)
{
    set("SOFTSLICE_VRAM", "");
    set("SOFTSLICE_CONFIG", "");
    set("SOFTSLICE_VRRAM", "");
    set("CUDA_DEVICE_MEMORY_LIMIT_0", "");
    set("NVIDIA_GPU_MEMORY_LIMIT", "");
    GOOD();
    cr_expect(!config_arms_vram(&config));
}

static void limits_of(char *text, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        text += sprintf(text, "%s%u=1GiB", i ? "," : "", i);
}

Test(config, as_many_limits_as_fit)
{
    char text[1024];

    limits_of(text, CONFIG_RULES_MAX);
    set("SOFTSLICE_VRAM", text);
    GOOD();
    cr_expect(config.vram.count == CONFIG_RULES_MAX);
    set("CUDA_DEVICE_MEMORY_LIMIT", "1g");
    BAD("CUDA_DEVICE_MEMORY_LIMIT='1g': more than 64 limits");
    forget();
    limits_of(text, CONFIG_RULES_MAX + 1);
    set("SOFTSLICE_VRAM", text);
    BAD("more than 64 limits");
}

Test(config, misspelt_variables)
{
    static const char *const near[][2] = {
        {"SOFTSLICE_VRM", "SOFTSLICE_VRAM"},           {"SOFTSLICE_VRAMM", "SOFTSLICE_VRAM"},
        {"SOFTSLICE_COMPTUE", "SOFTSLICE_COMPUTE"},    {"SOFTSLICE_vram", "SOFTSLICE_VRAM"},
        {"SOFTSLICE_STATEDIR", "SOFTSLICE_STATE_DIR"}, {"SOFTSLICE_ONERROR", "SOFTSLICE_ON_ERROR"},
        {"SOFTSLICE_TENNANT", "SOFTSLICE_TENANT"},
    };

    for (size_t i = 0; i < sizeof(near) / sizeof(near[0]); i++) {
        char expected[128];

        forget();
        set(near[i][0], "x");
        snprintf(expected, sizeof(expected), "%s: there is no such setting; did you mean %s?", near[i][0], near[i][1]);
        BAD(expected);
    }
    forget();
    set("SOFTSLICE_GARBAGE_COLLECTOR_OF_A_LONG_NAME_THAT_IS_NOT_NEAR_ANYTHING", "1");
    BAD("SOFTSLICE_GARBAGE_COLLECTOR_OF_A_LONG_NAME_THAT_IS_NOT_NEAR_ANYTHING: there is no such setting");
    cr_expect(strstr(config.error, "mean") == NULL);
    forget();
    set("SOFTSLICE_", "1");
    BAD("SOFTSLICE_: there is no such setting");
    forget();
    set("CUDA_DEVICE_MEMORY_LIMIT_32", "1g");
    BAD("CUDA_DEVICE_MEMORY_LIMIT_32: not a device from 0 to 31");
    forget();
    set("CUDA_DEVICE_SM_LIMIT_GPU0", "10");
    BAD("CUDA_DEVICE_SM_LIMIT_GPU0: not a device from 0 to 31");
    forget();
    set("CUDA_DEVICE_MEMORY_LIMIT_00", "1g");
    BAD("CUDA_DEVICE_MEMORY_LIMIT_00: not a device from 0 to 31");
}

/* Kubernetes gives every pod such variables for each service of its namespace: one called softslice-exporter must not stop them all. */
Test(config, variables_that_are_not_ours)
{
    set("SOFTSLICE_EXPORTER_SERVICE_HOST", "10.0.0.1");
    set("SOFTSLICE_EXPORTER_SERVICE_PORT", "9835");
    set("SOFTSLICE_EXPORTER_SERVICE_PORT_METRICS", "9835");
    set("SOFTSLICE_EXPORTER_PORT", "tcp://10.0.0.1:9835");
    set("SOFTSLICE_EXPORTER_PORT_9835_TCP", "tcp://10.0.0.1:9835");
    set("SOFTSLICE_EXPORTER_PORT_9835_TCP_ADDR", "10.0.0.1");
    set("SOFTSLICE_SERVICE_HOST", "10.0.0.1");
    set("SOFTSLICE_PORT", "tcp://10.0.0.1:9835");
    set("SOFTSLICE_TEST_ANYTHING", "x");
    set("SOFTSLICE_LIBRARY", "/x"); /* is the command's */
    set("SOFTSLICEX", "x");
    set("MY_SOFTSLICE_VRM", "x");
    set("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
    GOOD();
    set("SOFTSLICE_IMPORT", "x"); /* PORT must be a word of its own */
    BAD("SOFTSLICE_IMPORT");
}

/* ---- other enforcers' variables */

Test(config, hami_memory)
{
    static const struct {
        const char *value;
        uint64_t bytes;
    } rows[] = {{"3000m", 3000 * MIB}, {"3000M", 3000 * MIB}, {"2g", 2 * GIB}, {"2G", 2 * GIB},
                {"4194304k", 4 * GIB}, {"1073741824", GIB},   {"0", NO_LIMIT}, {"0m", NO_LIMIT}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        forget();
        set("CUDA_DEVICE_MEMORY_LIMIT", rows[i].value);
        GOOD();
        cr_expect(own(&gpu_a) == rows[i].bytes, "%s", rows[i].value);
        cr_expect(config_arms_vram(&config) == (rows[i].bytes != NO_LIMIT), "%s", rows[i].value);
    }
}

Test(config, hami_per_device)
{
    const struct config_rule *rule;
    char text[PATH_MAX];

    set("CUDA_DEVICE_MEMORY_LIMIT", "2g");
    set("CUDA_DEVICE_MEMORY_LIMIT_0", "0"); /* in HAMi a 0 means: look at the one for all */
    set("CUDA_DEVICE_MEMORY_LIMIT_1", "3g");
    set("CUDA_DEVICE_MEMORY_LIMIT_31", "1g");
    GOOD();
    cr_expect(own(&gpu_a) == 2 * GIB && own(&gpu_b) == 3 * GIB);
    cr_assert(config_vram_own(&config, &gpu_b, &rule) == 3 * GIB && rule);
    EXPECT_TEXT(config_rule_origin(&config, CONFIG_VRAM, rule, text, sizeof(text)), "CUDA_DEVICE_MEMORY_LIMIT_1");
    EXPECT_TEXT(config_rule_value(rule, text, sizeof(text)), "1=3 GiB");
    cr_assert(config_vram_own(&config, &gpu_a, &rule) == 2 * GIB && rule);
    EXPECT_TEXT(config_rule_origin(&config, CONFIG_VRAM, rule, text, sizeof(text)), "CUDA_DEVICE_MEMORY_LIMIT");
}

Test(config, hami_without_the_list_of_names)
{
    struct config_input input = {lookup, NULL, variables, admin_path, admin_owner};

    set("CUDA_DEVICE_MEMORY_LIMIT_1", "3g");
    cr_expect(config_load(&config, &input) == 0);
    cr_expect(own(&gpu_b) == 3 * GIB);
}

Test(config, hami_share)
{
    set("CUDA_DEVICE_SM_LIMIT", "30");
    GOOD();
    cr_expect(config_compute_own(&config, &gpu_a, NULL) == 3000 && config_arms_compute(&config) && !config_arms_vram(&config));
    set("CUDA_DEVICE_SM_LIMIT_0", "100"); /* off for this device, as in HAMi */
    set("CUDA_DEVICE_SM_LIMIT_1", "0");
    GOOD();
    cr_expect(config_compute_own(&config, &gpu_a, NULL) == 10000);
    cr_expect(config_compute_own(&config, &gpu_b, NULL) == 3000);
    forget();
    set("CUDA_DEVICE_SM_LIMIT", "100");
    GOOD();
    cr_expect(!config_arms_compute(&config));
    forget();
    set("CUDA_DEVICE_SM_LIMIT", "0");
    GOOD();
    cr_expect(!config_arms_compute(&config));
    forget();
    set("CUDA_DEVICE_SM_LIMIT", "99");
    GOOD();
    cr_expect(config_compute_own(&config, &gpu_a, NULL) == 9900);
}

Test(config, nvidia)
{
    set("NVIDIA_GPU_MEMORY_LIMIT", "4096");
    GOOD();
    cr_expect(own(&gpu_a) == 4 * GIB && config_arms_vram(&config));
    EXPECT_TEXT(origin_of(CONFIG_VRAM), "NVIDIA_GPU_MEMORY_LIMIT");
}

Test(config, others_limits_combine_by_minimum)
{
    const struct config_rule *rule;

    set("SOFTSLICE_VRAM", "20GiB");
    set("SOFTSLICE_COMPUTE", "50%");
    set("CUDA_DEVICE_MEMORY_LIMIT", "10g");
    set("CUDA_DEVICE_SM_LIMIT", "60");
    set("NVIDIA_GPU_MEMORY_LIMIT", "15360");
    GOOD();
    cr_expect(config_vram_own(&config, &gpu_a, &rule) == 10 * GIB && rule->source == CONFIG_HAMI);
    cr_expect(config_compute_own(&config, &gpu_a, &rule) == 5000 && rule->source == CONFIG_ENVIRONMENT);
    EXPECT_TEXT(origin_of(CONFIG_VRAM), "SOFTSLICE_VRAM");
    variables[0][strlen(variables[0]) - 5] = '0'; /* 00GiB */
    BAD("SOFTSLICE_VRAM='00GiB'");
    forget();
    set("CUDA_DEVICE_MEMORY_LIMIT", "0");
    set("NVIDIA_GPU_MEMORY_LIMIT", "1024");
    set("SOFTSLICE_VRAM", "50%");
    GOOD();
    cr_expect(config_vram_own(&config, &gpu_a, &rule) == GIB && rule->source == CONFIG_NVIDIA);
}

/* ---- the user's ini */

static const char sample[] = "[softslice]\n"
                             "vram = 20GiB\n"
                             "compute = 30%\n"
                             "mode = share\n"
                             "log_file = /tmp/ä\n"
                             "[tenant a]\n"
                             "vram = 10GiB\n"
                             "weight = 7\n"
                             "mode = cap\n"
                             "[tenant b]\n"
                             "vram = 5GiB, " UUID_B "=4GiB\n"
                             "[gpu " UUID_A "]\n"
                             "vram = 30GiB\n"
                             "compute = 50%\n"
                             "[slice small]\n"
                             "vram = 10GiB\n"
                             "replicas = 4\n";

Test(config, sections)
{
    write_user(sample);
    GOOD();
    cr_expect(own(&gpu_a) == 30 * GIB && own(&gpu_b) == 20 * GIB, "[gpu] over [softslice]");
    cr_expect(config_compute_own(&config, &gpu_a, NULL) == 5000 && config_compute_own(&config, &gpu_b, NULL) == 3000);
    cr_expect(config.mode == CONFIG_MODE_SHARE && !config.weight_set && !config.tenant_named);
    EXPECT_TEXT(config.log_file, "/tmp/ä");
    expect_from(CONFIG_MODE, "user.ini", "4 [softslice]");
    set("SOFTSLICE_TENANT", "a");
    GOOD();
    cr_expect(own(&gpu_a) == 30 * GIB && own(&gpu_b) == 10 * GIB, "[gpu] over [tenant] over [softslice]");
    cr_expect(config.mode == CONFIG_MODE_CAP && config.weight == 7 && config_arms_compute(&config));
    expect_from(CONFIG_MODE, "user.ini", "9 [tenant a]");
    expect_from(CONFIG_WEIGHT, "user.ini", "8 [tenant a]");
}

Test(config, a_tenants_device_over_a_device)
{
    const struct config_rule *rule;
    char text[PATH_MAX + 64], expected[PATH_MAX + 64];

    write_user(sample);
    set("SOFTSLICE_TENANT", "b");
    GOOD();
    cr_expect(own(&gpu_a) == 30 * GIB);
    cr_assert(config_vram_own(&config, &gpu_b, &rule) == 4 * GIB && rule);
    snprintf(expected, sizeof(expected), "%s/user.ini:11 [tenant b]", scratch);
    EXPECT_TEXT(config_rule_origin(&config, CONFIG_VRAM, rule, text, sizeof(text)), expected);
}

Test(config, tenant_named_in_the_file)
{
    write_user("[tenant x]\nvram=1GiB\n[softslice]\ntenant = x\n");
    GOOD();
    cr_expect(own(&gpu_a) == GIB, "the section stands before the line that names the tenant");
    EXPECT_TEXT(config.tenant, "x");
    set("SOFTSLICE_TENANT", "y");
    GOOD();
    cr_expect(own(&gpu_a) == NO_LIMIT);
    EXPECT_TEXT(config.tenant, "y");
}

Test(config, environment_over_ini)
{
    write_user(sample);
    set("SOFTSLICE_VRAM", "1=60%");
    set("SOFTSLICE_TENANT", "a");
    set("SOFTSLICE_MODE", "share");
    set("SOFTSLICE_WEIGHT", "9");
    GOOD();
    cr_expect(own(&gpu_b) == 24 * GIB, "larger, but nearer");
    cr_expect(own(&gpu_a) == 30 * GIB, "what the variable does not name stays the file's");
    cr_expect(config.mode == CONFIG_MODE_SHARE && config.weight == 9);
    EXPECT_TEXT(origin_of(CONFIG_MODE), "SOFTSLICE_MODE");
}

Test(config, bad_inis)
{
    static const struct {
        const char *text, *error;
    } rows[] = {
        {"[softslice]\nvram = 3GB!\n", "user.ini:2: vram = '3GB!': not a size"},
        {"[softslice]\nvrma = 3G\n", "user.ini:2: there is no key vrma; did you mean vram?"},
        {"[softslice]\nVRAM = 3G\n", "user.ini:2: there is no key VRAM; did you mean vram?"},
        {"[softslice]\nSOFTSLICE_VRAM = 3G\n", "user.ini:2: there is no key SOFTSLICE_VRAM"},
        {"[softslice]\nconfig = /x\n", "user.ini:2: config cannot be set in a file"},
        {"[softslice]\nvram =\n", "user.ini:2: the key has no value"},
        {"[softslice]\nvram = 1G # one\n", "user.ini:2: a # comment"},
        {"[softslice]\nvram = \"1G\"\n", "user.ini:2: vram = '\"1G\"': not a size"},
        {"[softslice]\nvram = 1G\nvram = 2G\n", "user.ini:3: this key is already"},
        {"[softslice]\nvram = 1G\n  2G\n", "user.ini:3: the line is indented"},
        {"vram = 1G\n", "user.ini:1: a key before any"},
        {"[Softslice]\nvram = 1G\n", "user.ini:1: there is no section [Softslice]"},
        {"[tennant a]\n", "user.ini:1: there is no section [tennant a]"},
        {"[tenant]\n", "user.ini:1: there is no section [tenant]"},
        {"[tenant  a]\n", "user.ini:1: not a tenant's name"},
        {"[tenant .a]\n", "user.ini:1: not a tenant's name"},
        {"[tenant a/b]\n", "user.ini:1: not a tenant's name"},
        {"[tenant 12345678901234567890123456789012345678901234]\n", "user.ini:1: the section's name is longer than 49"},
        {"[tenant a]\ntenant = b\n", "user.ini:2: tenant cannot be set in this section"},
        {"[tenant a]\nstate_dir = /b\n", "user.ini:2: state_dir cannot be set in this section"},
        {"[tenant a]\nvram = 3GB\n", "user.ini:2: vram = '3GB'"}, /* of another tenant, and an error all the same */
        {"[gpu 0]\nvram = 1G\n", "user.ini:1: a [gpu] section names a device by its UUID"},
        {"[gpu  " UUID_A "]\n", "user.ini:1: a [gpu] section"},
        {"[gpu " UUID_A "]\nmode = cap\n", "user.ini:2: mode cannot be set in this section"},
        {"[gpu " UUID_A "]\nvram = 0=1G\n", "user.ini:2: vram = '0=1G': a [gpu] section takes one limit"},
        {"[gpu " UUID_A "]\nvram = 1G,2G\n", "user.ini:2: vram = '1G,2G': two limits for one device"},
        {"[gpu " UUID_A "]\nvram=1G\n[gpu GPU-00000000-0000-0000-0000-00000000000A]\nvram=2G\n",
         "user.ini:4: vram = '2G': two limits for one device"},
        {"[softslice]\nvram = " UUID_A "=1G\n[gpu " UUID_A "]\nvram=2G\n", "user.ini:4: vram = '2G': two limits for one device"},
        {"[slice a b]\n", "user.ini:1: not a slice's name"},
        {"[slice a]\nvram = much\n", "user.ini:2: vram = 'much'"},
        {"[softslice]\nmode = \xff\n", "user.ini:2: mode = '?': not one of cap, share"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        forget();
        write_user(rows[i].text);
        BAD(rows[i].error);
    }
}

Test(config, user_ini_that_is_no_file)
{
    set("SOFTSLICE_CONFIG", scratch_path("missing.ini"));
    BAD("missing.ini: no such file");
    forget();
    set("SOFTSLICE_CONFIG", scratch);
    BAD("not a regular file");
    forget();
    cr_assert(mkfifo(scratch_path("fifo"), 0600) == 0);
    set("SOFTSLICE_CONFIG", scratch_path("fifo"));
    BAD("not a regular file");
}

/* ---- the admin's file */

Test(config, admin_limits_by_minimum_and_tenant)
{
    write_admin("[softslice]\nvram = 10GiB\nweight = 50\n[tenant big]\nvram = 50%\n[gpu " UUID_B "]\nvram=1GiB\n");
    set("SOFTSLICE_VRAM", "20GiB");
    set("SOFTSLICE_WEIGHT", "100");
    GOOD();
    cr_expect(own(&gpu_a) == 20 * GIB && admin(&gpu_a) == 10 * GIB && admin(&gpu_b) == GIB);
    cr_expect(config.tenant_named && config.admin_present);
    EXPECT_TEXT(config.tenant, "default");
    cr_expect(config.weight == 50, "a weight is a quantity: the smaller holds");
    expect_from(CONFIG_WEIGHT, "admin.ini", "3 [softslice]");
    set("SOFTSLICE_TENANT", "big");
    GOOD();
    cr_expect(admin(&gpu_a) == 40 * GIB && admin(&gpu_b) == GIB);
    EXPECT_TEXT(config.tenant, "big");
    forget();
    write_admin("[softslice]\nweight = 50\n");
    set("SOFTSLICE_WEIGHT", "20");
    GOOD();
    cr_expect(config.weight == 20 && !config.tenant_named);
    EXPECT_TEXT(origin_of(CONFIG_WEIGHT), "SOFTSLICE_WEIGHT");
}

/* A tenant's limit and a GPU's bound different things; neither may lift the other. */
Test(config, admin_limits_of_tenant_and_gpu_both_hold)
{
    static const struct {
        const char *tenant;
        uint64_t a, b;
    } cases[] = {{"small", 10 * GIB, 10 * GIB}, {"big", 30 * GIB, 40 * GIB}, {"unnamed", GIB, 40 * GIB}};

    for (unsigned i = 0; i < 3; i++) {
        write_admin("[softslice]\nvram = 1GiB\n[tenant small]\nvram = 10GiB\n[tenant big]\nvram = 50GiB, " UUID_A
                    "=30GiB\n[gpu " UUID_B "]\nvram=40GiB\n");
        set("SOFTSLICE_TENANT", cases[i].tenant);
        GOOD();
        cr_expect(admin(&gpu_a) == cases[i].a && admin(&gpu_b) == cases[i].b, "tenant %s", cases[i].tenant);
        forget();
    }
}

Test(config, admin_limit_of_the_unnamed_tenant)
{
    write_admin("[tenant default]\nvram = 3GiB\n[tenant other]\nvram = 1GiB\n");
    GOOD();
    cr_expect(admin(&gpu_a) == 3 * GIB && config.tenant_named);
    EXPECT_TEXT(config.tenant, "default");
    write_admin("[tenant other]\nvram = 1GiB\n");
    GOOD();
    cr_expect(admin(&gpu_a) == NO_LIMIT && !config.tenant_named);
    write_admin("[softslice]\nmode = share\n");
    GOOD();
    cr_expect(!config.tenant_named, "only a limit names a tenant");
    write_admin("[slice small]\nvram = 1GiB\n");
    GOOD();
    cr_expect(!config.tenant_named && admin(&gpu_a) == NO_LIMIT, "a slice is the device plugin's");
}

Test(config, admin_wins_what_is_no_quantity)
{
    write_admin("[softslice]\ntenant=t\nstate_dir=/run/a\nmode=cap\nmanaged=forbid\nspill=off\nlog=error\nlog_file=/a\nperiod=1s\n"
                "[tenant t]\nmanaged=resident\n");
    write_user("[softslice]\ntenant=u\nstate_dir=/run/u\nmode=share\nmanaged=charge\nspill=host\n[tenant t]\nspill=host\n");
    set("SOFTSLICE_TENANT", "v");
    set("SOFTSLICE_STATE_DIR", "/run/v");
    set("SOFTSLICE_MODE", "share");
    set("SOFTSLICE_LOG", "off");
    set("SOFTSLICE_LOG_FILE", "/v");
    set("SOFTSLICE_PERIOD", "2s");
    GOOD();
    EXPECT_TEXT(config.tenant, "t");
    EXPECT_TEXT(config.state_dir, "/run/a");
    EXPECT_TEXT(config.log_file, "/a");
    cr_expect(config.mode == CONFIG_MODE_CAP && config.managed == CONFIG_MANAGED_RESIDENT && config.spill == CONFIG_SPILL_OFF);
    cr_expect(config.log == LOG_ERROR && config.period_us == 1000000);
    expect_from(CONFIG_MANAGED, "admin.ini", "11 [tenant t]");
}

Test(config, admin_knows_no_ordinals)
{
    write_admin("[softslice]\nvram = 0=1GiB\n");
    BAD("admin.ini:2: vram = '0=1GiB': the admin's file names devices by UUID");
    write_admin("[tenant other]\ncompute = 0=10%\n");
    BAD("admin.ini:2: compute = '0=10%': the admin's file names devices by UUID");
    write_admin("[softslice]\nvram = " UUID_B "=1GiB\n");
    GOOD();
    cr_expect(admin(&gpu_b) == GIB && admin(&gpu_a) == NO_LIMIT);
}

Test(config, admin_errors_come_first)
{
    write_admin("[softslice]\nvram = much\n");
    set("SOFTSLICE_VRAM", "more");
    BAD("admin.ini:2");
}

Test(config, admin_file_that_others_could_write)
{
    write_admin("[softslice]\nvram = 1GiB\n");
    cr_assert(chmod(admin_path, 0664) == 0);
    BAD("admin.ini: group or others may write");
    cr_assert(chmod(admin_path, 0602) == 0);
    BAD("admin.ini: group or others may write");
    cr_assert(chmod(admin_path, 0444) == 0);
    GOOD();
    admin_owner = geteuid() + 1;
    BAD("admin.ini: the admin's file does not belong to root");
}

Test(config, admin_file_that_is_no_file)
{
    cr_assert(mkdir(admin_path, 0755) == 0);
    BAD("admin.ini: not a regular file");
    cr_assert(rmdir(admin_path) == 0);
    cr_assert(symlink("nowhere", admin_path) == 0);
    BAD("admin.ini: a symbolic link that leads nowhere");
    cr_assert(unlink(admin_path) == 0);
    cr_assert(symlink("admin.ini", admin_path) == 0);
    BAD("admin.ini: too many symbolic links");
}

/* In a child, because uids do not come back. Returns the child's exit status. */
static int as_user(uid_t uid, int (*body)(void))
{
    pid_t pid = fork();
    int status = -1;

    if (pid == 0) {
        if (setgid(uid) < 0 || setuid(uid) < 0)
            _exit(99);
        _exit(body());
    }
    cr_assert(pid > 0 && waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int is_refused(void)
{
    return load() == -EINVAL && strstr(config.error, "admin.ini: ") && config.on_error == CONFIG_CLOSED ? 0 : 1;
}

static int is_taken(void)
{
    return load() == 0 && config_vram_admin(&config, &gpu_a, NULL) == GIB ? 0 : 1;
}

Test(config, owners_of_the_admin_file)
{
    if (geteuid() != 0)
        skip("needs root to change owners");
    cr_assert(chmod(scratch, 0755) == 0);
    write_admin("[softslice]\nvram = 1GiB\n");
    set("SOFTSLICE_ON_ERROR", "open");
    cr_expect(as_user(1000, is_taken) == 0, "root's");
    cr_assert(chown(admin_path, 1000, 1000) == 0);
    cr_expect(as_user(1000, is_refused) == 0, "our own");
    cr_expect(as_user(1001, is_refused) == 0, "another user's");
    cr_expect(is_refused() == 0, "a user's, for root");
    cr_assert(chown(admin_path, 65534, 65534) == 0);
    cr_expect(as_user(1000, is_taken) == 0, "root's as a rootless container sees it");
    cr_expect(as_user(65534, is_refused) == 0, "nobody's own");
    cr_expect(is_refused() == 0, "nobody's, for root");
    cr_assert(chown(admin_path, 0, 0) == 0 && chmod(admin_path, 0600) == 0);
    cr_expect(as_user(1000, is_refused) == 0, "unreadable");
    cr_assert(chmod(admin_path, 0644) == 0 && chmod(scratch, 0700) == 0);
    cr_expect(as_user(1000, is_refused) == 0, "in a directory that cannot be searched");
}

/* ---- what a user may not switch off */

Test(config, on_error)
{
    set("SOFTSLICE_VRAM", "3GB!");
    BAD("SOFTSLICE_VRAM");
    set("SOFTSLICE_ON_ERROR", "open");
    cr_expect(load() == -EINVAL && config.on_error == CONFIG_OPEN);
    write_admin("[softslice]\non_error = closed\n");
    BAD("SOFTSLICE_VRAM");
    write_admin("[softslice]\nmode = cap\n");
    cr_expect(load() == -EINVAL && config.on_error == CONFIG_OPEN, "this admin says nothing of limits");
    /* A limit of the admin's must not be got rid of by writing nonsense into a variable. */
    write_admin("[softslice]\nvram = 1GiB\n");
    BAD("SOFTSLICE_VRAM");
    write_admin("[tenant other]\nvram = 1GiB\n");
    BAD("SOFTSLICE_VRAM"); /* whose tenant this process would have been is not known any more */
    write_admin("[slice small]\nvram = 1GiB\n");
    cr_expect(load() == -EINVAL && config.on_error == CONFIG_OPEN, "the menu of the device plugin limits nobody");
    write_admin("[softslice]\nvram = 1GiB\non_error = open\n");
    cr_expect(load() == -EINVAL && config.on_error == CONFIG_OPEN, "the admin's own word");
    write_admin("[softslice]\non_error = open\nvram = x\n");
    BAD("admin.ini:3"); /* a bad admin file is closed whatever it says */
}

Test(config, on_error_open_without_an_error)
{
    set("SOFTSLICE_ON_ERROR", "open");
    GOOD();
    cr_expect(config.on_error == CONFIG_OPEN);
    write_admin("[softslice]\ncompute = 50%\n");
    GOOD();
    cr_expect(config.on_error == CONFIG_CLOSED, "an error later on (no state directory) must not open it either");
    expect_from(CONFIG_ON_ERROR, "admin.ini", "2 limit");
}

Test(config, what_is_known_of_a_bad_configuration)
{
    write_user("[softslice]\nvram = x\non_error = open\nlog = debug\nlog_file = /tmp/x\n");
    cr_expect(load() == -EINVAL);
    cr_expect(strstr(config.error, "user.ini:2") != NULL, "%s", config.error);
    cr_expect(config.on_error == CONFIG_OPEN && config.log == LOG_DEBUG);
    EXPECT_TEXT(config.log_file, "/tmp/x");
}

Test(config, disable)
{
    set("SOFTSLICE_DISABLE", "1");
    set("SOFTSLICE_VRAM", "1GiB");
    set("SOFTSLICE_WEIGHT", "1");
    GOOD();
    cr_expect(config.disable && !config_arms_vram(&config) && !config_arms_compute(&config));
    set("SOFTSLICE_COMPUTE", "nonsense");
    GOOD(); /* off is off */
    cr_expect(config.disable);
    write_admin("[tenant other]\nvram = 1GiB\n");
    variable_count--;
    variables[variable_count] = NULL;
    GOOD();
    cr_expect(config.disable, "no limit of the admin's for this process");
    write_admin("[softslice]\nvram = 1GiB\n");
    GOOD();
    cr_expect(!config.disable && config_arms_vram(&config));
    expect_from(CONFIG_DISABLE, "admin.ini", "2 limit");
    write_admin("[softslice]\ndisable = 0\n");
    GOOD();
    cr_expect(!config.disable, "the admin said so");
    write_admin("[softslice]\nvram = 1GiB\ndisable = 1\n");
    GOOD();
    cr_expect(config.disable, "the admin said so");
    write_admin("nonsense");
    BAD("admin.ini:1");
    cr_expect(!config.disable);
}

/* ---- devices that are not there */

Test(config, devices_that_are_not_there)
{
    const struct config_device both[] = {gpu_a, gpu_b};

    set("SOFTSLICE_VRAM", "0=1GiB,1=1GiB");
    GOOD();
    cr_expect(config_check_devices(&config, both, 2) == 0, "%s", config.error);
    cr_expect(config_check_devices(&config, both, 1) == -EINVAL);
    EXPECT_TEXT(config.error, "SOFTSLICE_VRAM: 1=1 GiB: there is no such GPU here");
    forget();
    set("SOFTSLICE_COMPUTE", UUID_B "=10%");
    GOOD();
    cr_expect(config_check_devices(&config, both, 2) == 0);
    cr_expect(config_check_devices(&config, both, 1) == -EINVAL);
    forget();
    set("CUDA_DEVICE_MEMORY_LIMIT_7", "1g"); /* HAMi sets them for all */
    write_admin("[gpu " UUID_B "]\nvram=1G\n");
    GOOD();
    cr_expect(config_check_devices(&config, both, 1) == 0);
}

Test(config, devices_of_other_machines)
{
    const struct config_device both[] = {gpu_a, gpu_b};
    char expected[PATH_MAX + 128];

    write_user("[gpu " UUID_A "]\nvram=1G\n[gpu " UUID_B "]\nvram=1G\n");
    GOOD();
    cr_expect(config_check_devices(&config, both, 1) == 0, "%s", config.error);
    write_user("[gpu GPU-00000000-0000-0000-0000-0000000000aa]\nvram=1G\n"); /* misspelt: GPU a would be without a limit */
    GOOD();
    cr_expect(config_check_devices(&config, both, 1) == -EINVAL);
    snprintf(expected, sizeof(expected),
             "%s/user.ini:2 [gpu]: GPU-00000000-0000-0000-0000-0000000000aa=1 GiB: there is no such GPU here, and one that is here "
             "has no limit",
             scratch);
    EXPECT_TEXT(config.error, expected);
}

/* ---- how it is called */

/* Pages of this process's address space. */
static long pages(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    long count = -1;

    cr_assert(file && fscanf(file, "%ld", &count) == 1);
    fclose(file);
    return count;
}

Test(config, mappings_are_returned)
{
    long before;

    write_admin("[softslice]\nvram = 1GiB\n");
    write_user(sample);
    load();
    before = pages();
    for (unsigned i = 0; i < 1000; i++)
        load();
    cr_expect(pages() < before + 1000, "%ld more pages", pages() - before);
}

Test(config, errno_and_descriptors_are_kept)
{
    int before = dup(0), after;

    close(before);
    errno = 4711;
    load(); /* there is no admin file: something failed within */
    cr_expect(errno == 4711);
    write_admin("[softslice]\nvram = 1GiB\n");
    write_user(sample);
    errno = 4711;
    load();
    cr_expect(errno == 4711);
    set("SOFTSLICE_VRAM", "x");
    write_admin("x");
    load();
    cr_expect(errno == 4711);
    after = dup(0);
    close(after);
    cr_expect(before == after);
}

static void *load_here(void *argument)
{
    struct config_input input = {lookup, variables, variables, admin_path, admin_owner};

    return (void *)(long)config_load(argument, &input);
}

static struct config at_once[8];

Test(config, threads_at_once)
{
    pthread_t thread[8];
    void *rc;

    write_admin("[softslice]\nvram = 1GiB\n");
    write_user(sample);
    set("SOFTSLICE_TENANT", "a");
    for (unsigned round = 0; round < 200; round++) {
        for (unsigned i = 0; i < 8; i++)
            cr_assert(pthread_create(&thread[i], NULL, load_here, &at_once[i]) == 0);
        for (unsigned i = 0; i < 8; i++) {
            cr_assert(pthread_join(thread[i], &rc) == 0 && !rc);
            cr_assert(config_vram_own(&at_once[i], &gpu_b, NULL) == 10 * GIB);
            cr_assert(config_vram_admin(&at_once[i], &gpu_b, NULL) == GIB);
            cr_assert(at_once[i].weight == 7 && strcmp(at_once[i].tenant, "a") == 0);
        }
    }
}

/* Not under sanitizers, which allocate themselves and want larger stacks. (Of the two compilers only clang has __has_feature, and runs
 * these tests under sanitizers alone.) */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__has_feature)

static volatile unsigned allocations;

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

void *malloc(size_t size)
{
    allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    allocations++;
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    allocations++;
    return __libc_realloc(old, size);
}

Test(config, nothing_is_allocated)
{
    unsigned before;

    write_admin("[softslice]\nvram = 1GiB\n[tenant a]\nvram=2GiB\n");
    write_user(sample);
    set("SOFTSLICE_TENANT", "a");
    set("CUDA_DEVICE_MEMORY_LIMIT", "3g");
    free(malloc(1));
    cr_assert(allocations > 0, "the count does not count");
    before = allocations;
    cr_expect(load() == 0);
    cr_expect(allocations == before);
    set("SOFTSLICE_VRAM", "x");
    before = allocations;
    cr_expect(load() == -EINVAL);
    cr_expect(allocations == before);
}

/* The whole stack of a thread is 32 KiB and ends in a page that cannot be touched. */
Test(config, little_stack_is_enough)
{
    pthread_attr_t attributes;
    pthread_t thread;
    void *rc;
    char *stack = mmap(NULL, 9 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    cr_assert(stack != MAP_FAILED && mprotect(stack + 4096, 8 * 4096, PROT_READ | PROT_WRITE) == 0);
    write_admin("[softslice]\nvram = 1GiB\n[tenant a]\nvram=x\n");
    write_user(sample);
    set("SOFTSLICE_VRAM", "0=1GiB,1=2GiB,y=3GiB");
    cr_assert(pthread_attr_init(&attributes) == 0 && pthread_attr_setstack(&attributes, stack + 4096, 8 * 4096) == 0);
    cr_assert(pthread_create(&thread, &attributes, load_here, &at_once[0]) == 0);
    cr_assert(pthread_join(thread, &rc) == 0);
    cr_expect((long)rc == -EINVAL);
}

#endif

/* A file that changes while it is read gives what it was at some time, or an error, never a crash. */
Test(config, files_that_change)
{
    pid_t pid;
    int status;

    write_user("[softslice]\nvram = 1GiB\n");
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        static char filler[60000];
        int fd = open(scratch_path("user.ini"), O_WRONLY);

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        memset(filler, ';', sizeof(filler));
        for (;;) {
            if (ftruncate(fd, 0) < 0 || pwrite(fd, filler, sizeof(filler), 0) < 0 || ftruncate(fd, 0) < 0 ||
                pwrite(fd, "[softslice]\nvram = 1GiB\n", 24, 0) < 0)
                _exit(1);
        }
    }
    for (unsigned i = 0; i < 2000; i++) {
        int rc = load();

        cr_assert(rc == 0 || (rc == -EINVAL && config.error[0]));
        cr_assert(rc != 0 || config.vram.count <= 1);
    }
    kill(pid, SIGKILL);
    cr_assert(waitpid(pid, &status, 0) == pid);
}

Test(config, process)
{
    static struct config ours;

    unsetenv("SOFTSLICE_CONFIG");
    cr_assert(setenv("SOFTSLICE_VRAM", "7GiB", 1) == 0);
    if (access(CONFIG_ADMIN_FILE, F_OK) == 0)
        skip("this machine has an admin file");
    cr_expect(config_load_process(&ours) == 0, "%s", ours.error);
    cr_expect(config_vram_own(&ours, &gpu_a, NULL) == 7 * GIB);
    cr_assert(setenv("SOFTSLICE_VRRAM", "7GiB", 1) == 0);
    cr_expect(config_load_process(&ours) == -EINVAL);
}

Test(config, texts_fit_their_buffers)
{
    char text[16], all[1024];

    limits_of(all, 40);
    set("SOFTSLICE_VRAM", all);
    GOOD();
    for (unsigned size = 0; size <= sizeof(text); size++) {
        memset(text, '#', sizeof(text));
        config_value(&config, CONFIG_VRAM, text, size);
        for (unsigned i = size; i < sizeof(text); i++)
            cr_expect(text[i] == '#');
        cr_expect(size == 0 || memchr(text, 0, size));
    }
}

/* ---- the documents: each key is in the sample and in the man page */

static char *read_document(const char *path)
{
    static char text[2][1 << 16];
    static unsigned next;
    FILE *file = fopen(path, "r");
    size_t length;

    cr_assert(file != NULL, "%s is not here: tests run in the root of the repository", path);
    next = !next;
    length = fread(text[next], 1, sizeof(text[next]) - 1, file);
    fclose(file);
    text[next][length] = 0;
    return text[next];
}

Test(config, sample_is_valid_and_complete)
{
    char *text = read_document("examples/softslice.ini");
    char *line, *rest, bare[1 << 16] = "";
    bool seen[CONFIG_KEYS] = {false};

    /* As it is ... */
    write_user(text);
    GOOD();
    forget();
    write_admin(text);
    GOOD();
    forget();
    /* ... and with each setting that is commented out taken on its own. */
    for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        const char *setting = line[0] == ';' && line[1] != ' ' ? line + 1 : line;
        char section[1 << 10];

        for (unsigned key = 0; key < CONFIG_KEYS; key++) {
            size_t length = strlen(config_keys[key].key);

            seen[key] |= strncmp(setting, config_keys[key].key, length) == 0 && strncmp(setting + length, " = ", 3) == 0;
        }
        if (setting[0] == '[')
            snprintf(bare, sizeof(bare), "%s\n", setting);
        if (setting == line || setting[0] == '[')
            continue;
        snprintf(section, sizeof(section), "%.500s%.500s\n", bare, setting);
        write_user(section);
        cr_expect(load() == 0, "%s: %s", setting, config.error);
    }
    for (unsigned key = 0; key < CONFIG_KEYS; key++)
        cr_expect(seen[key] || key == CONFIG_CONFIG, "%s is not in the sample", config_keys[key].key);
}

/* The man page has one paragraph a key: name, variable and default as the table has them. */
Test(config, man_page_is_complete)
{
    char *text = read_document("docs/man/softslice.ini.5");

    for (unsigned key = 0; key < CONFIG_KEYS; key++) {
        char head[256], *found, *end;

        snprintf(head, sizeof(head), key == CONFIG_CONFIG ? ".TP\n.B %.0s%s\n" : ".TP\n.BR %s \" (\" %s )\n", config_keys[key].key,
                 config_keys[key].variable);
        found = strstr(text, head);
        cr_expect(found != NULL, "the man page has no paragraph\n%s", head);
        if (!found || key == CONFIG_CONFIG)
            continue;
        end = strstr(found + 1, ".TP");
        snprintf(head, sizeof(head), "Default: %s.", config_keys[key].fallback);
        found = strstr(found, head);
        cr_expect(found && (!end || found < end), "the man page does not say '%s' of %s", head, config_keys[key].key);
    }
}
