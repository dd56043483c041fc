/* SPDX-License-Identifier: Apache-2.0 */
/* install-library: puts the library of its image on a node, for containers to mount. It runs in an image without anything else: no shell, no C library.
 *
 *     DIRECTORY/libsoftslice.so.VERSION-HASH   the library, under a name that says what it is
 *     DIRECTORY/libsoftslice.so                the same file: what containers mount
 *     DIRECTORY/ld.so.preload                  what they mount as /etc/ld.so.preload
 *
 * Each name changes from one whole file to the next by rename(2), and is on disk before. Who has the old file mounted or mapped keeps it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIBRARY "libsoftslice.so"
#define PRELOAD "ld.so.preload"
#define NEW     ".softslice.new"
#define KEPT    2 /* libraries: this one and the one before, for who looks at what ran */
#define BIG     (64u << 20)

static const char usage[] = "usage: install-library [--stay | --check] [--from LIBRARY] [--path PATH] DIRECTORY\n"
                            "\n"
                            "    --stay          do not end until SIGTERM or SIGINT\n"
                            "    --check         change nothing; exit status 1 if what is there is not this library\n"
                            "    --from LIBRARY  /" LIBRARY "\n"
                            "    --path PATH     where containers have it: /usr/local/lib/softslice/" LIBRARY "\n";

/* Returns the exit status. */
static int fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int fail(const char *format, ...)
{
    va_list args;

    fputs("install-library: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return 1;
}

struct bytes {
    char *at;
    size_t length;
};

static int read_file(int directory, const char *path, struct bytes *bytes)
{
    int fd = openat(directory, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), result = -EINVAL;
    struct stat status;
    ssize_t got = 1;

    bytes->at = NULL;
    bytes->length = 0;
    if (fd < 0)
        return -errno;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0 && (uintmax_t)status.st_size <= BIG)
        bytes->at = malloc((size_t)status.st_size);
    while (bytes->at && bytes->length < (size_t)status.st_size && got > 0) {
        got = read(fd, bytes->at + bytes->length, (size_t)status.st_size - bytes->length);
        bytes->length += got > 0 ? (size_t)got : 0;
    }
    if (bytes->at && bytes->length == (size_t)status.st_size)
        result = 0;
    close(fd);
    return result;
}

static bool same(int directory, const char *name, const struct bytes *bytes)
{
    struct bytes there;
    bool is =
        read_file(directory, name, &there) == 0 && there.length == bytes->length && memcmp(there.at, bytes->at, there.length) == 0;

    free(there.at);
    return is;
}

