/* SPDX-License-Identifier: Apache-2.0 */
/* Looks at the gap now and then, and whether somebody asks. */
#include "watch.h"

#include <sys/prctl.h>

#include "context.h"
#include "explain.h"
#include "gap.h"
#include "guard.h"
#include "hami.h"
#include "notify.h"
#include "softslice/clock.h"

#define PERIOD_NS UINT64_C(1000000000)
#define SOON_NS   UINT64_C(100000000) /* while a reading was only rough */
#define SELDOM_NS (64 * PERIOD_NS)    /* where no limit is in force, and nothing changes: only those who look at the figures care */
#define LEAST_NS  UINT64_C(10000000)  /* between two looks, however often somebody asks */
#define LINGER    3                   /* periods without a context, before it ends */

/* What was found on the devices that this process has a context on. */
struct found {
    bool any, again, limited; /* is there any; has a reading to be done again soon; is a limit in force */
    bool told;                /* there is a monitor of HAMi's that looks at the figures */
    uint64_t bytes;           /* that the ledger has for this process */
};

static struct found read_all(struct membership *m)
{
    struct found found = {0};

    for (int i = 0; i < (int)m->quota.devices && !thread_over(); i++) {
        if (!context_on(i))
            continue;
        found.any = true;
        if (__atomic_load_n(&process_gap(i)->watched, __ATOMIC_RELAXED))
            gap_read(m, i);
        guard_leave(); /* the program's functions are called here */
        notify_look(m, (unsigned)i);
        guard_enter();
        found.again |= gap_is_rough(i);
        found.limited |= quota_limit(&m->quota, (unsigned)i) < m->quota.device[i].id.physical;
        found.bytes += ledger_own(&m->quota.ledger, (unsigned)m->quota.device[i].index);
    }
    return found;
}

/* How long to sleep after `found`, when it was `last` that was slept. */
static uint64_t pause_after(const struct membership *m, const struct found *before, const struct found *found, uint64_t last)
{
    if (found->again)
        return SOON_NS;
    if (!found->any || found->limited || found->told || found->bytes != before->bytes || ledger_has_answer(&m->quota.ledger))
        return PERIOD_NS;
    return last < PERIOD_NS ? PERIOD_NS : last < SELDOM_NS ? 2 * last : SELDOM_NS;
}

static void *run(void *argument)
{
    struct thread *watch = process_watch();
    struct membership *m = argument;
    uint32_t word = __atomic_load_n(&watch->word, __ATOMIC_SEQ_CST), asked = ledger_asked(&m->quota.ledger);
    struct found found = {0}, before;
    uint64_t pause = PERIOD_NS, looked = clock_now();
    unsigned idle = 0;

    prctl(PR_SET_NAME, "softslice");
    guard_enter();
    for (;;) {
        ledger_wait_asked(&m->quota.ledger, asked, &watch->word, word, looked + pause);
        while (!thread_over() &&
               clock_wait(&watch->word, __atomic_load_n(&watch->word, __ATOMIC_SEQ_CST), looked + LEAST_NS, false))
            ;
        looked = clock_now();
        word = __atomic_load_n(&watch->word, __ATOMIC_SEQ_CST);
        asked = ledger_asked(&m->quota.ledger);
        if (!thread_begins(watch))
            return NULL;
        before = found;
        found = read_all(m);
        idle = found.any ? 0 : idle + 1;
        if (!thread_over())
            explain_answer(m);
        explain_tidy(m, idle >= LINGER);
        found.told = hami_tick(m);
        pause = pause_after(m, &before, &found, pause);
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
