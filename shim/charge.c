/* SPDX-License-Identifier: Apache-2.0 */
/* From when to when the GPU had work of this process, and what is charged for it: by marks, and by estimates of what lies behind the last one. */
#include "charge.h"

#include "../core/lock.h"
#include "pacer.h"
#include "softslice/clock.h"
#include "turn.h"

#define LATE_NS UINT64_C(500000) /* beyond what was estimated, until the tenant's other processes are told */
#define AUDIT   16 /* guesses, after which some launches are marked in any case: they may never have been waited for */
#define AUDITED 8
#define HASTY   8 /* marks */

/* Lock held. */
static void restart(struct pace *pace, struct flow *flow)
{
    flow->budget = flow->wary ? 0 : pace_budget(pace);
    flow->newer = 0;
    flow->gone = 0;
    __atomic_store_n(&flow->left, flow->budget, __ATOMIC_RELAXED);
    __atomic_store_n(&flow->came_left, flow->budget, __ATOMIC_RELAXED);
}

void pace_mark_next(struct flow *flow)
{
    flow->budget = 0;
    __atomic_store_n(&flow->left, 0, __ATOMIC_RELAXED);
}

void pace_forget_tail(struct pace *pace, struct flow *flow)
{
    if (!flow_unmarked(flow))
        return;
    pace->marked += (uint64_t)flow_unmarked(flow);
    restart(pace, flow);
    estimate_clear(&flow->segment);
}

/* The process is idle if its estimate is right: the flow's next launch is marked, which shows it. Lock held. */
static bool believe_tail(struct pace *pace, struct flow *flow)
{
    bool tail = flow_tail(flow) > 0;

    flow->active = flow->stalled = false;
    pace_forget_tail(pace, flow);
    if (tail) {
        pace_mark_next(flow);
        /* Among several streams what marks tell of single launches is worth less than what is known. */
        if (pace->actives == 1 && ++flow->guessed % AUDIT == 0 && flow->wary < AUDITED)
            flow->wary = AUDITED;
    }
    return tail;
}

int pace_launched(struct membership *m, struct paces *paces, struct flow *flow, uint32_t life)
{
    int device = flow->device;
    struct pace *pace = &paces->pace[device];
    unsigned index = (unsigned)m->quota.device[device].index;
    uint64_t now = clock_now();
    bool began, claiming;

    lock_take(&pace->lock);
    /* A flow's life ends and begins under this lock, if it is still on this device. */
    if (flow_life(flow) != life) {
        lock_give(&pace->lock);
        return PROCESS_NO_DEVICE;
    }
    pace->launching++;
    began = !pace->busy;
    claiming = pace->claiming > 0;
    if (began) {
        pace->busy = true;
        pace->from = now;
        pace->position = pace->marked;
        pace->placed = now;
        pace->doubtful = pace->guesses > 1 ? pace->recorded + 1 : 0;
        pace->over = 0;
        __atomic_store_n(&pace->guesses, 0, __ATOMIC_RELAXED);
    }
    if (!flow->active && pace->actives < PACE_FLOWS + PACE_LANES) {
        flow->active = true;
        pace->active[pace->actives++] = (uint16_t)(flow - paces->flow);
    }
    if (!flow->marks && !flow_unmarked(flow))
        flow->begun = now;
    lock_give(&pace->lock);
    if (!began)
        return device;
    struct share share = pace_share(m, device);
    bool others = claiming || ledger_others_busy(&m->quota.ledger, index, now);

    pace_tell_busy(m, device, now);
    share_begin(&share, now, others);
    share_period(&share, now);
    pacer_wake(m, paces);
    if (turn_blind(paces, now))
        pacer_look(paces, now + PACER_BLIND_NS);
    return device;
}

void pace_expect(struct paces *paces, struct flow *flow, uint32_t life, int64_t ns)
{
    struct pace *pace = &paces->pace[flow->device];

    lock_take(&pace->lock);
    if (flow_life(flow) == life)
        flow->ahead = ns > 0 || (uint64_t)-ns < flow->ahead ? flow->ahead + (uint64_t)ns : 0;
    lock_give(&pace->lock);
}

void pace_counted(struct paces *paces, int device)
{
    struct pace *pace = &paces->pace[device];

    lock_take(&pace->lock);
    pace->launching--;
    lock_give(&pace->lock);
}

/* Of `unmarked`, the work without marks of `other`, what was launched after the last launch in `flow`, as far as that is known: by one thread, since it last
 * came to `other` after that. Of different threads' it is taken to be one launch. Lock held. */
