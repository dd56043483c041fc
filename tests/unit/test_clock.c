/* SPDX-License-Identifier: Apache-2.0 */
/* One clock for all time namespaces, and a sleep that ends when that clock says so. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "softslice/clock.h"

/* A second one, whose inside can be seen: most machines let nobody make a time namespace. */
static uint64_t inner_now(void);
static bool inner_wait(const uint32_t *word, uint32_t seen, uint64_t until, bool shared);
static bool inner_wait_two(const uint32_t *word, uint32_t seen, const uint32_t *shared, uint32_t shared_seen, uint64_t until)
    __attribute__((unused));
static void inner_wake(uint32_t *word, bool shared);
#define clock_now      inner_now
#define clock_wait     inner_wait
#define clock_wait_two inner_wait_two
#define clock_wake     inner_wake
#include "../../core/clock.c"
#undef clock_now
#undef clock_wait
#undef clock_wait_two
#undef clock_wake
#undef SECOND

#define SECOND UINT64_C(1000000000)
#define MS     UINT64_C(1000000)

#ifndef CLONE_NEWTIME
#    define CLONE_NEWTIME 0x80
#endif

TestSuite(clock, .timeout = 60);

Test(clock, goes_on)
{
    uint64_t before = clock_now(), after;

    errno = 4711;
    usleep(2000);
    after = clock_now();
    cr_assert_geq(after, before + 2 * MS);
    cr_assert_eq(errno, 4711);
}

Test(clock, waits_until_a_moment)
{
    uint32_t word = 7;
    uint64_t began = clock_now();

    errno = 4711;
    while (clock_wait(&word, 7, began + 20 * MS, false))
        ;
    cr_assert_geq(clock_now(), began + 20 * MS);
    began = clock_now();
    cr_assert_not(clock_wait(&word, 7, began, false), "a moment that has come");
    cr_assert(clock_wait(&word, 8, CLOCK_NEVER, false), "another value than the one seen");
    cr_assert_eq(errno, 4711);
}

static void *wake(void *word)
{
    usleep(20000);
    __atomic_store_n((uint32_t *)word, 1, __ATOMIC_SEQ_CST);
    clock_wake(word, false);
    return NULL;
}

Test(clock, wakes)
{
    uint32_t word = 0;
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, wake, &word), 0);
    while (__atomic_load_n(&word, __ATOMIC_SEQ_CST) == 0)
        cr_assert(clock_wait(&word, 0, CLOCK_NEVER, false));
    pthread_join(thread, NULL);
}

Test(clock, wakes_other_processes)
{
    uint32_t *word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == 0)
            clock_wait(word, 0, CLOCK_NEVER, true);
        _exit(0);
    }
    usleep(20000);
    __atomic_store_n(word, 1, __ATOMIC_SEQ_CST);
    clock_wake(word, true);
    cr_assert(waitpid(pid, &status, 0) == pid && status == 0);
}

