/* SPDX-License-Identifier: Apache-2.0 */
/* What the ledger's test programs share: a state directory of their own, handles that do not survive a fork, and checks. */
#ifndef SOFTSLICE_TESTS_LEDGER_COMMON_H
#define SOFTSLICE_TESTS_LEDGER_COMMON_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "softslice/ledger.h"

static const uint8_t test_uuid[16] = {0x47, 0x50, 0x55, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13};
static char test_state[64];
static pid_t test_owner;

#define check(condition, ...)                                                                                                      \
    do {                                                                                                                           \
        if (!(condition)) {                                                                                                        \
            fprintf(stderr, "%s:%d: not so: %s: ", __FILE__, __LINE__, #condition);                                                \
            fprintf(stderr, __VA_ARGS__);                                                                                          \
            fputc('\n', stderr);                                                                                                   \
            exit(1);                                                                                                               \
        }                                                                                                                          \
    } while (0)

static void test_remove(int dir, const char *name)
{
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *entry;

    while (entries && (entry = readdir(entries))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            test_remove(fd, entry->d_name);
    }
    if (entries)
        closedir(entries);
    unlinkat(dir, name, entries ? AT_REMOVEDIR : 0);
}

static void test_cleanup(void)
{
    if (getpid() == test_owner)
        test_remove(AT_FDCWD, test_state);
}

/* A fresh state directory, removed at exit. The program ends with an error after `seconds`: a hang is a failure. */
static inline int test_begin(unsigned seconds)
{
    struct ledger *ledger = calloc(1, sizeof(*ledger));
    char path[PATH_MAX];
    int dir;

    alarm(seconds);
    strcpy(test_state, "/dev/shm/softslice-test-XXXXXX");
    check(mkdtemp(test_state), "%s", strerror(errno));
    test_owner = getpid();
    atexit(test_cleanup);
    dir = ledger_state_dir(ledger, test_state, path, sizeof(path));
    check(dir >= 0, "%s", ledger->error);
    free(ledger);
    return dir;
}

/* fork(), and the child ends with this process at the latest. */
static inline pid_t test_fork(void)
{
    pid_t parent = getpid(), pid = fork();

    check(pid >= 0, "%s", strerror(errno));
    if (pid == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent))
        _exit(1);
    return pid;
}

/* This process and what it starts go on on one processor: where two tasks take turns at each instruction or call, waking the other processor
 * up takes longer than the work. */
static inline void test_one_processor(void)
{
    cpu_set_t processors;

    CPU_ZERO(&processors);
    CPU_SET((size_t)sched_getcpu(), &processors);
    check(sched_setaffinity(0, sizeof(processors), &processors) == 0, "%s", strerror(errno));
}

static inline void *test_shared(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    check(memory != MAP_FAILED, "%s", strerror(errno));
    return memory;
}

/* As the library keeps its handle: a forked child finds zeros. */
static inline struct ledger *test_handle(void)
{
    size_t size = (sizeof(struct ledger) + 4095) & ~(size_t)4095;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    check(memory != MAP_FAILED && madvise(memory, size, MADV_WIPEONFORK) == 0, "%s", strerror(errno));
    return memory;
}

static inline int test_attach(struct ledger *ledger, int dir, const char *name, uint64_t limit)
{
    int device;

    check(ledger_attach(ledger, dir, name) == 0, "%s", ledger->error);
    device = ledger_add_device(ledger, test_uuid, limit);
    check(device >= 0, "%s", ledger->error);
    return device;
}

static inline void test_hold(struct ledger *ledger, int device, uint64_t bytes)
{
    check(ledger_reserve(ledger, (unsigned)device, bytes, LEDGER_NO_LIMIT) == 0, "%llu bytes", (unsigned long long)bytes);
    ledger_settle(ledger, (unsigned)device, bytes, bytes);
}

static inline uint64_t test_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static inline uint64_t test_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static inline unsigned long test_setting(const char *name, unsigned long fallback)
{
    const char *value = getenv(name);

    return value && *value ? strtoul(value, NULL, 10) : fallback;
}

/* Wait until the tenant has `count` live members: a task that was just killed may take a moment to be gone. */
static inline void test_await_members(struct ledger *ledger, unsigned count)
{
    uint64_t end = test_now() + UINT64_C(10000000000);
    unsigned members;

    while ((members = ledger_members(ledger)) != count && test_now() < end)
        usleep(100);
    check(members == count, "%u members instead of %u", members, count);
}

#endif
