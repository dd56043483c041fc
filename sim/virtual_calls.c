/* SPDX-License-Identifier: Apache-2.0 */
/* The functions of libc that virtual time stands in for. Clocks of CPU time, and all other system calls, pass. */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "virtual.h"
#include "virtual_syscall.h"
#include "virtual_world.h"

#define FUTEX_WAITV 449 /* newer than some headers */

#define PUBLIC         __attribute__((visibility("default")))
#define SECOND         UINT64_C(1000000000)
#define REALTIME_AHEAD (UINT64_C(1800000000) * SECOND) /* of the real-time clock before the monotonic one */

static long result_of(long result)
{
    if (result < 0 && result > -4096) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

/* What the clock shows beyond the virtual one; false: it is none of time that passes. */
static bool known(clockid_t id, uint64_t *ahead)
{
    switch (id) {
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_BOOTTIME:
        *ahead = 0;
        return true;
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
    case CLOCK_TAI:
        *ahead = REALTIME_AHEAD;
        return true;
    default:
        return false;
    }
}

static bool valid(const struct timespec *t)
{
    return t->tv_sec >= 0 && t->tv_nsec >= 0 && (uint64_t)t->tv_nsec < SECOND;
}

static uint64_t ns_of(const struct timespec *t)
{
    return (uint64_t)t->tv_sec > UINT64_MAX / SECOND / 2 ? UINT64_MAX / 2 : (uint64_t)t->tv_sec * SECOND + (uint64_t)t->tv_nsec;
}

/* Waiting always takes some time, so that who does it in a loop lets others run. */
static uint64_t at_least_a_step(uint64_t at)
{
    uint64_t now = virtual_now();

    return at <= now ? now + VIRTUAL_STEP : at;
}

static void sleep_for(uint64_t ns)
{
    virtual_wait(at_least_a_step(virtual_now() + ns), VIRTUAL_SLEEPS, NULL, 0, NULL);
}

static long futex(uint32_t *word, int op, uint32_t value, const struct timespec *timeout, uint32_t *second, uint32_t third)
{
    enum virtual_wait how = op & FUTEX_PRIVATE_FLAG ? VIRTUAL_WAITS_PRIVATE : VIRTUAL_WAITS_SHARED;
    int command = op & FUTEX_CMD_MASK;
    uint64_t at = VIRTUAL_NEVER;
    bool changed = false;
    long woken;

    switch (command) {
    case FUTEX_WAKE:
    case FUTEX_WAKE_BITSET:
        woken = virtual_wake(how, word, value > INT_MAX ? INT_MAX : value);
        return woken ? woken : virtual_raw(SYS_futex, (long)word, op, (long)value, 0, 0, (long)third);
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET:
        break;
    default:
        return virtual_raw(SYS_futex, (long)word, op, (long)value, (long)timeout, (long)second, (long)third);
    }
    if (timeout) {
        if (!valid(timeout))
            return -EINVAL;
        at = ns_of(timeout);
        if (command == FUTEX_WAIT)
            at += virtual_now();
        else if (op & FUTEX_CLOCK_REALTIME)
            at = at > REALTIME_AHEAD ? at - REALTIME_AHEAD : 0;
        at = at_least_a_step(at);
    }
    if (virtual_wait(at, how, word, value, &changed))
        return 0;
    return changed ? -EAGAIN : -ETIMEDOUT;
}

PUBLIC int clock_gettime(clockid_t id, struct timespec *t)
{
    uint64_t ahead, now;

    if (!virtual_world() || !known(id, &ahead))
        return (int)result_of(virtual_raw(SYS_clock_gettime, id, (long)t, 0, 0, 0, 0));
    now = virtual_read() + ahead;
    *t = (struct timespec){.tv_sec = (time_t)(now / SECOND), .tv_nsec = (long)(now % SECOND)};
    return 0;
}

PUBLIC int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec now;

    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now) < 0)
        return -1;
    *t = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}

PUBLIC time_t time(time_t *out)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

