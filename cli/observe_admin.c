/* SPDX-License-Identifier: Apache-2.0 */
/* The limits in a container's own admin file, which its ledger does not know: each of its processes takes the smaller of the two, and so must who looks. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "observe_internal.h"
#include "softslice/config.h"

/* In a state directory: where `softslice cdi` has what is mounted as /etc/softslice. */
static const char *const place[] = {".etc", "softslice", "softslice.ini"};
#define PLACES (sizeof(place) / sizeof(*place))

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

/* The file as an O_PATH descriptor, and whose the directory is; -1 where there is none. The directory may be anybody's, and a link in it lead to a device
 * that acts when it is opened: none is followed, and nothing but a regular file is opened. */
static int find_file(const char *directory, uid_t *owner)
{
    int fd = observe_open(directory);
    struct stat status;

    if (fd >= 0 && fstat(fd, &status) == 0)
        *owner = status.st_uid;
    for (unsigned i = 0; i < PLACES && fd >= 0; i++) {
        int next = openat(fd, place[i], O_PATH | O_NOFOLLOW | O_CLOEXEC | (i + 1 < PLACES ? O_DIRECTORY : 0));

        close(fd);
        fd = next;
    }
    if (fd < 0 || (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)))
        return fd;
    close(fd);
    return -1;
}

void observe_admin_limits(const struct observe *seen, struct observe_tenant *tenant)
{
    static struct config config;
    char path[32];
    /* Whose the directory is says what holds in it, as root does. */
    struct config_input input = {.getenv = get_tenant, .context = tenant->name, .admin_file = path};
    int fd = find_file(tenant->directory, &input.admin_owner), result;

    if (fd < 0)
        return;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    result = config_load(&config, &input);
    close(fd);
    if (result < 0 || strcmp(config.tenant, tenant->name) != 0)
        return;
    for (unsigned i = 0; i < tenant->view.devices; i++)
        narrow(&config, seen, &tenant->view.device[i]);
}
