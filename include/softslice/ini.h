/* SPDX-License-Identifier: Apache-2.0 */
/* Ini files, strictly: inih splits the lines, and whatever it would cut, join, drop or take twice without a word is an error with its
 * line here. No malloc, no stdio; errno is not kept (config_load() does). */
#ifndef SOFTSLICE_INI_FILE_H
#define SOFTSLICE_INI_FILE_H

#include <stdbool.h>
#include <stddef.h>

#define INI_FILE_MAX     65536 /* bytes of a file */
#define INI_LINE_MAX     190   /* bytes of a line, its end not counted: inih cuts at 197 */
#define INI_SECTION_MAX  49    /* bytes of a section's name: inih cuts there */
#define INI_SECTIONS_MAX 1024
#define INI_KEYS_MAX     64 /* keys of one section */

/* A file's text, read once, so that it cannot change between two passes. */
struct ini_file {
    struct ini_mapping *mapping; /* the text, and the parser's memory */
    size_t length;
    unsigned owner, mode; /* of the file */
};

/* Read a regular file of at most INI_FILE_MAX bytes; never blocks on a FIFO or device. 0, or -errno with *what saying it in a few words
 * (-ENOENT where there is none). Close after success. */
int ini_file_open(struct ini_file *file, const char *path, const char **what);
void ini_file_close(struct ini_file *file);

/* The same of an open file, which is closed in any case; -errno instead of a number is why there is none. It must have been opened with O_NONBLOCK. */
int ini_file_take(struct ini_file *file, int fd, const char **what);

/* Who hears what a file says, in its order. `section` and `value` return NULL, or what is wrong in a few words. Texts are valid for the
 * duration of the call. After an error the rest is still read: more errors may follow, and a faulty line's content is left out. */
struct ini_events {
    const char *(*section)(void *context, const char *name, unsigned line);
    const char *(*value)(void *context, const char *key, const char *value, unsigned line);
    void (*error)(void *context, unsigned line, const char *what);
};

/* Go through the file. Syntax:
 *   [name]            once per file; nothing but a comment after it
 *   key = value       or key: value; once per section, value not empty, blanks around both dropped, comment from " ;" on
 *   ; comment         or # comment, at the start of a line
 * True if there was no error. */
bool ini_file_parse(struct ini_file *file, const struct ini_events *events, void *context);

#endif
