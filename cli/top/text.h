/* SPDX-License-Identifier: Apache-2.0 */
/* Text for a terminal: names of others made harmless, cut to columns, and figures and bars in the characters that the locale has. */
#ifndef SOFTSLICE_CLI_TOP_TEXT_H
#define SOFTSLICE_CLI_TOP_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <wchar.h>

#define TEXT_MAX 1024 /* characters of the longest text here, with its 0 */

/* Whether the locale has UTF-8. */
bool text_is_unicode(void);

/* `bytes` in the locale's characters, with '?' for what is none, and for control characters, marks of direction and others that would not stay where they
 * are put. Returns the columns that it takes. */
int text_wide(wchar_t text[TEXT_MAX], const char *bytes);

/* Cut a text that takes more than `columns`; then it ends with an ellipsis. Returns the columns that it takes. */
int text_fit(wchar_t *text, int columns);

/* The same as text_wide(), as bytes and with '_' for blanks: for columns that programs read. "-" for an empty text. */
#define TEXT_BYTES (TEXT_MAX * 4)
const char *text_word(char word[TEXT_BYTES], const char *bytes);

/* GiB with two digits. What is there and too little for that is "<0.01", never 0. Returns `text`. */
#define TEXT_FIGURE 32
const char *text_gib(char text[TEXT_FIGURE], uint64_t bytes);

/* A part of 1 as a percentage with one digit, without one from 100 on; "<0.1%" as above. */
const char *text_percent(char text[TEXT_FIGURE], double part);

/* A part of 1 as a bar of `width` cells. What is there shows, and only what is whole fills it. Returns `text`. */
const wchar_t *text_bar(wchar_t text[TEXT_MAX], int width, double part, bool unicode);

#endif
