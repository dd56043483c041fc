/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines from a host program that closes, replaces and breaks whatever it likes. */
#include "softslice/log.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[] = "/tmp/softslice-test-log-XXXXXX";
static char file[PATH_MAX];

static void make_directory(void)
{
    cr_assert(mkdtemp(directory) != NULL);
    snprintf(file, sizeof(file), "%s/log", directory);
}

static void remove_directory(void)
{
    char command[PATH_MAX + 16];

    snprintf(command, sizeof(command), "rm -rf %s", directory);
    cr_assert(system(command) == 0);
}

TestSuite(log, .init = make_directory, .fini = remove_directory);

static size_t read_file(const char *path, char *text, size_t size)
{
    FILE *stream = fopen(path, "r");
    size_t length = 0;

    if (stream) {
        length = fread(text, 1, size - 1, stream);
        fclose(stream);
    }
    text[length] = 0;
    return length;
}

/* Run `body` in a child whose stderr is a pipe; returns the child's status and what came out. */
static int with_stderr(void (*body)(void), char *text, size_t size)
{
    int fds[2], status;
    size_t length = 0;
    ssize_t got;
    pid_t pid;

    cr_assert(pipe(fds) == 0);
    pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* one that hangs must not outlive the test's timeout */
        dup2(fds[1], STDERR_FILENO);
        close(fds[0]);
        close(fds[1]);
        body();
        _exit(0);
    }
    close(fds[1]);
    while (length + 1 < size && (got = read(fds[0], text + length, size - 1 - length)) > 0)
        length += (size_t)got;
    text[length] = 0;
    close(fds[0]);
    cr_assert(waitpid(pid, &status, 0) == pid);
    return status;
}