static int64_t newer_part(const struct flow *other, int64_t unmarked, const struct flow *flow)
{
    uint32_t launches = __atomic_load_n(&other->segment.launches, __ATOMIC_RELAXED);
    const struct flow_thread *by = __atomic_load_n(&other->by, __ATOMIC_RELAXED);

    if (!by || by == FLOW_SHARED || by != __atomic_load_n(&flow->by, __ATOMIC_RELAXED))
        return launches ? unmarked / launches : 0;
    if (__atomic_load_n(&other->came, __ATOMIC_RELAXED) < __atomic_load_n(&flow->came, __ATOMIC_RELAXED))
        return 0;
    int64_t since = __atomic_load_n(&other->came_left, __ATOMIC_RELAXED) - __atomic_load_n(&other->left, __ATOMIC_RELAXED);
    return since < 0 ? 0 : since < unmarked ? since : unmarked;
}

void pace_marked(struct paces *paces, int device, struct flow *flow, struct mark *mark, bool late)
{
    struct pace *pace = &paces->pace[device];

    lock_take(&pace->lock);
    pace->marks++;
    if (flow->life == mark->life) {
        flow->marks++;
        flow->wary -= flow->wary != 0;
        flow->ahead += mark->segment.sum;
        flow->unknown = mark->segment.unknown ? mark->segment.unknown_key : 0;
        restart(pace, flow);
    } else {
        pace->strays++;
    }
    mark->number = ++pace->recorded;
    mark->late = late;
    pace->marked += mark->segment.sum;
    mark->position = pace->marked;
    for (unsigned i = 0; i < pace->actives; i++) {
        struct flow *other = &paces->flow[pace->active[i]];
        int64_t older = flow_unmarked(other);

        if (other->priority > flow->priority)
            continue; /* it may have to wait until this one is done */
        if (late)
            older -= newer_part(other, older, flow);
        mark->position += (uint64_t)older;
        if (older <= (other->newer ? other->older : other->gone))
            continue; /* an older mark tells as much */
        other->older = older;
        other->newer = mark->number;
    }
    lock_give(&pace->lock);
}

uint64_t pace_charge(struct membership *m, struct paces *paces, int device, uint64_t from, uint64_t until, uint64_t work,
                     uint64_t now)
{
    struct share share = pace_share(m, device);
    struct turn_claim claim = {.used = share_claim(&share, from, until, now), .from = from, .work = work};
    uint64_t theirs = turn_theirs(paces, device, &claim, now);
    /* All of it: how long a turn was held is what its peers see, and hold against what it says. */
    turn_used(paces, device, claim.used);
    if (theirs)
        share_return(&share, theirs);
    if (share_opens(&share, now))
        pace_new_epoch(paces);
    return theirs;
}

void pace_charge_past(struct membership *m, struct paces *paces, int device, uint64_t from, uint64_t until, uint64_t now)
{
    struct pace *pace = &paces->pace[device];

    pace_charge(m, paces, device, from, until, 0, now);
    lock_take(&pace->lock);
    /* After the last claim: who begins next may take what lies before for idle. */
    if (!--pace->claiming && !pace->busy)
        pace_tell_busy(m, device, 0);
    lock_give(&pace->lock);
}

/* What had the GPU before a mark of a flow was reached. */
struct span {
    uint64_t since;    /* the flow had work on it */
    uint64_t before;   /* the device's last mark before this one was reached, or the device became busy */
    uint64_t at;       /* this one was */
    uint64_t position; /* at `before` */
    bool overtaken;
};

/* Whether more urgent work that was launched after a mark may have been done before it was reached. Lock held. */
static bool overtaken(const struct paces *paces, const struct pace *pace, const struct flow *flow, const struct mark *mark)
{
    for (unsigned i = 0; i < pace->actives; i++) {
        const struct flow *other = &paces->flow[pace->active[i]];

        if (other->priority < flow->priority && (flow_tail(other) || other->marks || other->done > mark->recorded))
            return true;
    }
    return false;
}

/* How long the GPU took for what a mark tells of: its part, by estimate, of what was done since the device's last mark, in the order of the launches as far
 * as a GPU keeps that. Lock held. */
static uint64_t own_part(const struct pace *pace, const struct mark *mark, const struct span *span)
{
    uint64_t own = mark->segment.sum, all = mark->position > span->position ? mark->position - span->position : 0;
    /* Others had it before. */
    uint64_t from = all > own || span->overtaken || span->since < span->before ? span->before : span->since;

    if (from >= span->at || (mark->late && pace->actives > 1))
        return 0;
    if (span->overtaken && mark->segment.unknown)
        return span->at - from;
    if (span->overtaken) /* no longer than the flow had work: who knows how much of that was the others' */
        return span->at - span->since < own ? span->at - span->since : 0;
    if (!mark->segment.unknown) {
        double part = all ? (double)(span->at - from) * (double)own / (double)all : 0, most = (double)(span->at - span->since);

        return (uint64_t)(part < most ? part : most); /* longer than the flow had work it was not */
    }
    if (mark->segment.launches == 1)
        return span->at - from > all ? span->at - from - all : 0;
    return (span->at - from) / (pace->actives ? pace->actives : 1);
}

