/* SPDX-License-Identifier: Apache-2.0 */
/* The limits in a container's own admin file, which its ledger does not know: each of its processes takes the smaller of the two, and so must who looks. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "observe_internal.h"
#include "softslice/config.h"

/* In a state directory: where `softslice cdi` has what is mounted as /etc/softslice. */
#define ADMIN_FILE ".etc/softslice/softslice.ini"

static const char *get_tenant(void *context, const char *name)
{
    return strcmp(name, "SOFTSLICE_TENANT") == 0 ? context : NULL;
}

static void narrow(const struct config *config, const struct observe *seen, struct ledger_device_state *state)
{
    const struct observe_gpu *gpu = observe_find_gpu(seen, state->uuid);
    struct config_device device = {.ordinal = -1, .physical = gpu ? gpu->total : 0};
    const struct config_rule *rule = NULL;
    uint64_t limit;
    uint32_t share;

    memcpy(device.uuid, state->uuid, sizeof(device.uuid));
    limit = config_vram_admin(config, &device, &rule);
    /* A part of nobody knows what is not known. */
    if (limit < state->limit && !(rule && rule->amount.kind == UNITS_PERCENT && !device.physical))
        state->limit = limit;
    share = config_compute_admin(config, &device, NULL);
    if (state->compute && share < state->share)
        state->share = share;
    if (state->compute && config->admin_weight && (!state->weight || config->admin_weight < state->weight))
        state->weight = config->admin_weight;
}

void observe_admin_limits(const struct observe *seen, struct observe_tenant *tenant)
{
    static struct config config;
    char path[PATH_MAX];
    struct config_input input = {.getenv = get_tenant, .context = tenant->name, .admin_file = path};
    struct stat status;

    if (snprintf(path, sizeof(path), "%s/" ADMIN_FILE, tenant->directory) >= (int)sizeof(path) || lstat(path, &status) < 0 ||
        stat(tenant->directory, &status) < 0)
        return;
    /* Whose the directory is says what holds in it, as root does. */
    input.admin_owner = status.st_uid;
    if (config_load(&config, &input) < 0 || strcmp(config.tenant, tenant->name) != 0)
        return;
    for (unsigned i = 0; i < tenant->view.devices; i++)
        narrow(&config, seen, &tenant->view.device[i]);
}
