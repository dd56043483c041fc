/* SPDX-License-Identifier: Apache-2.0 */
/* The tenants' rows on the screen: as many columns as there is room for, the ones that matter most first. */
#include <curses.h>
#include <string.h>

#include "screen.h"

enum kind {
    TAG,
    NAME,
    PLACE,
    GPU,
    PROCESSES,
    VRAM_BAR,
    CURRENT,
    LIMIT,
    PEAK,
    BUSY_BAR,
    BUSY,
    THROTTLED,
    COMPUTE,
    WEIGHT,
    REFUSED,
    STATE,
    KINDS
};

#define NAME_ENOUGH  20 /* run-<pid>-<8 digits> */
#define STATE_ENOUGH 21 /* two words */

/* In the order of the screen. `rank`: which to leave out last. A column of figures is aligned to the right. */
static const struct column {
    const char *title;
    int min, most, rank;
    bool figures;
} columns[KINDS] = {
    [TAG] = {"", 2, 2, 0, false},           [NAME] = {"TENANT", 8, 40, 1, false},    [PLACE] = {"WHERE", 8, 30, 4, false},
    [GPU] = {"GPU", 3, 8, 7, true},         [PROCESSES] = {"PROCS", 5, 5, 12, true}, [VRAM_BAR] = {"VRAM", 8, 24, 6, false},
    [CURRENT] = {"CURRENT", 7, 7, 2, true}, [LIMIT] = {"LIMIT", 7, 7, 3, true},      [PEAK] = {"PEAK", 7, 7, 15, true},
    [BUSY_BAR] = {"", 6, 20, 13, false},    [BUSY] = {"BUSY", 5, 5, 8, true},        [THROTTLED] = {"THROT", 5, 5, 9, true},
    [COMPUTE] = {"SHARE", 6, 6, 11, true},  [WEIGHT] = {"WEIGHT", 6, 6, 14, true},   [REFUSED] = {"REFUSED", 8, 8, 10, true},
    [STATE] = {"STATE", 11, 60, 5, false},
};

/* ---- what is in a column */

wchar_t table_letter(unsigned tag)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

    return (wchar_t)letters[tag % (sizeof(letters) - 1)];
}

int table_color(const struct screen *screen, unsigned tag)
{
    return screen->color ? COLOR_PAIR(COLOR_TENANTS + (int)(tag % 4)) | (tag / 4 % 2 ? A_BOLD : 0) : 0;
}

static bool knows(const struct top_row *row, enum top_key key)
{
    return row->known >> key & 1;
}

static void count_text(char text[TEXT_FIGURE], uint64_t count)
{
    if (count < 100000)
        snprintf(text, TEXT_FIGURE, "%u", (unsigned)count);
    else
        snprintf(text, TEXT_FIGURE, ">%s", "99999");
}

static void refused_text(char text[TEXT_FIGURE], const struct top_row *row)
{
    uint64_t all = row->device->events[LEDGER_EVENT_REFUSED];
    char new[TEXT_FIGURE];

    count_text(text, all);
    if (!knows(row, TOP_NEW) || !row->refused)
        return;
    count_text(new, row->refused);
    snprintf(text + strlen(text), TEXT_FIGURE - strlen(text), " +%.8s", new);
    if (strlen(text) > (size_t)columns[REFUSED].most)
        snprintf(text, TEXT_FIGURE, "+%.8s", new);
}

/* A share of GPU time is told with the digits that it has. */
static void share_text(char text[TEXT_FIGURE], uint32_t hundredths)
{
    snprintf(text, TEXT_FIGURE, hundredths % 100 ? hundredths % 10 ? "%u.%02u%%" : "%u.%u%%" : "%u%%", hundredths / 100,
             hundredths % 10 ? hundredths % 100 : hundredths % 100 / 10);
}

/* The text of a column of figures; "-" where it is not known. */
static void figure(char text[TEXT_FIGURE], enum kind kind, const struct top_row *row)
{
    strcpy(text, "-");
    if (kind == PROCESSES && knows(row, TOP_PROCESSES))
        count_text(text, row->tenant->view.members);
    if (kind == GPU)
        top_gpu_text(text, row->gpu);
    if (!row->device)
        return;
    if (kind == CURRENT && knows(row, TOP_CURRENT))
        text_gib(text, row->device->current);
    else if (kind == LIMIT && knows(row, TOP_LIMIT) && row->device->limit != LEDGER_NO_LIMIT)
        text_gib(text, row->device->limit);
    else if (kind == LIMIT && knows(row, TOP_LIMIT))
        strcpy(text, "none");
    else if (kind == PEAK && knows(row, TOP_PEAK))
        text_gib(text, row->device->peak);
    else if (kind == BUSY && knows(row, TOP_BUSY))
        text_percent(text, row->busy);
    else if (kind == THROTTLED && knows(row, TOP_THROTTLED))
        text_percent(text, row->throttled);
    else if (kind == COMPUTE && knows(row, TOP_COMPUTE))
        share_text(text, row->device->share);
    else if (kind == WEIGHT && knows(row, TOP_WEIGHT))
        count_text(text, observe_weight(row->device));
    else if (kind == REFUSED && knows(row, TOP_REFUSED))
        refused_text(text, row);
}

