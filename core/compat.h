/* SPDX-License-Identifier: Apache-2.0 */
/* System calls made without their wrappers in libc: fstat's symbol is newer than GLIBC_2.31, and open, read, write, close, poll, nanosleep are
 * cancellation points, where a program's pthread_cancel() would unwind out of the middle of us. All of them set errno. */
#ifndef SOFTSLICE_CORE_COMPAT_H
#define SOFTSLICE_CORE_COMPAT_H

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static inline int compat_open(const char *path, int flags, mode_t mode)
{
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static inline ssize_t compat_read(int fd, void *buffer, size_t size)
{
    return syscall(SYS_read, fd, buffer, size);
}

static inline ssize_t compat_write(int fd, const void *buffer, size_t size)
{
    return syscall(SYS_write, fd, buffer, size);
}

static inline int compat_close(int fd)
{
    return (int)syscall(SYS_close, fd);
}

/* x86-64 and aarch64 have one struct stat for the kernel and for libc. */
static inline int compat_fstat(int fd, struct stat *status)
{
    return (int)syscall(SYS_fstat, fd, status);
}

/* Whether this process may write `path`, judged by the kernel for its real uid and gid, capabilities and mount flags included. */
static inline int compat_may_write(const char *path)
{
    return syscall(SYS_faccessat, AT_FDCWD, path, W_OK) == 0;
}

/* Whether there is anything of that name, a symbolic link that leads nowhere included. */
static inline int compat_exists(const char *path)
{
    struct stat status;

    return syscall(SYS_newfstatat, AT_FDCWD, path, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

/* How many names what `path` leads to has; -1 where that cannot be learned. */
static inline long compat_links(const char *path)
{
    struct stat status;

    return syscall(SYS_newfstatat, AT_FDCWD, path, &status, 0) == 0 ? (long)status.st_nlink : -1;
}

/* Of what a symbolic link leads to; 0 where that cannot be learned. */
static inline uint64_t compat_inode(const char *path)
{
    struct stat status;

    return syscall(SYS_newfstatat, AT_FDCWD, path, &status, 0) == 0 ? (uint64_t)status.st_ino : 0;
}

static inline int compat_poll(struct pollfd *fds, unsigned count, int milliseconds)
{
    struct timespec limit = {milliseconds / 1000, milliseconds % 1000 * 1000000L};

    return (int)syscall(SYS_ppoll, fds, count, &limit, NULL, 0);
}

/* A signal ends it early. */
static inline void compat_sleep(long ns)
{
    struct timespec time = {ns / 1000000000L, ns % 1000000000L};

    syscall(SYS_nanosleep, &time, NULL);
}

/* Take the signals of `set` that are pending; their number, or -1 at once. */
static inline int compat_take_signal(const sigset_t *set)
{
    static const struct timespec at_once;

    return (int)syscall(SYS_rt_sigtimedwait, set, NULL, &at_once, 8);
}

#endif
