/* SPDX-License-Identifier: Apache-2.0 */
/* Directories of the ledger: the state directory, a tenant's folder in it, and the removal of folders that nobody needs any more. */
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "ledger_internal.h"
#include "ledger_sys.h"
#include "softslice/log.h"
#include "text.h"

#define COLLECT_MAX  64                   /* folders that one attach looks into */
#define SWEEP_MAX    64                   /* parts of a folder that one sweep reads: some thousand files */
#define COLLECT_AGE  UINT64_C(2000000000) /* ns that a folder without a ledger is left to its maker */
#define OVERFLOW_UID 65534                /* how a user namespace shows owners that it does not map */

int ledger_fail(struct ledger *ledger, int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    log_vformat(ledger->error, sizeof(ledger->error), format, args);
    va_end(args);
    return code;
}

const char *ledger_reason(int code)
{
    switch (-code) {
    case ENOENT:
        return "does not exist";
    case EACCES:
    case EPERM:
        return "permission denied";
    case ENOSPC:
    case EDQUOT:
        return "no space left";
    case EFBIG:
        return "the limit on file sizes (ulimit -f) is too small";
    case EROFS:
        return "read-only file system";
    case ENOTDIR:
        return "not a directory";
    case EISDIR:
        return "a directory";
    case ELOOP:
        return "a symbolic link";
    case EMFILE:
    case ENFILE:
        return "too many open files";
    case ENOMEM:
        return "out of host memory";
    case ENOLCK:
    case EINVAL:
    case ENOSYS:
        return "the file system or kernel does not support it";
    case ENAMETOOLONG:
        return "name too long";
    default:
        return "unexpected error";
    }
}

enum ledger_trust ledger_dir_trust(const struct stat *status)
{
    if (status->st_mode & S_IWOTH)
        return LEDGER_SHARED;
    if (status->st_uid == geteuid() || status->st_uid == 0)
        return LEDGER_PRIVATE;
    /* The host's root, seen from a rootless container: harmless as long as what it says about writing keeps us out. */
    if (status->st_uid == OVERFLOW_UID && !(status->st_mode & S_IWGRP))
        return LEDGER_PRIVATE;
    return LEDGER_FOREIGN;
}

/* Open a directory that is not a symbolic link: fd, or -errno (-ELOOP for a link). */
static int open_directory(int dir, const char *name, int flags, struct stat *status)
{
    int fd = sys_openat(dir, name, flags | O_DIRECTORY | O_NOFOLLOW, 0), result;

    if (fd == -ENOTDIR || fd == -ELOOP) {
        if (sys_lstatat(dir, name, status) == 0 && S_ISLNK(status->st_mode))
            return -ELOOP;
        return -ENOTDIR;
    }
    if (fd < 0)
        return fd;
    result = sys_fstat(fd, status);
    if (result == 0)
        return fd;
    sys_close(fd);
    return result;
}

static int refuse_directory(struct ledger *ledger, int code, const char *path, const struct stat *status)
{
    if (code == -EPERM)
        return ledger_fail(ledger, code, "state directory %s belongs to uid %u: use one of your own", path, status->st_uid);
    return ledger_fail(ledger, code, "state directory %s: %s", path, ledger_reason(code));
}

/* Undo the umask, which is the program's and stays as it is, on the folder that was just made: whoever may write the state directory may have
 * put a link in its place, and a umask may have left a folder that not even its owner can open. */
static int set_mode(int dirfd, const char *name, unsigned mode)
{
    int fd = sys_openat(dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0), result;
    struct stat status;
    char path[32];

    if (fd < 0)
        return fd;
    log_format(path, sizeof(path), "/proc/self/fd/%d", fd);
    result = sys_fstat(fd, &status);
    if (result == 0 && status.st_uid == geteuid())
        result = sys_fchmodat(AT_FDCWD, path, mode);
    sys_close(fd);
    if (result != -ENOENT)
        return result;
    fd = sys_openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0); /* no /proc */
    if (fd < 0)
        return fd;
    result = sys_fchmod(fd, mode);
    sys_close(fd);
    return result;
}

