/* SPDX-License-Identifier: Apache-2.0 */
/* A process of another PID namespace is found in /proc by when it started and by the id that it has in its own namespace. */
#include "process_id.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STARTED 22 /* the field of /proc/PID/stat, counted from 1 */

static void read_text(const char *pid, const char *name, char *text, size_t size)
{
    char path[64];
    ssize_t length = 0;
    int fd;

    snprintf(path, sizeof(path), "/proc/%.20s/%s", pid, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        length = read(fd, text, size - 1);
        close(fd);
    }
    text[length > 0 ? length : 0] = '\0';
}

static uint64_t started(const char *pid)
{
    char text[1024];
    const char *at;

    read_text(pid, "stat", text, sizeof(text));
    at = strrchr(text, ')'); /* the name, field 2, may have anything in it */
    for (int field = 2; at && field < STARTED; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at, NULL, 10) : 0;
}

/* The ids of NSpid, outermost first: how many, and the last of them. */
static int ids(const char *pid, int32_t *inner)
{
    char text[4096], *at, *end;
    int count = 0;

    read_text(pid, "status", text, sizeof(text));
    at = strstr(text, "\nNSpid:");
    if (!at)
        return 0;
    for (at += strlen("\nNSpid:"); *at == '\t' || *at == ' '; at = end, count++)
        *inner = (int32_t)strtol(at, &end, 10);
    return count;
}

struct sim_process_id sim_process_self(void)
{
    struct sim_process_id self = sim_process_reader();

    self.started = started("self");
    return self;
}

struct sim_process_id sim_process_reader(void)
{
    struct stat status;

    return (struct sim_process_id){.pid = (int32_t)getpid(),
                                   .namespace = stat("/proc/self/ns/pid", &status) == 0 ? status.st_ino : 0};
}

bool sim_process_near(const struct sim_process_id *a, const struct sim_process_id *b)
{
    return !a->namespace || !b->namespace || a->namespace == b->namespace;
}

int32_t sim_process_seen(const struct sim_process_id *self, const struct sim_process_id *other)
{
    int32_t inner = 0, found = 0;
    struct dirent *entry;
    DIR *proc;

    if (sim_process_near(self, other))
        return other->pid;
    /* A /proc of an outer namespace names processes by ids that are not this one's. */
    if (ids("self", &inner) != 1 || !(proc = opendir("/proc")))
        return 0;
    while (!found && (entry = readdir(proc)))
        if (isdigit((unsigned char)*entry->d_name) && ids(entry->d_name, &inner) > 1 && inner == other->pid &&
            started(entry->d_name) == other->started)
            found = (int32_t)strtol(entry->d_name, NULL, 10);
    closedir(proc);
    return found;
}
