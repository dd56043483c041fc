/* SPDX-License-Identifier: Apache-2.0 */
/* How the screen of `softslice top` is divided: a head line, the GPUs, the tenants or a page, and a last line for keys and errors. */
#include <curses.h>
#include <string.h>
#include <time.h>

#include "screen.h"

#define BAR_MIN 10
#define BAR_MAX 60

int draw_text(int line, int column, int columns, const wchar_t *text)
{
    int length = 0, taken = 0;

    if (columns > COLS - column)
        columns = COLS - column;
    while (text[length] && taken + wcwidth(text[length]) <= columns)
        taken += wcwidth(text[length++]);
    if (line < LINES && length > 0)
        mvaddnwstr(line, column, text, length);
    return taken;
}

int draw_bytes(int line, int column, int columns, const char *text)
{
    wchar_t wide[TEXT_MAX];

    text_wide(wide, text);
    text_fit(wide, columns < COLS - column ? columns : COLS - column);
    return draw_text(line, column, columns, wide);
}

/* ---- the head */

/* One more part of the head line, if it fits whole. */
static int add_part(int at, const char *text)
{
    wchar_t wide[TEXT_MAX];
    int gap = at ? 2 : 0, length = text_wide(wide, text);

    return *text && at + gap + length <= COLS ? at + gap + draw_text(0, at + gap, length, wide) : at;
}

static const char *plural(char text[48], unsigned count, const char *one)
{
    snprintf(text, 48, "%u %s%s", count, one, count == 1 ? "" : one[strlen(one) - 1] == 's' ? "es" : "s");
    return text;
}

static void draw_head(const struct screen *screen)
{
    const struct top *top = screen->top;
    const struct top_model *model = &top->model;
    const struct observe *seen = &top->seen[top->newest];
    time_t seconds = top->any ? (time_t)(seen->when / 1000000000) : time(NULL);
    char text[256];
    struct tm local;
    int at = 0;

    attron(A_BOLD);
    if (COLS >= 100)
        at = add_part(at, "softslice top");
    if (localtime_r(&seconds, &local) && strftime(text, sizeof(text), "%H:%M:%S", &local))
        at = add_part(at, text);
    attroff(A_BOLD);
    if (screen->paused) {
        attron(A_REVERSE);
        at = add_part(at, "PAUSED");
        attroff(A_REVERSE);
    }
    at = add_part(at, plural(text, model->tenants, "tenant"));
    if (*model->filter) {
        snprintf(text, sizeof(text), "with '%s'", model->filter);
        at = add_part(at, text);
    }
    if (model->rows > screen->shown) {
        snprintf(text, sizeof(text), "rows %u-%u of %u", screen->first + 1, screen->first + screen->shown, model->rows);
        at = add_part(at, text);
    }
    at = add_part(at, plural(text, model->processes, "process"));
    at = add_part(at, plural(text, model->gpus, "GPU"));
    snprintf(text, sizeof(text), "by %s%s", top_key_name(model->sort), model->reverse ? ", reversed" : "");
    at = add_part(at, text);
    snprintf(text, sizeof(text), "every %g s", top->interval);
    at = add_part(at, text);
    if (top->any && seen->omitted) {
        snprintf(text, sizeof(text), "%u more tenants not looked at", seen->omitted);
        add_part(at, text);
    }
}

/* ---- the GPUs */

static void draw_bar(const struct screen *screen, const struct top_gpu *gpu, int line, int at, int width)
{
    struct top_cell cell[BAR_MAX];
    wchar_t text[2] = L"[";

    top_model_bar(&screen->top->model, gpu, cell, width);
    draw_text(line, at, 1, text);
    for (int i = 0; i < width; i++) {
        enum top_cell_kind kind = cell[i].kind;

        text[0] = kind == TOP_CELL_FIRST   ? table_letter(cell[i].tag)
                  : kind == TOP_CELL_USED  ? (screen->unicode ? L'\u2588' : L'#')
                  : kind == TOP_CELL_ROOM  ? (screen->unicode ? L'\u2591' : L'.')
                  : kind == TOP_CELL_LIMIT ? (screen->unicode ? L'\u2502' : L'|')
                  : kind == TOP_CELL_OTHER ? (screen->unicode ? L'\u2592' : L'x')
                                           : L' ';
        attrset(kind == TOP_CELL_FREE || kind == TOP_CELL_OTHER ? 0 : table_color(screen, cell[i].tag));
        if (kind == TOP_CELL_FIRST)
            attron(A_REVERSE);
        draw_text(line, at + 1 + i, 1, text);
    }
    attrset(0);
    draw_text(line, at + 1 + width, 1, L"]");
}

/* One more part of what is said of a GPU, if there is room for it beside the bar. */
static void say(char *text, size_t size, int room, const char *part)
{
    if ((int)(strlen(text) + strlen(part)) <= room && strlen(text) + strlen(part) < size)
        strcat(text, part);
}

