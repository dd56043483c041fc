/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration from the environment and the user's ini: nothing bad is ever read as "no limit". */
#include "config_helper.h"

CONFIG_TEST_SUITE(config);

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
    set("SOFTSLICE_HEADROOM", "256MiB");
    set("SOFTSLICE_KEEP_ASLEEP", "on");
    set("SOFTSLICE_PERIOD", "1500us");
    set("SOFTSLICE_QUANTUM", "100ms");
    set("SOFTSLICE_MAX_STALL", "10ms");
    set("SOFTSLICE_LOG", "debug");
    set("SOFTSLICE_LOG_FILE", "/tmp/a b");
    write_user("; nothing\n");
    GOOD();
    cr_expect(own(&gpu_a) == 20 * GIB && config_compute_own(&config, &gpu_b, NULL) == 3000);
    cr_expect(config.weight == 250 && config.weight_set && config.mode == CONFIG_MODE_SHARE);
    cr_expect(config.tenant_named && config.on_error == CONFIG_OPEN && config.managed == CONFIG_MANAGED_FORBID);
    cr_expect(config.spill == CONFIG_SPILL_HOST && config.period_us == 1500 && config.log == LOG_DEBUG);
    cr_expect(config.headroom == 256 * MIB);
    EXPECT_TEXT(value_of(CONFIG_HEADROOM), "256 MiB");
    cr_expect(config.keep_asleep == CONFIG_KEEP_ASLEEP_ON);
    cr_expect(config_arms_vram(&config) && config_arms_compute(&config));
    EXPECT_TEXT(config.tenant, "team-a.web_1");
    EXPECT_TEXT(config.state_dir, "/run/x");
    EXPECT_TEXT(config.log_file, "/tmp/a b");
    EXPECT_TEXT(value_of(CONFIG_VRAM), "20 GiB");
    EXPECT_TEXT(value_of(CONFIG_COMPUTE), "30%");
    EXPECT_TEXT(value_of(CONFIG_PERIOD), "1500us");
    EXPECT_TEXT(value_of(CONFIG_QUANTUM), "100ms");
    EXPECT_TEXT(value_of(CONFIG_MAX_STALL), "10ms");
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
        {"SOFTSLICE_HEADROOM", "3GB"},
        {"SOFTSLICE_HEADROOM", "10%"},
        {"SOFTSLICE_HEADROOM", "-1"},
        {"SOFTSLICE_KEEP_ASLEEP", "1"},
        {"SOFTSLICE_PERIOD", "0"},
        {"SOFTSLICE_PERIOD", "0ms"},
        {"SOFTSLICE_PERIOD", "100"},
        {"SOFTSLICE_PERIOD", "999us"},
        {"SOFTSLICE_PERIOD", "11s"},
        {"SOFTSLICE_PERIOD", "1m"},
        {"SOFTSLICE_PERIOD", "ms"},
        {"SOFTSLICE_PERIOD", "18446744073709551s"},
        {"SOFTSLICE_PERIOD", "18446744073710s"}, /* times 10^6 just above 2^64 */
        {"SOFTSLICE_QUANTUM", "0"},
        {"SOFTSLICE_QUANTUM", "0ms"},
        {"SOFTSLICE_QUANTUM", "999us"},
        {"SOFTSLICE_QUANTUM", "101ms"},
        {"SOFTSLICE_QUANTUM", "five"},
        {"SOFTSLICE_QUANTUM", "-5ms"},
        {"SOFTSLICE_QUANTUM", "18446744073709551617ms"},
        {"SOFTSLICE_MAX_STALL", "0"},
        {"SOFTSLICE_MAX_STALL", "0s"},
        {"SOFTSLICE_MAX_STALL", "9999us"},
        {"SOFTSLICE_MAX_STALL", "61s"},
        {"SOFTSLICE_MAX_STALL", "2"},
        {"SOFTSLICE_MAX_STALL", "1.5s"},
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
    set("SOFTSLICE_QUANTUM", "1 ms");
    set("SOFTSLICE_MAX_STALL", "60s");
    set("SOFTSLICE_DISABLE", "No");
    set("SOFTSLICE_TENANT", "123456789012345678901234567890123456789012345678901234567890123");
    GOOD();
    cr_expect(own(&gpu_a) == 20 * GIB);
    cr_expect(own(&gpu_b) == GIB, "of an ordinal and a UUID for one device the smaller holds");
    cr_expect(config.period_us == 10000000 && config.quantum_us == 1000 && config.max_stall_us == 60000000);
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

/* ---- the user's ini */

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