static unsigned count_lines(const char *text)
{
    unsigned lines = 0;

    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

static void warn_and_inform(void)
{
    log_warn("a%s", "b");
    log_info("not seen");
}

Test(log, one_line_to_stderr_by_default)
{
    char text[4096];

    cr_assert(with_stderr(warn_and_inform, text, sizeof(text)) == 0);
    cr_expect(strncmp(text, "softslice: [", 12) == 0, "%s", text);
    cr_expect(strstr(text, "] ab\n") != NULL, "%s", text);
    cr_expect(count_lines(text) == 1, "%s", text);
}

static void off(void)
{
    log_configure(LOG_OFF, NULL);
    log_error("not even this");
}

Test(log, off_is_silent)
{
    char text[4096];

    cr_assert(with_stderr(off, text, sizeof(text)) == 0);
    cr_expect(*text == 0, "%s", text);
}

static void too_many(void)
{
    log_configure(LOG_DEBUG, NULL);
    for (unsigned i = 0; i < 150; i++) {
        log_warn("w%u", i);
        log_error("e%u", i);
    }
    log_info("i");
}

Test(log, lines_below_error_are_capped)
{
    static char text[65536];

    cr_assert(with_stderr(too_many, text, sizeof(text)) == 0);
    cr_expect(count_lines(text) == 100 + 150 + 1, "%u lines", count_lines(text));
    cr_expect(strstr(text, "w99 (further lines of this level are dropped)\n") != NULL);
    cr_expect(strstr(text, "w100") == NULL);
    cr_expect(strstr(text, "w98\n") != NULL);
    cr_expect(strstr(text, "e149\n") != NULL);
    cr_expect(strstr(text, "] i\n") != NULL, "a level's cap is not another's");
}

static void long_and_dirty(void)
{
    char text[3000];

    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = 0;
    log_error("%s", text);
    log_error("a\nsoftslice: [1] forged\x1b[2J\t\x7f");
}

Test(log, lines_are_cut_and_cannot_be_forged)
{
    static char text[8192];
    char *end;

    cr_assert(with_stderr(long_and_dirty, text, sizeof(text)) == 0);
    end = strchr(text, '\n');
    cr_assert(end != NULL);
    cr_expect(end + 1 - text == 1024, "%ld bytes", (long)(end + 1 - text));
    cr_expect(count_lines(text) == 2, "%s", text);
    cr_expect(strstr(end, "a?softslice: [1] forged?[2J??\n") != NULL, "%s", end);
}

static int null_stderr(void)
{
    int null = open("/dev/null", O_WRONLY);
    int saved = dup(STDERR_FILENO);

    dup2(null, STDERR_FILENO);
    close(null);
    return saved;
}

Test(log, appends_to_the_file_and_keeps_no_descriptor)
{
    char text[4096];
    int before, after;
    FILE *stream = fopen(file, "w");

    fputs("old\n", stream);
    fclose(stream);
    before = open("/dev/null", O_RDONLY);
    close(before);
    log_configure(LOG_INFO, file);
    errno = 4711;
    log_info("%d", 1);
    log_info("%d", 2);
    cr_expect(errno == 4711);
    after = open("/dev/null", O_RDONLY);
    close(after);
    cr_expect(before == after);
    read_file(file, text, sizeof(text));
    cr_expect(strncmp(text, "old\nsoftslice: [", 16) == 0, "%s", text);
    cr_expect(count_lines(text) == 3, "%s", text);
}

Test(log, file_comes_back_after_it_was_moved)
{
    char moved[PATH_MAX + 8], text[4096];

    log_configure(LOG_INFO, file);
    log_info("first");
    snprintf(moved, sizeof(moved), "%s.1", file);
    cr_assert(rename(file, moved) == 0);
    log_info("second");
    read_file(file, text, sizeof(text));
    cr_expect(strstr(text, "second") != NULL && strstr(text, "first") == NULL, "%s", text);
}

static void to_unusable_files(void)
{
    char path[PATH_MAX + 64];

    log_configure(LOG_INFO, directory);
    log_info("directory");
    snprintf(path, sizeof(path), "%s/missing/log", directory);
    log_configure(LOG_INFO, path);
    log_info("missing");
    snprintf(path, sizeof(path), "%s/fifo", directory);
    mkfifo(path, 0600);
    log_configure(LOG_INFO, path);
    log_info("fifo");
    snprintf(path, sizeof(path), "%s/link", directory);
    if (symlink(file, path) == 0)
        log_configure(LOG_INFO, path);
    log_info("symlink");
    log_configure(LOG_INFO, "/dev/full");
    log_info("full");
}

Test(log, what_the_file_does_not_take_goes_to_stderr, .timeout = 20)
{
    static const char *const expected[] = {"] directory\n", "] missing\n", "] fifo\n", "] symlink\n", "] full\n"};
    char text[4096];

    cr_assert(with_stderr(to_unusable_files, text, sizeof(text)) == 0);
    for (unsigned i = 0; i < 5; i++)
        cr_expect(strstr(text, expected[i]) != NULL, "no '%s' in %s", expected[i], text);
    cr_expect(access(file, F_OK) != 0, "a symlink was followed");
}

static void without_stderr(void)
{
    close(STDERR_FILENO);
    log_error("nowhere");
}

static void with_broken_pipe(void)
{
    int fds[2];
    sigset_t pending;

    signal(SIGPIPE, SIG_DFL);
    if (pipe(fds) < 0)
        _exit(1);
    close(fds[0]);
    dup2(fds[1], STDERR_FILENO);
    errno = 4711;
    log_error("nobody reads");
    if (errno != 4711)
        _exit(2);
    sigpending(&pending);
    if (sigismember(&pending, SIGPIPE))
        _exit(3);
}

/* poll() tells of a pipe that nobody reads, but not of a socket: here the write itself meets it. */
static void with_broken_socket(void)
{
    int fds[2];
    sigset_t pending;

    signal(SIGPIPE, SIG_DFL);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)
        _exit(1);
    close(fds[0]);
    dup2(fds[1], STDERR_FILENO);
    errno = 4711;
    log_error("nobody reads");
    if (errno != 4711)
        _exit(2);
    sigpending(&pending);
    if (sigismember(&pending, SIGPIPE))
        _exit(3);
}

/* A SIGPIPE that the program itself keeps pending is not ours to take. */
static void with_pending_signal(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGPIPE);
    with_broken_socket();
}

Test(log, no_reader_kills_nobody)
{
    char text[64];

    cr_expect(with_stderr(without_stderr, text, sizeof(text)) == 0);
    cr_expect(with_stderr(with_broken_pipe, text, sizeof(text)) == 0);
    cr_expect(with_stderr(with_broken_socket, text, sizeof(text)) == 0);
    cr_expect(WEXITSTATUS(with_stderr(with_pending_signal, text, sizeof(text))) == 3, "the program's own SIGPIPE is gone");
}

