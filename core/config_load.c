/* SPDX-License-Identifier: Apache-2.0 */
/* All sources together: who wins, who is the tenant, and what a user may not switch off. */
#include <errno.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "compat.h"
#include "config_internal.h"
#include "softslice/ini.h"
#include "softslice/share.h"

#define OVERFLOW_UID 65534 /* how a user namespace shows owners that are not in it */
#define MAX_STALL_US 2000000

static void set_defaults(struct config *config)
{
    memset(config, 0, sizeof(*config));
    config->weight = 100;
    config->mode = CONFIG_MODE_CAP;
    config->on_error = CONFIG_CLOSED;
    config->managed = CONFIG_MANAGED_CHARGE;
    config->spill = CONFIG_SPILL_OFF;
    config->keep_asleep = CONFIG_KEEP_ASLEEP_OFF;
    config->period_us = 100000;
    config->quantum_us = 5000;
    config->max_stall_us = MAX_STALL_US;
    config->log = LOG_WARN;
}

static void fail_admin(struct config_loader *loader, const char *what)
{
    loader->admin_bad = true;
    config_fail(loader, "%s: %s", loader->config->admin_ini, what);
}

/* Whether the admin alone could have written the file. In a rootless container root's files belong to the overflow uid; what
 * really belongs to that uid is told from them by our being able to write it. */
static bool is_admins(struct config_loader *loader, const struct ini_file *file)
{
    const char *path = loader->config->admin_ini;

    if (file->mode & (S_IWGRP | S_IWOTH)) {
        fail_admin(loader, "group or others may write the admin's file");
        return false;
    }
    if (file->owner != loader->input->admin_owner && (file->owner != OVERFLOW_UID || compat_may_write(path))) {
        fail_admin(loader, "the admin's file does not belong to root");
        return false;
    }
    return true;
}

/* A directory that is mounted into a container stays there when it is removed on the host, empty: no other one has no name left. */
static bool is_in_removed_directory(const char *path)
{
    char directory[PATH_MAX];
    const char *end = strrchr(path, '/');

    if (!end || end == path)
        return false;
    log_format(directory, sizeof(directory), "%.*s", (int)(end - path), path);
    return compat_links(directory) == 0;
}

static void read_admin_file(struct config_loader *loader, struct ini_file *file)
{
    struct config *config = loader->config;
    const char *what;
    int rc;

    if (!loader->input->admin_file)
        return;
    log_format(config->admin_ini, sizeof(config->admin_ini), "%s", loader->input->admin_file);
    rc = ini_file_open(file, config->admin_ini, &what);
    if (rc == -ENOENT && !compat_exists(config->admin_ini) && !is_in_removed_directory(config->admin_ini))
        return;
    config->admin_present = true;
    if (rc == -ENOENT) /* a mount that is not there yet, or not any more, must not read as "no limits" */
        what = compat_exists(config->admin_ini) ? "a symbolic link that leads nowhere" : "its directory was removed";
    if (rc < 0)
        fail_admin(loader, what);
    else if (is_admins(loader, file))
        config_read_file(loader, file, CONFIG_ADMIN);
}

static void read_user_file(struct config_loader *loader, struct ini_file *file)
{
    struct config *config = loader->config;
    const char *what;

    if (!*config->user_ini)
        return;
    if (ini_file_open(file, config->user_ini, &what) < 0)
        config_fail(loader, "SOFTSLICE_CONFIG: %s: %s", config->user_ini, what);
    else
        config_read_file(loader, file, CONFIG_USER_INI);
}

static const struct config_rule *admin_rule(const struct config_rules *rules)
{
    for (unsigned i = 0; i < rules->count; i++) {
        if (rules->rule[i].source == CONFIG_ADMIN)
            return &rules->rule[i];
    }
    return NULL;
}

static const struct config_rule *admin_limit(const struct config *config)
{
    const struct config_rule *rule = admin_rule(&config->vram);

    return rule ? rule : admin_rule(&config->compute);
}

/* Where the admin sets a limit and nobody names a tenant, all processes under that file are one. */
static void name_tenant(struct config_loader *loader)
{
    const struct config_rule *rule = admin_limit(loader->config);
    struct config_at at = {.source = CONFIG_ADMIN, .line = rule ? rule->line : 0, .name = "limit"};

    if (loader->config->tenant_named || !(rule || loader->admin_limits_unnamed))
        return;
    config_claim(loader, CONFIG_TENANT, &at);
    loader->config->tenant_named = true;
    log_format(loader->config->tenant, CONFIG_TENANT_MAX, CONFIG_TENANT_UNNAMED);
}

