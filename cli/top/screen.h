/* SPDX-License-Identifier: Apache-2.0 */
/* The screen of `softslice top`: what keys changed (screen.c), and how it is drawn (draw.c, table.c, page.c). */
#ifndef SOFTSLICE_CLI_TOP_SCREEN_H
#define SOFTSLICE_CLI_TOP_SCREEN_H

#include "text.h"
#include "top.h"

#define SCREEN_COLUMNS_MIN 20
#define SCREEN_LINES_MIN   5
#define SCREEN_FILTER      32 /* characters, with the 0 */

enum screen_page { PAGE_TENANTS, PAGE_MEMBERS, PAGE_HELP };

/* Color pairs. Each thing that has one has a word or a letter too. */
enum screen_color { COLOR_PLAIN, COLOR_TENANTS, COLOR_BAD = COLOR_TENANTS + 4, COLOR_WARN, COLOR_HELD, COLORS_USED };

struct screen {
    struct top *top;
    bool unicode, color, paused, ended;
    enum screen_page page;
    bool editing; /* the filter */
    wchar_t filter[SCREEN_FILTER];
    unsigned first, selected, shown; /* rows: the topmost, the selected, and how many fit */
    bool follows;                    /* the selection has been moved: it stays with its tenant, which is: */
    char directory[PATH_MAX], name[NAME_MAX + 1];
    uint8_t uuid[16];
    unsigned page_first, page_shown; /* the same for lines of a page */
};

/* 0, or CLI_FAILED with *error set. */
int terminal_check(struct cli_error *error);

/* Draw everything anew. */
void draw_screen(struct screen *screen);

/* Write a text at a place: `columns` of them at most, and never beyond the screen. Returns how many. */
int draw_text(int line, int column, int columns, const wchar_t *text);
int draw_bytes(int line, int column, int columns, const char *text);

/* The tenants' rows, from `line` on, `lines` with their head. */
void table_draw(struct screen *screen, int line, int lines);

/* The letter of a tenant. */
wchar_t table_letter(unsigned tag);
int table_color(const struct screen *screen, unsigned tag);

/* How many lines the members' or the help's page has, and one of them: line 0 is its title. */
unsigned page_lines(const struct screen *screen);
void page_line(const struct screen *screen, unsigned index, wchar_t text[TEXT_MAX]);

#endif
