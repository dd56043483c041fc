/* SPDX-License-Identifier: Apache-2.0 */
/* Where the library is, and how it gets into LD_PRELOAD. */
#include <errno.h>
#include <string.h>

#include "cli.h"

/* What ld.so would split or expand in LD_PRELOAD. */
#define UNUSABLE " :$"

static int check_named(const char *said_by, const char *named, char path[PATH_MAX], struct cli_error *error)
{
    const char *why;

    if (!realpath(named, path))
        return cli_fail(error, -1, "%s: %s: %s", said_by, named, strerror(errno));
    if (!preload_is_library(path, &why))
        return cli_fail(error, -1, "%s: %s: %s", said_by, path, why);
    return 0;
}

static int check_path(const char *path, struct cli_error *error)
{
    if (path[strcspn(path, UNUSABLE)])
        return cli_fail(error, -1,
                        "the library's path '%s' has a blank, a colon or a dollar sign, which LD_PRELOAD cannot take: link or copy "
                        "it elsewhere and name it with --library",
                        path);
    return 0;
}

static bool try_place(const char *directory, const char *below, char path[PATH_MAX])
{
    char candidate[PATH_MAX];
    const char *why;
    int length = snprintf(candidate, sizeof(candidate), "%s%s/" CLI_LIBRARY, directory, below);

    return length > 0 && (size_t)length < sizeof(candidate) && realpath(candidate, path) && preload_is_library(path, &why);
}

int library_find(const char *named, char path[PATH_MAX], struct cli_error *error)
{
    const char *variable = getenv("SOFTSLICE_LIBRARY");
    char self[PATH_MAX];
    ssize_t length;

    if (named)
        return check_named("--library", named, path, error) ? -1 : check_path(path, error);
    if (variable && *variable)
        return check_named("SOFTSLICE_LIBRARY", variable, path, error) ? -1 : check_path(path, error);

    length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[length > 0 ? length : 0] = '\0';
    if (strrchr(self, '/'))
        *strrchr(self, '/') = '\0';
    if ((length > 0 && (try_place(self, "", path) || try_place(self, "/../lib/softslice", path) ||
                        try_place(self, "/../lib", path) || try_place(self, "/../../lib/softslice", path))) ||
        try_place(SOFTSLICE_LIBDIR, "", path))
        return check_path(path, error);
    return cli_fail(error, -1,
                    CLI_LIBRARY
                    " is not in %s, %s/../lib/softslice or " SOFTSLICE_LIBDIR
                    ": build it with 'make', install it with 'make install', or name it with --library or SOFTSLICE_LIBRARY",
                    self, self);
}

/* Another copy of the library beside this one would stand in front of it. */
static bool is_softslice(const char *entry, size_t length)
{
    size_t name = strlen(CLI_LIBRARY);

    return length >= name && memcmp(entry + length - name, CLI_LIBRARY, name) == 0 &&
           (length == name || entry[length - name - 1] == '/');
}

char *library_preload(const char *library, const char *before)
{
    size_t size = strlen(library) + 2 + (before ? strlen(before) : 0), length, entry;
    char *list = malloc(size);

    if (!list)
        return NULL;
    length = (size_t)snprintf(list, size, "%s", library);
    for (const char *rest = before; rest && *rest; rest += entry) {
        rest += strspn(rest, ": ");
        entry = strcspn(rest, ": ");
        if (entry == 0 || is_softslice(rest, entry) || (entry == strlen(library) && memcmp(rest, library, entry) == 0))
            continue;
        length += (size_t)snprintf(list + length, size - length, ":%.*s", (int)entry, rest);
    }
    return list;
}
