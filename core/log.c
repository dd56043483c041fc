/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines from inside somebody else's process. */
#include "softslice/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "compat.h"
#include "text.h"

#define LOG_LINE_MAX          1024
#define LOG_LINES_MAX         100 /* of each level below error */
#define LOG_INTERRUPTIONS_MAX 5   /* by signals; then write without knowing */
#define LOG_WAIT_MS           100 /* for a reader that is behind; then the line is dropped rather than the program held up */

/* Two copies of the file's name: a new one is written to the copy that nobody reads, then published by `current`. A configuration
 * that comes while another one is being written gives way; both come from the same environment. */
static struct {
    char file[2][PATH_MAX];
    uint32_t current, writing;
} target;

static uint32_t log_level = LOG_WARN;
static uint32_t lines[LOG_DEBUG + 1];

void log_configure(enum log_level level, const char *file)
{
    uint32_t idle = 0;
    size_t length = file ? strlen(file) : 0;

    __atomic_store_n(&log_level, (uint32_t)level, __ATOMIC_RELAXED);
    if (!__atomic_compare_exchange_n(&target.writing, &idle, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return;
    if (length < PATH_MAX) {
        uint32_t current = __atomic_load_n(&target.current, __ATOMIC_RELAXED);

        /* The same name again, which is the rule, writes nothing that another thread might be reading. */
        if (strncmp(target.file[current], file ? file : "", PATH_MAX) != 0) {
            if (length)
                memcpy(target.file[!current], file, length);
            target.file[!current][length] = 0;
            __atomic_store_n(&target.current, !current, __ATOMIC_RELEASE);
        }
    }
    __atomic_store_n(&target.writing, 0, __ATOMIC_RELEASE);
}

/* Write to a descriptor that may be a pipe or socket without a reader: SIGPIPE must not reach the program. One that was pending before
 * is the program's own and stays. */
static bool write_quietly(int fd, const char *line, size_t length)
{
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    sigset_t pipe_signal, before, pending;
    bool was_pending, written;
    int rc = -1;

    for (unsigned i = 0; i < LOG_INTERRUPTIONS_MAX && rc < 0; i++) {
        rc = compat_poll(&ready, 1, LOG_WAIT_MS);
        if (rc < 0 && errno != EINTR)
            return false;
    }
    if (rc == 0 || ready.revents & (POLLERR | POLLNVAL))
        return false;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    sigprocmask(SIG_BLOCK, &pipe_signal, &before);
    sigpending(&pending);
    was_pending = sigismember(&pending, SIGPIPE) == 1;
    written = compat_write(fd, line, length) == (ssize_t)length;
    if (!written && errno == EPIPE && !was_pending) {
        while (compat_take_signal(&pipe_signal) < 0 && errno == EINTR)
            ;
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    return written;
}

static void write_line(const char *line, size_t length)
{
    const char *file = target.file[__atomic_load_n(&target.current, __ATOMIC_ACQUIRE)];

    if (*file) {
        int fd = compat_open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, 0644);

        if (fd >= 0) {
            bool written = write_quietly(fd, line, length);

            compat_close(fd);
            if (written)
                return;
        }
    }
    write_quietly(STDERR_FILENO, line, length);
}

/* Whether a line of this level may still be written; *last tells that it is the last one. */
static bool count_line(enum log_level level, bool *last)
{
    uint32_t count;

    *last = false;
    if (level == LOG_ERROR)
        return true;
    if (__atomic_load_n(&lines[level], __ATOMIC_RELAXED) >= LOG_LINES_MAX)
        return false;
    count = __atomic_add_fetch(&lines[level], 1, __ATOMIC_RELAXED);
    *last = count == LOG_LINES_MAX;
    return count <= LOG_LINES_MAX;
}

void log_line(enum log_level level, const char *format, ...)
{
    static const char more[] = " (further lines of this level are dropped)";
    int saved = errno;
    char line[LOG_LINE_MAX];
    size_t room = sizeof(line) - 1; /* for the newline in place of the NUL */
    size_t length;
    va_list args;
    bool last;

    if (level <= LOG_OFF || level > LOG_DEBUG || (uint32_t)level > __atomic_load_n(&log_level, __ATOMIC_RELAXED) ||
        !count_line(level, &last))
        return;
    if (last)
        room -= sizeof(more) - 1;
    length = log_format(line, room + 1, "softslice: [%d] ", (int)getpid());
    va_start(args, format);
    length += log_vformat(line + length, room + 1 - length, format, args);
    va_end(args);
    for (size_t i = 0; i < length; i++) {
        if (text_is_control(line[i]))
            line[i] = '?';
    }
    if (last) {
        memcpy(line + length, more, sizeof(more) - 1);
        length += sizeof(more) - 1;
    }
    line[length++] = '\n';
    write_line(line, length);
    errno = saved;
}