/* What the VRAM bar shows a part of: the limit, else the whole GPU. 0: not known. */
static double vram_part(const struct top_row *row)
{
    uint64_t whole = 0;

    if (knows(row, TOP_LIMIT) && row->device->limit != LEDGER_NO_LIMIT)
        whole = row->device->limit;
    else if (knows(row, TOP_CURRENT) && row->gpu)
        whole = row->gpu->total;
    return whole ? (double)row->device->current / (double)whole : -1;
}

/* As many of the words as fit, and a '+' where that is not all. */
static void state_text(char text[3 * OBSERVE_LABEL], const struct top_row *row, int width)
{
    char word[TOP_STATE_MAX];
    size_t used = 0;

    *text = '\0';
    if (row->tenant->problem) {
        snprintf(text, 3 * OBSERVE_LABEL, "%s: %s", top_state_text(word, row->state, ""), row->tenant->reason);
        return;
    }
    for (unsigned left = row->state, bit; left; left &= ~bit) {
        bit = left & -left;
        top_state_text(word, bit, "");
        if (used && used + 2 + strlen(word) + (left != bit) > (size_t)width) {
            strcat(text, "+");
            return;
        }
        used += (size_t)snprintf(text + used, 3 * OBSERVE_LABEL - used, "%s%s", used ? ", " : "", word);
    }
    if (!used)
        top_state_text(text, 0, "");
}

/* The text of a column of names. */
static int name(wchar_t text[TEXT_MAX], enum kind kind, const struct top_row *row, int width)
{
    char bytes[3 * OBSERVE_LABEL];

    if (kind == NAME)
        return text_wide(text, row->tenant->name);
    if (kind == PLACE)
        top_place(bytes, row->tenant);
    else
        state_text(bytes, row, width);
    return text_wide(text, bytes);
}

/* ---- how wide */

static void widen(int width[KINDS], enum kind kind, int to, int *left)
{
    int by = to > columns[kind].most ? columns[kind].most : to;

    by -= width[kind];
    by = by > *left ? *left : by;
    if (width[kind] && by > 0) {
        width[kind] += by;
        *left -= by;
    }
}

/* How wide the texts of all rows are, so that scrolling moves no column. */
static void measure(const struct top_model *model, int longest[KINDS], bool *weights)
{
    static const enum kind texts[] = {NAME, PLACE, STATE};

    memset(longest, 0, KINDS * sizeof(*longest));
    *weights = false;
    for (unsigned i = 0; i < model->rows; i++) {
        char gpu[TOP_GPU_MAX];
        int length = (int)strlen(top_gpu_text(gpu, model->row[i].gpu));

        longest[GPU] = length > longest[GPU] ? length : longest[GPU];
        *weights |= knows(&model->row[i], TOP_WEIGHT) && model->row[i].device->weight;
        for (unsigned j = 0; j < sizeof(texts) / sizeof(*texts); j++) {
            wchar_t text[TEXT_MAX];

            length = name(text, texts[j], &model->row[i], columns[texts[j]].most);
            longest[texts[j]] = length > longest[texts[j]] ? length : longest[texts[j]];
        }
    }
}

