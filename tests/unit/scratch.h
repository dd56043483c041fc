/* SPDX-License-Identifier: Apache-2.0 */
/* A directory of its own for each test, and files in it. */
#ifndef SOFTSLICE_TESTS_SCRATCH_H
#define SOFTSLICE_TESTS_SCRATCH_H

#include <criterion/criterion.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char scratch[] = "/tmp/softslice-test-XXXXXX";

static inline void scratch_make(void)
{
    cr_assert(mkdtemp(scratch) != NULL);
}

static inline void scratch_remove(void)
{
    char command[64];

    snprintf(command, sizeof(command), "rm -rf %s", scratch);
    cr_assert(system(command) == 0);
}

/* The path of `name` in the test's directory; a static buffer for each of the last four. */
static inline const char *scratch_path(const char *name)
{
    static char path[4][PATH_MAX];
    static unsigned next;

    next = (next + 1) % 4;
    snprintf(path[next], PATH_MAX, "%s/%s", scratch, name);
    return path[next];
}

/* Write a file of mode 0644, whatever the umask. */
static inline const char *scratch_write(const char *name, const void *bytes, size_t length)
{
    const char *path = scratch_path(name);
    FILE *file = fopen(path, "w");

    cr_assert(file && fwrite(bytes, 1, length, file) == length && fclose(file) == 0);
    cr_assert(chmod(path, 0644) == 0);
    return path;
}

#endif
