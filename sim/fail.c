/* SPDX-License-Identifier: Apache-2.0 */
/* Failure injection (SOFTSIM_FAIL) and tracing (SOFTSIM_TRACE): both look at nothing but the name of the function called. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shared.h"

#define MAX_RULES 32

/* symbol:n:error fails the n-th call; symbol:n+:error that one and all later ones. */
struct rule {
    char symbol[64];
    unsigned long call;
    bool persists;
    int error;
    unsigned long calls;
};

static struct rule rules[MAX_RULES];
static unsigned int rule_count;
static int trace_fd = -1;

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
