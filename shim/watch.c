/* SPDX-License-Identifier: Apache-2.0 */
/* Looks about once a second: at the gap, and whether somebody asks. */
#include "watch.h"

#include <sys/prctl.h>

#include "context.h"
#include "explain.h"
#include "gap.h"
#include "guard.h"
#include "notify.h"
#include "softslice/clock.h"

#define PERIOD_NS UINT64_C(1000000000)
#define SOON_NS   UINT64_C(100000000) /* while a reading was only rough */
#define LINGER    3                   /* periods without a context, before it ends */

/* All devices that this process has a context on. Whether there is any, and whether a reading has to be done again soon. */
static bool read_all(struct membership *m, bool *again)
{
    bool any = false;

    *again = false;
    for (int i = 0; i < (int)m->quota.devices && !thread_over(); i++) {
        if (!context_on(i))
            continue;
        any = true;
        if (__atomic_load_n(&process_gap(i)->watched, __ATOMIC_RELAXED))
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
    struct thread *watch = process_watch();
    struct membership *m = argument;
    unsigned idle = 0;
    bool again = false;

    prctl(PR_SET_NAME, "softslice");
    guard_enter();
    for (;;) {
        clock_wait(&watch->word, __atomic_load_n(&watch->word, __ATOMIC_SEQ_CST), clock_now() + (again ? SOON_NS : PERIOD_NS),
                   false);
        if (!thread_begins(watch))
            return NULL;
        idle = read_all(m, &again) ? 0 : idle + 1;
        if (!thread_over())
            explain_answer(m);
        explain_tidy(m, idle >= LINGER);
        thread_ends(watch);
        if (idle < LINGER)
            continue;
        /* Who charges a context enters it before it looks for the thread. */
        thread_leaves(watch);
        if (records_count(process_contexts()) == 0 || !thread_stays(watch))
            return NULL;
        idle = 0;
    }
}

void watch_start(int device, bool known)
{
    struct membership *m = process_membership(NULL);

    if (!m)
        return;
    if (known)
        __atomic_store_n(&process_gap(device)->watched, 1, __ATOMIC_RELAXED);
    thread_ensure(process_watch(), run, m);
}

bool watch_poke(void)
{
    return thread_wake(process_watch());
}