static void set_weight(struct config_loader *loader)
{
    struct config *config = loader->config;
    struct config_at at = {.source = CONFIG_ADMIN, .line = loader->admin_weight_line, .name = loader->admin_weight_name};

    config->weight_set = loader->own_weight || loader->admin_weight;
    if (loader->own_weight)
        config->weight = loader->own_weight;
    config->admin_weight = loader->admin_weight;
    if (loader->admin_weight && (!loader->own_weight || loader->admin_weight < loader->own_weight)) {
        config->weight = loader->admin_weight;
        config_claim(loader, CONFIG_WEIGHT, &at);
    }
}

static bool said_by_admin(const struct config *config, enum config_key key)
{
    return config->from[key].source == CONFIG_ADMIN;
}

/* A user's word cannot open what the admin closes. */
static void keep_closed(struct config_loader *loader)
{
    struct config *config = loader->config;
    struct config_at at = {.source = CONFIG_ADMIN, .name = "limit"};
    const struct config_rule *rule = admin_limit(config);
    bool limited = rule || (*config->error && loader->admin_limits);

    if (rule)
        at.line = rule->line;
    if (loader->admin_bad || (limited && config->on_error == CONFIG_OPEN && !said_by_admin(config, CONFIG_ON_ERROR))) {
        config->on_error = CONFIG_CLOSED;
        config_claim(loader, CONFIG_ON_ERROR, &at);
    }
    if (loader->admin_bad || (limited && config->disable && !said_by_admin(config, CONFIG_DISABLE))) {
        config->disable = false;
        config_claim(loader, CONFIG_DISABLE, &at);
    }
}

/* Nor can it turn a maximum into something less: idle time is lent, and what stalls do not repay is forgiven, where the admin says so. */
static void keep_cap(struct config_loader *loader)
{
    struct config *config = loader->config;
    const struct config_rule *rule = NULL;

    for (unsigned i = 0; i < config->compute.count && !rule; i++)
        if (config->compute.rule[i].source == CONFIG_ADMIN &&
            units_bytes_of(&config->compute.rule[i].amount, SHARE_WHOLE) < SHARE_WHOLE)
            rule = &config->compute.rule[i];
    if (!rule)
        return;
    struct config_at at = {.source = CONFIG_ADMIN, .line = rule->line, .name = "limit"};
    if (config->mode != CONFIG_MODE_CAP && !said_by_admin(config, CONFIG_MODE)) {
        config->mode = CONFIG_MODE_CAP;
        config_claim(loader, CONFIG_MODE, &at);
    }
    if (config->max_stall_us < MAX_STALL_US && !said_by_admin(config, CONFIG_MAX_STALL)) {
        config->max_stall_us = MAX_STALL_US;
        config_claim(loader, CONFIG_MAX_STALL, &at);
    }
}

int config_load(struct config *config, const struct config_input *input)
{
    struct config_loader loader = {.config = config, .input = input};
    struct ini_file admin = {0}, user = {0};
    int saved = errno;

    set_defaults(config);
    read_admin_file(&loader, &admin);
    config_read_environment(&loader);
    config_read_aliases(&loader);
    read_user_file(&loader, &user);
    name_tenant(&loader);
    config_name_hami(&loader);
    if (config->tenant_named && admin.mapping && !loader.admin_bad)
        config_read_tenant(&loader, &admin, CONFIG_ADMIN, config->tenant);
    if (config->tenant_named && user.mapping)
        config_read_tenant(&loader, &user, CONFIG_USER_INI, config->tenant);
    set_weight(&loader);
    keep_closed(&loader);
    keep_cap(&loader);
    ini_file_close(&admin);
    ini_file_close(&user);
    errno = saved;
    if (config->disable)
        config->error[0] = 0;
    return *config->error ? -EINVAL : 0;
}

static const char *process_getenv(void *context, const char *name)
{
    (void)context;
    return secure_getenv(name);
}

int config_load_process(struct config *config)
{
    struct config_input input = {.getenv = process_getenv, .admin_file = CONFIG_ADMIN_FILE, .is_drop_in = config_is_drop_in};

    input.environment = getauxval(AT_SECURE) ? NULL : environ;
    return config_load(config, &input);
}
