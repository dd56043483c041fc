/* SPDX-License-Identifier: Apache-2.0 */
/* ASCII alone, whatever locale the host program has set: the ctype.h and strings.h of core/. */
#ifndef SOFTSLICE_CORE_TEXT_H
#define SOFTSLICE_CORE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static inline bool text_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static inline bool text_is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static inline bool text_is_control(char c)
{
    return (unsigned char)c < 0x20 || c == 0x7f;
}

static inline char text_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static inline bool text_is_alnum(char c)
{
    return text_is_digit(c) || (text_lower(c) >= 'a' && text_lower(c) <= 'z');
}

/* A stretch of text that need not end in a NUL. */
struct text {
    const char *at;
    size_t length;
};

static inline struct text text_of(const char *string)
{
    return (struct text){string, strlen(string)};
}

/* Without the blanks at both ends. */
static inline struct text text_trim(struct text text)
{
    while (text.length && text_is_blank(text.at[0])) {
        text.at++;
        text.length--;
    }
    while (text.length && text_is_blank(text.at[text.length - 1]))
        text.length--;
    return text;
}

/* Whether `text` is `word`, in any case. */
static inline bool text_is(struct text text, const char *word)
{
    size_t i;

    for (i = 0; i < text.length && word[i]; i++) {
        if (text_lower(text.at[i]) != text_lower(word[i]))
            return false;
    }
    return i == text.length && !word[i];
}

/* Where `c` first is in `text`, or text.length. */
static inline size_t text_find(struct text text, char c)
{
    size_t i = 0;

    while (i < text.length && text.at[i] != c)
        i++;
    return i;
}

#endif
