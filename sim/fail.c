/* SPDX-License-Identifier: Apache-2.0 */
/* Failure injection (SOFTSIM_FAIL), calls that hang (SOFTSIM_BLOCK) and tracing (SOFTSIM_TRACE): they look at nothing but the name of the
 * function called. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shared.h"

#define MAX_RULES   32
#define BLOCK_MS    1
#define BLOCK_TIMES 60000 /* a minute: nothing hangs for ever that forgot the file */

/* symbol:n:error fails the n-th call; symbol:n+:error that one and all later ones. */
struct rule {
    char symbol[64];
    unsigned long call;
    bool persists;
    int error;
    unsigned long calls;
};

/* symbol:path holds up one call at a time. */
struct block {
    char symbol[64];
    char path[PATH_MAX];
    bool waiting; /* atomic */
};

static struct rule rules[MAX_RULES];
static unsigned int rule_count;
static struct block blocks[MAX_RULES];
static unsigned int block_count;
static int trace_fd = -1;

static void blocks_read(const char *text)
{
    while (text && *text && block_count < MAX_RULES) {
        struct block *b = &blocks[block_count];
        size_t length = strcspn(text, ",");
        const char *colon = memchr(text, ':', length);

        if (colon && (size_t)(colon - text) < sizeof(b->symbol) && length - (size_t)(colon - text) <= sizeof(b->path)) {
            memcpy(b->symbol, text, (size_t)(colon - text));
            memcpy(b->path, colon + 1, length - (size_t)(colon - text) - 1);
            block_count++;
        }
        text += length;
        text += *text == ',';
    }
}

static void settings_read(void)
{
    const char *text = getenv("SOFTSIM_FAIL");
    const char *trace = getenv("SOFTSIM_TRACE");

    while (text && *text && rule_count < MAX_RULES) {
        struct rule *r = &rules[rule_count];
        size_t length = strcspn(text, ":,");
        char *end;

        if (text[length] == ':' && length < sizeof(r->symbol)) {
            memcpy(r->symbol, text, length);
            r->symbol[length] = '\0';
            r->call = strtoul(text + length + 1, &end, 10);
            r->persists = *end == '+';
            end += r->persists;
            r->error = *end == ':' ? atoi(end + 1) : 999;
            rule_count++;
        }
        text += strcspn(text, ",");
        text += *text == ',';
    }
    blocks_read(getenv("SOFTSIM_BLOCK"));
    if (trace && *trace)
        trace_fd = open(trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* At the first call and not when the library is loaded: a program may set the variables for itself. */
static void settings_once(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, settings_read);
}

/* Every rule of a function counts every call of it. */
int sim_fail_next(const char *function)
{
    int failure = 0;

    settings_once();
    for (unsigned int i = 0; i < rule_count; i++) {
        struct rule *r = &rules[i];
        unsigned long call;

        if (strcmp(r->symbol, function) != 0)
            continue;
        call = __atomic_add_fetch(&r->calls, 1, __ATOMIC_RELAXED);
        if (!failure && (call == r->call || (r->persists && call > r->call)))
            failure = r->error;
    }
    return failure;
}

/* Until the file is gone, which says meanwhile who waits. */
static void wait_for(struct block *b)
{
    char line[64];
    int fd = open(b->path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    int length = snprintf(line, sizeof(line), "%d %ld\n", (int)getpid(), (long)syscall(SYS_gettid));

    if (fd < 0)
        return;
    bool told = write(fd, line, (size_t)length) == length;
    close(fd);
    for (int n = 0; told && n < BLOCK_TIMES && access(b->path, F_OK) == 0; n++)
        poll(NULL, 0, BLOCK_MS);
}

void sim_block(const char *function)
{
    int saved = errno;

    settings_once();
    for (unsigned int i = 0; i < block_count; i++) {
        struct block *b = &blocks[i];

        if (strcmp(b->symbol, function) != 0 || __atomic_exchange_n(&b->waiting, true, __ATOMIC_ACQUIRE))
            continue;
        wait_for(b);
        __atomic_store_n(&b->waiting, false, __ATOMIC_RELEASE);
    }
    errno = saved;
}

void sim_trace(const char *function)
{
    char line[128];
    int length;

    settings_once();
    if (trace_fd < 0)
        return;
    length = snprintf(line, sizeof(line), "%d %ld %s\n", (int)getpid(), (long)syscall(SYS_gettid), function);
    if (write(trace_fd, line, (size_t)length) != length)
        trace_fd = -1;
}