Test(clock, reads_offsets)
{
    static const struct {
        const char *text;
        int64_t offset;
    } cases[] = {
        {"monotonic           0         0\nboottime            0         0\n", 0},
        {"monotonic       86400         7\nboottime           12         0\n", 86400000000007},
        {"monotonic         -50 500000000\nboottime          -50         0\n", -49500000000},
        {"boottime        86400         0\n", 0},
        {"monotonic\n", 0},
        {"monotonic 5\n", 0},
        {"monotonic x y\n", 0},
        {"monotonic 99999999999999999999 0\n", 0},
        {"monotonic 9223372036854775807 0\n", 0},
        {"", 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        cr_expect_eq(parse_offsets(cases[i].text), cases[i].offset, "%s", cases[i].text);
}

Test(clock, takes_the_offset_out)
{
    static const int64_t offsets[] = {86400000000007, -49500000000};

    for (unsigned i = 0; i < 2; i++) {
        uint32_t word = 0;
        uint64_t began, end;

        inner_now();
        learned->offset = offsets[i];
        began = inner_now();
        end = clock_now();
        cr_assert_lt(end - (uint64_t)offsets[i] - began, SECOND);
        while (inner_wait(&word, 0, began + 20 * MS, false))
            ;
        end = inner_now();
        cr_assert(end >= began + 20 * MS && end < began + 10 * SECOND, "slept for %lld ns", (long long)(end - began));
        inner_wake(&word, false);
    }
}

/* A child may be in another namespace, so it looks for itself. */
Test(clock, is_learned_anew_in_a_child)
{
    pid_t pid;
    int status;

    inner_now();
    learned->offset = 4711 * (int64_t)SECOND;
    pid = fork();
    if (pid == 0) {
        uint64_t host = clock_now();

        _exit(inner_now() - host < SECOND ? 0 : 1);
    }
    cr_assert(waitpid(pid, &status, 0) == pid && status == 0);
    cr_assert_eq(learned->offset, 4711 * (int64_t)SECOND);
}

/* Whether this process's children come into a time namespace that is `seconds` away. */
static bool unshare_time(const char *seconds)
{
    char line[64];
    int length = snprintf(line, sizeof(line), "monotonic %s 500000000\n", seconds), fd;
    bool done;

    if (unshare(CLONE_NEWTIME) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWTIME) != 0)
        return false;
    fd = open("/proc/self/timens_offsets", O_WRONLY);
    done = fd >= 0 && write(fd, line, (size_t)length) == length;
    close(fd);
    return done;
}

/* ---- two words at once */

static uint32_t *shared_word(void)
{
    uint32_t *word = mmap(NULL, sizeof(*word), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    cr_assert_neq(word, MAP_FAILED);
    return word;
}

Test(clock, either_of_two_words_that_differs_ends_the_sleep)
{
    uint32_t word = 1, *shared = shared_word();

    cr_assert(clock_wait_two(&word, 0, shared, 0, CLOCK_NEVER));
    word = 0, *shared = 1;
    cr_assert(clock_wait_two(&word, 0, shared, 0, clock_now() + 10 * SECOND));
    cr_assert_not(clock_wait_two(&word, 0, shared, 1, clock_now()));
    uint64_t begun = clock_now();
    while (clock_wait_two(&word, 0, shared, 1, begun + 50 * MS))
        ;
    cr_assert_geq(clock_now(), begun + 50 * MS);
}

struct sleeper {
    uint32_t word, *shared;
    uint32_t awake;
};

static void *sleep_for_two(void *argument)
{
    struct sleeper *sleeper = argument;

    while (!__atomic_load_n(&sleeper->word, __ATOMIC_SEQ_CST) && !__atomic_load_n(sleeper->shared, __ATOMIC_SEQ_CST))
        clock_wait_two(&sleeper->word, 0, sleeper->shared, 0, CLOCK_NEVER);
    __atomic_store_n(&sleeper->awake, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

/* A wake that came to a word of the wrong kind would leave it asleep for ever, where the kernel can wait for two. */
Test(clock, a_wake_of_either_word_ends_the_sleep, .timeout = 60)
{
    for (int other = 0; other < 2; other++) {
        struct sleeper sleeper = {.shared = shared_word()};
        pthread_t thread;

        cr_assert_eq(pthread_create(&thread, NULL, sleep_for_two, &sleeper), 0);
        while (!__atomic_load_n(&sleeper.awake, __ATOMIC_SEQ_CST)) {
            __atomic_store_n(other ? sleeper.shared : &sleeper.word, 1, __ATOMIC_SEQ_CST);
            clock_wake(other ? sleeper.shared : &sleeper.word, other);
            usleep(1000);
        }
        pthread_join(thread, NULL);
    }
}

/* Who asks is another process, with a mapping of its own. */
Test(clock, a_wake_by_another_process_ends_the_sleep, .timeout = 60)
{
    uint32_t word = 0, *shared = shared_word();
    pid_t pid = fork();

    if (pid == 0) {
        __atomic_store_n(shared, 1, __ATOMIC_SEQ_CST);
        clock_wake(shared, true);
        _exit(0);
    }
    while (!__atomic_load_n(shared, __ATOMIC_SEQ_CST))
        clock_wait_two(&word, 0, shared, 0, CLOCK_NEVER);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
}

/* 0 where the clock and its sleep are the parent's, which read `host` a moment ago. */
static int judge(uint64_t host, bool forward)
{
    struct timespec here;
    uint64_t now = clock_now();
    uint32_t word = 0;

    clock_gettime(CLOCK_MONOTONIC, &here);
    if (forward ? (uint64_t)here.tv_sec * SECOND < host + 1000 * SECOND : (uint64_t)here.tv_sec * SECOND > host)
        return 1;
    if (now < host || now > host + 10 * SECOND)
        return 2;
    while (clock_wait(&word, 0, now + 20 * MS, false))
        ;
    now = clock_now() - now;
    if (now < 20 * MS || now > 10 * SECOND)
        return 3;
    now = clock_now();
    while (clock_wait_two(&word, 0, &word, 0, now + 20 * MS))
        ;
    now = clock_now() - now;
    return now < 20 * MS || now > 10 * SECOND ? 6 : 0;
}

/* The parent has read its clock before, so a child that believed what the parent knew would be wrong. */
static void check_namespace(const char *seconds, bool forward)
{
    uint64_t host = clock_now();
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        uint64_t inner;

        if (!unshare_time(seconds))
            _exit(77);
        inner = clock_now();
        if (inner < host || inner > host + 10 * SECOND)
            _exit(4); /* its own namespace is still the old one */
        pid = fork();
        if (pid == 0)
            _exit(judge(host, forward));
        _exit(waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 5);
    }
    cr_assert(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        cr_skip_test("no time namespace can be made here");
    cr_assert_eq(WEXITSTATUS(status), 0, "the child says %d", WEXITSTATUS(status));
}

Test(clock, is_the_hosts_in_a_later_namespace)
{
    check_namespace("86400", true);
}

Test(clock, is_the_hosts_in_an_earlier_namespace)
{
    struct timespec up;

    clock_gettime(CLOCK_MONOTONIC, &up);
    if (up.tv_sec < 100)
        cr_skip_test("the machine has just started");
    check_namespace("-50", false);
}
