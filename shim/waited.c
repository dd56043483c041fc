/* SPDX-License-Identifier: Apache-2.0 */
/* What the program's own waits tell of its work: when it was done, and that it was not. */
#include "charge.h"

#include "../core/lock.h"
#include "softslice/clock.h"

#define WRONG_NS UINT64_C(50000) /* beyond what was estimated, until an estimate was wrong */
#define PAUSE_NS                                                                                                                   \
    UINT64_C(500000)            /* that the GPU was idle by estimate, until a wait that waits shows that this was launched later */
#define WAKING UINT64_C(200000) /* ns: what takes longer is no waking up */
#define WOKEN  16 /* waits, after which a launch is marked, to see by how much later than the work the next wait ends */
#define WARY   64 /* launches: as many as there may be between two synchronisations of a small program */

int pace_guessed(const struct paces *paces)
{
    uint32_t devices = __atomic_load_n(&paces->devices, __ATOMIC_RELAXED);
    int device = PROCESS_NO_DEVICE;

    for (int i = 0; i < QUOTA_DEVICES && devices >> i; i++) {
        if (!(devices >> i & 1))
            continue;
        /* It may be another one's work. */
        if (__atomic_load_n(&paces->pace[i].busy, __ATOMIC_RELAXED))
            return PROCESS_NO_DEVICE;
        if (!__atomic_load_n(&paces->pace[i].guesses, __ATOMIC_RELAXED))
            continue;
        if (device != PROCESS_NO_DEVICE)
            return PROCESS_NO_DEVICE;
        device = i;
    }
    return device;
}

void pace_unfinished(struct membership *m, struct paces *paces, int device, uint64_t since, uint64_t now)
{
    struct pace *pace = device == PROCESS_NO_DEVICE ? NULL : &paces->pace[device];

    if (!pace || !__atomic_load_n(&pace->guesses, __ATOMIC_RELAXED))
        return;
    lock_take(&pace->lock);
    uint64_t from = pace->idled > since ? pace->idled : since, until = now;
    bool wrong = !pace->busy && pace->guesses && pace->idled && now > from + WRONG_NS && pace->mended < PACE_LATE_MOST;
    for (unsigned i = 0; wrong && i < pace->guesses; i++)
        paces->flow[pace->active[i]].wary = WARY;
    if (wrong) {
        until = now - from < PACE_LATE_MOST - pace->mended ? now : from + (PACE_LATE_MOST - pace->mended);
        pace->mended += until - from;
        pace->idled = until;
        pace->claiming++;
    }
    lock_give(&pace->lock);
    if (wrong)
        pace_charge_past(m, paces, device, from, until, now);
}

/* A wait for the flow, which alone had work, ended `now`: a while after the work, since the thread had to wake up. How long that takes is seen where a
 * mark tells when the work was done; rather too short than too long. Lock held. */
static void learn_waking(struct pace *pace, const struct flow *flow, uint64_t entered, uint64_t now)
{
    if (pace->actives != 1 || flow->marks || flow_unmarked(flow) || flow->done <= entered || now - flow->done > WAKING)
        return;
    uint64_t took = now - flow->done;

    pace->waking = took < pace->waking ? took + (pace->waking - took) / 2 : pace->waking + (took - pace->waking) / 8;
}

/* The flow's work without marks is over by a wait that ended `now`. It may have waited for more than that, so it took no less than was expected. Lock held. */
static void end_wait(struct pace *pace, struct flow *flow, uint64_t now)
{
    uint64_t since = flow->done > flow->begun ? flow->done : flow->begun, done = now - pace->waking;

    if (!flow_tail(flow))
        return;
    if (done < since + flow_tail(flow))
        done = since + flow_tail(flow) < now ? since + flow_tail(flow) : now;
    if (pace->done < done)
        pace->done = done;
    pace->over += flow_tail(flow);
    pace_forget_tail(pace, flow);
    if (++flow->woken % WOKEN == 0)
        pace_mark_next(flow);
}

/* A wait that began at `entered` waited until `now`, though by estimate all was done long before: launches passed after a pause that nobody saw, which is
 * not charged. What a wait or a mark had shown before it is: (*first, the return value]. Lock held. */
static uint64_t cut_pause(const struct paces *paces, struct pace *pace, uint64_t entered, uint64_t now, uint64_t *first)
{
    uint64_t tails = 0, seen = pace->done, start;

    for (unsigned i = 0; i < pace->actives; i++)
        tails += flow_tail(&paces->flow[pace->active[i]]);
    if (!entered || now <= entered + PACE_WAITS || pace->marks || !tails || entered < pace_due(paces, pace) + PAUSE_NS)
        return 0;
    start = now - pace->waking - tails;
    start = start < entered ? start : entered;
    if (start <= seen || start <= pace->from)
        return 0;
    *first = pace->from;
    pace->from = start;
    return seen;
}

void pace_synchronised(struct membership *m, struct paces *paces, struct flow *flow, CUcontext context, uint64_t entered)
{
    uint64_t now = clock_now();
    uint32_t devices = __atomic_load_n(&paces->devices, __ATOMIC_RELAXED);

    for (int i = 0; i < QUOTA_DEVICES && devices >> i; i++) {
        struct pace *pace = &paces->pace[i];

        if (!(devices >> i & 1) || (flow && flow->device != i) || !__atomic_load_n(&pace->busy, __ATOMIC_RELAXED))
            continue;
        if (__atomic_load_n(&pace->marks, __ATOMIC_RELAXED))
            mark_collect(m, paces, i);
        /* There was nothing to wait for: if all should have been done when the call came, it was. */
        if (entered && now <= entered + PACE_WAITS && pace_settle(m, paces, i, entered, true) == CLOCK_NEVER)
            continue;
        lock_take(&pace->lock);
        uint64_t first = 0, seen = cut_pause(paces, pace, entered, now, &first);
        for (unsigned k = 0; k < pace->actives; k++) {
            struct flow *f = &paces->flow[pace->active[k]];

            if ((flow && f != flow) || (!flow && paces->lane[f->lane].context != (uint64_t)(uintptr_t)context &&
                                        paces->lane[f->lane].home != (uint64_t)(uintptr_t)context))
                continue;
            learn_waking(pace, f, entered, now);
            end_wait(pace, f, now);
        }
        lock_give(&pace->lock);
        if (seen > first)
            pace_charge(m, paces, i, first, seen, 0, now);
        pace_settle(m, paces, i, clock_now(), true); /* a mark may have been seen since */
    }
}

void pace_returned(struct membership *m, struct paces *paces, struct flow *flow, uint32_t life, uint64_t since)
{
    int device = flow->device;
    struct pace *pace = &paces->pace[device];
    uint64_t now = clock_now();

    lock_take(&pace->lock);
    bool took = flow_life(flow) == life && flow_unmarked(flow) && since + flow_tail(flow) <= now;
    if (took) {
        if (pace->done < now)
            pace->done = now;
        pace->over += flow_tail(flow);
        pace_forget_tail(pace, flow);
    }
    lock_give(&pace->lock);
    if (took)
        pace_settle(m, paces, device, now, true);
}
