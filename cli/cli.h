/* SPDX-License-Identifier: Apache-2.0 */
/* What the commands of `softslice` share: their table, the one way to report an error, and small helpers. */
#ifndef SOFTSLICE_CLI_H
#define SOFTSLICE_CLI_H

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "softslice/config.h"

#ifndef SOFTSLICE_LIBDIR
#    define SOFTSLICE_LIBDIR "/usr/local/lib/softslice" /* where `make install` puts the library */
#endif
#define CLI_LIBRARY "libsoftslice.so"
#ifndef SOFTSLICE_LIBEXECDIR
#    define SOFTSLICE_LIBEXECDIR "/usr/local/libexec/softslice" /* where it puts the programs below */
#endif

/* Exit statuses, those of env(1) and timeout(1): a program that softslice starts can end with any other. */
#define CLI_FAILED         125 /* softslice itself failed, or was used wrongly */
#define CLI_NOT_EXECUTABLE 126
#define CLI_NOT_FOUND      127

#define CLI_ERROR_MAX (PATH_MAX + 1024)

/* Why a command ends without having done its work: one line that says what to do. Only main() prints it. */
struct cli_error {
    char text[CLI_ERROR_MAX];
};

/* Note the error and return `status`, to end a command with `return cli_fail(...)`. */
int cli_fail(struct cli_error *error, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* One line "softslice: warning: ..." on stderr, at once. */
void cli_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* One line "softslice: ..." on stderr: `kind` and `text`, without their control characters. */
void cli_say(const char *kind, const char *text);

/* What an error of the configuration says behind the variable that it begins with ("='x': not a size"); NULL: it begins with something else. For
 * those who were given the setting in another way. */
const char *cli_after_variable(const char *text, const char *variable);

struct option;

/* getopt_long() without its own messages. -1 at the end, '?' with *error set for what is no option. `command` is NULL in a program that is none of
 * softslice's commands. */
int cli_option(int argc, char **argv, const char *letters, const struct option *options, const char *command,
               struct cli_error *error);

struct command {
    const char *name, *summary; /* for the list of commands */
    const char *usage;          /* after "softslice " */
    const char *help;
    /* Returns the exit status; where error->text was set, main() prints it. argv[0] is the command's name. */
    int (*run)(int argc, char **argv, struct cli_error *error);
};

extern const struct command command_run, command_set, command_status, command_events, command_explain, command_top,
    command_exporter, command_config, command_doctor, command_cdi, command_version, command_help;
extern const struct command *const commands[]; /* NULL-terminated */

const struct command *command_find(const char *name);

/* Print the help of `command`, or the overview for NULL. Returns 0. */
int help_print(FILE *to, const struct command *command);

/* An error that names the commands there are, and the nearest to `name`. */
int help_unknown(const char *name, struct cli_error *error);

/* library.c: the library to preload: `named` (--library) or the SOFTSLICE_LIBRARY variable, else the first of the usual places. 0, or
 * -1 with *error set. The path is absolute and one that ld.so can take from LD_PRELOAD. */
int library_find(const char *named, char path[PATH_MAX], struct cli_error *error);

/* LD_PRELOAD with `library` first and in it once, as memory to free; NULL where there is none left. */
char *library_preload(const char *library, const char *before);

/* preload.c: say on stderr why a preloaded library will not work in the program `path`, if that is to be seen in its file. */
void preload_warn(const char *path);

/* The file that execvp(3) would run for `name`. False where it would run none. */
bool preload_find_program(const char *name, char path[PATH_MAX]);

/* Whether `path` is softslice's library, for a process of our kind; if not, *why says so in a few words. */
bool preload_is_library(const char *path, const char **why);

/* program.c: become the program `name` (softslice-top, say), which is found beside this command's own file, else where `make install` puts it, with
 * this command's arguments. Returns only with an error. */
int program_become(const char *name, char **argv, struct cli_error *error);

/* The configuration of this very environment, as a program started from here would read it, `preloaded`: by `softslice run`, which puts the library in front
 * under its own name. As config_load(). */
int cli_config(struct config *config, bool preloaded);

static inline void cleanup_free(void *pointer)
{
    free(*(void **)pointer);
}

static inline void cleanup_close(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

#define CLEANUP_FREE  __attribute__((cleanup(cleanup_free)))
#define CLEANUP_CLOSE __attribute__((cleanup(cleanup_close), unused)) /* some are there for their end alone */

#endif
