/* SPDX-License-Identifier: Apache-2.0 */
/* Members of a tenant on a ledger of the test's own, which variables of the test's configure. */
#ifndef SOFTSLICE_TESTS_QUOTA_HELPER_H
#define SOFTSLICE_TESTS_QUOTA_HELPER_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "scratch.h"
#include "softslice/quota.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static const char *variables[16];

static const char *from_variables(void *context, const char *name)
{
    size_t length = strlen(name);

    (void)context;
    for (unsigned i = 0; variables[i]; i++)
        if (!strncmp(variables[i], name, length) && variables[i][length] == '=')
            return variables[i] + length + 1;
    return NULL;
}

static const struct config_device device = {.uuid = {1, 2, 3}, .physical = 80 * GIB};

/* What these variables (NULL: none) say. */
static inline struct config *load(const char *tenant, const char *vram)
{
    static char setting[64], name[64];
    struct config *config = malloc(sizeof(*config));
    struct config_input input = {.getenv = from_variables, .admin_file = scratch_path("no such file")};
    unsigned n = 0;

    snprintf(setting, sizeof(setting), "SOFTSLICE_VRAM=%s", vram);
    snprintf(name, sizeof(name), "SOFTSLICE_TENANT=%s", tenant);
    if (vram)
        variables[n++] = setting;
    if (tenant)
        variables[n++] = name;
    variables[n] = NULL;
    cr_assert_eq(config_load(config, &input), 0, "%s", config->error);
    return config;
}

/* A member of tenant "a" (or of none) with this VRAM variable (NULL: none) and one device of 80 GiB. */
static inline struct quota *join(const char *tenant, const char *vram, uint64_t granule)
{
    struct quota *quota = mmap(NULL, sizeof(*quota), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct config *config = load(tenant, vram);
    char path[PATH_MAX];
    int directory;

    directory = ledger_state_dir(&quota->ledger, scratch, path, sizeof(path));
    cr_assert_geq(directory, 0, "%s", quota->ledger.error);
    cr_assert_eq(ledger_attach(&quota->ledger, directory, tenant), 0, "%s", quota->ledger.error);
    close(directory);
    cr_assert_eq(quota_add_device(quota, config, &device, granule), 0);
    free(config);
    return quota;
}

/* An allocation that the driver grants, of `actual` bytes if not 0. */
static inline bool take(struct quota *quota, uint64_t bytes, enum quota_family family, uint64_t actual, struct record *record)
{
    struct quota_charge charge;

    if (quota_reserve(quota, &charge, 0, bytes, family) != 0)
        return false;
    memset(record, 0xee, sizeof(*record));
    quota_keep(quota, &charge, actual, record);
    cr_assert_eq(record->device, 0);
    cr_assert_eq(record->family, family);
    cr_assert_eq(record->key, UINT64_C(0xeeeeeeeeeeeeeeee), "key and context are the caller's");
    return true;
}

static inline void setup(void)
{
    scratch_make();
    log_configure(LOG_WARN, scratch_path("log"));
}

#endif
