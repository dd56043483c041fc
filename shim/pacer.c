/* SPDX-License-Identifier: Apache-2.0 */
/* Ticks while there is work. */
#include "pacer.h"

#include <sys/prctl.h>

#include "guard.h"
#include "real.h"
#include "softslice/clock.h"
#include "turn.h"

#define LINGER 5 /* ticks without work, before it sleeps */

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
        if (!share.account)
            continue;
        word = ledger_busy_word(&m->quota.ledger, (unsigned)m->quota.device[i].index);
        seen = __atomic_load_n(word, __ATOMIC_SEQ_CST);
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

    prctl(PR_SET_NAME, "softslice-pace");
    guard_enter();
    called.cuThreadExchangeStreamCaptureMode(&mode);
    while (thread_begins(&paces->pacer)) {
        uint32_t seen = __atomic_load_n(&paces->pacer.word, __ATOMIC_SEQ_CST);
        uint64_t now = clock_now();

        idle = pace_look(m, paces, now) == CLOCK_NEVER ? idle + 1 : 0;
        renew(m, paces, now);
        uint64_t turn = turn_tick(m, paces, now);
        uint64_t tick = now + (turn_alone(paces) ? PACER_ALONE_NS : PACER_TICK_NS);
        bool sleeps = idle >= LINGER && turn == CLOCK_NEVER;
        if (sleeps) {
            /* Asleep before it looks once more: who has begun since then wakes it. */
            __atomic_store_n(&paces->asleep, 1, __ATOMIC_SEQ_CST);
            sleeps = pace_look(m, paces, now) == CLOCK_NEVER;
        }
        thread_ends(&paces->pacer);
        clock_wait(&paces->pacer.word, seen, sleeps ? CLOCK_NEVER : turn < tick ? turn : tick, false);
        if (__atomic_exchange_n(&paces->asleep, 0, __ATOMIC_SEQ_CST))
            idle = 0;
    }
    return NULL;
}

void pacer_wake(struct membership *m, struct paces *paces)
{
    thread_ensure(&paces->pacer, run, m);
    if (__atomic_load_n(&paces->asleep, __ATOMIC_SEQ_CST))
        thread_wake(&paces->pacer);
}
