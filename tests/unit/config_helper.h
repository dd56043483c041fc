/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration's sources made up for a test: its environment, its admin file and its user ini, and what came of them. */
#ifndef SOFTSLICE_TESTS_CONFIG_HELPER_H
#define SOFTSLICE_TESTS_CONFIG_HELPER_H

#include <errno.h>

#include "scratch.h"
#include "softslice/config.h"

/* Each of the files that use it needs some of it. */
#define CONFIG_TEST_FUNCTION static __attribute__((unused))

#define GIB      (UINT64_C(1) << 30)
#define MIB      (UINT64_C(1) << 20)
#define UUID_A   "GPU-00000000-0000-0000-0000-00000000000a"
#define UUID_B   "GPU-00000000-0000-0000-0000-00000000000b"
#define NO_LIMIT UINT64_MAX

static const struct config_device gpu_a = {.uuid = {[15] = 0x0a}, .ordinal = 0, .physical = 80 * GIB};
static const struct config_device gpu_b = {.uuid = {[15] = 0x0b}, .ordinal = 1, .physical = 40 * GIB};

/* A user's ini with something of everything. */
static const char sample[] __attribute__((unused)) = "[softslice]\n"
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

/* A test's environment, its admin file, and what came of them. */
static char *variables[200];
static char variable_text[1 << 16];
static size_t variable_used;
static unsigned variable_count;
static char admin_path[PATH_MAX];
static unsigned admin_owner;
static struct config config;

CONFIG_TEST_FUNCTION void start(void)
{
    scratch_make();
    strcpy(admin_path, scratch_path("admin.ini"));
    admin_owner = geteuid();
}

CONFIG_TEST_FUNCTION const char *lookup(void *context, const char *name)
{
    size_t length = strlen(name);

    for (char **entry = context; *entry; entry++) {
        if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=')
            return *entry + length + 1;
    }
    return NULL;
}

CONFIG_TEST_FUNCTION void set(const char *name, const char *value)
{
    char *entry = variable_text + variable_used;

    variable_used += (size_t)snprintf(entry, sizeof(variable_text) - variable_used, "%s=%s", name, value) + 1;
    cr_assert(variable_used < sizeof(variable_text));
    variables[variable_count++] = entry;
}

CONFIG_TEST_FUNCTION int load(void)
{
    struct config_input input = {lookup, variables, variables, admin_path, admin_owner, NULL};

    memset(&config, 0xff, sizeof(config));
    return config_load(&config, &input);
}

CONFIG_TEST_FUNCTION void write_admin(const char *text)
{
    scratch_write("admin.ini", text, strlen(text));
}

/* A user's ini named by SOFTSLICE_CONFIG. */
CONFIG_TEST_FUNCTION void write_user(const char *text)
{
    const char *path = scratch_write("user.ini", text, strlen(text));

    if (!lookup(variables, "SOFTSLICE_CONFIG"))
        set("SOFTSLICE_CONFIG", path);
}

CONFIG_TEST_FUNCTION void forget(void)
{
    memset(variables, 0, sizeof(variables));
    variable_count = 0;
    variable_used = 0;
    unlink(admin_path);
}

/* Criterion keeps a skipped test's reason to itself. */
CONFIG_TEST_FUNCTION void skip(const char *reason)
{
    fprintf(stderr, "test_config: skipped: %s\n", reason);
    cr_skip("%s", reason);
}

CONFIG_TEST_FUNCTION void expect_good(int line)
{
    cr_expect(load() == 0, "line %d: %s", line, config.error);
    cr_expect(config.error[0] == 0, "line %d: %s", line, config.error);
}

/* The error must be a single line that says `what`. */
CONFIG_TEST_FUNCTION void expect_bad(int line, const char *what)
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

CONFIG_TEST_FUNCTION uint64_t own(const struct config_device *device)
{
    return config_vram_own(&config, device, NULL);
}

CONFIG_TEST_FUNCTION uint64_t admin(const struct config_device *device)
{
    return config_vram_admin(&config, device, NULL);
}

CONFIG_TEST_FUNCTION const char *value_of(enum config_key key)
{
    static char text[8192];

    return config_value(&config, key, text, sizeof(text));
}

CONFIG_TEST_FUNCTION const char *origin_of(enum config_key key)
{
    static char text[8192];

    return config_origin(&config, key, text, sizeof(text));
}

#define EXPECT_TEXT(got, expected) cr_expect(strcmp(got, expected) == 0, "'%s', expected '%s'", got, expected)

CONFIG_TEST_FUNCTION void expect_from(enum config_key key, const char *file, const char *rest)
{
    char expected[PATH_MAX + 128];

    snprintf(expected, sizeof(expected), "%s/%s:%s", scratch, file, rest);
    EXPECT_TEXT(origin_of(key), expected);
}

/* A list of limits for `count` devices. */
CONFIG_TEST_FUNCTION void limits_of(char *text, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        text += sprintf(text, "%s%u=1GiB", i ? "," : "", i);
}

#define CONFIG_TEST_SUITE(name) TestSuite(name, .init = start, .fini = scratch_remove, .timeout = 20)

#endif
