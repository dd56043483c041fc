/* SPDX-License-Identifier: Apache-2.0 */
/* For programs in virtual time (build/sim/libvirtualtime.so): they also run without it, in real time. */
#ifndef TESTS_VIRTUAL_HELPER_H
#define TESTS_VIRTUAL_HELPER_H

#include "helper.h"
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>

T_UNUSED static uint64_t v_clock(clockid_t id)
{
    struct timespec t;

    t_equal(clock_gettime(id, &t), 0);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Around what waits for another thread or process in a way that is not virtual. */
T_UNUSED static void v_leave(void)
{
    void (*leave)(void) = (void (*)(void))dlsym(RTLD_DEFAULT, "virtual_leave");

    if (leave)
        leave();
}

T_UNUSED static void v_enter(void)
{
    void (*enter)(void) = (void (*)(void))dlsym(RTLD_DEFAULT, "virtual_enter");

    if (enter)
        enter();
}

/* Memory that children share. */
T_UNUSED static void *v_shared(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    t_check(p != MAP_FAILED, "mmap: %s", strerror(errno));
    return p;
}

/* A child; it takes part from its own first wait on. */
T_UNUSED static pid_t v_fork(void)
{
    pid_t child;

    fflush(NULL);
    child = fork();
    t_check(child >= 0, "fork: %s", strerror(errno));
    return child;
}

/* Waits for a child, of a parent that does not take part, and expects it to end by `sig`, or with status 0. */
T_UNUSED static void v_reap_only(pid_t child, int sig)
{
    int status;

    t_equal(waitpid(child, &status, 0), child);
    if (sig)
        t_check(WIFSIGNALED(status) && WTERMSIG(status) == sig, "a child ended with %x", (unsigned int)status);
    else
        t_check(WIFEXITED(status) && !WEXITSTATUS(status), "a child ended with %x", (unsigned int)status);
}

/* The same of one that does. */
T_UNUSED static void v_reap(pid_t child, int sig)
{
    v_leave();
    v_reap_only(child, sig);
    v_enter();
}

/* Real time passes. */
T_UNUSED static void v_sleep_really(int ms)
{
    poll(NULL, 0, ms);
}

/* CPU and real time are not virtual; this is real time, by the kernel's own count since boot. */
T_UNUSED static double v_real(void)
{
    double seconds = 0;
    FILE *f = fopen("/proc/uptime", "re");

    t_check(f && fscanf(f, "%lf", &seconds) == 1, "/proc/uptime cannot be read");
    fclose(f);
    return seconds;
}

#endif
