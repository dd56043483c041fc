/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines: one write each, so that those of two threads do not mix. */
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "plugin.h"

#define LINE_MAX_BYTES 4096
#define RETRY_FIRST    0.05 /* seconds: a socket is there a moment before somebody listens */
#define RETRY_NEXT     0.5

static void say(const char *level, const char *format, va_list args) __attribute__((format(printf, 2, 0)));
static void say(const char *level, const char *format, va_list args)
{
    char text[LINE_MAX_BYTES], clean[LINE_MAX_BYTES], line[LINE_MAX_BYTES + 128], date[32];
    struct timespec now;
    struct tm parts;
    int length;

    vsnprintf(text, sizeof(text), format, args);
    observe_text(clean, sizeof(clean), text, false);
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &parts);
    length = snprintf(line, sizeof(line), "%s.%03ldZ %s %s\n", date, now.tv_nsec / 1000000, level, clean);
    if (write(STDERR_FILENO, line, (size_t)length) < 0)
        return; /* nobody reads it: there is nowhere to say so */
}

#define LEVEL(name, word)                                                                                                          \
    void say_##name(const char *format, ...)                                                                                       \
    {                                                                                                                              \
        va_list args;                                                                                                              \
                                                                                                                                   \
        va_start(args, format);                                                                                                    \
        say(word, format, args);                                                                                                   \
        va_end(args);                                                                                                              \
    }

LEVEL(info, "info")
LEVEL(warning, "warning")
LEVEL(error, "error")

double now_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

double backoff_after(double before, double most)
{
    double wait = before == 0 ? RETRY_FIRST : before < RETRY_NEXT ? RETRY_NEXT : before * 2;

    return wait < most ? wait : most;
}