/* What is said of a GPU behind its bar, as far as there is room for it. Returns the columns. */
static int gpu_text(char text[256], const struct top_gpu *gpu, int room)
{
    char part[160], one[TEXT_FIGURE], other[TEXT_FIGURE];
    const struct observe_gpu *seen = gpu->gpu;

    *text = '\0';
    if (seen->total)
        snprintf(part, sizeof(part), " %s of %s GiB", text_gib(one, gpu->current), text_gib(other, seen->total));
    else
        snprintf(part, sizeof(part), " %s GiB", text_gib(one, gpu->current));
    say(text, 256, room, part);
    if (gpu->limits && seen->total)
        snprintf(part, sizeof(part), ", limits %s (%.0f%%)", text_gib(one, gpu->limits),
                 100.0 * (double)gpu->limits / (double)seen->total);
    else
        snprintf(part, sizeof(part), ", limits %s", text_gib(one, gpu->limits));
    if (gpu->limits)
        say(text, 256, room - BAR_MIN, part);
    snprintf(part, sizeof(part), ", %u without", gpu->unlimited);
    if (gpu->limits && gpu->unlimited)
        say(text, 256, room - BAR_MIN, part);
    snprintf(part, sizeof(part), ", others %s", text_gib(one, gpu->other));
    if (gpu->other)
        say(text, 256, room - BAR_MIN, part);
    snprintf(part, sizeof(part), ", %s", seen->name);
    if (*seen->name)
        say(text, 256, room - 2 * BAR_MIN, part);
    return (int)strlen(text);
}

/* Returns how many lines they took. */
static int draw_gpus(const struct screen *screen, int line, int lines)
{
    const struct top_model *model = &screen->top->model;
    int shown = (int)model->gpus <= lines ? (int)model->gpus : lines - 1, label = 0, longest = 0, width;
    char text[256], index[TOP_GPU_MAX];

    if (shown <= 0)
        return 0;
    for (int i = 0; i < shown; i++) {
        int length = (int)strlen(top_gpu_text(index, model->gpu[i].gpu)) + (int)sizeof("GPU ");

        label = length > label ? length : label;
    }
    for (int i = 0; i < shown; i++) {
        int length = gpu_text(text, &model->gpu[i], COLS - label - BAR_MIN - 2);

        longest = length > longest ? length : longest;
    }
    width = COLS - label - 2 - longest;
    width = width > BAR_MAX ? BAR_MAX : width;
    for (int i = 0; i < shown; i++) {
        snprintf(text, sizeof(text), "GPU %s", top_gpu_text(index, model->gpu[i].gpu));
        draw_bytes(line + i, 0, COLS, text);
        if (longest && width >= BAR_MIN)
            draw_bar(screen, &model->gpu[i], line + i, label, width);
        gpu_text(text, &model->gpu[i], COLS - label - BAR_MIN - 2);
        draw_bytes(line + i, longest && width >= BAR_MIN ? label + 2 + width : label, COLS, text);
    }
    if (shown == (int)model->gpus)
        return shown;
    snprintf(text, sizeof(text), "and %u more GPUs", model->gpus - (unsigned)shown);
    draw_bytes(line + shown, 0, COLS, text);
    return shown + 1;
}

/* ---- the rest */

static void draw_page(struct screen *screen, int line, int lines)
{
    wchar_t text[TEXT_MAX];
    unsigned count = page_lines(screen);

    screen->page_shown = lines > 1 ? (unsigned)lines - 1 : 1;
    if (screen->page_first && screen->page_first + screen->page_shown + 1 > count)
        screen->page_first = count > screen->page_shown + 1 ? count - 1 - screen->page_shown : 0;
    for (int i = 0; i < lines; i++) {
        unsigned at = i ? screen->page_first + (unsigned)i : 0;

        if (at >= count)
            break;
        attrset(i ? 0 : A_REVERSE);
        if (i == 0)
            mvhline(line, 0, ' ', COLS);
        page_line(screen, at, text);
        text_fit(text, COLS);
        draw_text(line + i, 0, COLS, text);
        attrset(0);
    }
}

/* What has to be said, or else what keys there are. False where there is nothing that has to. */
static bool draw_last(const struct screen *screen, bool wanted)
{
    wchar_t text[TEXT_MAX];
    int length;

    if (screen->editing) {
        swprintf(text, TEXT_MAX, L"/%ls_", screen->filter);
        length = text_wide(text + wcslen(text), "") + (int)wcslen(text);
        draw_text(LINES - 1, 0, COLS, length > COLS ? text + (length - COLS) : text);
    } else if (*screen->top->error) {
        attron(A_REVERSE);
        draw_bytes(LINES - 1, 0, COLS, screen->top->error);
        attroff(A_REVERSE);
    } else if (wanted) {
        draw_bytes(LINES - 1, 0, COLS,
                   screen->page == PAGE_TENANTS ? "q quit  h help  s sort  r reverse  / filter  m members  p pause  +/- interval"
                   : screen->page == PAGE_HELP  ? "h back  q quit"
                                                : "m back  h help  q quit");
    } else {
        return false;
    }
    return true;
}

/* What the look could not read or did not believe, where there is a line to spare. */
static bool draw_warning(const struct screen *screen, int line)
{
    const struct top *top = screen->top;
    char **complaints = top->seen[top->newest].complaints, text[512], more[32] = "";
    unsigned count = 0;

    while (top->any && complaints && complaints[count])
        count++;
    if (!count || LINES < 10)
        return false;
    if (count > 1)
        snprintf(more, sizeof(more), " (and %u more)", count - 1);
    snprintf(text, sizeof(text), "warning%s: %.400s", more, *complaints);
    draw_bytes(line, 0, COLS, text);
    return true;
}

void draw_screen(struct screen *screen)
{
    int at = 1, last;

    erase();
    attrset(0);
    if (COLS < SCREEN_COLUMNS_MIN || LINES < SCREEN_LINES_MIN) {
        draw_text(0, 0, COLS, L"too small: 20x5");
        refresh();
        return;
    }
    last = LINES - draw_last(screen, LINES >= 8);
    last -= draw_warning(screen, last - 1);
    if (screen->page == PAGE_TENANTS) {
        at += draw_gpus(screen, at, (last - 3) / 2);
        table_draw(screen, at, last - at);
    } else {
        draw_page(screen, at, last - at);
    }
    draw_head(screen);
    refresh();
}
