/* SPDX-License-Identifier: Apache-2.0 */
/* One line at a time to stderr or SOFTSLICE_LOG_FILE, without allocating, locking or touching errno. */
#ifndef SOFTSLICE_LOG_H
#define SOFTSLICE_LOG_H

enum log_level { LOG_OFF, LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Until called: LOG_WARN to stderr. `file` (or NULL for stderr) is opened for append with O_CLOEXEC | O_NOFOLLOW | O_NOCTTY at each
 * line and closed again, because the host may close every fd at any time; a file that cannot be opened falls back to stderr.
 * The string is copied (at most PATH_MAX). Idempotent; may be called again. */
void log_configure(enum log_level level, const char *file);

/* Write "softslice: [pid] text\n" with one write(2), cut at 1,024 bytes. Supports what core/format.c documents (%s %d %u %x %lu %llu
 * %zu %p %c %%, width not needed); reentrant, async-signal-safe, keeps errno. Lines per process are capped (100 of each level
 * below error; the last one says that more are dropped). */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

/* The formatter behind it, for other fixed buffers: always NUL-terminates, returns the length written. */
#include <stdarg.h>
#include <stddef.h>
size_t log_format(char *buffer, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
size_t log_vformat(char *buffer, size_t size, const char *format, va_list args);

#endif
