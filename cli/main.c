/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice`: finds the command that is named, and reports how it ended. */
#include <getopt.h>
#include <stdarg.h>
#include <string.h>

#include "cli.h"

const struct command *const commands[] = {&command_run,  &command_set, &command_config, &command_doctor, &command_version,
                                          &command_help, NULL};

const struct command *command_find(const char *name)
{
    for (unsigned i = 0; commands[i]; i++) {
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    }
    return NULL;
}

int cli_fail(struct cli_error *error, int status, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(error->text, sizeof(error->text), format, args);
    va_end(args);
    return status;
}

/* One write for one line, whatever else writes to the terminal. Control characters of arguments stay out of it. */
static void print_line(const char *kind, const char *text)
{
    char line[CLI_ERROR_MAX + 64];
    int length = snprintf(line, sizeof(line), "softslice: %s%s\n", kind, text);

    for (int i = 0; i < length - 1; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    }
    fputs(line, stderr);
}

void cli_warn(const char *format, ...)
{
    char text[CLI_ERROR_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    print_line("warning: ", text);
}

int cli_option(int argc, char **argv, const char *letters, const struct option *options, const char *command,
               struct cli_error *error)
{
    int before = optind, option;

    opterr = 0;
    option = getopt_long(argc, argv, letters, options, NULL);
    if (option == '?' && optopt > 0 && optopt < 256)
        cli_fail(error, CLI_FAILED, "%s: unknown option '-%c': see 'softslice help %s'", command, optopt, command);
    else if (option == '?')
        cli_fail(error, CLI_FAILED, "%s: unknown or ambiguous option '%s': see 'softslice help %s'", command, argv[before],
                 command);
    else if (option == ':')
        cli_fail(error, CLI_FAILED, "%s: option '%s' needs a value: see 'softslice help %s'", command, argv[before], command);
    return option == ':' ? '?' : option;
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
        print_line("", error.text);
    if (fflush(stdout) == EOF || ferror(stdout)) {
        print_line("", "cannot write to standard output");
        return status ? status : CLI_FAILED;
    }
    return status;
}
