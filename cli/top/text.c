/* SPDX-License-Identifier: Apache-2.0 */
/* Names, figures and bars for a terminal. */
#include <langinfo.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wctype.h>

#include "text.h"

#define MARKS_MAX 3 /* combining characters on one */

bool text_is_unicode(void)
{
    return strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

/* Characters without a width that change how others are shown, or cannot be told from nothing. */
static bool is_invisible(wchar_t c)
{
    return c == 0xad || c == 0x34f || c == 0x61c || c == 0x180e || (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
           (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) || (c >= 0xe0000 && c <= 0xe0fff);
}

static bool is_shown(wchar_t c, int marks)
{
    int width = wcwidth(c);

    return iswprint((wint_t)c) && !is_invisible(c) && (width > 0 || (width == 0 && marks >= 0 && marks < MARKS_MAX));
}

int text_wide(wchar_t text[TEXT_MAX], const char *bytes)
{
    mbstate_t state = {0};
    size_t left = strlen(bytes), used = 0;
    int columns = 0, marks = -1; /* on the last character; -1 where there is none to put any on */

    while (left && used < TEXT_MAX - 1) {
        wchar_t c;
        size_t length = mbrtowc(&c, bytes, left, &state);

        if (length == (size_t)-1 || length == (size_t)-2) {
            memset(&state, 0, sizeof(state));
            length = 1;
            c = 0;
        }
        bytes += length;
        left -= length;
        if (!is_shown(c, marks))
            c = '?';
        marks = wcwidth(c) == 0 ? marks + 1 : 0;
        columns += wcwidth(c);
        text[used++] = c;
    }
    text[used] = 0;
    return columns;
}

int text_fit(wchar_t *text, int columns)
{
    bool unicode = text_is_unicode();
    int taken = 0, cut_taken = 0;
    size_t cut = 0;

    for (size_t i = 0; text[i]; i++) {
        int width = wcwidth(text[i]);

        if (taken + width <= columns - 1 && width > 0) {
            cut = i + 1;
            cut_taken = taken + width;
        } else if (width == 0 && cut == i) {
            cut = i + 1;
        }
        taken += width;
        if (taken > columns) {
            if (columns > 0)
                text[cut++] = unicode ? L'\u2026' : L'~';
            text[cut] = 0;
            return columns > 0 ? cut_taken + 1 : 0;
        }
    }
    return taken;
}

const char *text_word(char word[TEXT_BYTES], const char *bytes)
{
    wchar_t text[TEXT_MAX];
    mbstate_t state = {0};
    size_t used = 0;

    text_wide(text, bytes);
    for (size_t i = 0; text[i]; i++) {
        char c[MB_LEN_MAX];
        size_t length = wcrtomb(c, iswspace((wint_t)text[i]) || iswblank((wint_t)text[i]) ? L'_' : text[i], &state);

        if (length == (size_t)-1 || used + length >= TEXT_BYTES)
            break;
        memcpy(word + used, c, length);
        used += length;
    }
    word[used] = 0;
    return used ? word : strcpy(word, "-");
}

/* ---- figures */

const char *text_gib(char text[TEXT_FIGURE], uint64_t bytes)
{
    double gib = (double)bytes / (1 << 30);

    if (bytes && gib < 0.01)
        strcpy(text, "<0.01");
    else
        snprintf(text, TEXT_FIGURE, "%.2f", gib);
    return text;
}

const char *text_percent(char text[TEXT_FIGURE], double part)
{
    if (part > 0 && part < 0.001)
        strcpy(text, "<0.1%");
    else
        snprintf(text, TEXT_FIGURE, part >= 0.9995 ? "%.0f%%" : "%.1f%%", part * 100);
    return text;
}

const wchar_t *text_bar(wchar_t text[TEXT_MAX], int width, double part, bool unicode)
{
    static const wchar_t eighths[] = L"\u2591\u258f\u258e\u258d\u258c\u258b\u258a\u2589\u2588";
    int steps = unicode ? 8 : 1, whole, filled;

    if (width > TEXT_MAX - 1)
        width = TEXT_MAX - 1;
    whole = width * steps;
    filled = !(part > 0) ? 0 : part >= 1 ? whole : (int)(part * whole + 0.5);
    if (part > 0 && filled == 0)
        filled = 1;
    if (part < 1 && filled == whole && whole > 1)
        filled = whole - 1;
    for (int i = 0; i < width; i++) {
        int here = filled - i * steps;

        here = here < 0 ? 0 : here > steps ? steps : here;
        text[i] = unicode ? eighths[here] : here ? L'#' : L'.';
    }
    text[width > 0 ? width : 0] = 0;
    return text;
}
