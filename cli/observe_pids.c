/* SPDX-License-Identifier: Apache-2.0 */
/* Members of other PID namespaces, found among the processes that /proc shows here: by the namespace's inode and the number that the process has in
 * it. What cannot be read (another user's process, say) stays unknown. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "observe_internal.h"

/* Members that are looked for, sorted by namespace and pid. */
struct wanted {
    struct observe_member **member;
    size_t count;
};

static int compare(const void *a, const void *b)
{
    const struct observe_member *one = *(struct observe_member *const *)a, *other = *(struct observe_member *const *)b;

    if (one->pid_namespace != other->pid_namespace)
        return one->pid_namespace < other->pid_namespace ? -1 : 1;
    return one->pid < other->pid ? -1 : one->pid > other->pid;
}

static uint64_t namespace_of(int proc, const char *pid)
{
    char path[NAME_MAX + 32];
    struct stat status;

    snprintf(path, sizeof(path), "%s/ns/pid", pid);
    return fstatat(proc, path, &status, 0) == 0 ? status.st_ino : 0;
}

/* A file of /proc, as a string; "" where it cannot be read. */
static void read_text(int proc, const char *pid, const char *name, char *text, size_t size)
{
    char path[NAME_MAX + 32];
    ssize_t length = 0;
    int fd;

    snprintf(path, sizeof(path), "%s/%s", pid, name);
    fd = openat(proc, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd >= 0) {
        length = read(fd, text, size - 1);
        close(fd);
    }
    text[length > 0 ? length : 0] = '\0';
}

/* The number that a process has in its own namespace: the last one of NSpid. 0 unknown. */
static uint32_t inner_pid(int proc, const char *pid)
{
    char text[4096], *line, *end;
    unsigned long inner = 0;

    read_text(proc, pid, "status", text, sizeof(text));
    line = strstr(text, "\nNSpid:");
    if (!line)
        return 0;
    line += strlen("\nNSpid:");
    line[strcspn(line, "\n")] = '\0';
    for (unsigned long value = strtoul(line, &end, 10); end != line; value = strtoul(line, &end, 10)) {
        inner = value;
        line = end;
    }
    return (uint32_t)inner;
}

/* All members of one process: it may be in several tenants. */
static void found(const struct wanted *wanted, uint64_t namespace, uint32_t inner, uint32_t host)
{
    struct observe_member key = {.pid = inner, .pid_namespace = namespace}, *pointer = &key, **hit;

    hit = bsearch(&pointer, wanted->member, wanted->count, sizeof(*wanted->member), compare);
    if (!hit)
        return;
    while (hit > wanted->member && compare(hit - 1, &pointer) == 0)
        hit--;
    for (; hit < wanted->member + wanted->count && compare(hit, &pointer) == 0; hit++)
        (*hit)->host_pid = host;
}

static bool is_wanted(const struct wanted *wanted, uint64_t namespace)
{
    size_t low = 0, high = wanted->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (wanted->member[middle]->pid_namespace == namespace)
            return true;
        if (wanted->member[middle]->pid_namespace < namespace)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

static void search(int proc, const struct wanted *wanted)
{
    int copy = openat(proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *all = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;

    while (all && (entry = readdir(all))) {
        uint64_t namespace;

        if (*entry->d_name < '1' || *entry->d_name > '9')
            continue;
        namespace = namespace_of(proc, entry->d_name);
        if (namespace && is_wanted(wanted, namespace))
            found(wanted, namespace, inner_pid(proc, entry->d_name), (uint32_t)strtoul(entry->d_name, NULL, 10));
    }
    if (all)
        closedir(all);
    else if (copy >= 0)
        close(copy);
}

static void read_command(int proc, struct observe_member *member)
{
    char pid[16];

    snprintf(pid, sizeof(pid), "%u", member->host_pid);
    read_text(proc, pid, "comm", member->command, sizeof(member->command));
    member->command[strcspn(member->command, "\n")] = '\0';
}

void observe_pids_find(struct observe *seen)
{
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct wanted wanted = {0};
    uint64_t own;
    size_t count = 0;

    if (proc < 0)
        return;
    own = namespace_of(proc, "self");
    for (unsigned i = 0; i < seen->tenants; i++)
        count += seen->tenant[i].members;
    wanted.member = count ? malloc(count * sizeof(*wanted.member)) : NULL;
    for (unsigned i = 0; i < seen->tenants; i++) {
        for (unsigned j = 0; j < seen->tenant[i].members; j++) {
            struct observe_member *member = &seen->tenant[i].member[j];

            if (member->dead || !member->pid_namespace)
                continue;
            if (member->pid_namespace == own)
                member->host_pid = member->pid;
            else if (wanted.member)
                wanted.member[wanted.count++] = member;
        }
    }
    if (wanted.count) {
        qsort(wanted.member, wanted.count, sizeof(*wanted.member), compare);
        search(proc, &wanted);
    }
    free(wanted.member);
    for (unsigned i = 0; i < seen->tenants; i++) {
        for (unsigned j = 0; j < seen->tenant[i].members; j++) {
            if (seen->tenant[i].member[j].host_pid)
                read_command(proc, &seen->tenant[i].member[j]);
        }
    }
    close(proc);
}
