/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice version`. */
#include <gnu/libc-version.h>

#include "cli.h"

static int run(int argc, char **argv, struct cli_error *error)
{
    if (argc > 1)
        return cli_fail(error, CLI_FAILED, "version: '%s' is not understood: it takes no argument", argv[1]);
    printf("softslice %s (glibc %s)\n", SOFTSLICE_VERSION, gnu_get_libc_version());
    return 0;
}

const struct command command_version = {
    .name = "version",
    .summary = "print the version",
    .usage = "version",
    .help = "Print the version of softslice, and that of the C library it runs with.\n",
    .run = run,
};
