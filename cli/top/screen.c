/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice top` on a terminal: its beginning and end, its keys, and when it looks again. */
#include <curses.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <wctype.h>

#include "screen.h"

/* Another timeout than a person's: what comes after ESC within this belongs to it. */
#define ESCAPE_MS 25
#define ESCAPE    27
#define END       4 /* what a terminal's end of file is without its line editing */

static volatile sig_atomic_t continued;

static void note_continued(int number)
{
    (void)number;
    continued = 1;
}

/* ---- the terminal */

static void begin_colors(struct screen *screen)
{
    static const short colors[COLORS_USED] = {0,         COLOR_GREEN,  COLOR_CYAN, COLOR_MAGENTA, COLOR_YELLOW,
                                              COLOR_RED, COLOR_YELLOW, COLOR_CYAN};
    const char *none = getenv("NO_COLOR");
    short background;

    if ((none && *none) || !has_colors() || start_color() == ERR || COLOR_PAIRS < COLORS_USED)
        return;
    background = use_default_colors() == OK ? -1 : COLOR_BLACK;
    for (short i = 1; i < COLORS_USED; i++)
        init_pair(i, colors[i], background);
    screen->color = true;
}

static int begin(struct screen *screen, SCREEN **terminal, struct cli_error *error)
{
    struct sigaction action = {.sa_handler = note_continued};

    if (terminal_check(error))
        return CLI_FAILED;
    top_catch_signals();
    sigaction(SIGCONT, &action, NULL);
    *terminal = newterm(NULL, stdout, stdin);
    if (!*terminal)
        return cli_fail(error, CLI_FAILED, "top: this terminal cannot be used: use --batch");
    set_escdelay(ESCAPE_MS);
    cbreak();
    noecho();
    nonl();
    nodelay(stdscr, TRUE);
    keypad(stdscr, TRUE);
    curs_set(0);
    begin_colors(screen);
    return 0;
}

/* ---- the selection */

static void follow(struct screen *screen)
{
    const struct top_model *model = &screen->top->model;
    const struct top_row *row = screen->selected < model->rows ? &model->row[screen->selected] : NULL;

    if (!row)
        return;
    snprintf(screen->directory, sizeof(screen->directory), "%s", row->tenant->directory);
    snprintf(screen->name, sizeof(screen->name), "%s", row->tenant->name);
    memset(screen->uuid, 0, sizeof(screen->uuid));
    if (row->device)
        memcpy(screen->uuid, row->device->uuid, sizeof(screen->uuid));
}

/* After rows have changed: the selection is where its tenant is now. One that is gone leaves it to who took its place. */
static void find_selection(struct screen *screen)
{
    const struct top_model *model = &screen->top->model;

    for (unsigned i = 0; screen->follows && i < model->rows; i++) {
        if (top_row_is(&model->row[i], screen->directory, screen->name, screen->uuid)) {
            screen->selected = i;
            return;
        }
    }
    if (screen->selected >= model->rows)
        screen->selected = model->rows ? model->rows - 1 : 0;
    if (screen->follows && screen->page != PAGE_MEMBERS)
        follow(screen);
}

static void move_selection(struct screen *screen, long by)
{
    long at = (long)screen->selected + by, last = (long)screen->top->model.rows - 1;

    screen->selected = at < 0 || last < 0 ? 0 : (unsigned)(at > last ? last : at);
    screen->follows = true;
    follow(screen);
}

static void move_page(struct screen *screen, long by)
{
    long at = (long)screen->page_first + by, last = (long)page_lines(screen) - 1 - (long)screen->page_shown;

    screen->page_first = at < 0 || last < 0 ? 0 : (unsigned)(at > last ? last : at);
}

static void move_by(struct screen *screen, long by)
{
    if (screen->page == PAGE_TENANTS)
        move_selection(screen, by);
    else
        move_page(screen, by);
}

/* ---- keys */

static void arrange(struct screen *screen)
{
    top_model_arrange(&screen->top->model);
    find_selection(screen);
}

static void change_sort(struct screen *screen, int by)
{
    struct top_model *model = &screen->top->model;

    model->sort = (enum top_key)(((int)model->sort + by + TOP_KEYS) % TOP_KEYS);
    arrange(screen);
}

/* Steps as people would choose them. */
static void change_interval(struct screen *screen, int by)
{
    static const double steps[] = {TOP_INTERVAL_MIN, 0.25, 0.5, 1, 2, 3, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600,
                                   TOP_INTERVAL_MAX};
    enum { COUNT = sizeof(steps) / sizeof(*steps) };
    double *interval = &screen->top->interval;

    if (by > 0) {
        for (int i = 0; i < COUNT; i++) {
            if (steps[i] > *interval * 1.001) {
                *interval = steps[i];
                return;
            }
        }
    }
    for (int i = COUNT - 1; by < 0 && i >= 0; i--) {
        if (steps[i] < *interval * 0.999) {
            *interval = steps[i];
            return;
        }
    }
}

static void show_page(struct screen *screen, enum screen_page page)
{
    screen->page_first = 0;
    if (screen->page == page)
        page = PAGE_TENANTS;
    if (page == PAGE_MEMBERS && !screen->top->model.rows)
        return;
    screen->page = page;
    if (page == PAGE_MEMBERS)
        follow(screen);
    else
        find_selection(screen);
}

static void set_filter(struct screen *screen)
{
    struct top_model *model = &screen->top->model;

    if (wcstombs(model->filter, screen->filter, sizeof(model->filter)) == (size_t)-1)
        model->filter[0] = '\0';
    model->filter[sizeof(model->filter) - 1] = '\0';
    arrange(screen);
}

static void edit(struct screen *screen, wint_t key, bool special)
{
    size_t length = wcslen(screen->filter);

    if ((special && key == KEY_ENTER) || (!special && (key == L'\r' || key == L'\n'))) {
        screen->editing = false;
        return;
    }
    if (!special && (key == ESCAPE || key == END)) {
        screen->editing = false;
        length = 0;
    } else if ((special && key == KEY_BACKSPACE) || (!special && (key == 127 || key == 8))) {
        length -= length > 0;
    } else if (!special && key == 21) { /* ^U */
        length = 0;
    } else if (!special && iswprint(key) && length < SCREEN_FILTER - 1) {
        screen->filter[length++] = (wchar_t)key;
    }
    screen->filter[length] = 0;
    set_filter(screen);
}

static void take_special(struct screen *screen, wint_t key)
{
    long page = screen->page == PAGE_TENANTS ? screen->shown : screen->page_shown, most = 1 << 30;

    switch (key) {
    case KEY_UP:
        move_by(screen, -1);
        break;
    case KEY_DOWN:
        move_by(screen, 1);
        break;
    case KEY_PPAGE:
        move_by(screen, page > 1 ? 1 - page : -1);
        break;
    case KEY_NPAGE:
        move_by(screen, page > 1 ? page - 1 : 1);
        break;
    case KEY_HOME:
        move_by(screen, -most);
        break;
    case KEY_END:
        move_by(screen, most);
        break;
    case KEY_LEFT:
        change_sort(screen, -1);
        break;
    case KEY_RIGHT:
        change_sort(screen, 1);
        break;
    case KEY_ENTER:
        show_page(screen, PAGE_MEMBERS);
        break;
    default:
        break;
    }
}

static void take_key(struct screen *screen, wint_t key)
{
    switch (key) {
    case 'q':
    case 'Q':
    case END:
        screen->ended = true;
        break;
    case 's':
    case '>':
    case '.':
        change_sort(screen, 1);
        break;
    case '<':
    case ',':
        change_sort(screen, -1);
        break;
    case 'r':
    case 'R':
        screen->top->model.reverse = !screen->top->model.reverse;
        arrange(screen);
        break;
    case 'p':
    case ' ':
        screen->paused = !screen->paused;
        break;
    case '/':
        screen->editing = screen->page == PAGE_TENANTS;
        break;
    case 'm':
    case '\r':
    case '\n':
        show_page(screen, PAGE_MEMBERS);
        break;
    case 'h':
    case '?':
        show_page(screen, PAGE_HELP);
        break;
    case ESCAPE:
        if (screen->page != PAGE_TENANTS) {
            show_page(screen, screen->page);
        } else if (*screen->filter) {
            *screen->filter = 0;
            set_filter(screen);
        }
        break;
    case 'k':
        move_by(screen, -1);
        break;
    case 'j':
        move_by(screen, 1);
        break;
    case '+':
    case '=':
        change_interval(screen, 1);
        break;
    case '-':
        change_interval(screen, -1);
        break;
    case 12: /* ^L */
        clearok(curscr, TRUE);
        break;
    default:
        break;
    }
}

/* All keys that are there. */
static void take_keys(struct screen *screen)
{
    wint_t key;
    int kind;

    while (!screen->ended && (kind = get_wch(&key)) != ERR) {
        if (kind == KEY_CODE_YES && key == KEY_RESIZE)
            continue;
        if (screen->editing)
            edit(screen, key, kind == KEY_CODE_YES);
        else if (kind == KEY_CODE_YES)
            take_special(screen, key);
        else
            take_key(screen, key);
    }
}

/* Whether what poll() says of the input means that nothing will come from it any more. */
static bool has_ended(short events)
{
    int ready = 0;

    if (events & POLLNVAL)
        return true;
    return events & (POLLIN | POLLHUP | POLLERR) && (ioctl(STDIN_FILENO, FIONREAD, &ready) < 0 || ready <= 0);
}

/* ---- the loop */

static void wait_for_more(struct screen *screen, double until)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    int result = top_wait(&in, screen->paused ? top_clock() + 3600 : until);

    if (top_signal || (result < 0 && errno != EINTR))
        screen->ended = true;
    if (continued) {
        continued = 0;
        endwin();
        clearok(curscr, TRUE);
    }
    if (result > 0 && has_ended(in.revents))
        screen->ended = true;
    take_keys(screen);
}

static void loop(struct screen *screen)
{
    struct top *top = screen->top;
    double looked = top_clock();
    uint64_t looks = 1;

    for (;;) {
        double wait = looks == 1 && top->interval > TOP_FIRST ? TOP_FIRST : top->interval;

        draw_screen(screen);
        wait_for_more(screen, looked + wait);
        if (screen->ended)
            return;
        if (screen->paused || top_clock() < looked + wait)
            continue;
        if (top->iterations && looks >= top->iterations)
            return;
        looked = top_clock();
        looks++;
        top_look(top);
        find_selection(screen);
    }
}

int screen_run(struct top *top, struct cli_error *error)
{
    static struct screen screen;
    SCREEN *terminal;

    screen.top = top;
    screen.unicode = text_is_unicode();
    if (begin(&screen, &terminal, error))
        return CLI_FAILED;
    loop(&screen);
    endwin();
    delscreen(terminal);
    return 0;
}
