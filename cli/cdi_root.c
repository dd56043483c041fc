/* SPDX-License-Identifier: Apache-2.0 */
/* The directory on the host that containers' files are in: nobody but its owner and root can change it, or put another in its place. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "cdi.h"
#include "observe.h"

#define OVERFLOW_UID 65534 /* how a user namespace shows owners that it does not map, the host's root among them */

static bool is_trusted_owner(const char *path, const struct stat *status)
{
    if (status->st_uid == 0 || status->st_uid == geteuid())
        return true;
    return status->st_uid == OVERFLOW_UID && (status->st_mode & S_ISVTX || faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) < 0);
}

/* A directory on the way, or a symbolic link to one. In a sticky one others can only touch what is theirs. */
static int check_part(const char *path, const char *whole, struct cli_error *error)
{
    struct stat link, status;

    if (lstat(path, &link) < 0 || stat(path, &status) < 0)
        return cli_fail(error, -1, "cdi: %s: %s", path, strerror(errno));
    if (!S_ISDIR(status.st_mode))
        return cli_fail(error, -1, "cdi: %s: %s", path, strerror(ENOTDIR));
    if (!is_trusted_owner(path, &link) || !is_trusted_owner(path, &status))
        return cli_fail(error, -1,
                        "cdi: --root %s: %s belongs to uid %u, who could put another directory in its place: name one that "
                        "root's directories lead to",
                        whole, path, is_trusted_owner(path, &link) ? status.st_uid : link.st_uid);
    if (status.st_mode & (S_IWGRP | S_IWOTH) && !(status.st_mode & S_ISVTX))
        return cli_fail(error, -1,
                        "cdi: --root %s: others can write %s (mode %04o) and put another directory in its place: name one "
                        "that root's directories lead to",
                        whole, path, status.st_mode & 07777);
    return 0;
}

/* Each directory above `path`; what is missing is made if `make` is set. */
static int walk(const char *path, bool make, struct cli_error *error)
{
    char part[PATH_MAX];

    if (check_part("/", path, error))
        return -1;
    snprintf(part, sizeof(part), "%s", path);
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (make && mkdir(part, 0755) < 0 && errno != EEXIST)
            return cli_fail(error, -1, "cdi: cannot make %s: %s", part, strerror(errno));
        if (check_part(part, path, error))
            return -1;
        *slash = '/';
    }
    return 0;
}

static bool is_text(const char *path)
{
    char clean[2 * PATH_MAX];

    return strcmp(observe_text(clean, sizeof(clean), path, false), path) == 0;
}

/* The directory itself, by a path that nobody else can lead elsewhere. */
static int open_checked(struct cdi_root *root, const char *path, struct cli_error *error)
{
    struct stat status, found;

    root->fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (root->fd < 0 || fstat(root->fd, &status) < 0)
        return cli_fail(error, -1, "cdi: %s: %s", path, strerror(errno));
    if (status.st_uid != geteuid() || status.st_mode & (S_IWGRP | S_IWOTH))
        return cli_fail(error, -1, "cdi: %s: belongs to uid %u, mode %04o: it must be yours (uid %u), and only you may write it",
                        path, status.st_uid, status.st_mode & 07777, geteuid());
    if (!realpath(path, root->path) || !is_text(root->path) || strlen(root->path) >= PATH_MAX - 3 * CONFIG_TENANT_MAX)
        return cli_fail(error, -1, "cdi: %s: cannot stand in a spec", path);
    if (walk(root->path, false, error))
        return -1;
    if (stat(root->path, &found) < 0 || found.st_dev != status.st_dev || found.st_ino != status.st_ino)
        return cli_fail(error, -1, "cdi: %s: was replaced just now", path);
    if (flock(root->fd, LOCK_EX) < 0)
        return cli_fail(error, -1, "cdi: cannot lock %s: %s", path, strerror(errno));
    return 0;
}

int cdi_root_open(struct cdi_root *root, const char *path, bool make, struct cli_error *error)
{
    char clean[PATH_MAX];
    size_t length = strlen(path);

    root->fd = -1;
    if (*path != '/' || length >= sizeof(clean) - 2 * CONFIG_TENANT_MAX)
        return cli_fail(error, -1, "cdi: --root %s: not an absolute path, or too long a one", path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    snprintf(clean, sizeof(clean), "%.*s", (int)length, path);
    if (!is_text(clean))
        return cli_fail(error, -1, "cdi: --root %s: a path with control characters, or not in UTF-8, cannot stand in a spec",
                        clean);
    if (walk(clean, make, error))
        return -1;
    /* What a container may write is in there, open to every user. */
    if (make && mkdir(clean, 0700) < 0 && errno != EEXIST)
        return cli_fail(error, -1, "cdi: cannot make %s: %s", clean, strerror(errno));
    return open_checked(root, clean, error);
}
