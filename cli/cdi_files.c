/* SPDX-License-Identifier: Apache-2.0 */
/* Files and directories of `softslice cdi`, by the directory that they are in: no symbolic link is followed on the way. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "cdi.h"

#define DEPTH_MAX 256 /* directories in directories that are removed: a tenant could make any number in its folder */

static int write_all(int fd, const char *text, size_t length)
{
    while (length) {
        ssize_t written = write(fd, text, length);

        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return written ? -errno : -EIO;
        text += written;
        length -= (size_t)written;
    }
    return 0;
}

int cdi_write(int directory, const char *name, const char *text, size_t length, mode_t mode)
{
    char temporary[64];
    int fd, result;

    /* Not a name that CDI reads. Whoever else makes it is in a directory of ours, and waits for our lock. */
    snprintf(temporary, sizeof(temporary), ".softslice-%d.new", (int)getpid());
    unlinkat(directory, temporary, 0);
    fd = openat(directory, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    result = write_all(fd, text, length);
    if (result == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0))
        result = -errno;
    if (close(fd) < 0 && result == 0)
        result = -errno;
    if (result == 0 && renameat(directory, temporary, directory, name) < 0)
        result = -errno;
    if (result < 0)
        unlinkat(directory, temporary, 0);
    return result;
}

int cdi_folder(int directory, const char *name, mode_t mode)
{
    struct stat status;
    int fd, result = 0;

    if (mkdirat(directory, name, 0700) < 0 && errno != EEXIST)
        return -errno;
    fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &status) < 0)
        result = -errno;
    else if (status.st_uid != geteuid())
        result = -EPERM;
    else if ((status.st_mode & 07777) != mode && fchmod(fd, mode) < 0)
        result = -errno;
    if (result == 0)
        return fd;
    close(fd);
    return result;
}

static int delete_content(int directory, const char *name, unsigned depth);

static int delete_at(int directory, const char *name, unsigned depth)
{
    int result;

    if (unlinkat(directory, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -errno;
    result = depth ? delete_content(directory, name, depth - 1) : -ELOOP;
    if (result < 0)
        return result;
    return unlinkat(directory, name, AT_REMOVEDIR) == 0 || errno == ENOENT ? 0 : -errno;
}

static int delete_content(int directory, const char *name, unsigned depth)
{
    int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), result = 0;
    DIR *all = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (!all) {
        result = -errno;
        if (fd >= 0)
            close(fd);
        return result;
    }
    while (result == 0 && (entry = readdir(all))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            result = delete_at(fd, entry->d_name, depth);
    }
    closedir(all);
    return result;
}

int cdi_delete(int directory, const char *name)
{
    return delete_at(directory, name, DEPTH_MAX);
}