PUBLIC int clock_nanosleep(clockid_t id, int flags, const struct timespec *request, struct timespec *remain)
{
    uint64_t ahead, at;

    if (!virtual_waits() || !known(id, &ahead))
        return (int)-virtual_raw(SYS_clock_nanosleep, id, flags, (long)request, (long)remain, 0, 0);
    if (!valid(request))
        return EINVAL;
    at = ns_of(request);
    if (!(flags & TIMER_ABSTIME))
        sleep_for(at);
    else if (at > virtual_now() + ahead)
        virtual_wait(at - ahead, VIRTUAL_SLEEPS, NULL, 0, NULL);
    else
        sleep_for(0);
    return 0;
}

PUBLIC int nanosleep(const struct timespec *request, struct timespec *remain)
{
    int error;

    if (!virtual_waits())
        return (int)result_of(virtual_raw(SYS_nanosleep, (long)request, (long)remain, 0, 0, 0, 0));
    error = clock_nanosleep(CLOCK_MONOTONIC, 0, request, remain);
    return (int)result_of(-error);
}

PUBLIC int usleep(useconds_t us)
{
    struct timespec t = {.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000};

    return nanosleep(&t, NULL);
}

PUBLIC unsigned int sleep(unsigned int seconds)
{
    struct timespec t = {.tv_sec = (time_t)seconds}, left = {0};

    return nanosleep(&t, &left) == 0 ? 0 : (unsigned int)left.tv_sec;
}

PUBLIC int sched_yield(void)
{
    if (!virtual_waits())
        return (int)result_of(virtual_raw(SYS_sched_yield, 0, 0, 0, 0, 0, 0));
    sleep_for(0);
    return 0;
}

PUBLIC long syscall(long number, ...)
{
    va_list args;
    long a, b, c, d, e, f;

    va_start(args, number);
    a = va_arg(args, long);
    b = va_arg(args, long);
    c = va_arg(args, long);
    d = va_arg(args, long);
    e = va_arg(args, long);
    f = va_arg(args, long);
    va_end(args);
    if (virtual_waits())
        switch (number) {
        case SYS_futex:
            return result_of(futex((uint32_t *)a, (int)b, (uint32_t)c, (const struct timespec *)d, (uint32_t *)e, (uint32_t)f));
        case FUTEX_WAITV: /* not known here: who asks for it has another way */
            return result_of(-ENOSYS);
        case SYS_sched_yield:
            return sched_yield();
        case SYS_nanosleep:
            return nanosleep((const struct timespec *)a, (struct timespec *)b);
        case SYS_clock_nanosleep:
            return result_of(-clock_nanosleep((clockid_t)a, (int)b, (const struct timespec *)c, (struct timespec *)d));
        case SYS_clock_gettime:
            return clock_gettime((clockid_t)a, (struct timespec *)b);
        default:
            break;
        }
    return result_of(virtual_raw(number, a, b, c, d, e, f));
}

struct birth {
    void *(*start)(void *);
    void *arg;
    struct virtual_row *row;
};

static void *be_born(void *given)
{
    struct birth birth = *(struct birth *)given;

    free(given);
    virtual_born(birth.row);
    return birth.start(birth.arg);
}

PUBLIC int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attr, void *(*start)(void *),
                          void *restrict arg)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    struct birth *birth = virtual_waits() ? malloc(sizeof(*birth)) : NULL;
    struct virtual_row *row;
    int error;

    if (!real)
        real = (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(RTLD_NEXT, "pthread_create");
    if (!birth)
        return real(thread, attr, start, arg);
    row = virtual_expect();
    *birth = (struct birth){.start = start, .arg = arg, .row = row};
    if (row) {
        error = real(thread, attr, be_born, birth);
        if (!error) {
            virtual_named(row, (uint64_t)*thread);
            return 0;
        }
        virtual_unborn(row);
    } else {
        error = real(thread, attr, start, arg);
    }
    free(birth);
    return error;
}

PUBLIC int pthread_join(pthread_t thread, void **result)
{
    static int (*real)(pthread_t, void **);

    if (virtual_waits())
        virtual_join((uint64_t)thread);
    if (!real)
        real = (int (*)(pthread_t, void **))dlsym(RTLD_NEXT, "pthread_join");
    return real(thread, result);
}
