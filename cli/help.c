/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice help`, and what to say to a command that there is not. */
#include <string.h>

#include "cli.h"

#define NAME_MAX_HELP 32

static void print_overview(FILE *to)
{
    fputs("softslice gives each program a VRAM budget and a share of the time of a GPU that several share.\n\n"
          "    softslice run --vram 20GiB --compute 30% -- python serve.py\n\n"
          "Commands:\n",
          to);
    for (unsigned i = 0; commands[i]; i++)
        fprintf(to, "    %-10s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\n'softslice help COMMAND' tells more, and so does softslice(1).\n", to);
}

int help_print(FILE *to, const struct command *command)
{
    if (!command)
        print_overview(to);
    else
        fprintf(to, "softslice %s\n\n%s", command->usage, command->help);
    return 0;
}

/* How many letters must be put in, taken out or changed to come from one name to the other. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[NAME_MAX_HELP], length = (unsigned)strlen(b);

    for (unsigned j = 0; j <= length; j++)
        row[j] = j;
    for (unsigned i = 0; a[i]; i++) {
        unsigned diagonal = row[0];

        row[0] = i + 1;
        for (unsigned j = 0; j < length; j++) {
            unsigned change = diagonal + (a[i] != b[j]);
            unsigned other = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;

            diagonal = row[j + 1];
            row[j + 1] = change < other ? change : other;
        }
    }
    return row[length];
}

int help_unknown(const char *name, struct cli_error *error)
{
    const char *nearest = NULL;
    size_t length = strlen(name);
    unsigned least = 3;

    for (unsigned i = 0; commands[i] && length < NAME_MAX_HELP; i++) {
        bool begins = length > 1 && strncmp(name, commands[i]->name, length) == 0;
        unsigned d = begins ? 0 : distance(name, commands[i]->name);

        if (d < least) {
            least = d;
            nearest = commands[i]->name;
        }
    }
    if (nearest)
        return cli_fail(error, CLI_FAILED, "there is no command '%s'; did you mean '%s'?", name, nearest);
    return cli_fail(error, CLI_FAILED,
                    "there is no command '%s': 'softslice help' lists what there is (to start a program: softslice run -- %s)",
                    name, name);
}

static int run(int argc, char **argv, struct cli_error *error)
{
    const struct command *command = NULL;

    if (argc > 2)
        return cli_fail(error, CLI_FAILED, "help: one command at a time");
    if (argc == 2 && !(command = command_find(argv[1])))
        return help_unknown(argv[1], error);
    return help_print(stdout, command);
}

const struct command command_help = {
    .name = "help",
    .summary = "tell what a command does",
    .usage = "help [COMMAND]",
    .help = "Print what COMMAND does and its options, or the list of commands.\n",
    .run = run,
};
