/* SPDX-License-Identifier: Apache-2.0 */
/* Work with file descriptors that the rest of the program can neither see nor disturb. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "ledger_internal.h"
#include "ledger_sys.h"

#define STACK_SIZE (128 * 1024)

struct apart {
    int (*work)(void *argument);
    void *argument;
    int parent;
    int result;
    int done; /* stays 0 where memory turned out not to be shared (an emulator), or the task was killed */
};

static int apart_main(void *opaque)
{
    struct apart *apart = opaque;

    /* A task that outlives its program would keep the memory, and with it the slot. */
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if ((int)syscall(SYS_getppid) != apart->parent)
        return 0;
    /* The copy of the file table may be full. What is closed in it stays open in the program's. */
    int probe = sys_openat(AT_FDCWD, "/", O_PATH, 0);
    if (probe == -EMFILE) {
        for (int fd = 0; fd < 3; fd++)
            sys_close(fd);
    } else if (probe >= 0) {
        sys_close(probe);
    }
    apart->result = apart->work(apart->argument);
    __atomic_store_n(&apart->done, 1, __ATOMIC_SEQ_CST);
    return 0;
}

/* After unshare(CLONE_NEWPID) the next child is the new namespace's first process and takes it down when it ends: not ours to be. */
static bool children_stay_in_namespace(void)
{
    char own[64], theirs[64];
    ssize_t own_length = sys_readlinkat(AT_FDCWD, "/proc/self/ns/pid", own, sizeof(own));
    ssize_t their_length = sys_readlinkat(AT_FDCWD, "/proc/self/ns/pid_for_children", theirs, sizeof(theirs));

    return own_length < 0 || (own_length == their_length && memcmp(own, theirs, (size_t)own_length) == 0);
}

int ledger_apart(int (*work)(void *argument), void *argument)
{
    struct apart apart = {.work = work, .argument = argument, .parent = (int)syscall(SYS_getpid)};
    uint64_t all = ~UINT64_C(0), before = 0;
    int saved = errno, pid = -1;
    char *stack = MAP_FAILED;

    if (children_stay_in_namespace())
        stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (stack != MAP_FAILED) {
        /* Directly: libc's function leaves out the two signals that it keeps to itself, and a handler must not run in the task. */
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof(all));
        /* No exit signal: the program's SIGCHLD handler and its wait() know nothing of this child. */
        pid = clone(apart_main, stack + STACK_SIZE, CLONE_VM | CLONE_VFORK, &apart);
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof(before));
        while (pid > 0 && syscall(SYS_wait4, pid, NULL, __WALL, NULL) < 0 && errno == EINTR)
            ;
        munmap(stack, STACK_SIZE);
    }
    if (!__atomic_load_n(&apart.done, __ATOMIC_SEQ_CST))
        apart.result = work(argument);
    errno = saved;
    return apart.result;
}
