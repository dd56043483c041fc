/* SPDX-License-Identifier: Apache-2.0 */
/* Which tenant and which GPU `softslice set` is to change. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "observe.h"
#include "set.h"

/* ---- the state directory */

/* The admin changes tenants of other users, whose directories nobody else would work in: it is enough that this is one, and no link. */
static int open_directory(const char *name, char path[PATH_MAX])
{
    size_t length = strlen(name);
    int fd;

    while (length > 1 && name[length - 1] == '/')
        length--;
    if (!length || length >= PATH_MAX) {
        errno = length ? ENAMETOOLONG : ENOENT;
        return -1;
    }
    memmove(path, name, length);
    path[length] = '\0';
    fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOTDIR && readlink(path, (char[1]){0}, 1) >= 0)
        errno = ELOOP;
    return fd;
}

static int open_named(const char *what, const char *name, char path[PATH_MAX], struct cli_error *error)
{
    int fd = open_directory(name, path);

    if (fd < 0)
        cli_fail(error, 0, "set: %s %s: %s", what, name,
                 errno == ELOOP ? "a symbolic link, which is not followed" : strerror(errno));
    return fd;
}

int set_find_directory(const struct set_request *request, char path[PATH_MAX], int *status, struct cli_error *error)
{
    static struct ledger ledger;
    static struct config config;
    char below[PATH_MAX];
    int fd;

    *status = SET_REFUSED;
    if (request->root)
        return observe_below_root("set", request->root, request->tenant, below, error)
                   ? -1
                   : open_named("state directory", below, path, error);
    if (request->state_dir)
        return open_named("state directory", request->state_dir, path, error);
    if (observe_configured(&config) < 0) {
        *status = CLI_FAILED;
        return cli_fail(error, -1, "%s", config.error);
    }
    fd = ledger_state_dir(&ledger, config.state_dir, path, PATH_MAX);
    if (fd < 0)
        cli_fail(error, 0, "set: %s", ledger.error);
    return fd;
}

/* ---- GPUs */

int set_find_uuid(struct set_request *request, struct cli_error *error)
{
    char why[OBSERVE_ERROR_MAX];

    if (!request->device_text)
        return 0;
    if (observe_device(request->device_text, request->device.uuid, why) < 0)
        return cli_fail(error, SET_REFUSED, "set: %s", why);
    request->device.kind = UNITS_DEVICE_UUID;
    return 0;
}

uint64_t set_physical(const char *path, const char *tenant, const uint8_t uuid[16])
{
    struct observe_request look = {
        .directories = (const char *const[]){path, NULL}, .tenant = tenant, .without_members = true, .ended = true};
    const struct observe_gpu *gpu;
    char why[OBSERVE_ERROR_MAX];
    struct observe seen;
    uint64_t total;

    if (observe(&look, &seen, why) < 0)
        return 0;
    gpu = observe_find_gpu(&seen, uuid);
    total = gpu ? gpu->total : 0;
    observe_free(&seen);
    return total;
}

bool set_held(const char *path, const char *tenant, const uint8_t uuid[16], struct ledger_device_state *held)
{
    struct observe_request look = {
        .directories = (const char *const[]){path, NULL}, .tenant = tenant, .without_members = true, .without_nvml = true};
    char why[OBSERVE_ERROR_MAX];
    struct observe seen;
    bool found = false;

    if (observe(&look, &seen, why) < 0)
        return false;
    for (unsigned i = 0; seen.tenants == 1 && !seen.tenant->problem && i < seen.tenant->view.devices; i++) {
        if (memcmp(seen.tenant->view.device[i].uuid, uuid, 16) != 0)
            continue;
        *held = seen.tenant->view.device[i];
        found = true;
    }
    observe_free(&seen);
    return found;
}