/* Write a file under its name, whole or not at all. */
static int put(int directory, const char *name, const struct bytes *bytes, mode_t mode)
{
    size_t done = 0;
    ssize_t got = 1;
    int fd, saved;

    if (unlinkat(directory, NEW, 0) < 0 && errno != ENOENT)
        return -errno;
    fd = openat(directory, NEW, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    while (done < bytes->length && got > 0) {
        got = write(fd, bytes->at + done, bytes->length - done);
        done += got > 0 ? (size_t)got : 0;
    }
    if (done < bytes->length || fchmod(fd, mode) < 0 || fsync(fd) < 0 || renameat(directory, NEW, directory, name) < 0) {
        saved = errno ? errno : EIO;
        close(fd);
        unlinkat(directory, NEW, 0);
        return -saved;
    }
    close(fd);
    return 0;
}

/* Let `name` be the file `from`. */
static int point(int directory, const char *from, const char *name)
{
    if (unlinkat(directory, NEW, 0) < 0 && errno != ENOENT)
        return -errno;
    if (linkat(directory, from, directory, NEW, 0) < 0 || renameat(directory, NEW, directory, name) < 0)
        return -errno;
    /* Of two names of one file, rename(2) keeps both. */
    return unlinkat(directory, NEW, 0) < 0 && errno != ENOENT ? -errno : 0;
}

static bool is_versioned(const char *name)
{
    return strncmp(name, LIBRARY ".", strlen(LIBRARY ".")) == 0;
}

/* Keep the newest KEPT libraries, the one named among them. */
static void prune(int directory, const char *current)
{
    int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = copy < 0 ? NULL : fdopendir(copy);
    char names[64][NAME_MAX + 1];
    struct timespec changed[64];
    unsigned count = 0;
    struct dirent *entry;

    while (stream && count < 64 && (entry = readdir(stream))) {
        struct stat status;

        if (!is_versioned(entry->d_name) || strcmp(entry->d_name, current) == 0 ||
            fstatat(directory, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        changed[count] = status.st_mtim;
        snprintf(names[count++], sizeof(names[0]), "%s", entry->d_name);
    }
    for (unsigned i = 0; i < count; i++) {
        unsigned newer = 0;

        for (unsigned j = 0; j < count; j++)
            newer += changed[j].tv_sec > changed[i].tv_sec ||
                     (changed[j].tv_sec == changed[i].tv_sec &&
                      (changed[j].tv_nsec > changed[i].tv_nsec || (changed[j].tv_nsec == changed[i].tv_nsec && i < j)));
        if (newer + 1 >= KEPT)
            unlinkat(directory, names[i], 0);
    }
    if (stream)
        closedir(stream);
}

static uint64_t hash(const struct bytes *bytes) /* FNV-1a: a name for people, not a seal */
{
    uint64_t value = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < bytes->length; i++)
        value = (value ^ (unsigned char)bytes->at[i]) * UINT64_C(1099511628211);
    return value;
}

/* 0, or the exit status. */
static int install(int directory, const char *place, const struct bytes *library, const struct bytes *preload)
{
    char name[64];
    int result = 0;

    snprintf(name, sizeof(name), LIBRARY "." SOFTSLICE_VERSION "-%08x", (unsigned)(hash(library) >> 32));
    if (!same(directory, name, library))
        result = put(directory, name, library, 0755);
    if (result == 0)
        result = point(directory, name, LIBRARY);
    if (result == 0 && !same(directory, PRELOAD, preload))
        result = put(directory, PRELOAD, preload, 0644);
    if (result < 0)
        return fail("%s: %s", place, strerror(-result));
    prune(directory, name);
    fsync(directory);
    printf("install-library: %s/%s\n", place, name);
    fflush(stdout);
    return 0;
}

/* As the first process of a container it would not even be ended by a signal that nothing is said about. */
static void block_signals(sigset_t *signals)
{
    sigemptyset(signals);
    sigaddset(signals, SIGTERM);
    sigaddset(signals, SIGINT);
    sigprocmask(SIG_BLOCK, signals, NULL);
}

static int misused(void)
{
    fputs(usage, stderr);
    return 2;
}

int main(int argc, char **argv)
{
    const char *from = "/" LIBRARY, *path = "/usr/local/lib/softslice/" LIBRARY, *place = NULL;
    bool stays = false, checks = false;
    struct bytes library, preload;
    struct stat status;
    sigset_t signals;
    char line[PATH_MAX];
    int directory, result;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--stay") == 0)
            stays = true;
        else if (strcmp(argv[i], "--check") == 0)
            checks = true;
        else if (strcmp(argv[i], "--from") == 0 && i + 1 < argc)
            from = argv[++i];
        else if (strcmp(argv[i], "--path") == 0 && i + 1 < argc)
            path = argv[++i];
        else if (strcmp(argv[i], "--help") == 0)
            return fputs(usage, stdout) == EOF;
        else if (argv[i][0] == '-' || place)
            return misused();
        else
            place = argv[i];
    }
    if (!place || (stays && checks))
        return misused();
    /* ld.so takes blanks, tabs, colons and line ends for the end of a name. */
    if (path[0] != '/' || strpbrk(path, " \t\n:") || strlen(path) + 2 > sizeof(line))
        return fail("--path '%s': an absolute path without blanks or colons", path);
    preload = (struct bytes){line, (size_t)snprintf(line, sizeof(line), "%s\n", path)};
    result = read_file(AT_FDCWD, from, &library);
    if (result < 0 || library.length < 64 || memcmp(library.at, "\177ELF", 4) != 0)
        return fail("%s: %s", from, result < 0 && result != -EINVAL ? strerror(-result) : "not a library");
    directory = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0 || fstat(directory, &status) < 0)
        return fail("%s: %s", place, strerror(errno));
    /* What containers of all users load may be changed by root alone. */
    if ((status.st_mode & S_IWOTH) || status.st_uid != geteuid())
        return fail("%s: not ours alone: belongs to uid %u, mode %o", place, status.st_uid, status.st_mode & 07777);
    /* Two pods may come to a node at once: one after the other. It goes with the process. */
    if (flock(directory, LOCK_EX) < 0)
        return fail("%s: cannot be locked: %s", place, strerror(errno));
    if (checks) {
        bool is = same(directory, LIBRARY, &library) && same(directory, PRELOAD, &preload);

        return is ? 0 : fail("%s: not this library", place);
    }
    if (stays)
        block_signals(&signals);
    result = install(directory, place, &library, &preload);
    if (result || !stays)
        return result;
    flock(directory, LOCK_UN);
    return sigwait(&signals, &result) ? 1 : 0;
}
