/* SPDX-License-Identifier: Apache-2.0 */
/* What a program may do around the ledger without noticing it, or changing it: close every descriptor, put others over them, fork in
 * every way, also while another thread attaches. Settings: LEDGER_FORK_ROUNDS. */
// unemulated: rests on MADV_WIPEONFORK and MADV_DONTFORK, which the emulator does not pass to the kernel
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/syscall.h>

#include "common.h"

#define LIMIT UINT64_C(1000000)
#define HELD  UINT64_C(1000)

#if defined(__SANITIZE_THREAD__)
/* It would rather end the program than see a thread started by one that has forked with several. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}
#endif

static struct ledger *ledger, *watcher;
static int dir;
static unsigned device;
static int *child_pid;

/* ---- what happens in a member that holds HELD */

static void nothing(void)
{
}

static void close_all(void)
{
#ifdef SYS_close_range
    if (syscall(SYS_close_range, 3, ~0U, 0) == 0)
        return;
#endif
    for (int fd = 3; fd < 1024; fd++)
        close(fd);
}

static void cover_all(void)
{
    int null = open("/dev/null", O_RDWR);

    for (int fd = 3; fd < 256; fd++)
        dup2(null, fd);
}

static void linger(void)
{
    alarm(60);
    for (;;)
        pause();
}

/* A child that lives on for as long as the test wants, and must be in nobody's way. */
static void check_child(void)
{
    if (ledger->file) {
        *child_pid = -1;
        _exit(1);
    }
    *child_pid = getpid();
    linger();
}

static void do_fork(void)
{
    if (fork() == 0)
        check_child();
}

static void do_raw_fork(void)
{
    if (syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL) == 0)
        check_child();
}

#if __GLIBC_PREREQ(2, 34)
static void do_Fork(void)
{
    if (_Fork() == 0)
        check_child();
}
#endif

static void do_fork_twice(void)
{
    if (fork() == 0) {
        if (fork() == 0)
            check_child();
        _exit(0);
    }
}

static void do_close_and_fork(void)
{
    close_all();
    do_fork();
}

/* The child borrows the memory, so its parent stands still until it calls exec. */
static void do_vfork(void)
{
    char *const arguments[] = {(char *)"sleep", (char *)"60", NULL};
    pid_t pid = vfork();

    if (pid == 0) {
        execvp("sleep", arguments);
        _exit(127);
    }
    *child_pid = pid;
}

static void do_spawn(void)
{
    char *const arguments[] = {(char *)"sleep", (char *)"60", NULL};
    char *const environment[] = {NULL};
    pid_t pid = 0;

    posix_spawnp(&pid, "sleep", NULL, NULL, arguments, environment);
    *child_pid = pid;
}

static const struct happening {
    const char *name;
    void (*run)(void);
    bool child;
} happenings[] = {
    {"nothing", nothing, false},
    {"closefrom(3)", close_all, false},
    {"dup2 over everything", cover_all, false},
    {"fork", do_fork, true},
    {"clone", do_raw_fork, true},
#if __GLIBC_PREREQ(2, 34)
    {"_Fork", do_Fork, true},
#endif
    {"fork twice", do_fork_twice, true},
    {"closefrom(3), fork", do_close_and_fork, true},
    {"vfork", do_vfork, true},
    {"posix_spawn", do_spawn, true},
};

static void one_happening(const struct happening *happening)
{
    int *step = test_shared(sizeof(*step)), status;
    pid_t pid;

    *child_pid = 0;
    pid = test_fork();
    if (pid == 0) {
        unsigned mine = (unsigned)test_attach(ledger, dir, "forks", LIMIT);

        test_hold(ledger, (int)mine, HELD);
        happening->run();
        /* Still a member, and still able to take and give. */
        test_hold(ledger, (int)mine, HELD);
        ledger_refund(ledger, mine, HELD);
        *(volatile int *)step = 1;
        linger();
    }
    while (!*(volatile int *)step || (happening->child && !*(volatile int *)child_pid)) {
        check(waitpid(pid, &status, WNOHANG) == 0, "%s: the member ended with status %x", happening->name, status);
        usleep(100);
    }
    check(!happening->child || *child_pid > 0, "%s: the child believes to be a member", happening->name);
    test_await_members(watcher, 2);
    check(ledger_current(watcher, device) == HELD, "%s: %llu", happening->name,
          (unsigned long long)ledger_current(watcher, device));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    /* Its child lives on, if it made one. */
    check(ledger_members(watcher) == 1, "%s: the dead member lives on in its child", happening->name);
    check(ledger_reserve(watcher, device, LIMIT, LEDGER_NO_LIMIT) == 0, "%s: the budget is not free", happening->name);
    ledger_settle(watcher, device, LIMIT, 0);
    if (happening->child) {
        check(kill(*child_pid, 0) == 0, "%s: the child is gone", happening->name);
        kill(*child_pid, SIGKILL);
    }
    munmap(step, sizeof(*step));
    printf("%s: as it should be\n", happening->name);
}