/* Give a folder its name where nothing has it. Where a kernel or file system cannot see to that, an empty folder that was given the name
 * meanwhile is replaced; whoever has it open finds it gone, as after a collection. */
static int set_name(int dirfd, const char *temporary, const char *name)
{
    int result = sys_rename_new(dirfd, temporary, name);
    struct stat status;

    if (result != -EINVAL && result != -ENOSYS && result != -EOPNOTSUPP && result != -EPERM)
        return result;
    if (sys_lstatat(dirfd, name, &status) == 0)
        return -EEXIST;
    result = sys_rename(dirfd, temporary, name);
    return result == -ENOTEMPTY ? -EEXIST : result;
}

/* Make a folder that has its mode, whatever the umask, from the moment on at which it has its name: others may be waiting for it, and who
 * makes it may be killed. `temporary` and a number name it until then. */
static int make_folder(int dirfd, const char *name, const char *temporary, unsigned mode)
{
    char path[64];
    int result;

    log_format(path, sizeof(path), "%s%llx", temporary, (unsigned long long)sys_random());
    result = sys_mkdirat(dirfd, path, mode & 0777); /* where owners are not as they seem, set_mode() does nothing */
    if (result < 0)
        return result;
    result = set_mode(dirfd, path, mode);
    if (result == 0)
        result = set_name(dirfd, path, name);
    if (result < 0)
        sys_unlinkat(dirfd, path, AT_REMOVEDIR);
    return result;
}

int ledger_state_dir(struct ledger *ledger, const char *configured, char *path, size_t path_size)
{
    int saved = errno, fd, result;
    struct stat status = {0};

    if (*configured) {
        size_t length = strlen(configured);

        /* Behind a slash, a symbolic link would be followed. */
        while (length > 1 && configured[length - 1] == '/')
            length--;
        if (configured[0] != '/')
            return ledger_fail(ledger, -EINVAL, "state directory %s: not an absolute path", configured);
        if (length >= path_size)
            return ledger_fail(ledger, -ENAMETOOLONG, "state directory: name too long");
        memmove(path, configured, length);
        path[length] = '\0';
        fd = open_directory(AT_FDCWD, path, O_PATH, &status);
        if (fd == -ENOENT && strcmp(path, LEDGER_COMMON_DIR) == 0) {
            make_folder(AT_FDCWD, LEDGER_COMMON_DIR, LEDGER_COMMON_DIR ".", 01777);
            fd = open_directory(AT_FDCWD, path, O_PATH, &status);
        }
    } else {
        log_format(path, path_size, "/run/softslice");
        fd = open_directory(AT_FDCWD, path, O_PATH, &status);
        if (fd >= 0 && (status.st_uid == geteuid() || (status.st_mode & (S_IWOTH | S_ISVTX)) == (S_IWOTH | S_ISVTX))) {
            errno = saved;
            return fd;
        }
        if (fd >= 0)
            sys_close(fd);
        log_format(path, path_size, "/dev/shm/softslice-%u", geteuid());
        result = sys_mkdirat(AT_FDCWD, path, 0700);
        fd = open_directory(AT_FDCWD, path, O_PATH, &status);
        if (fd == -ENOENT && result < 0)
            fd = result;
        /* Everybody can make a directory in /dev/shm: this one must be nobody else's. */
        if (fd >= 0 && status.st_uid != geteuid()) {
            sys_close(fd);
            fd = -EPERM;
        }
    }
    if (fd >= 0 && ledger_dir_trust(&status) == LEDGER_FOREIGN) {
        sys_close(fd);
        fd = -EPERM;
    }
    errno = saved;
    return fd < 0 ? refuse_directory(ledger, fd, path, &status) : fd;
}

void ledger_state_dir_close(int fd, const char *path)
{
    struct stat opened, named;
    int saved = errno;

    if (sys_fstat(fd, &opened) == 0 && sys_lstatat(AT_FDCWD, path, &named) == 0 && opened.st_dev == named.st_dev &&
        opened.st_ino == named.st_ino)
        sys_close(fd);
    errno = saved;
}