/* The columns that matter least are left out; before the lesser half of them comes, names have what they need to be told apart. */
static void fit_columns(const struct screen *screen, int width[KINDS])
{
    int left = COLS, longest[KINDS], bars;
    bool weights;

    memset(width, 0, KINDS * sizeof(*width));
    measure(&screen->top->model, longest, &weights);
    for (int rank = 0; rank < KINDS; rank++) {
        for (int i = 0; i < KINDS; i++) {
            /* The tag has its blank in it. */
            int wanted = columns[i].min < longest[i] && i == GPU ? longest[i] : columns[i].min, gap = i > NAME;
            bool used = i == PLACE ? top_has_places(screen->top) : i != WEIGHT || weights;

            if (columns[i].rank == rank && used && left >= wanted + gap) {
                width[i] = wanted;
                left -= wanted + gap;
            }
        }
        if (rank == columns[THROTTLED].rank) {
            widen(width, NAME, longest[NAME] < NAME_ENOUGH ? longest[NAME] : NAME_ENOUGH, &left);
            widen(width, PLACE, longest[PLACE] < NAME_ENOUGH ? longest[PLACE] : NAME_ENOUGH, &left);
        }
    }
    widen(width, STATE, longest[STATE] < STATE_ENOUGH ? longest[STATE] : STATE_ENOUGH, &left);
    widen(width, NAME, longest[NAME], &left);
    widen(width, PLACE, longest[PLACE], &left);
    widen(width, STATE, longest[STATE], &left);
    bars = width[VRAM_BAR] && width[BUSY_BAR] ? left / 2 : left;
    widen(width, BUSY_BAR, width[BUSY_BAR] + bars, &left);
    widen(width, VRAM_BAR, width[VRAM_BAR] + left, &left);
    widen(width, NAME, columns[NAME].min + 8, &left);
}

/* ---- drawing */

static void draw_title(const int width[KINDS], int line)
{
    int at = 0;

    attron(A_REVERSE);
    mvhline(line, 0, ' ', COLS);
    for (int i = 0; i < KINDS; i++) {
        int length = (int)strlen(columns[i].title);

        if (!width[i])
            continue;
        draw_bytes(line, at + (columns[i].figures && length < width[i] ? width[i] - length : 0), width[i], columns[i].title);
        at += width[i] + (i >= NAME);
    }
    attroff(A_REVERSE);
}

static int state_color(const struct screen *screen, unsigned state)
{
    if (!screen->color || !state)
        return 0;
    if (state & (TOP_UNREADABLE | TOP_OVER | TOP_WAS_REFUSED))
        return COLOR_PAIR(COLOR_BAD) | A_BOLD;
    return COLOR_PAIR(state & TOP_NEAR ? COLOR_WARN : COLOR_HELD);
}

static void draw_cell(const struct screen *screen, const struct top_row *row, enum kind kind, int line, int at, int width)
{
    wchar_t text[TEXT_MAX];
    char bytes[TEXT_FIGURE];
    double part;

    if (kind == VRAM_BAR || kind == BUSY_BAR) {
        part = kind == VRAM_BAR ? vram_part(row) : knows(row, TOP_BUSY) ? row->busy : -1;
        if (part >= 0)
            draw_text(line, at, width, text_bar(text, width, part, screen->unicode));
        else
            draw_bytes(line, at, width, "-");
    } else if (columns[kind].figures) {
        figure(bytes, kind, row);
        draw_bytes(line, at + ((int)strlen(bytes) < width ? width - (int)strlen(bytes) : 0), width, bytes);
    } else {
        name(text, kind, row, width);
        text_fit(text, width);
        draw_text(line, at, width, text);
    }
}

static void draw_row(const struct screen *screen, const struct top_row *row, const int width[KINDS], int line, bool selected)
{
    const wchar_t tag[] = {table_letter(row->tag), selected ? L'>' : L' ', 0};
    int at = 0, plain = selected ? A_REVERSE : 0;

    attrset(plain);
    mvhline(line, 0, ' ', COLS);
    for (int i = 0; i < KINDS; i++) {
        if (!width[i])
            continue;
        attrset(plain | (i == TAG || i == VRAM_BAR ? table_color(screen, row->tag)
                         : i == STATE              ? state_color(screen, row->state)
                                                   : 0));
        if (i == TAG)
            draw_text(line, at, width[i], tag);
        else
            draw_cell(screen, row, (enum kind)i, line, at, width[i]);
        at += width[i] + (i >= NAME);
    }
    attrset(0);
}

void table_draw(struct screen *screen, int line, int lines)
{
    const struct top_model *model = &screen->top->model;
    int width[KINDS];

    screen->shown = lines > 1 ? (unsigned)lines - 1 : 1;
    if (screen->selected < screen->first)
        screen->first = screen->selected;
    if (screen->selected >= screen->first + screen->shown)
        screen->first = screen->selected - screen->shown + 1;
    if (screen->first && screen->first + screen->shown > model->rows)
        screen->first = model->rows > screen->shown ? model->rows - screen->shown : 0;
    fit_columns(screen, width);
    draw_title(width, line);
    for (unsigned i = 0; i < screen->shown && screen->first + i < model->rows; i++)
        draw_row(screen, &model->row[screen->first + i], width, line + 1 + (int)i, screen->first + i == screen->selected);
    if (!model->rows)
        draw_bytes(line + 1, 0, COLS, *model->filter ? "no tenant has that in its name" : "no tenant runs here");
}