/* ---- forks and closing of descriptors in one thread while another attaches */

static volatile bool storm_over;

static void *fork_storm(void *argument)
{
    pid_t children[32] = {0};

    (void)argument;
    for (unsigned i = 0; !storm_over; i = (i + 1) % 32) {
        if (children[i]) {
            kill(children[i], SIGKILL);
            waitpid(children[i], NULL, 0);
        }
        children[i] = test_fork();
        if (children[i] == 0)
            linger();
    }
    for (unsigned i = 0; i < 32; i++) {
        if (children[i] > 0) {
            kill(children[i], SIGKILL);
            waitpid(children[i], NULL, 0);
        }
    }
    return NULL;
}

/* Descriptors of this thread's own must stay what they are, and closing what is not its own must hurt nobody. */
static void *close_storm(void *argument)
{
    struct stat null, now;

    (void)argument;
    check(stat("/dev/null", &null) == 0, "%s", strerror(errno));
    while (!storm_over) {
        int fd[8];

        for (unsigned i = 0; i < 8; i++)
            fd[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        for (unsigned i = 0; i < 8; i++)
            check(fstat(fd[i], &now) == 0 && now.st_rdev == null.st_rdev, "descriptor %d is not /dev/null any more", fd[i]);
        for (int i = dir + 1; i < 40; i++)
            close(i);
    }
    return NULL;
}

/* A slot whose lock stayed in a child is never free again: the next one to join would get another. */
static void storm(const char *name, void *(*body)(void *), unsigned long rounds)
{
    pthread_t thread;
    uint32_t slot = 1;

    storm_over = false;
    check(pthread_create(&thread, NULL, body, NULL) == 0, "no thread");
    for (unsigned long i = 0; i < rounds; i++) {
        check(ledger_attach(ledger, dir, "forks") == 0, "%s", ledger->error);
        check(ledger->slot == slot, "%s: slot %u in round %lu: a lock was left in a child", name, ledger->slot, i);
        ledger_detach(ledger);
    }
    storm_over = true;
    pthread_join(thread, NULL);
    printf("%s in another thread: %lu times attached, nothing left behind\n", name, rounds);
}

/* Whether madvise() keeps memory from a child, as Linux does and an emulator may not. */
static bool forks_are_real(void)
{
    char *wiped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *absent = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int status;
    pid_t pid;

    *wiped = 1;
    if (madvise(wiped, 4096, MADV_WIPEONFORK) < 0 || madvise(absent, 4096, MADV_DONTFORK) < 0)
        return false;
    pid = test_fork();
    if (pid == 0)
        _exit(*wiped || msync(absent, 4096, MS_ASYNC) == 0);
    waitpid(pid, &status, 0);
    return status == 0;
}

int main(void)
{
    bool real = forks_are_real();
    unsigned long rounds = test_setting("LEDGER_FORK_ROUNDS", 1000);

    dir = test_begin(240);
    setvbuf(stdout, NULL, _IOLBF, 0);
    child_pid = test_shared(sizeof(*child_pid));
    ledger = test_handle();
    watcher = test_handle();
    device = (unsigned)test_attach(watcher, dir, "forks", LIMIT);
    for (unsigned i = 0; i < sizeof(happenings) / sizeof(*happenings); i++)
        if (real || !happenings[i].child)
            one_happening(&happenings[i]);
    if (real) {
        storm("forks", fork_storm, rounds);
        storm("closing of descriptors", close_storm, rounds);
    } else {
        printf("not tried: forks (children get a copy of all memory here: an emulator?)\n");
    }
    return 0;
}
