/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice cdi list`, `mounts` and `remove`: what containers can be given, in other words, and its end. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "cdi.h"

/* ---- list */

static const char *no_variable(void *context, const char *name)
{
    (void)context;
    (void)name;
    return NULL;
}

static void print_row(const struct cdi_root *root, const char *name)
{
    static struct config config;
    struct cdi_spec spec = {0};
    struct cli_error ignored = {""};
    char path[PATH_MAX], device[PATH_MAX], ini[PATH_MAX], vram[256], compute[256], processes[16] = "0";
    struct config_input input = {.getenv = no_variable, .admin_file = ini, .admin_owner = geteuid()};
    bool offered = cdi_host_spec(root, name, path) && cdi_spec_open(&spec, path, NULL, &ignored) == 0 && cdi_spec_has(&spec, name);
    int count = cdi_host_processes(root, name);

    snprintf(device, sizeof(device), "%s%s%s", offered ? cdi_spec_kind(&spec) : "", offered ? "=" : "", name);
    if ((size_t)snprintf(ini, sizeof(ini), "%s/%s/.etc/softslice/softslice.ini", root->path, name) >= sizeof(ini) ||
        config_load(&config, &input) < 0 || !config.admin_present) {
        snprintf(vram, sizeof(vram), "unreadable");
        snprintf(compute, sizeof(compute), "unreadable");
    } else {
        config_value(&config, CONFIG_VRAM, vram, sizeof(vram));
        config_value(&config, CONFIG_COMPUTE, compute, sizeof(compute));
        if (config.weight_set)
            snprintf(compute + strlen(compute), sizeof(compute) - strlen(compute), " (weight %u)", config.weight);
    }
    if (count > 0)
        snprintf(processes, sizeof(processes), "%d", count);
    else if (count < 0 && count != -ENOENT)
        snprintf(processes, sizeof(processes), "unreadable");
    printf("%-40s %-20s %-24s %-9s %s\n", device, vram, compute, processes, offered ? path : "in no spec");
    cdi_spec_close(&spec);
}

static int is_budget(const struct dirent *entry)
{
    return cdi_is_name(entry->d_name);
}

int cdi_list(const char *where, struct cli_error *error)
{
    struct cdi_root root;
    struct dirent **list = NULL;
    int count, result;

    if (access(where, F_OK) < 0 && errno == ENOENT) {
        printf("nothing in %s\n", where);
        return 0;
    }
    result = cdi_root_open(&root, where, false, error);
    CLEANUP_CLOSE int fd = root.fd;
    if (result)
        return result;
    count = scandirat(fd, ".", &list, is_budget, alphasort);
    if (count < 0)
        return cli_fail(error, -1, "cdi: %s: %s", where, strerror(errno));
    if (count)
        printf("%-40s %-20s %-24s %-9s %s\n", "DEVICE", "VRAM", "COMPUTE", "PROCESSES", "SPEC");
    else
        printf("nothing in %s\n", where);
    for (int i = 0; i < count; i++) {
        print_row(&root, list[i]->d_name);
        free(list[i]);
    }
    free(list);
    return 0;
}

/* ---- mounts */

static bool is_there(const struct cdi_root *root, const char *name)
{
    return cdi_is_name(name) && faccessat(root->fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* A shell that is given the lines splits them at blanks, and engines split paths. */
static bool is_plain(const char *path)
{
    return !path[strcspn(path, " :,'\"\\$`*?[]")];
}

static void print_mount(const char *engine, const struct cdi_mount *mount)
{
    const char *mode = mount->writable ? "rw" : "ro";

    if (strcmp(engine, "docker") == 0)
        printf("--volume=%s:%s:%s\n", mount->host, mount->container, mode);
    else if (strcmp(engine, "ctr") == 0)
        printf("--mount=type=bind,src=%s,dst=%s,options=bind:%s:nosuid:nodev\n", mount->host, mount->container, mode);
    else
        printf("%s %s %s\n", mount->writable ? "--bind" : "--ro-bind", mount->host, mount->container);
}

int cdi_print_mounts(const char *where, const char *name, const char *engine, const char *library, struct cli_error *error)
{
    static struct cdi_mount mount[CDI_MOUNTS];
    struct cdi_root root;
    int result;

    if (strcmp(engine, "docker") != 0 && strcmp(engine, "ctr") != 0 && strcmp(engine, "bwrap") != 0)
        return cli_fail(error, -1, "cdi: --for %s: options are known of docker, ctr and bwrap", engine);
    result = cdi_root_open(&root, where, false, error);
    CLEANUP_CLOSE int fd = root.fd;
    if (result)
        return result;
    if (!is_there(&root, name))
        return cli_fail(error, -1, "cdi: there is no '%s' in %s", name, root.path);
    cdi_mounts(mount, root.path, name, library);
    for (unsigned i = 0; i < CDI_MOUNTS; i++) {
        if (!is_plain(mount[i].host))
            return cli_fail(error, -1, "cdi: %s has a character that options cannot take: choose another --root or --library",
                            mount[i].host);
    }
    for (unsigned i = 0; i < CDI_MOUNTS; i++)
        print_mount(engine, &mount[i]);
    return 0;
}

/* ---- remove */

/* First the spec, so that no container begins with what goes. */
static int leave_spec(const struct cdi_root *root, const char *name, struct cli_error *error)
{
    struct cdi_spec spec = {0};
    char path[PATH_MAX];
    int result = 0;

    if (!cdi_host_spec(root, name, path) || (access(path, F_OK) < 0 && errno == ENOENT))
        return 0;
    if (cdi_spec_open(&spec, path, NULL, error)) {
        /* What is no spec of ours any more has nothing of ours in it. */
        cli_warn("%s", error->text);
        *error->text = '\0';
    } else {
        cdi_spec_drop(&spec, name);
        if (spec.changed)
            result = cdi_spec_write(&spec, error);
    }
    cdi_spec_close(&spec);
    return result;
}

int cdi_remove(const char *where, char **names, bool force, struct cli_error *error)
{
    struct cdi_root root;
    int result = cdi_root_open(&root, where, false, error), processes;
    CLEANUP_CLOSE int fd = root.fd;

    for (char **name = names; !result && *name; name++) {
        if (!is_there(&root, *name))
            return cli_fail(error, -1, "cdi: there is no '%s' in %s", *name, root.path);
        processes = cdi_host_processes(&root, *name);
        if (processes > 0 && !force)
            return cli_fail(error, -1, "cdi: %d %s of '%s' still %s: stop the container first, or use --force", processes,
                            processes == 1 ? "process" : "processes", *name, processes == 1 ? "runs" : "run");
        if (processes < 0 && processes != -ENOENT && !force)
            return cli_fail(error, -1,
                            "cdi: whether processes of '%s' still run cannot be told, for its ledger cannot be read: use --force",
                            *name);
    }
    for (char **name = names; !result && *name; name++) {
        result = leave_spec(&root, *name, error);
        if (!result)
            result = cdi_host_remove(&root, *name, error);
    }
    return result;
}