static void into_full_pipe(void)
{
    char block[4096] = "";
    int fds[2];

    if (pipe(fds) < 0 || fcntl(fds[1], F_SETFL, O_NONBLOCK) < 0)
        _exit(1);
    while (write(fds[1], block, sizeof(block)) > 0)
        ;
    fcntl(fds[1], F_SETFL, 0);
    dup2(fds[1], STDERR_FILENO);
    log_error("the reader sleeps");
}

Test(log, full_pipe_does_not_hold_the_program_up, .timeout = 20)
{
    char text[64];

    cr_expect(with_stderr(into_full_pipe, text, sizeof(text)) == 0);
}

Test(log, names_that_are_too_long_change_nothing)
{
    static char name[PATH_MAX + 10];
    char text[4096];

    memset(name, 'a', sizeof(name) - 1);
    log_configure(LOG_INFO, file);
    log_configure(LOG_INFO, name);
    log_info("still here");
    read_file(file, text, sizeof(text));
    cr_expect(strstr(text, "still here") != NULL);
}

Test(log, configure_copies_the_name)
{
    char name[PATH_MAX], text[4096];

    strcpy(name, file);
    log_configure(LOG_INFO, name);
    memset(name, 'x', sizeof(name) - 1);
    log_info("copied");
    read_file(file, text, sizeof(text));
    cr_expect(strstr(text, "copied") != NULL);
}

Test(log, back_to_stderr)
{
    char text[4096];
    int saved;

    log_configure(LOG_INFO, file);
    log_configure(LOG_INFO, NULL);
    saved = null_stderr();
    log_info("elsewhere");
    dup2(saved, STDERR_FILENO);
    cr_expect(read_file(file, text, sizeof(text)) == 0);
}

#define EXPECT_FORMAT(expected, ...)                                                                                               \
    do {                                                                                                                           \
        char formatted[128];                                                                                                       \
        size_t length = log_format(formatted, sizeof(formatted), __VA_ARGS__);                                                     \
        cr_expect(strcmp(formatted, expected) == 0, "'%s', expected '%s'", formatted, expected);                                   \
        cr_expect(length == strlen(expected));                                                                                     \
    } while (0)

Test(log, format)
{
    EXPECT_FORMAT("", "%s", "");
    EXPECT_FORMAT("100%", "100%%");
    EXPECT_FORMAT("-2147483648 2147483647 4294967295", "%d %d %u", INT_MIN, INT_MAX, UINT_MAX);
    EXPECT_FORMAT("-9223372036854775808", "%ld", LONG_MIN);
    EXPECT_FORMAT("-9223372036854775808", "%lld", LLONG_MIN);
    EXPECT_FORMAT("18446744073709551615 18446744073709551615 18446744073709551615", "%lu %llu %zu", ULONG_MAX, ULLONG_MAX,
                  SIZE_MAX);
    EXPECT_FORMAT("0 ff ffffffffffffffff", "%x %x %lx", 0, 255, ULONG_MAX);
    EXPECT_FORMAT("0x7fff1234", "%p", (void *)0x7fff1234);
    EXPECT_FORMAT("a|bc|", "%c|%.*s|", 'a', 2, "bcd");
    EXPECT_FORMAT("a b", "%s %s", "a", "b");
}

Test(log, format_of_what_it_does_not_know)
{
    /* As data, because the compiler would refuse them. */
    const char *volatile width = "a %08x %s", *volatile none = "%s", *volatile cut = "100%";
    char text[64];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"
    log_format(text, sizeof(text), width, 1, (char *)1);
    cr_expect(strcmp(text, "a %08x %s") == 0, "%s", text);
    log_format(text, sizeof(text), none, (char *)NULL);
    cr_expect(strcmp(text, "(null)") == 0, "%s", text);
    log_format(text, sizeof(text), cut);
    cr_expect(strcmp(text, "100%") == 0, "%s", text);
#pragma GCC diagnostic pop
}

Test(log, format_stays_in_its_buffer)
{
    for (size_t size = 0; size < 12; size++) {
        char text[16];
        size_t length;

        memset(text, '#', sizeof(text));
        length = log_format(text, size, "%s%d", "abc", 12345);
        cr_expect(length == (size == 0 ? 0 : size - 1 < 8 ? size - 1 : 8));
        cr_expect(size == 0 || text[length] == 0);
        for (size_t i = size; i < sizeof(text); i++)
            cr_expect(text[i] == '#', "size %zu wrote at %zu", size, i);
    }
}