int ledger_folder_open(struct ledger *ledger, int dirfd, const char *name, enum ledger_trust state, bool own)
{
    unsigned mode = state != LEDGER_SHARED ? 0700 : own ? 0755 : 01777;
    enum ledger_trust trust;
    struct stat status;
    int fd, result = 0;

    for (unsigned attempt = 0;; attempt++) {
        fd = open_directory(dirfd, name, O_RDONLY, &status);
        if (fd != -ENOENT || attempt == 16)
            break;
        result = make_folder(dirfd, name, LEDGER_TEMPORARY, mode);
        if (result < 0 && result != -EEXIST && result != -ENOENT) {
            fd = result;
            break;
        }
    }
    if (fd < 0)
        return ledger_fail(ledger, fd, "%s tenant folder %s in the state directory: %s",
                           fd == result ? "cannot create" : "cannot open", name, ledger_reason(fd));
    trust = ledger_dir_trust(&status);
    if (trust == LEDGER_FOREIGN ||
        (trust == LEDGER_SHARED && state == LEDGER_PRIVATE && status.st_uid != geteuid() && status.st_uid &&
         status.st_uid != OVERFLOW_UID /* root of the host, who alone could make it there */)) {
        sys_close(fd);
        return ledger_fail(ledger, -EPERM, "tenant folder %s belongs to uid %u", name, status.st_uid);
    }
    /* Somebody may have made it by hand, for its user alone. */
    if (status.st_uid == geteuid() && state == LEDGER_SHARED && (status.st_mode & 07777) != mode)
        sys_fchmod(fd, mode);
    return fd;
}

bool ledger_name_is_own(const char *name)
{
    size_t prefix = strlen(LEDGER_OWN_PREFIX);

    if (strlen(name) != LEDGER_OWN_LENGTH || memcmp(name, LEDGER_OWN_PREFIX, prefix) != 0)
        return false;
    for (size_t i = prefix; i < LEDGER_OWN_LENGTH; i++) {
        if (!text_is_digit(name[i]) && !(name[i] >= 'a' && name[i] <= 'f'))
            return false;
    }
    return true;
}

void ledger_make_name(char name[64])
{
    static const char digits[] = "0123456789abcdef";
    size_t length = log_format(name, 64 - LEDGER_MADE_DIGITS, LEDGER_MADE_PREFIX "%d-", (int)syscall(SYS_getpid));
    uint64_t random = sys_random();

    for (unsigned i = 0; i < LEDGER_MADE_DIGITS; i++, random >>= 4)
        name[length++] = digits[random & 15];
    name[length] = '\0';
}

bool ledger_name_is_made(const char *name, int *pid)
{
    const char *at = name + strlen(LEDGER_MADE_PREFIX);
    long value = 0;

    if (strncmp(name, LEDGER_MADE_PREFIX, strlen(LEDGER_MADE_PREFIX)) != 0 || !text_is_digit(*at))
        return false;
    for (; text_is_digit(*at) && value < INT_MAX / 10; at++)
        value = value * 10 + (*at - '0');
    *pid = (int)value;
    return *at == '-' && strlen(at + 1) == LEDGER_MADE_DIGITS && strspn(at + 1, "0123456789abcdef") == LEDGER_MADE_DIGITS;
}

/* Whether a folder of that name may be collected once nobody holds a slot in it. */
static bool is_collected(const char *name)
{
    int pid;

    /* A program that `softslice run` started can be between two members, a shell script say. */
    return ledger_name_is_own(name) || (ledger_name_is_made(name, &pid) && sys_result(syscall(SYS_kill, pid, 0)) == -ESRCH);
}

void ledger_sweep(int folder)
{
    char entries[2048] __attribute__((aligned(8)));
    ssize_t size;

    syscall(SYS_lseek, folder, (off_t)0, SEEK_SET);
    for (unsigned part = 0; part < SWEEP_MAX && (size = sys_getdents(folder, entries, sizeof(entries))) > 0; part++) {
        for (ssize_t at = 0; at < size;) {
            struct dirent64 *entry = (struct dirent64 *)(entries + at);

            if (strncmp(entry->d_name, LEDGER_TEMPORARY, strlen(LEDGER_TEMPORARY)) == 0 ||
                strncmp(entry->d_name, LEDGER_ANSWER, strlen(LEDGER_ANSWER)) == 0)
                sys_unlinkat(folder, entry->d_name, 0);
            at += entry->d_reclen;
        }
    }
}

