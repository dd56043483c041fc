/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that softslice parses from outside: units, environment, user's and admin's ini. `make fuzz` builds this with libFuzzer;
 * tests/unit/test_fuzz_config.c runs the seeds of tests/fuzz/config and mutations of them without it.
 *
 * Input: one byte that chooses, then text. Units: all of it. Files: an ini; choice 2 admin's, 3 user's. Environment: lines NAME=VALUE. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "softslice/config.h"

#define MUST(condition)                                                                                                            \
    do {                                                                                                                           \
        if (!(condition)) {                                                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                        \
            abort();                                                                                                               \
        }                                                                                                                          \
    } while (0)

#define VARIABLES_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *find_variable(void *context, const char *name)
{
    size_t length = strlen(name);

    for (char **entry = context; *entry; entry++) {
        if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=')
            return *entry + length + 1;
    }
    return NULL;
}

/* What holds of every outcome. */
static void check_outcome(struct config *config, int rc, char **variables)
{
    static const struct config_device device = {.uuid = {[15] = 1}, .ordinal = 0, .physical = UINT64_C(80) << 30};
    static char text[1 << 16];
    const char *vram = find_variable(variables, "SOFTSLICE_VRAM");
    const char *share = find_variable(variables, "SOFTSLICE_COMPUTE");

    MUST(rc == 0 || rc == -EINVAL);
    MUST((rc == 0) == (config->error[0] == 0));
    for (const char *c = config->error; *c; c++)
        MUST((unsigned char)*c >= 0x20 && *c != 0x7f);
    if (rc != 0)
        return;
    MUST(config->vram.count <= CONFIG_RULES_MAX && config->compute.count <= CONFIG_RULES_MAX);
    MUST(config->weight >= 1 && config->weight <= 10000 && config->period_us >= 1000 && config->period_us <= 10000000);
    MUST(config->quantum_us >= 1000 && config->quantum_us <= 100000 && config->max_stall_us >= 10000 &&
         config->max_stall_us <= 60000000);
    MUST(config->tenant_named == (config->tenant[0] != 0) && !strchr(config->tenant, '/') && config->tenant[0] != '.');
    for (unsigned i = 0; i < config->vram.count; i++) {
        const struct units_amount *amount = &config->vram.rule[i].amount;

        MUST(amount->value > 0 && amount->value <= INT64_MAX);
        MUST(amount->kind == UNITS_BYTES || (amount->kind == UNITS_PERCENT && amount->value <= 10000));
    }
    for (unsigned i = 0; i < config->compute.count; i++) {
        const struct units_amount *amount = &config->compute.rule[i].amount;

        MUST(amount->value > 0 && amount->value <= 10000);
        MUST(amount->kind == UNITS_PERCENT || (amount->kind == UNITS_OFF && config->compute.rule[i].source == CONFIG_HAMI));
    }
    /* Who asks for a limit gets one, or an error. */
    if (!config->disable) {
        MUST(!vram || !*vram || config_arms_vram(config));
        MUST(!share || !*share || config_arms_compute(config));
    }
    MUST(config_vram_own(config, &device, NULL) > 0);
    MUST(config_compute_own(config, &device, NULL) > 0 && config_compute_admin(config, &device, NULL) > 0);
    for (unsigned key = 0; key < CONFIG_KEYS; key++) {
        MUST(*config_value(config, key, text, sizeof(text)));
        MUST(*config_origin(config, key, text, sizeof(text)));
    }
}

static void load(char **variables, const char *admin_file)
{
    static struct config config;
    struct config_input input = {find_variable, variables, variables, admin_file, geteuid(), NULL};
    int rc;

    memset(&config, 0xa5, sizeof(config));
    errno = 4711;
    rc = config_load(&config, &input);
    MUST(errno == 4711);
    check_outcome(&config, rc, variables);
    MUST(rc == 0 || config.on_error == CONFIG_CLOSED || !config.admin_present || !strstr(config.error, config.admin_ini));
}

/* A file that exists only as a descriptor, and its name. */
static int write_file(const uint8_t *text, size_t size, char path[32])
{
    int fd = memfd_create("ini", MFD_CLOEXEC);

    MUST(fd >= 0 && write(fd, text, size) == (ssize_t)size && fchmod(fd, 0644) == 0);
    snprintf(path, 32, "/proc/self/fd/%d", fd);
    return fd;
}

static void try_file(const uint8_t *text, size_t size, bool admin)
{
    char path[32], variable[64];
    char *variables[] = {variable, NULL};
    int fd = write_file(text, size, path);

    snprintf(variable, sizeof(variable), admin ? "SOFTSLICE_ON_ERROR=open" : "SOFTSLICE_CONFIG=%s", path);
    load(variables, admin ? path : NULL);
    close(fd);
}

static void try_environment(const uint8_t *text, size_t size)
{
    char *variables[VARIABLES_MAX + 1] = {NULL};
    char *copy = malloc(size + 1), *rest, *line;
    unsigned count = 0;

    MUST(copy);
    memcpy(copy, text, size);
    copy[size] = 0;
    for (line = strtok_r(copy, "\n", &rest); line && count < VARIABLES_MAX; line = strtok_r(NULL, "\n", &rest)) {
        /* It could name any file of this machine. */
        if (strncmp(line, "SOFTSLICE_CONFIG", 16) != 0)
            variables[count++] = line;
    }
    load(variables, NULL);
    free(copy);
}

static void try_units(const uint8_t *text, size_t size)
{
    char *copy = malloc(size ? size : 1);
    char written[UNITS_TEXT_MAX];
    struct units_device device;
    uint64_t value;

    MUST(copy);
    memcpy(copy, text, size);
    if (units_parse_size(copy, size, &value) == 0) {
        uint64_t back;

        MUST(value > 0 && value <= INT64_MAX);
        units_format_size(written, value);
        MUST(units_parse_size(written, strlen(written), &back) == 0 && back <= value);
    }
    if (units_parse_percent(copy, size, &value) == 0)
        MUST(value > 0 && value <= 10000);
    if (units_parse_device(copy, size, &device) == 0 && device.kind == UNITS_DEVICE_UUID) {
        struct units_device again;

        units_format_uuid(written, device.uuid);
        MUST(units_parse_device(written, strlen(written), &again) == 0 && memcmp(again.uuid, device.uuid, 16) == 0);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    switch (data[0] % 4) {
    case 0:
        try_units(data + 1, size - 1);
        break;
    case 1:
        try_environment(data + 1, size - 1);
        break;
    case 2:
        try_file(data + 1, size - 1, true);
        break;
    default:
        try_file(data + 1, size - 1, false);
    }
    return 0;
}
