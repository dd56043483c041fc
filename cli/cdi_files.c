/* SPDX-License-Identifier: Apache-2.0 */
/* Files and directories of `softslice cdi`, by the directory that they are in: no symbolic link is followed on the way. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "cdi.h"

#define DEPTH_MAX  256   /* directories in directories, each of which takes a descriptor */
#define ROUNDS_MAX 10000 /* in which what is deeper is deleted */

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

/* A container makes its folders as deep as it likes: what lies deeper than so many descriptors reach is moved up and deleted from there. */
struct deleting {
    int top; /* the folder that is to go, in which nobody else can write */
    unsigned moved;
};

static int delete_content(struct deleting *deleting, int directory, unsigned depth);

static int move_up(struct deleting *deleting, int directory, const char *name)
{
    char place[32];

    for (unsigned i = 0; i < ROUNDS_MAX; i++) {
        snprintf(place, sizeof(place), ".moved-%u", ++deleting->moved);
        if (renameat(directory, name, deleting->top, place) == 0 || errno == ENOENT)
            return 0;
        if (errno != ENOTEMPTY && errno != EEXIST) /* one that a killed process left */
            break;
    }
    return -errno;
}

static int delete_at(struct deleting *deleting, int directory, const char *name, unsigned depth)
{
    int fd, result;

    if (unlinkat(directory, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -errno;
    if (depth == 0)
        return move_up(deleting, directory, name);
    fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    result = delete_content(deleting, fd, depth - 1);
    if (result < 0)
        return result;
    return unlinkat(directory, name, AT_REMOVEDIR) == 0 || errno == ENOENT ? 0 : -errno;
}

/* Closes the directory. What cannot be deleted keeps nothing else from it. */
static int delete_content(struct deleting *deleting, int directory, unsigned depth)
{
    DIR *all = fdopendir(directory);
    struct dirent *entry;
    int result = 0;

    if (!all) {
        result = -errno;
        close(directory);
        return result;
    }
    while ((entry = readdir(all))) {
        int one = 0;

        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            one = delete_at(deleting, directory, entry->d_name, depth);
        if (result == 0)
            result = one;
    }
    closedir(all);
    return result;
}

int cdi_delete(int directory, const char *name)
{
    struct deleting deleting = {0};
    int result = 0;

    if (unlinkat(directory, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -errno;
    CLEANUP_CLOSE int top = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (top < 0)
        return errno == ENOENT ? 0 : -errno;
    deleting.top = top;
    for (unsigned round = 0, before = 1; result == 0 && before != deleting.moved && round < ROUNDS_MAX; round++) {
        int again = openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        before = deleting.moved;
        result = again < 0 ? -errno : delete_content(&deleting, again, DEPTH_MAX);
    }
    if (result < 0)
        return result;
    return unlinkat(directory, name, AT_REMOVEDIR) == 0 || errno == ENOENT ? 0 : -errno;
}
