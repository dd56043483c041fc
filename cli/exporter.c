/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice exporter`: starts the program that does it, cli/exporter/. */
#include <string.h>

#include "cli.h"

static int run(int argc, char **argv, struct cli_error *error)
{
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
        return help_print(stdout, &command_exporter);
    return program_become("softslice-exporter", argv, error);
}

const struct command command_exporter = {
    .name = "exporter",
    .summary = "serve the tenants' figures to Prometheus, and a page",
    .usage = "exporter [OPTION]...",
    .help = "Answer HTTP with what `softslice status` shows.\n",
    .run = run,
};
