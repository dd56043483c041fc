/* SPDX-License-Identifier: Apache-2.0 */
/* However a process makes another - fork, _Fork, vfork, posix_spawn, exec - the parent's charge stays, the child owns nothing of it, and a child
 * that uses CUDA afresh is charged on its own. */
// unemulated: rests on MADV_WIPEONFORK and MADV_DONTFORK, which the emulator does not pass to the kernel
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=fork SOFTSIM_CONTEXT_BYTES=100M
#include <spawn.h>
#include <sys/syscall.h>

#include "../cuda_helper.h"

extern char **environ;

static const uint64_t block = 100 * T_MIB;

/* In the parent: a child's charge is gone a moment after the child. */
static void holds(uint64_t bytes)
{
    uint64_t limit = t_bytes("SOFTSLICE_VRAM", 0);

    for (uint64_t end = t_now_ms() + 5000; t_now_ms() < end && t_free() != limit - bytes;)
        usleep(1000);
    t_equal(t_free(), limit - bytes);
    t_equal(t_used(0), bytes);
}

/* The child of a process that has CUDA cannot use it; it must be told so, not crash, hang or free what is its parent's. */
static void child_of_user(CUdeviceptr parents)
{
    CUdeviceptr p = T_UNTOUCHED;
    size_t free_bytes, total;
    CUcontext context;

    alarm(20);
    t_check(cuMemAlloc(&p, block) != CUDA_SUCCESS && p == T_UNTOUCHED, "a forked child allocated with its parent's context");
    t_check(cuMemFree(parents) != CUDA_SUCCESS, "a forked child freed its parent's block");
    t_check(cuMemGetInfo(&free_bytes, &total) != CUDA_SUCCESS, "a forked child was told about memory");
    t_check(cuInit(0) != CUDA_SUCCESS, "a forked child started CUDA again");
    t_check(cuCtxCreate(&context, NULL, 0, 0) != CUDA_SUCCESS, "a forked child made a context");
    t_check(cuDevicePrimaryCtxRelease(0) != CUDA_SUCCESS, "a forked child released its parent's context");
    _exit(0);
}

int main(int argc, char **argv)
{
    uint64_t cost = t_bytes("SOFTSIM_CONTEXT_BYTES", 0);
    char *arguments[] = {argv[0], (char *)"fresh", NULL};
    pid_t child;

    if (argc > 1) { /* a process of its own, however it was made */
        t_context(0);
        uint64_t before = t_free();
        t_check(t_alloc(block), "a fresh process was refused");
        t_equal(t_free(), before - block);
        t_equal(t_free(), t_total() - t_used(0));
        return 0;
    }
    /* Before the parent uses CUDA a child may, and is charged for itself. */
    for (int round = 0; round < 2; round++) {
        if ((child = t_fork()) == 0) {
            alarm(20);
            t_context(0);
            t_check(t_alloc(block), "a forked child was refused");
            t_equal(t_used(0), cost + block);
            t_equal(t_free(), t_total() - cost - block);
            _exit(0);
        }
        t_join(child);
    }

    t_context(0);
    CUdeviceptr p = t_alloc(block);
    t_check(p, "refused");
    holds(cost + block);

    if ((child = t_fork()) == 0)
        child_of_user(p);
    t_join(child);
    holds(cost + block);

    /* No handler runs at this one. */
    fflush(stdout);
    child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0)
        child_of_user(p);
    t_join(child);
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 34)
    if ((child = _Fork()) == 0)
        child_of_user(p);
    t_join(child);
#endif
    holds(cost + block);

    /* Runs in the parent's memory until it ends. */
    if ((child = vfork()) == 0)
        _exit(0);
    t_join(child);
    holds(cost + block);
    if ((child = vfork()) == 0) {
        execv("/proc/self/exe", arguments);
        _exit(1);
    }
    t_join(child);
    holds(cost + block);
    t_check(posix_spawn(&child, "/proc/self/exe", NULL, NULL, arguments, environ) == 0, "posix_spawn");
    t_join(child);
    holds(cost + block);
    t_check(system("exec /proc/$PPID/exe fresh") == 0, "system");
    holds(cost + block);

    /* Children that live on keep nothing of the parent's alive. */
    pid_t sleeper = t_fork();
    if (sleeper == 0) {
        pause();
        _exit(0);
    }
    t_cuda(cuMemFree(p));
    holds(cost);
    if ((child = t_fork()) == 0) {
        arguments[1] = (char *)"fresh";
        execv("/proc/self/exe", arguments);
        _exit(1);
    }
    t_join(child);
    kill(sleeper, SIGKILL);
    waitpid(sleeper, NULL, 0);
    holds(cost);

    /* A process that replaces itself by exec gives everything back. */
    t_check(t_alloc(block), "refused");
    execv("/proc/self/exe", arguments);
    t_fail("exec");
}
