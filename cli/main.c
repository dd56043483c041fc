/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice`: finds the command that is named, and reports how it ended. */
#include <string.h>

#include "cli.h"

const struct command *const commands[] = {
    &command_run, &command_set,    &command_status, &command_events,  &command_explain, &command_top, &command_exporter,
    &command_cdi, &command_config, &command_doctor, &command_version, &command_help,    NULL};

const struct command *command_find(const char *name)
{
    for (unsigned i = 0; commands[i]; i++) {
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static struct cli_error error;
    const char *name = argc > 1 ? argv[1] : "help";
    const struct command *command;
    int status;

    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
        name = "version";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    command = command_find(name);
    if (!command)
        status = help_unknown(name, &error);
    else if (argc < 2)
        status = help_print(stderr, NULL) ? CLI_FAILED : cli_fail(&error, CLI_FAILED, "no command given");
    else
        status = command->run(argc - 1, argv + 1, &error);
    if (*error.text)
        cli_say("", error.text);
    if (fflush(stdout) == EOF || ferror(stdout)) {
        cli_say("", "cannot write to standard output");
        return status ? status : CLI_FAILED;
    }
    return status;
}
