/* SPDX-License-Identifier: Apache-2.0 */
/* Whether containers still have their files: by the mounts of all processes of the node, where those can be seen. A container that lives has a process in
 * its mount namespace, and a mount names the directory that it came from even when that is gone. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "node.h"

/* Of the first PID namespace, PROC_PID_INIT_INO in the kernel's proc_ns.h. */
#define FIRST_NAMESPACE "pid:[4026531836]"

struct search {
    struct look *looks;
    unsigned count;
    char *line;
    size_t room;
};

static void search_line(const struct search *search, const char *line)
{
    for (const char *at = strstr(line, "/" GIVEN_PREFIX); at; at = strstr(at + 1, "/" GIVEN_PREFIX)) {
        for (unsigned i = 0; i < search->count; i++)
            search->looks[i].mounted |= strncmp(at + 1, search->looks[i].name, strlen(search->looks[i].name)) == 0;
    }
}

/* 0 or -errno. */
static int search_file(struct search *search, int directory, const char *path)
{
    int fd = openat(directory, path, O_RDONLY | O_CLOEXEC), result = 0;
    FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;

    if (!file) {
        result = -errno;
        if (fd >= 0)
            close(fd);
        return result;
    }
    while (getline(&search->line, &search->room, file) > 0)
        search_line(search, search->line);
    result = ferror(file) ? -errno : 0;
    fclose(file);
    return result;
}

static bool is_number(const char *name)
{
    return *name && strspn(name, "0123456789") == strlen(name);
}

/* Gone, or without a mount namespace any more. */
static bool is_over(int result)
{
    return result == -ENOENT || result == -ESRCH || result == -EINVAL;
}

/* A process whose first thread has ended may live on in others. */
static int search_threads(struct search *search, int directory, const char *process)
{
    char path[64];
    int result = 0, fd;
    DIR *all;

    snprintf(path, sizeof(path), "%.20s/task", process);
    fd = openat(directory, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    all = fd >= 0 ? fdopendir(fd) : NULL;
    if (!all) {
        result = -errno;
        if (fd >= 0)
            close(fd);
        return result;
    }
    for (struct dirent *entry; result == 0 && (entry = readdir(all));) {
        snprintf(path, sizeof(path), "%.20s/mountinfo", entry->d_name);
        result = is_number(entry->d_name) ? search_file(search, dirfd(all), path) : 0;
        if (is_over(result))
            result = 0;
    }
    closedir(all);
    return result;
}

static int search_process(struct search *search, int directory, const char *process)
{
    char path[64];
    int result;

    snprintf(path, sizeof(path), "%.20s/mountinfo", process);
    result = search_file(search, directory, path);
    if (result == -EINVAL)
        result = search_threads(search, directory, process);
    return is_over(result) ? 0 : result;
}

static int search_all(struct search *search, DIR *all)
{
    struct dirent *entry;
    int result;

    /* With hidepid= others are not shown at all, nor is this. */
    result = search_file(search, dirfd(all), "1/mountinfo");
    errno = 0;
    while (result == 0 && (entry = readdir(all))) {
        if (is_number(entry->d_name))
            result = search_process(search, dirfd(all), entry->d_name);
        errno = 0;
    }
    return result ? result : -errno;
}

const char *mounts_proc(const char *named)
{
    char space[64];
    ssize_t length;

    if (named)
        return named;
    length = readlink("/proc/self/ns/pid", space, sizeof(space) - 1);
    space[length > 0 ? length : 0] = '\0';
    return strcmp(space, FIRST_NAMESPACE) == 0 ? "/proc" : NULL;
}

int mounts_look(const char *proc, struct look *looks, unsigned count)
{
    struct search search = {.looks = looks, .count = count};
    DIR *all = opendir(proc);
    int result = all ? search_all(&search, all) : -errno;

    if (all)
        closedir(all);
    free(search.line);
    return result;
}
