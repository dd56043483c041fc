/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the gap now and then. */
#include "watch.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>

#include "../core/compat.h"
#include "context.h"
#include "dlsym.h"
#include "gap.h"
#include "guard.h"
#include "libc_versions.h"
#include "notify.h"

#define STACK_BYTES (512 * 1024)
#define PERIOD_NS   1000000000L
#define SOON_NS     100000000L /* while a reading was only rough */
#define LINGER      3          /* periods without a context, before it ends */
#define STOP_NS     1000000
#define STOP_TIMES  500 /* how often it is looked for before the process exits all the same */

enum { NONE, RUNNING, IMPOSSIBLE };

static uint32_t over; /* exit() has come to us */

bool watch_over(void)
{
    return __atomic_load_n(&over, __ATOMIC_SEQ_CST);
}

static void wait(uint32_t *word, uint32_t seen, long ns)
{
    struct timespec time = {ns / 1000000000L, ns % 1000000000L};

    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, &time, NULL, 0);
}

static void wake(struct process_watch *watch)
{
    __atomic_fetch_add(&watch->word, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &watch->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* All devices that this process has a context on. Whether there is any, and whether a reading has to be done again soon. */
static bool read_all(struct membership *m, bool *again)
{
    bool any = false;

    *again = false;
    for (int i = 0; i < (int)m->quota.devices && !watch_over(); i++) {
        if (!context_on(i))
            continue;
        any = true;
        gap_read(m, i);
        guard_leave(); /* the program's functions are called here */
        notify_look(m, (unsigned)i);
        guard_enter();
        *again |= gap_is_rough(i);
    }
    return any;
}

static void *run(void *argument)
{
    struct process_watch *watch = process_watch();
    struct membership *m = argument;
    unsigned idle = 0;
    bool again = false;

    prctl(PR_SET_NAME, "softslice");
    guard_enter();
    for (;;) {
        wait(&watch->word, __atomic_load_n(&watch->word, __ATOMIC_SEQ_CST), again ? SOON_NS : PERIOD_NS);
        /* Busy before it looks whether to stop: who stops it looks the other way round. */
        __atomic_store_n(&watch->busy, 1, __ATOMIC_SEQ_CST);
        if (watch_over())
            break;
        idle = read_all(m, &again) ? 0 : idle + 1;
        __atomic_store_n(&watch->busy, 0, __ATOMIC_SEQ_CST);
        if (idle < LINGER)
            continue;
        /* Who charges a context enters it before it looks for the thread. */
        uint32_t none = NONE;
        __atomic_store_n(&watch->state, NONE, __ATOMIC_SEQ_CST);
        if (records_count(process_contexts()) == 0 ||
            !__atomic_compare_exchange_n(&watch->state, &none, RUNNING, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            return NULL;
        idle = 0;
    }
    __atomic_store_n(&watch->busy, 0, __ATOMIC_SEQ_CST);
    return NULL;
}

/* Registered after the driver's own handler, so it runs before that: from here on nothing of ours asks the driver or NVML. */
static void stop(void)
{
    struct process_watch *watch = process_watch();

    __atomic_store_n(&over, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&watch->state, __ATOMIC_SEQ_CST) != RUNNING)
        return;
    wake(watch);
    for (int i = 0; i < STOP_TIMES && __atomic_load_n(&watch->busy, __ATOMIC_SEQ_CST); i++)
        compat_sleep(STOP_NS);
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

static bool create(struct membership *m)
{
    __typeof__(&pthread_create) make = (__typeof__(&pthread_create))find("pthread_create");
    __typeof__(&pthread_attr_init) init = (__typeof__(&pthread_attr_init))find("pthread_attr_init");
    __typeof__(&pthread_attr_destroy) destroy = (__typeof__(&pthread_attr_destroy))find("pthread_attr_destroy");
    __typeof__(&pthread_attr_setstacksize) stack = (__typeof__(&pthread_attr_setstacksize))find("pthread_attr_setstacksize");
    __typeof__(&pthread_attr_setdetachstate) detach = (__typeof__(&pthread_attr_setdetachstate))find("pthread_attr_setdetachstate");
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    static uint32_t registered;
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
    bool made = make(&thread, &attributes, run, m) == 0;
    sigprocmask(SIG_SETMASK, &before, NULL);
    destroy(&attributes);
    if (made && !__atomic_exchange_n(&registered, 1, __ATOMIC_RELAXED))
        atexit(stop);
    return made;
}

void watch_start(void)
{
    struct membership *m = process_membership(NULL);
    struct process_watch *watch = process_watch();
    uint32_t none = NONE;
    int saved = errno;

    if (!m || watch_over() || __atomic_load_n(&watch->state, __ATOMIC_SEQ_CST) != NONE ||
        !__atomic_compare_exchange_n(&watch->state, &none, RUNNING, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        return;
    if (!create(m))
        __atomic_store_n(&watch->state, IMPOSSIBLE, __ATOMIC_SEQ_CST);
    errno = saved;
}

bool watch_poke(void)
{
    struct process_watch *watch = process_watch();
    int saved = errno;

    if (__atomic_load_n(&watch->state, __ATOMIC_SEQ_CST) != RUNNING)
        return false;
    wake(watch);
    errno = saved;
    return true;
}
