/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that are programs of their own, so that what they need besides is not needed by `softslice run`. */
#include <errno.h>
#include <string.h>

#include "cli.h"

/* Returns only where the program cannot be started from there. False: it is not there. */
static bool try_place(const char *directory, const char *below, const char *name, char **argv, char path[PATH_MAX])
{
    int length = snprintf(path, PATH_MAX, "%s%s/%s", directory, below, name);

    if (length < 0 || length >= PATH_MAX)
        return false;
    execv(path, argv);
    return errno != ENOENT && errno != ENOTDIR;
}

int program_become(const char *name, char **argv, struct cli_error *error)
{
    char self[PATH_MAX], path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

    self[length > 0 ? length : 0] = '\0';
    if (strrchr(self, '/'))
        *strrchr(self, '/') = '\0';
    fflush(stdout);
    if ((length > 0 && (try_place(self, "", name, argv, path) || try_place(self, "/../libexec/softslice", name, argv, path))) ||
        try_place(SOFTSLICE_LIBEXECDIR, "", name, argv, path))
        return cli_fail(error, CLI_NOT_EXECUTABLE, "%s: cannot start %s: %s", argv[0], path, strerror(errno));
    return cli_fail(error, CLI_NOT_FOUND,
                    "%s: the program %s is not in %s, %s/../libexec/softslice or " SOFTSLICE_LIBEXECDIR
                    ": build it with 'make', install it with 'make install'",
                    argv[0], name, self, self);
}