void pace_reached(struct membership *m, struct paces *paces, int device, struct mark *mark, uint64_t at)
{
    struct flow *flow = &paces->flow[mark->flow];
    struct pace *pace = &paces->pace[device];
    uint64_t began, first = 0, elapsed = 0, work = 0;
    bool gapless = false;

    lock_take(&pace->lock);
    bool doubtful = mark->number == pace->doubtful;
    pace->marks--;
    uint64_t before = pace->placed, seen = pace->done, proved = 0;
    if (pace->placed < at)
        pace->placed = at;
    if (pace->done < at)
        pace->done = at;
    began = pace->from;
    uint64_t position = pace->position;
    /* The GPU was idle for the rest of the time, but that what it did took so long is seen. */
    if (pace->doubts && mark->number >= pace->unsure) {
        uint64_t all = mark->position > position + pace->over ? mark->position - position - pace->over : 0;
        uint64_t start = at - (all < at ? all : at);

        pace->doubts = false;
        start = start < pace->doubted ? start : pace->doubted;
        if (start > before && start > began) {
            proved = seen < start ? seen : start; /* by a wait */
            first = began;
            began = pace->from = start;
        }
    }
    if (pace->position < mark->position) {
        pace->position = mark->position;
        pace->over = 0;
    }
    pace->stalled = false;
    for (unsigned i = 0; i < pace->actives; i++) {
        struct flow *other = &paces->flow[pace->active[i]];

        if (other->newer == mark->number) {
            other->gone = other->older;
            other->newer = 0;
        }
    }
    if (flow->life != mark->life) {
        pace->strays--;
    } else {
        uint64_t since = flow->done > flow->begun ? flow->done : flow->begun;

        gapless = mark->recorded <= since; /* all of it was there before the last mark was reached */
        elapsed = own_part(
            pace, mark, &(struct span){since, before > began ? before : began, at, position, overtaken(paces, pace, flow, mark)});
        if (pace->actives == 1 && !mark->segment.unknown)
            work = mark->segment.sum;
        if (elapsed && elapsed < mark->segment.sum / 2)
            flow->hasty = HASTY;
        else
            flow->hasty -= flow->hasty != 0;
        flow->done = at;
        flow->marks--;
        flow->stalled = false;
        flow->ahead -= mark->segment.sum < flow->ahead && flow->marks ? mark->segment.sum : flow->ahead;
    }
    lock_give(&pace->lock);
    uint64_t theirs = pace_charge(m, paces, device, began, at, work, clock_now());
    if (proved > first)
        pace_charge(m, paces, device, first, proved, 0, clock_now());
    /* How long it takes is known better from when it had the GPU alone. */
    if ((theirs || (doubtful && elapsed < 4 * mark->segment.sum)) && !mark->segment.unknown)
        elapsed = 0;
    if (elapsed > theirs && mark->segment.launches)
        estimate_learn(pace_estimates(paces), &mark->segment, elapsed - theirs, gapless);
}

/* Whether work takes longer than it should, which the tenant's other processes might end; see peers_look(). */
static void tell_peers(struct membership *m, struct pace *pace, int device, bool late, uint64_t now)
{
    struct share_account *account = ledger_account(&m->quota.ledger, (unsigned)m->quota.device[device].index);
    struct share_account *first = ledger_account(&m->quota.ledger, 0);
    bool told = __atomic_load_n(&pace->told, __ATOMIC_RELAXED);

    if (!account || !first || (!late && !told))
        return;
    __atomic_store_n(&account->awaited, late ? now : 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&pace->told, late, __ATOMIC_RELAXED);
    if (late && !told) {
        __atomic_fetch_add(&first->bell, 1, __ATOMIC_SEQ_CST);
        clock_wake(&first->bell, true);
    }
}

