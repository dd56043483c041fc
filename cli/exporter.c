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
    .usage = "exporter [--listen ADDR:PORT] [--textfile FILE [--interval S]] [--hami-names] [--state-dir DIR]... [--root DIR]...",
    .help =
        "Tell Prometheus what 'softslice status' tells people, over HTTP or in a file, until SIGTERM or SIGINT.\n"
        "\n"
        "    --listen ADDR:PORT  127.0.0.1:9877 where neither this nor a file is asked for; [::1]:9877; port 0 is any free one.\n"
        "                        There is no password: who reaches the address reads the tenants' names and figures\n"
        "    --textfile FILE     write FILE (its name ends in .prom) for node-exporter's textfile collector instead, or besides;\n"
        "                        it is removed at the end\n"
        "    --interval S        every S seconds (15); 0: once, and end\n"
        "    --hami-names        the same also under the names that HAMi's monitor has for it\n"
        "    --state-dir DIR     look in DIR instead of the state directory in use here; may be repeated\n"
        "    --root DIR          look in each folder of DIR, as containers' state directories lie; may be repeated\n"
        "\n"
        "/metrics, /api/v1/status (as 'softslice status --json'), /api/v1/history (five minutes), /healthz, and a page at /.\n"
        "\n"
        "Exit status: 0; 125 if it cannot listen or write, or is used wrongly.\n",
    .run = run,
};
