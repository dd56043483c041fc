/* SPDX-License-Identifier: Apache-2.0 */
/* Other enforcers' variables, HAMi's and NVIDIA's: what they say holds as it does there, and the smaller limit counts. */
#include "config_helper.h"

CONFIG_TEST_SUITE(config_others);

Test(config_others, hami_memory)
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

Test(config_others, hami_per_device)
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

Test(config_others, hami_without_the_list_of_names)
{
    struct config_input input = {lookup, NULL, variables, admin_path, admin_owner, NULL};

    set("CUDA_DEVICE_MEMORY_LIMIT_1", "3g");
    cr_expect(config_load(&config, &input) == 0);
    cr_expect(own(&gpu_b) == 3 * GIB);
}

Test(config_others, hami_share)
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

#define CACHE "CUDA_DEVICE_MEMORY_SHARED_CACHE"

/* In a container of HAMi's whoever names the same file shares one budget, in a directory that all users of the container can use. */
Test(config_others, hami_container)
{
    static const char *const rows[][2] = {{"/usr/local/vgpu/5f0c.cache", "hami-5f0c"},
                                          {"/tmp/vgpu/7a b\n.cache", "hami-7a_b_"},
                                          {"/x", "hami-x"},
                                          {"/tmp/.cache", "hami-.cache"}};
    char path[200], text[PATH_MAX];

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        forget();
        set(CACHE, rows[i][0]);
        GOOD();
        EXPECT_TEXT(config.hami.cache, rows[i][0]);
        cr_expect(config.tenant_named && config_arms_vram(&config) && !config_arms_compute(&config));
        EXPECT_TEXT(config.tenant, rows[i][1]);
        EXPECT_TEXT(config.state_dir, "/dev/shm/softslice-hami");
        EXPECT_TEXT(config_origin(&config, CONFIG_TENANT, text, sizeof(text)), CACHE);
    }
    memset(path, 'n', sizeof(path) - 1);
    path[0] = '/';
    path[sizeof(path) - 1] = 0;
    forget();
    set(CACHE, path);
    GOOD();
    cr_expect(strlen(config.tenant) == CONFIG_TENANT_MAX - 1);
    forget();
    set(CACHE, "relative.cache");
    BAD(CACHE "='relative.cache': not an absolute path");
    forget();
    set(CACHE, "/usr/local/vgpu/");
    BAD(CACHE "='/usr/local/vgpu/': not an absolute path");
}

/* What anybody says of tenants comes before it: a file of the admin's, which holds with a cleared environment too, must mean the same tenant without it. */
Test(config_others, hami_container_beside_other_names)
{
    set(CACHE, "/usr/local/vgpu/5f.cache");
    set("SOFTSLICE_TENANT", "team");
    GOOD();
    EXPECT_TEXT(config.tenant, "team");
    EXPECT_TEXT(config.state_dir, "");
    EXPECT_TEXT(config.hami.cache, "/usr/local/vgpu/5f.cache");
    forget();
    set(CACHE, "/usr/local/vgpu/5f.cache");
    set("SOFTSLICE_STATE_DIR", "/run/x");
    GOOD();
    EXPECT_TEXT(config.tenant, "hami-5f");
    EXPECT_TEXT(config.state_dir, "/run/x");
    forget();
    set(CACHE, "/usr/local/vgpu/5f.cache");
    write_admin("[softslice]\nvram = 1GiB\n");
    GOOD();
    EXPECT_TEXT(config.tenant, "default");
    EXPECT_TEXT(config.state_dir, "");
}

static bool yes(void)
{
    return true;
}

/* A library in HAMi's place has a file where no variable says which, as HAMi's has, where there is a limit. */
Test(config_others, hami_in_its_place)
{
    struct config_input input = {lookup, variables, variables, admin_path, admin_owner, yes};

    cr_expect(config_load(&config, &input) == 0 && !config.tenant_named);
    set("CUDA_DEVICE_MEMORY_LIMIT", "2g");
    GOOD();
    cr_expect(!config.tenant_named);
    cr_expect(config_load(&config, &input) == 0);
    EXPECT_TEXT(config.hami.cache, "/tmp/cudevshr.cache");
    EXPECT_TEXT(config.tenant, "hami-cudevshr");
}

static void set_policy(const char *policy)
{
    forget();
    set("CUDA_DEVICE_SM_LIMIT", "30");
    set("CUDA_DEVICE_SM_LIMIT_1", "40");
    set(CACHE, "/usr/local/vgpu/5f.cache");
    set("GPU_CORE_UTILIZATION_POLICY", policy);
}

Test(config_others, hami_policy)
{
    set_policy("default");
    GOOD();
    cr_expect(config.hami.yields && config_compute_own(&config, &gpu_a, NULL) == 3000);
    set_policy("force");
    GOOD();
    cr_expect(!config.hami.yields && config_compute_own(&config, &gpu_a, NULL) == 3000);
    set_policy("DISABLE");
    GOOD();
    cr_expect(!config_arms_compute(&config) && config_compute_own(&config, &gpu_b, NULL) == 10000);
    set_policy("");
    set("SOFTSLICE_COMPUTE", "50%");
    GOOD();
    cr_expect(!config.hami.yields && config_compute_own(&config, &gpu_a, NULL) == 3000);
}

Test(config_others, hami_log_and_priority)
{
    static const struct {
        const char *value;
        enum log_level level;
    } rows[] = {{"0", LOG_ERROR}, {"1", LOG_WARN}, {"2", LOG_WARN}, {"3", LOG_INFO},
                {"4", LOG_DEBUG}, {"5", LOG_WARN}, {"x", LOG_WARN}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        forget();
        set("LIBCUDA_LOG_LEVEL", rows[i].value);
        set("CUDA_DEVICE_MEMORY_LIMIT", "2g");
        GOOD();
        cr_expect(config.log == rows[i].level && config.hami.priority == 1, "%s", rows[i].value);
    }
    forget();
    set("SOFTSLICE_LOG", "off");
    set("LIBCUDA_LOG_LEVEL", "4");
    set("CUDA_DEVICE_MEMORY_LIMIT", "2g");
    set("CUDA_TASK_PRIORITY", "0");
    GOOD();
    cr_expect(config.log == LOG_OFF && config.hami.priority == 0);
}

Test(config_others, nvidia)
{
    set("NVIDIA_GPU_MEMORY_LIMIT", "4096");
    GOOD();
    cr_expect(own(&gpu_a) == 4 * GIB && config_arms_vram(&config));
    EXPECT_TEXT(origin_of(CONFIG_VRAM), "NVIDIA_GPU_MEMORY_LIMIT");
}

Test(config_others, others_limits_combine_by_minimum)
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