uint64_t pace_settle(struct membership *m, struct paces *paces, int device, uint64_t now, bool sure)
{
    struct pace *pace = &paces->pace[device];
    uint64_t from, until, tails = 0, launched, newer;
    bool idle;

    if (!__atomic_load_n(&pace->busy, __ATOMIC_RELAXED))
        return CLOCK_NEVER;
    lock_take(&pace->lock);
    from = pace->from;
    until = pace_due(paces, pace);
    idle = pace->busy && !pace->marks && !pace->launching && until <= now;
    launched = pace->marked;
    for (unsigned i = 0; i < pace->actives; i++) {
        launched += (uint64_t)flow_unmarked(&paces->flow[pace->active[i]]);
        tails += flow_tail(&paces->flow[pace->active[i]]);
    }
    newer = launched > pace->launched ? launched - pace->launched : 0;
    newer = newer < tails ? newer : tails;
    pace->launched = launched;
    if (newer && pace->newest < now + newer)
        pace->newest = now + newer;
    uint64_t again = idle && !sure && tails && pace->newest > now ? pace->newest : 0;
    __atomic_store_n(&pace->again, again, __ATOMIC_RELAXED);
    if (again)
        idle = false;
    if (idle) {
        pace->busy = false;
        pace->newest = 0;
        pace->doubts = false;
        pace->claiming++;
        pace->idled = until;
        pace->mended = 0;
        bool guess = false;
        for (unsigned i = 0; i < pace->actives; i++)
            guess |= believe_tail(pace, &paces->flow[pace->active[i]]);
        __atomic_store_n(&pace->guesses, guess ? pace->actives : 0, __ATOMIC_RELAXED);
        pace->actives = 0;
    }
    lock_give(&pace->lock);
    if (again)
        return again;
    tell_peers(m, pace, device, !idle && now >= until + LATE_NS && now - until < PACE_LATE_MOST, now);
    if (!idle)
        return until > now ? until : now + PACE_LOOK;
    pace_new_epoch(paces);
    pace_charge_past(m, paces, device, from, until, now);
    turn_idle(paces, now, sure);
    return CLOCK_NEVER;
}

void pace_end(struct membership *m, struct paces *paces, int device, uint64_t now)
{
    struct pace *pace = &paces->pace[device];

    lock_take(&pace->lock);
    uint64_t from = pace->from, until = pace_due(paces, pace);
    bool busy = pace->busy;
    until = pace->marks || pace->launching || until > now ? now : until;
    pace->busy = false;
    lock_give(&pace->lock);
    if (!busy)
        return;
    pace_charge(m, paces, device, from, until, 0, now);
    pace_tell_busy(m, device, 0);
}

uint64_t pace_look(struct membership *m, struct paces *paces, uint64_t now, bool sure)
{
    uint32_t devices = __atomic_load_n(&paces->devices, __ATOMIC_RELAXED);
    uint64_t next = CLOCK_NEVER;

    for (int i = 0; i < QUOTA_DEVICES && devices >> i; i++) {
        if (!(devices >> i & 1) || !__atomic_load_n(&paces->pace[i].busy, __ATOMIC_RELAXED))
            continue;
        mark_collect(m, paces, i);
        uint64_t at = pace_settle(m, paces, i, now, sure);
        if (at < next)
            next = at;
    }
    return next;
}

uint64_t pace_look_before(struct membership *m, struct paces *paces, struct flow *flow, const struct pace_request *request,
                          uint64_t now)
{
    struct pace *pace = &paces->pace[flow->device];
    uint64_t next = pace_look(m, paces, now, false);
    bool others = false, less_urgent = false;

    if (!__atomic_load_n(&pace->again, __ATOMIC_RELAXED))
        return next;
    lock_take(&pace->lock);
    bool unsure = pace->again && !pace->marks;
    for (unsigned i = 0; i < pace->actives; i++) {
        const struct flow *other = &paces->flow[pace->active[i]];

        if (other == flow || !flow_tail(other))
            continue;
        others = true;
        less_urgent |= other->priority > flow->priority;
    }
    if (unsure && !less_urgent) {
        pace->unsure = pace->recorded + 1;
        pace->doubted = now;
        pace->doubts = true;
    }
    lock_give(&pace->lock);
    if (unsure && less_urgent) /* no mark of this flow is behind it */
        return pace_look(m, paces, now, true);
    /* In a stream that has nothing to do a mark is behind nothing of the others'; the next launch's that has one is, as far as a GPU keeps the order. */
    if (!unsure || others || !mark_record(paces, flow, request->life, request->stream, request->per_thread, true))
        return next;
    return pace_look(m, paces, clock_now(), false);
}

bool pace_wants_mark(struct paces *paces, struct flow *flow, uint64_t expected)
{
    struct pace *pace = &paces->pace[flow->device];

    lock_take(&pace->lock);
    bool owed = pace->doubts && pace->recorded < pace->unsure;
    lock_give(&pace->lock);
    return owed || flow_wants_mark(flow, expected);
}

uint64_t pace_again(const struct paces *paces)
{
    uint32_t devices = __atomic_load_n(&paces->devices, __ATOMIC_RELAXED);
    uint64_t first = CLOCK_NEVER;

    for (int i = 0; i < QUOTA_DEVICES && devices >> i; i++) {
        uint64_t again = devices >> i & 1 ? __atomic_load_n(&paces->pace[i].again, __ATOMIC_RELAXED) : 0;

        if (again && again < first)
            first = again;
    }
    return first;
}
