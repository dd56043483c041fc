/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the terminal is one that a screen can be drawn on. Apart from the rest, for <term.h> takes common words as macros. */
#include "screen.h"

#include <curses.h>
#include <term.h>

int terminal_check(struct cli_error *error)
{
    const char *name = getenv("TERM"), *move;
    int reason = 1;

    if (!name || !*name)
        return cli_fail(error, CLI_FAILED, "top: TERM is not set, so nothing is known of this terminal: use --batch");
    if (setupterm(NULL, STDOUT_FILENO, &reason) != OK)
        return cli_fail(error, CLI_FAILED, "top: %s terminal '%s' (TERM): use --batch",
                        reason < 0 ? "there is no terminfo database, so nothing is known of" : "nothing is known of a", name);
    move = tigetstr("cup");
    del_curterm(cur_term);
    if (!move || move == (char *)-1)
        return cli_fail(error, CLI_FAILED, "top: terminal '%s' (TERM) cannot move its cursor: use --batch", name);
    return 0;
}
