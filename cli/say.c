/* SPDX-License-Identifier: Apache-2.0 */
/* How a command and its options are told to be wrong: for `softslice` and for the programs that it starts. */
#include <getopt.h>
#include <stdarg.h>
#include <string.h>

#include "cli.h"

int cli_fail(struct cli_error *error, int status, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(error->text, sizeof(error->text), format, args);
    va_end(args);
    return status;
}

/* One write for one line, whatever else writes to the terminal. Control characters of arguments stay out of it. */
void cli_say(const char *kind, const char *text)
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
    cli_say("warning: ", text);
}

const char *cli_after_variable(const char *text, const char *variable)
{
    size_t length = strlen(variable);

    return strncmp(text, variable, length) == 0 && text[length] && strchr("=:", text[length]) ? text + length : NULL;
}

/* Whether getopt_long() refused `typed`, a long option, for the value that it was given: it tells so by the option's own letter. */
static bool has_a_value_too_many(const char *typed, const struct option *options)
{
    const char *value = strncmp(typed, "--", 2) == 0 ? strchr(typed, '=') : NULL;

    for (; value && options->name; options++) {
        if (options->val == optopt && options->has_arg == no_argument &&
            strncmp(options->name, typed + 2, (size_t)(value - typed) - 2) == 0)
            return true;
    }
    return false;
}

int cli_option(int argc, char **argv, const char *letters, const struct option *options, const char *command,
               struct cli_error *error)
{
    const char *who = command ? command : "", *colon = command ? ": " : "", *see = command ? "'softslice help " : "--help",
               *end = command ? "'" : "";
    const char *typed;
    int option;

    opterr = 0;
    option = getopt_long(argc, argv, letters, options, NULL);
    typed = argv[optind - 1]; /* if it is a long one: arguments before it are behind it now */
    if (option == '?' && optopt && has_a_value_too_many(typed, options))
        cli_fail(error, CLI_FAILED, "%s%soption '%.*s' takes no value: see %s%s%s", who, colon, (int)strcspn(typed, "="), typed,
                 see, who, end);
    else if (option == '?' && optopt > 0 && optopt < 256)
        cli_fail(error, CLI_FAILED, "%s%sunknown option '-%c': see %s%s%s", who, colon, optopt, see, who, end);
    else if (option == '?')
        cli_fail(error, CLI_FAILED, "%s%sunknown or ambiguous option '%s': see %s%s%s", who, colon, typed, see, who, end);
    else if (option == ':')
        cli_fail(error, CLI_FAILED, "%s%soption '%s' needs a value: see %s%s%s", who, colon, typed, see, who, end);
    return option == ':' ? '?' : option;
}
