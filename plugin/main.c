/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice-device-plugin`: gives the slices of a node's GPUs to the kubelet as resources. */
#include <string.h>

#include "cli.h"

static const char usage[] = "usage: softslice-device-plugin [--help] [--version]\n";

int main(int argc, char **argv)
{
    static struct cli_error error;

    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        return printf("softslice-device-plugin %s\n", SOFTSLICE_VERSION) < 0;
    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(usage, stdout) == EOF;
    cli_fail(&error, CLI_FAILED, argc > 1 ? "'%s' is not understood; --help lists what is" : "no option given; --help lists them",
             argv[1]);
    cli_say("", error.text);
    return CLI_FAILED;
}
