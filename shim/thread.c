/* SPDX-License-Identifier: Apache-2.0 */
/* Starts threads of our own, and stops them when the process exits. */
#include "thread.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>

#include "../core/compat.h"
#include "dlsym.h"
#include "libc_versions.h"
#include "softslice/clock.h"

#define STACK_BYTES (512 * 1024)
#define STOP_NS     1000000
#define STOP_TIMES  500 /* how often one is looked for before the process exits all the same */
#define THREADS     4   /* that there are at all */

enum { NONE, RUNNING, IMPOSSIBLE };

static uint32_t over; /* exit() has come to us */
static struct thread *known[THREADS];
static void (*last)(void);

bool thread_over(void)
{
    return __atomic_load_n(&over, __ATOMIC_SEQ_CST);
}

bool thread_wake(struct thread *thread)
{
    if (__atomic_load_n(&thread->state, __ATOMIC_SEQ_CST) != RUNNING)
        return false;
    __atomic_fetch_add(&thread->word, 1, __ATOMIC_SEQ_CST);
    clock_wake(&thread->word, false);
    return true;
}

bool thread_begins(struct thread *thread)
{
    /* Busy before it looks whether to stop: who stops it looks the other way round. */
    __atomic_store_n(&thread->busy, 1, __ATOMIC_SEQ_CST);
    if (!thread_over())
        return true;
    thread_ends(thread);
    return false;
}

void thread_ends(struct thread *thread)
{
    __atomic_store_n(&thread->busy, 0, __ATOMIC_SEQ_CST);
}

void thread_leaves(struct thread *thread)
{
    __atomic_store_n(&thread->state, NONE, __ATOMIC_SEQ_CST);
}

bool thread_stays(struct thread *thread)
{
    uint32_t none = NONE;

    return __atomic_compare_exchange_n(&thread->state, &none, RUNNING, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Registered after the driver's own handler, so it runs before that: from here on nothing of ours asks the driver or NVML. */
static void stop(void)
{
    bool hangs = false;

    __atomic_store_n(&over, 1, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < THREADS; i++) {
        struct thread *thread = __atomic_load_n(&known[i], __ATOMIC_SEQ_CST);

        if (!thread || !thread_wake(thread))
            continue;
        for (int n = 0; n < STOP_TIMES && __atomic_load_n(&thread->busy, __ATOMIC_SEQ_CST); n++)
            compat_sleep(STOP_NS);
        hangs |= __atomic_load_n(&thread->busy, __ATOMIC_SEQ_CST);
    }
    void (*finish)(void) = __atomic_load_n(&last, __ATOMIC_ACQUIRE);
    if (finish && !hangs)
        finish();
}

void thread_at_exit(void (*finish)(void))
{
    __atomic_store_n(&last, finish, __ATOMIC_RELEASE);
}

static void remember(struct thread *thread)
{
    static uint32_t registered;

    for (unsigned i = 0; i < THREADS; i++) {
        struct thread *none = NULL;

        if (__atomic_load_n(&known[i], __ATOMIC_SEQ_CST) == thread ||
            __atomic_compare_exchange_n(&known[i], &none, thread, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            break;
    }
    if (!__atomic_exchange_n(&registered, 1, __ATOMIC_RELAXED))
        atexit(stop);
}

/* The thread functions of the libc that is here, which is none of ours to link: in old ones they are in a library of their own, which the driver
 * has loaded. */
static void *find(const char *name)
{
    void *function = dlsym_real(RTLD_DEFAULT, name), *library;

    if (!function && (library = dlopen("libpthread.so.0", RTLD_LAZY | RTLD_NOLOAD)))
        function = dlsym_real(library, name);
    return function;
}

static bool start(void *(*run)(void *), void *argument)
{
    __typeof__(&pthread_create) make = (__typeof__(&pthread_create))find("pthread_create");
    __typeof__(&pthread_attr_init) init = (__typeof__(&pthread_attr_init))find("pthread_attr_init");
    __typeof__(&pthread_attr_destroy) destroy = (__typeof__(&pthread_attr_destroy))find("pthread_attr_destroy");
    __typeof__(&pthread_attr_setstacksize) stack = (__typeof__(&pthread_attr_setstacksize))find("pthread_attr_setstacksize");
    __typeof__(&pthread_attr_setdetachstate) detach = (__typeof__(&pthread_attr_setdetachstate))find("pthread_attr_setdetachstate");
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_t thread;

    if (!make || !init || !destroy || !stack || !detach || init(&attributes) != 0)
        return false;
    stack(&attributes, STACK_BYTES); /* where that is too small for what libraries keep in a stack, it is as large as others' */
    detach(&attributes, PTHREAD_CREATE_DETACHED);
    /* sigfillset() leaves out what libc itself sends to threads. What a thread's own instruction raises would, blocked, be the end of the process
     * instead of a call of the program's handler: filters for system calls and over-budget callbacks come here too. */
    sigfillset(&all);
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        sigdelset(&all, own[i]);
    sigprocmask(SIG_SETMASK, &all, &before);
    bool made = make(&thread, &attributes, run, argument) == 0;
    sigprocmask(SIG_SETMASK, &before, NULL);
    destroy(&attributes);
    return made;
}

void thread_ensure(struct thread *thread, void *(*run)(void *), void *argument)
{
    int saved = errno;

    if (__atomic_load_n(&thread->state, __ATOMIC_SEQ_CST) != NONE || thread_over() || !thread_stays(thread))
        return;
    if (start(run, argument))
        remember(thread);
    else
        __atomic_store_n(&thread->state, IMPOSSIBLE, __ATOMIC_SEQ_CST);
    errno = saved;
}
