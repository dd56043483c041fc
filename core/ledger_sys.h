/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger's system calls. Made directly: none is a cancellation point, none needs a newer glibc, and each gives -errno, so that
 * they also work in a task that shares its memory with a program whose errno it must not touch for long. */
#ifndef SOFTSLICE_CORE_LEDGER_SYS_H
#define SOFTSLICE_CORE_LEDGER_SYS_H

#include <errno.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#include "compat.h"

static inline long sys_result(long result)
{
    return result < 0 ? -errno : result;
}

static inline int sys_openat(int dir, const char *path, int flags, unsigned mode)
{
    return (int)sys_result(syscall(SYS_openat, dir, path, flags | O_CLOEXEC, mode));
}

/* Never repeated after EINTR: Linux has released the number by then. */
static inline void sys_close(int fd)
{
    compat_close(fd);
}

static inline int sys_fstat(int fd, struct stat *status)
{
    return (int)sys_result(compat_fstat(fd, status));
}

static inline int sys_lstatat(int dir, const char *path, struct stat *status)
{
    return (int)sys_result(syscall(SYS_newfstatat, dir, path, status, AT_SYMLINK_NOFOLLOW));
}

static inline int sys_mkdirat(int dir, const char *path, unsigned mode)
{
    return (int)sys_result(syscall(SYS_mkdirat, dir, path, mode));
}

static inline int sys_fchmod(int fd, unsigned mode)
{
    return (int)sys_result(syscall(SYS_fchmod, fd, mode));
}

static inline int sys_fchmodat(int dir, const char *path, unsigned mode)
{
    return (int)sys_result(syscall(SYS_fchmodat, dir, path, mode));
}

static inline int sys_linkat(int old_dir, const char *old_path, int new_dir, const char *new_path, int flags)
{
    return (int)sys_result(syscall(SYS_linkat, old_dir, old_path, new_dir, new_path, flags));
}

static inline int sys_rename(int dir, const char *old_path, const char *new_path)
{
    return (int)sys_result(syscall(SYS_renameat, dir, old_path, dir, new_path));
}

/* Only where there is nothing of the new name. */
static inline int sys_rename_new(int dir, const char *old_path, const char *new_path)
{
    return (int)sys_result(syscall(SYS_renameat2, dir, old_path, dir, new_path, 1 /* RENAME_NOREPLACE */));
}

static inline int sys_unlinkat(int dir, const char *path, int flags)
{
    return (int)sys_result(syscall(SYS_unlinkat, dir, path, flags));
}

static inline int sys_fallocate(int fd, uint64_t size)
{
    return (int)sys_result(syscall(SYS_fallocate, fd, 0, (off_t)0, (off_t)size));
}

static inline int sys_ftruncate(int fd, uint64_t size)
{
    return (int)sys_result(syscall(SYS_ftruncate, fd, (off_t)size));
}

static inline ssize_t sys_pread(int fd, void *buffer, size_t size, uint64_t offset)
{
    return sys_result(syscall(SYS_pread64, fd, buffer, size, (off_t)offset));
}

static inline ssize_t sys_pwrite(int fd, const void *buffer, size_t size, uint64_t offset)
{
    return sys_result(syscall(SYS_pwrite64, fd, buffer, size, (off_t)offset));
}

static inline ssize_t sys_getdents(int fd, void *buffer, size_t size)
{
    return sys_result(syscall(SYS_getdents64, fd, buffer, size));
}

static inline ssize_t sys_readlinkat(int dir, const char *path, char *buffer, size_t size)
{
    return sys_result(syscall(SYS_readlinkat, dir, path, buffer, size));
}

/* A lock (F_WRLCK, F_RDLCK) on `length` bytes for the open file, without waiting: 0, -EAGAIN. */
static inline int sys_lock_as(int fd, short type, uint64_t byte, uint64_t length)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = (off_t)length};
    int result = (int)sys_result(syscall(SYS_fcntl, fd, F_OFD_SETLK, &lock));

    return result == -EACCES ? -EAGAIN : result;
}

static inline int sys_lock(int fd, uint64_t byte, uint64_t length)
{
    return sys_lock_as(fd, F_WRLCK, byte, length);
}

static inline void sys_unlock(int fd, uint64_t byte)
{
    struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};

    syscall(SYS_fcntl, fd, F_OFD_SETLK, &lock);
}

/* Some write lock that another open file has within `length` bytes from `byte`: 1 with *at and *end (exclusive), 0 if none, -errno. It need
 * not be the first one. */
static inline int sys_locked(int fd, uint64_t byte, uint64_t length, uint64_t *at, uint64_t *end)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = (off_t)length};
    int result = (int)sys_result(syscall(SYS_fcntl, fd, F_OFD_GETLK, &lock));

    if (result < 0 || lock.l_type == F_UNLCK)
        return result < 0 ? result : 0;
    *at = (uint64_t)lock.l_start;
    *end = lock.l_len ? *at + (uint64_t)lock.l_len : UINT64_MAX;
    return 1;
}

static inline uint64_t sys_now(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* A sleep that is no cancellation point; a signal ends it early. */
static inline void sys_sleep(uint64_t ns)
{
    compat_sleep((long)ns);
}

static inline uint64_t sys_random(void)
{
    static uint64_t calls;
    uint64_t value;

    if (syscall(SYS_getrandom, &value, sizeof(value), 1 /* GRND_NONBLOCK */) == sizeof(value))
        return value;
    return sys_now(CLOCK_MONOTONIC) * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)getpid() +
           __atomic_fetch_add(&calls, UINT64_C(0x632be59bd9b4e019), __ATOMIC_RELAXED);
}

#endif
