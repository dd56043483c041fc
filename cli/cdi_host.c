/* SPDX-License-Identifier: Apache-2.0 */
/* What `softslice cdi` makes in ROOT, so that a runtime has something to mount. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "cdi.h"
#include "observe.h"
#include "softslice/turns.h"

#define NOTE  ".spec" /* a symbolic link to the spec that has the device */
#define ETC   ".etc"  /* `status` takes what begins with a dot for no tenant */
#define TURNS ".turns"

/* ---- the admin's file of a container */

char *cdi_ini(const struct cdi_budget *budget)
{
    char *text = NULL;

    if (asprintf(&text,
                 "; Made by softslice, which replaces it.\n"
                 "[softslice]\n"
                 "tenant = %s\n"
                 "state_dir = " CDI_STATE "\n"
                 "on_error = closed\n"
                 "disable = 0\n"
                 "%s",
                 budget->name, budget->limits) < 0)
        return NULL;
    return text;
}

static const char *no_variable(void *context, const char *name)
{
    (void)context;
    (void)name;
    return NULL;
}

int cdi_check(const struct cdi_budget *budget, struct cli_error *error)
{
    CLEANUP_FREE char *text = cdi_ini(budget);
    CLEANUP_CLOSE int fd = memfd_create("softslice.ini", MFD_CLOEXEC);
    static struct config config;
    struct config_input input = {.getenv = no_variable, .admin_owner = geteuid()};
    size_t length = text ? strlen(text) : 0;
    char path[32];
    const char *what = config.error;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    input.admin_file = path;
    if (!text || fd < 0 || fchmod(fd, 0600) < 0 || write(fd, text, length) != (ssize_t)length)
        return cli_fail(error, -1, "cdi: cannot check the limits of %s: %s", budget->name, strerror(errno));
    if (config_load(&config, &input) == 0)
        return 0;
    if (strncmp(what, path, strlen(path)) == 0 && (what = strchr(what + strlen(path), ' ')))
        what++;
    return cli_fail(error, -1, "cdi: the limits of %s: %s", budget->name, what ? what : config.error);
}

/* ---- all of it */

static int cannot(struct cli_error *error, int result, const struct cdi_root *root, const char *name, const char *what)
{
    return cli_fail(error, -1, "cdi: cannot make %s/%s/%s: %s", root->path, name, what,
                    result == -EPERM || result == -ELOOP || result == -ENOTDIR ? "something that is not ours is there"
                                                                               : strerror(-result));
}

static int make_folder(const struct cdi_root *root, const char *name, const char *path, mode_t mode, struct cli_error *error)
{
    char whole[PATH_MAX];
    int fd;

    snprintf(whole, sizeof(whole), "%s%s%s", name, *path ? "/" : "", path);
    fd = cdi_folder(root->fd, whole, mode);
    if (fd < 0)
        return cannot(error, fd, root, name, path);
    close(fd);
    return 0;
}

/* Root of a container can give what is mounted writable to another user, and close it. What it lies in is ours alone, so it is ours to take back. */
static void take_back(const struct cdi_root *root, const char *folder, const char *file, mode_t mode)
{
    char path[2 * CONFIG_TENANT_MAX + 1];
    struct stat status;

    snprintf(path, sizeof(path), "%s/%s", folder, file);
    if (fstatat(root->fd, path, &status, AT_SYMLINK_NOFOLLOW) < 0 || S_ISLNK(status.st_mode))
        return;
    if (fchownat(root->fd, path, geteuid(), getegid(), AT_SYMLINK_NOFOLLOW) < 0 || fchmodat(root->fd, path, mode, 0) < 0)
        return; /* who needs it says what is wrong with it */
}

static int make_file(const struct cdi_root *root, const char *name, const char *folder, const char *file, const char *text,
                     struct cli_error *error)
{
    char whole[PATH_MAX];
    int result;

    snprintf(whole, sizeof(whole), "%s/%s", name, folder);
    CLEANUP_CLOSE int fd = openat(root->fd, whole, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    result = fd < 0 ? -errno : cdi_write(fd, file, text, strlen(text), 0644);
    return result < 0 ? cannot(error, result, root, name, file) : 0;
}

static int note_spec(const struct cdi_root *root, const char *name, const char *spec, struct cli_error *error)
{
    char note[CONFIG_TENANT_MAX + sizeof(NOTE) + 1];

    snprintf(note, sizeof(note), "%s/" NOTE, name);
    unlinkat(root->fd, note, 0);
    return spec && symlinkat(spec, root->fd, note) < 0 ? cannot(error, -errno, root, name, NOTE) : 0;
}

int cdi_host_make(const struct cdi_root *root, const struct cdi_budget *budget, const char *spec, struct cli_error *error)
{
    const char *name = budget->name;
    CLEANUP_FREE char *ini = cdi_ini(budget);
    char labels[2 * CONFIG_TENANT_MAX], turns[CONFIG_TENANT_MAX + sizeof(TURNS)];
    int result;

    if (!ini)
        return cli_fail(error, -1, "out of memory");
    snprintf(labels, sizeof(labels), "[labels]\ncontainer = %s\n", name);
    snprintf(turns, sizeof(turns), "%s" TURNS, name);
    if (make_folder(root, name, "", 0755, error) || make_folder(root, name, ETC, 0755, error) ||
        make_folder(root, name, ETC "/softslice", 0755, error) || make_folder(root, name, CDI_TURNS, 0755, error) ||
        make_folder(root, CDI_TURNS, "", 0755, error))
        return -1;
    take_back(root, name, name, 01777);
    take_back(root, CDI_TURNS, turns, 0666);
    if (make_folder(root, name, name, 01777, error) || make_file(root, name, ETC "/softslice", "softslice.ini", ini, error) ||
        make_file(root, name, ETC, "ld.so.preload", CDI_LIBRARY "\n", error) ||
        make_file(root, name, "", CDI_LABELS, labels, error) || note_spec(root, name, spec, error))
        return -1;
    result = turns_prepare(root->fd, name, 0666);
    return result < 0 ? cannot(error, result, root, CDI_TURNS, name) : 0;
}

int cdi_host_remove(const struct cdi_root *root, const char *name, struct cli_error *error)
{
    char entry[2 * CONFIG_TENANT_MAX];
    int result = cdi_delete(root->fd, name);

    if (result < 0)
        return cli_fail(error, -1, "cdi: cannot remove %s/%s: %s", root->path, name, strerror(-result));
    snprintf(entry, sizeof(entry), CDI_TURNS "/%s.turns", name);
    result = cdi_delete(root->fd, entry);
    return result < 0 ? cli_fail(error, -1, "cdi: cannot remove %s/%s: %s", root->path, entry, strerror(-result)) : 0;
}

bool cdi_host_spec(const struct cdi_root *root, const char *name, char spec[PATH_MAX])
{
    char note[CONFIG_TENANT_MAX + sizeof(NOTE) + 1];
    ssize_t length;

    snprintf(note, sizeof(note), "%s/" NOTE, name);
    length = readlinkat(root->fd, note, spec, PATH_MAX - 1);
    spec[length > 0 ? length : 0] = '\0';
    return length > 0;
}

int cdi_host_processes(const struct cdi_root *root, const char *name)
{
    CLEANUP_CLOSE int fd = openat(root->fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    static struct ledger_view view;
    int result = fd < 0 ? -errno : ledger_read(fd, name, &view);

    return result < 0 ? result : (int)view.members;
}
