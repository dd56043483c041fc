/* SPDX-License-Identifier: Apache-2.0 */
/* Ticks while there is work. */
#include "pacer.h"

#include <sys/prctl.h>

#include "../core/compat.h"
#include "../core/lock.h"
#include "gate.h"
#include "real.h"
#include "softslice/clock.h"
#include "turn.h"

#define LINGER       5 /* ticks without work, before it sleeps */
#define FINISH_TRIES 20
#define AGAIN_LEAST  UINT64_C(200000) /* ns */
#define FINISH_NAP   500000           /* ns */

/* What the program's next launch has to know: it waits for nothing of this. */
static void renew(struct membership *m, struct paces *paces, uint64_t now)
{
    uint32_t devices = __atomic_load_n(&paces->devices, __ATOMIC_RELAXED);

    for (int i = 0; i < QUOTA_DEVICES && devices >> i; i++) {
        struct share share;
        uint64_t *word, seen;

        if (!(devices >> i & 1) || !__atomic_load_n(&paces->pace[i].busy, __ATOMIC_RELAXED))
            continue;
        share = pace_share(m, i);
        word = ledger_busy_word(&m->quota.ledger, (unsigned)m->quota.device[i].index);
        seen = word ? __atomic_load_n(word, __ATOMIC_SEQ_CST) : 0;
        if (seen) /* not if it became idle just now */
            __atomic_compare_exchange_n(word, &seen, now, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
        share_period(&share, now);
        if (share_opens(&share, now))
            pace_new_epoch(paces);
    }
}

static void *run(void *argument)
{
    struct membership *m = argument;
    struct paces *paces = process_paces();
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    unsigned idle = 0;
    bool before = false;

    prctl(PR_SET_NAME, "softslice-pace");
    guard_enter();
    called.cuThreadExchangeStreamCaptureMode(&mode);
    while (thread_begins(&paces->pacer)) {
        uint32_t seen = __atomic_load_n(&paces->pacer.word, __ATOMIC_SEQ_CST);
        uint64_t now = clock_now();

        uint64_t done = pace_look(m, paces, now, false);
        idle = done == CLOCK_NEVER ? idle + 1 : 0;
        renew(m, paces, now);
        uint64_t turn = turn_tick(m, paces, now);
        /* Others wait for nothing of this process if it has no turn and no work; one that comes while it has long work is to be told soon, by a launch if not
         * by this thread. */
        bool alone =
            (turn_alone(paces) && (done == CLOCK_NEVER || done < now + PACE_LONG)) || (turn == CLOCK_NEVER && done == CLOCK_NEVER);
        uint64_t tick = now + (alone ? PACER_ALONE_NS : PACER_TICK_NS), looked = pace_alone(m, paces) ? turn_looked(paces) : 0;
        if (tick < looked)
            tick = looked;
        /* Once, not at each tick of a program that goes on launching. */
        uint64_t again = pace_again(paces);
        if (again < tick && !before)
            tick = again > now + AGAIN_LEAST ? again : now + AGAIN_LEAST;
        before = again != CLOCK_NEVER;
        bool sleeps = idle >= LINGER && turn == CLOCK_NEVER;
        if (sleeps) {
            /* Asleep before it looks once more: who has begun since then wakes it. */
            __atomic_store_n(&paces->asleep, 1, __ATOMIC_SEQ_CST);
            sleeps = pace_look(m, paces, now, false) == CLOCK_NEVER;
        }
        thread_ends(&paces->pacer);
        uint64_t until = sleeps ? CLOCK_NEVER : turn < tick ? turn : tick;
        __atomic_store_n(&paces->looks, until, __ATOMIC_RELAXED);
        clock_wait(&paces->pacer.word, seen, until, false);
        if (__atomic_exchange_n(&paces->asleep, 0, __ATOMIC_SEQ_CST))
            idle = 0;
    }
    return NULL;
}

/* Nobody keeps it for so long but a thread that was interrupted, perhaps this very one by the handler that called exit(). */
static bool comes_free(uint32_t *lock)
{
    for (unsigned i = 0; i < FINISH_TRIES; i++) {
        if (lock_try(lock)) {
            lock_give(lock);
            return true;
        }
        compat_sleep(FINISH_NAP);
    }
    return false;
}

/* Who comes next is not to wait until this process is seen to be gone, nor is what it did since the last look to be had for nothing. Asks the driver nothing:
 * what called exit() may have been in the middle of it. */
static void finish(void)
{
    struct paces *paces = __atomic_load_n(&gate_paces, __ATOMIC_ACQUIRE);
    bool worked = paces && __atomic_load_n(&paces->devices, __ATOMIC_RELAXED); /* not in a forked child */
    struct membership *m = worked ? process_membership(NULL) : NULL;
    uint64_t now = clock_now();

    if (!m || !comes_free(&paces->turn.lock))
        return;
    for (int i = 0; i < QUOTA_DEVICES; i++)
        if ((paces->devices >> i & 1) && comes_free(&paces->pace[i].lock))
            pace_end(m, paces, i, now);
    turn_end(paces, now);
}

void pacer_wake(struct membership *m, struct paces *paces)
{
    thread_at_exit(finish);
    thread_ensure(&paces->pacer, run, m);
    if (__atomic_load_n(&paces->asleep, __ATOMIC_SEQ_CST))
        thread_wake(&paces->pacer);
}

void pacer_look(struct paces *paces, uint64_t by)
{
    if (__atomic_load_n(&paces->looks, __ATOMIC_RELAXED) > by)
        thread_wake(&paces->pacer);
}
