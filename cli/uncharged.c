/* SPDX-License-Identifier: Apache-2.0 */
/* Processes on the GPUs that no budget is charged for, for `softslice doctor`: told by what is mapped in them, as far as /proc lets us look. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"
#include "doctor.h"
#include "observe.h"
#include "softslice/units.h"

#define PRELOAD_BYTES 4096

struct seen {
    doctor_found *found;
    void *context;
    unsigned members, strangers, unknown;
};

static FILE *open_proc(unsigned pid, const char *name)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "/proc/%u/%s", pid, name);
    return fopen(path, "re");
}

/* Whether a line of /proc/PID/maps is a ledger's page, which a member keeps mapped for as long as it lives. Who made the file shows it as one that had no name
 * yet. */
static bool is_ledger(const char *line)
{
    static const char name[] = "/ledger", gone[] = " (deleted)";
    size_t length = strlen(line);

    if (!strstr(line, " rw-s "))
        return false;
    if (length > strlen(name) && strcmp(line + length - strlen(name), name) == 0)
        return true;
    return length > strlen(gone) && strcmp(line + length - strlen(gone), gone) == 0 &&
           (strstr(line, "/#") || strstr(line, "/.new-"));
}

/* What is mapped. False: it cannot be seen. */
static bool read_maps(unsigned pid, bool *member, bool *library)
{
    FILE *maps = open_proc(pid, "maps");
    CLEANUP_FREE char *line = NULL;
    size_t room = 0;
    bool any = false;

    *member = *library = false;
    while (maps && getline(&line, &room, maps) > 0) {
        any = true;
        line[strcspn(line, "\n")] = '\0';
        *member |= is_ledger(line);
        *library |= strstr(line, "/" CLI_LIBRARY) != NULL;
    }
    if (maps)
        fclose(maps);
    return any;
}

/* What a file of the container's says, which is as it likes: a FIFO is not waited for, and no more is read than belongs there. */
static bool preloads_us(unsigned pid)
{
    char path[64], text[PRELOAD_BYTES] = "";
    struct stat status;

    snprintf(path, sizeof(path), "/proc/%u/root/etc/ld.so.preload", pid);
    CLEANUP_CLOSE int place = open(path, O_PATH | O_CLOEXEC);
    if (place < 0 || fstat(place, &status) < 0 || !S_ISREG(status.st_mode))
        return false;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", place);
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && strstr(text, CLI_LIBRARY);
}

/* Whether somebody meant it to be held: by its container's files, or by its environment. */
static bool is_meant(unsigned pid)
{
    static const char *const limits[] = {"SOFTSLICE_VRAM=", "SOFTSLICE_COMPUTE=", "SOFTSLICE_WEIGHT=", "SOFTSLICE_TENANT="};
    FILE *environment = open_proc(pid, "environ");
    CLEANUP_FREE char *entry = NULL;
    size_t room = 0;
    bool meant = preloads_us(pid);

    while (environment && !meant && getdelim(&entry, &room, '\0', environment) > 0) {
        for (unsigned i = 0; i < sizeof(limits) / sizeof(*limits); i++)
            meant |= strncmp(entry, limits[i], strlen(limits[i])) == 0;
    }
    if (environment)
        fclose(environment);
    return meant;
}

static void look(void *context, int gpu, unsigned pid, uint64_t bytes)
{
    char name[32] = "?", clean[OBSERVE_TEXT], size[UNITS_TEXT_MAX] = "memory", text[CLI_ERROR_MAX];
    struct seen *seen = context;
    bool member, library;
    FILE *comm;

    if (!read_maps(pid, &member, &library)) {
        seen->unknown++;
        return;
    }
    if (member || !is_meant(pid)) {
        *(member ? &seen->members : &seen->strangers) += 1;
        return;
    }
    if ((comm = open_proc(pid, "comm"))) {
        if (!fgets(name, sizeof(name), comm))
            *name = '\0';
        fclose(comm);
    }
    name[strcspn(name, "\n")] = '\0';
    if (bytes != UINT64_MAX)
        units_format_size(size, bytes);
    snprintf(text, sizeof(text), "GPU %d: process %u (%s) has %s that no budget is charged for: %s", gpu, pid,
             observe_text(clean, sizeof(clean), name, true), size,
             library ? "it has the library and calls the driver past it (is the driver in its LD_PRELOAD?), or nothing limits it"
                     : "the library is not in it (a static program, musl, another LD_PRELOAD?)");
    seen->found(seen->context, text);
}

void doctor_uncharged(doctor_found *found, void *context)
{
    struct seen seen = {.found = found, .context = context};
    char text[CLI_ERROR_MAX];

    observe_gpu_processes(look, &seen);
    if (!seen.strangers && !seen.unknown)
        return;
    snprintf(text, sizeof(text),
             "of the processes on the GPUs %u %s held by softslice, %u %s nothing to do with it, of %u it cannot be seen",
             seen.members, seen.members == 1 ? "is" : "are", seen.strangers, seen.strangers == 1 ? "has" : "have", seen.unknown);
    found(context, text);
}
