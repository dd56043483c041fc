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
    .usage = "top [--batch] [--interval S] [--iterations N] [--sort KEY] [--tenant NAME] [--device DEVICE] [--state-dir DIR]... "
             "[--root DIR]...",
    .help =
        "Show the tenants as they change: VRAM of each and of each GPU, the share of the time in which it had work and in which\n"
        "it was throttled, refusals. The keys are on the last line, and h explains what is shown.\n"
        "\n"
        "    --interval S      look every S seconds (2)\n"
        "    --batch           plain columns instead of a screen, a block for each interval: for pipes and files\n"
        "    --iterations N    end after N times\n"
        "    --sort KEY        tenant, gpu, processes, current (the default), limit, peak, busy, throttled, compute, weight,\n"
        "                      refused, new (since the time before), state\n"
        "    --tenant NAME     this one alone\n"
        "    --device DEVICE   this GPU alone: GPU-<uuid>, or the number that nvidia-smi gives it\n"
        "    --state-dir DIR   this state directory instead of the one in use; may be given more than once\n"
        "    --root DIR        all state directories in this one, as containers have them; may be given more than once\n"
        "\n"
        "Exit status: 0; 1 if there is nothing of what was asked for; 125 if used wrongly, or the terminal is none to draw on.\n",
    .run = run,
};