static bool is_old(const struct stat *status)
{
    uint64_t changed = (uint64_t)status->st_mtim.tv_sec * UINT64_C(1000000000) + (uint64_t)status->st_mtim.tv_nsec;

    return sys_now(CLOCK_REALTIME) - changed > COLLECT_AGE;
}

/* Remove one folder if its members have ended. Whoever joins holds the attach lock until it owns a slot and has seen that the file still has
 * its name, so a file on which all locks can be had is nobody's. */
static void collect_one(int dirfd, const char *name)
{
    struct ledger_header header;
    struct stat status;
    int folder = open_directory(dirfd, name, O_RDONLY, &status), fd;

    if (folder < 0)
        return;
    fd = sys_openat(folder, LEDGER_NAME, O_RDWR | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd >= 0 && sys_pread(fd, &header, sizeof(header), 0) == (ssize_t)sizeof(header) && header.magic == LEDGER_MAGIC &&
        header.major == LEDGER_MAJOR && header.slots <= LEDGER_SLOTS_CAP && sys_lock(fd, LEDGER_LOCK_ATTACH, 1) == 0 &&
        sys_lock(fd, LEDGER_LOCK_SLOTS, header.slots ? header.slots : 1) == 0) {
        sys_unlinkat(folder, LEDGER_NAME, 0);
        if (sys_unlinkat(dirfd, name, AT_REMOVEDIR) < 0) {
            ledger_sweep(folder);
            sys_unlinkat(dirfd, name, AT_REMOVEDIR);
        }
    } else if (fd == -ENOENT && is_old(&status)) {
        ledger_sweep(folder);
        sys_unlinkat(dirfd, name, AT_REMOVEDIR);
    }
    if (fd >= 0)
        sys_close(fd);
    sys_close(folder);
}

/* Remove a folder that was never given its name, if its maker had the time; it is empty, and its mode may let nobody open it. */
static void collect_unnamed(int dirfd, const char *name)
{
    struct stat status;

    if (sys_lstatat(dirfd, name, &status) == 0 && S_ISDIR(status.st_mode) && is_old(&status))
        sys_unlinkat(dirfd, name, AT_REMOVEDIR);
}

/* Count the folders that go with their members, collecting COLLECT_MAX of them from number `from` on. */
static unsigned collect_pass(int dir, int dirfd, unsigned from, bool collect)
{
    char entries[4096] __attribute__((aligned(8)));
    unsigned count = 0;
    ssize_t size;

    while ((size = sys_getdents(dir, entries, sizeof(entries))) > 0) {
        for (ssize_t at = 0; at < size;) {
            struct dirent64 *entry = (struct dirent64 *)(entries + at);
            bool unnamed = strncmp(entry->d_name, LEDGER_TEMPORARY, strlen(LEDGER_TEMPORARY)) == 0;

            at += entry->d_reclen;
            if (!unnamed && !is_collected(entry->d_name))
                continue;
            if (collect && count >= from && count - from < COLLECT_MAX)
                (unnamed ? collect_unnamed : collect_one)(dirfd, entry->d_name);
            count++;
        }
    }
    return count;
}

void ledger_collect(int dirfd)
{
    int dir = sys_openat(dirfd, ".", O_RDONLY | O_DIRECTORY, 0);
    unsigned count;

    if (dir < 0)
        return;
    count = collect_pass(dir, dirfd, 0, false);
    /* The living stay where they are, so always starting at the first would never get past them. */
    if (count && syscall(SYS_lseek, dir, (off_t)0, SEEK_SET) == 0)
        collect_pass(dir, dirfd, count > COLLECT_MAX ? (unsigned)(sys_random() % count) : 0, true);
    sys_close(dir);
}
