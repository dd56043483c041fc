/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice top`: starts the program that does it, cli/top/. */
#include <string.h>

#include "cli.h"

static int run(int argc, char **argv, struct cli_error *error)
{
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
        return help_print(stdout, &command_top);
    return program_become("softslice-top", argv, error);
}

const struct command command_top = {
    .name = "top",
    .summary = "watch the tenants: bars of VRAM and busy share",
    .usage = "top [OPTION]...",
    .help = "Show the tenants of this machine as they change.\n",
    .run = run,
};
