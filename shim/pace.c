/* SPDX-License-Identifier: Apache-2.0 */
/* Who may launch when, and what is charged for it. */
#include "pace.h"

#include "../core/lock.h"
#include "arm.h"
#include "guard.h"
#include "pacer.h"
#include "relaxed.h"
#include "softslice/clock.h"
#include "softslice/compute.h"
#include "turn.h"

#define OVERDUE_NS UINT64_C(5000000)   /* beyond what was estimated, until work counts as waiting for other work */
#define LATE_NS    UINT64_C(500000)    /* the same, until the tenant's other processes are told */
#define LATE_MOST  UINT64_C(100000000) /* what is later has been given up: nothing that they launched ended it */
#define TOLD_NS                                                                                                                    \
    UINT64_C(16000000) /* how long that holds: it is said again at each look, and at the pacer's ticks, which come sooner */
#define LOOK_PEERS UINT64_C(500000) /* ns between two looks at that where no bell is heard */
#define LOOK_LEAST UINT64_C(50000)  /* ns between two looks of one who waits for a mark */
#define LOOK_MOST  UINT64_C(1000000)
#define LOOK_STRAY UINT64_C(200000)
#define LOOK_LATE  UINT64_C(16000000)
#define LOOK_LATER 64 /* what is late by more is looked at again after this part of that time */

size_t paces_size(void)
{
    return sizeof(struct paces) + estimate_size();
}

struct share pace_share(struct membership *m, int device)
{
    const struct config *config = arm_config();
    const struct quota_device *d = &m->quota.device[device];
    uint32_t rate = compute_share(&m->quota, (unsigned)device);
    uint64_t waited = __atomic_load_n(&process_paces()->turn.waited, __ATOMIC_RELAXED);

    /* Who waited for its turn, or while others had slices of it, was not idle: what it earned meanwhile is not lost to it. */
    if (waited > PACE_WAITED)
        waited = PACE_WAITED;
    return (struct share){.account = ledger_account(&m->quota.ledger, (unsigned)d->index),
                          .burst = PACE_BURST + waited * rate / SHARE_WHOLE,
                          .max_stall = config->max_stall_us * 1000,
                          .period = config->period_us * 1000,
                          .rate = rate,
                          .never_closes = config->mode == CONFIG_MODE_SHARE};
}

/* What was launched in a flow since its last mark, by estimate. Lock held. */
static uint64_t tail_of(const struct flow *flow)
{
    int64_t tail = flow->budget - __atomic_load_n(&flow->left, __ATOMIC_RELAXED);

    return tail > 0 ? (uint64_t)tail : 0;
}

/* Lock held. */
static void restart(struct pace *pace, struct flow *flow)
{
    flow->budget = pace_budget(pace);
    flow->closing = 0;
    __atomic_store_n(&flow->left, flow->budget, __ATOMIC_RELAXED);
}

/* All before it is done. Lock held. */
static void forget_tail(struct pace *pace, struct flow *flow)
{
    struct estimate_segment unused;

    if (!tail_of(flow))
        return;
    restart(pace, flow);
    estimate_close(&flow->segment, &unused);
}

/* The process is idle if its estimate is right: the flow's next launch is marked, which shows it. Lock held. */
static void believe_tail(struct pace *pace, struct flow *flow)
{
    bool tail = tail_of(flow) > 0;

    flow->active = flow->stalled = false;
    forget_tail(pace, flow);
    if (!tail)
        return;
    flow->budget = 0;
    __atomic_store_n(&flow->left, 0, __ATOMIC_RELAXED);
}

int pace_launched(struct membership *m, struct paces *paces, struct flow *flow, uint32_t life)
{
    int device = flow->device;
    struct pace *pace = &paces->pace[device];
    unsigned index = (unsigned)m->quota.device[device].index;
    uint64_t now = clock_now();
    bool began;

    lock_take(&pace->lock);
    /* A flow's life ends and begins under this lock, if it is still on this device. */
    if (flow_life(flow) != life) {
        lock_give(&pace->lock);
        return PROCESS_NO_DEVICE;
    }
    pace->launching++;
    began = !pace->busy;
    if (began) {
        pace->busy = true;
        pace->from = now;
    }
    if (!flow->active && pace->actives < PACE_FLOWS + PACE_LANES) {
        flow->active = true;
        pace->active[pace->actives++] = (uint16_t)(flow - paces->flow);
    }
    if (!flow->marks && !tail_of(flow))
        flow->begun = now;
    lock_give(&pace->lock);
    if (!began)
        return device;
    struct share share = pace_share(m, device);
    if (share.account) {
        bool others = ledger_others_busy(&m->quota.ledger, index, now);

        __atomic_store_n(ledger_busy_word(&m->quota.ledger, index), now, __ATOMIC_SEQ_CST);
        share_begin(&share, now, others);
        share_period(&share, now);
    }
    pacer_wake(m, paces);
    return device;
}

void pace_counted(struct paces *paces, int device)
{
    struct pace *pace = &paces->pace[device];

    lock_take(&pace->lock);
    pace->launching--;
    lock_give(&pace->lock);
}

void pace_marked(struct paces *paces, int device, struct flow *flow, struct mark *mark, bool closing)
{
    struct pace *pace = &paces->pace[device];

    lock_take(&pace->lock);
    pace->marks++;
    if (flow->life == mark->life) {
        flow->marks++;
        flow->ahead += mark->segment.sum;
        flow->unknown = mark->segment.unknown ? mark->segment.unknown_key : 0;
        restart(pace, flow);
    } else {
        pace->strays++;
    }
    mark->closing = closing ? ++pace->closings : 0;
    for (unsigned i = 0; closing && i < pace->actives; i++) {
        struct flow *other = &paces->flow[pace->active[i]];

        /* Its last launch may well have come after this flow's, as with streams that are used in turn. */
        uint32_t launches = __atomic_load_n(&other->segment.launches, __ATOMIC_RELAXED);

        other->closed = (int64_t)(tail_of(other) - (launches ? tail_of(other) / launches : 0));
        other->closing = other->closed ? mark->closing : 0;
    }
    lock_give(&pace->lock);
}

/* The GPU had work in (from, until], `work` of it by estimate, 0 where that is not known. Returns the ns of it that were other tenants'. */
static uint64_t charge(struct membership *m, struct paces *paces, int device, uint64_t from, uint64_t until, uint64_t work,
                       uint64_t now)
{
    struct share share = pace_share(m, device);

    if (!share.account)
        return 0;
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

void pace_reached(struct membership *m, struct paces *paces, int device, struct mark *mark, uint64_t at)
{
    struct flow *flow = &paces->flow[mark->flow];
    struct pace *pace = &paces->pace[device];
    uint64_t began, elapsed = 0, work = 0;
    bool gapless = false;

    lock_take(&pace->lock);
    pace->marks--;
    uint64_t before = pace->done;
    if (pace->done < at)
        pace->done = at;
    began = pace->from;
    pace->stalled = false;
    if (flow->life != mark->life) {
        pace->strays--;
    } else {
        uint64_t since = flow->done > flow->begun ? flow->done : flow->begun;

        gapless = mark->recorded <= since; /* all of it was there before the last mark was reached */
        /* The GPU was busy with the other flows too; how much of the time each had, nobody tells. A single launch began, if others' marks were reached
         * meanwhile, about at the last of them: of many flows most may be done. */
        if (mark->segment.launches == 1 && since < before && before < at)
            elapsed = at - before;
        else if (since < at)
            elapsed = (at - since) / (pace->actives ? pace->actives : 1);
        if (pace->actives == 1 && !mark->segment.unknown)
            work = mark->segment.sum;
        flow->done = at;
        flow->marks--;
        flow->stalled = false;
        flow->ahead -= mark->segment.sum < flow->ahead && flow->marks ? mark->segment.sum : flow->ahead;
    }
    for (unsigned i = 0; mark->closing && i < pace->actives; i++) {
        struct flow *other = &paces->flow[pace->active[i]];

        if (other->closing == mark->closing) {
            __atomic_add_fetch(&other->left, other->closed, __ATOMIC_RELAXED);
            other->closing = 0;
        }
    }
    lock_give(&pace->lock);
    uint64_t theirs = charge(m, paces, device, began, at, work, clock_now());
    /* How long it takes is known better from when it had the GPU alone. */
    if (theirs && !mark->segment.unknown)
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

/* Whether the device's work is done by now, as far as marks and estimates tell; then the process is idle on it. Else when it may be. */
static uint64_t settle(struct membership *m, struct paces *paces, int device, uint64_t now)
{
    struct pace *pace = &paces->pace[device];
    uint64_t from, until;
    bool idle = false;

    if (!__atomic_load_n(&pace->busy, __ATOMIC_RELAXED))
        return CLOCK_NEVER;
    lock_take(&pace->lock);
    from = pace->from;
    until = pace->done > from ? pace->done : from;
    if (pace->busy) {
        for (unsigned i = 0; i < pace->actives; i++)
            until += tail_of(&paces->flow[pace->active[i]]) + paces->flow[pace->active[i]].ahead;
        idle = !pace->marks && !pace->launching && until <= now;
    }
    if (idle) {
        pace->busy = false;
        pace->idled = until;
        for (unsigned i = 0; i < pace->actives; i++)
            believe_tail(pace, &paces->flow[pace->active[i]]);
        pace->actives = 0;
    }
    lock_give(&pace->lock);
    tell_peers(m, pace, device, !idle && now >= until + LATE_NS && now - until < LATE_MOST, now);
    if (!idle)
        return until > now ? until : now + LOOK_LEAST;
    pace_new_epoch(paces);
    charge(m, paces, device, from, until, 0, now);
    /* After the last claim: who begins next may take what lies before for idle. */
    __atomic_store_n(ledger_busy_word(&m->quota.ledger, (unsigned)m->quota.device[device].index), 0, __ATOMIC_SEQ_CST);
    turn_idle(paces, now);
    return CLOCK_NEVER;
}

uint64_t pace_look(struct membership *m, struct paces *paces, uint64_t now)
{
    uint32_t devices = __atomic_load_n(&paces->devices, __ATOMIC_RELAXED);
    uint64_t next = CLOCK_NEVER;

    for (int i = 0; i < QUOTA_DEVICES && devices >> i; i++) {
        if (!(devices >> i & 1) || !__atomic_load_n(&paces->pace[i].busy, __ATOMIC_RELAXED))
            continue;
        mark_collect(m, paces, i);
        uint64_t at = settle(m, paces, i, now);
        if (at < next)
            next = at;
    }
    return next;
}

static uint32_t own_devices(const struct membership *m)
{
    uint32_t own = 0;

    for (unsigned i = 0; i < m->quota.devices; i++)
        if (m->quota.device[i].index >= 0)
            own |= UINT32_C(1) << m->quota.device[i].index;
    return own;
}

/* When the balance of all the tenant's devices opens; 0: it is open. Also of those that this process does not see: a collective may run on them. */
static uint64_t balance_opens(struct membership *m, uint64_t now)
{
    uint32_t own = own_devices(m);
    uint64_t opens = 0;

    for (unsigned i = 0; i < m->quota.devices; i++) {
        struct share share = pace_share(m, (int)i);
        uint64_t at = share.account ? share_opens(&share, now) : 0;

        if (at > opens)
            opens = at;
    }
    for (unsigned i = 0; i < m->quota.ledger.devices; i++) {
        struct share share = {.account = own >> i & 1 ? NULL : ledger_account(&m->quota.ledger, i),
                              .max_stall = arm_config()->max_stall_us * 1000,
                              .rate = ledger_share(&m->quota.ledger, i),
                              .never_closes = arm_config()->mode == CONFIG_MODE_SHARE};
        uint64_t at = share.account && share_read(&share.account->edge) ? share_opens(&share, now) : 0;

        if (at > opens)
            opens = at;
    }
    return opens;
}

/* When to look again whether the flow has room for more; 0: it has. Beside what a single flow may have on its way, a flow with work waits while what is in
 * flight on the device is more than the balance has for it: what is launched on credit has to be repaid by a stall. So does one without, if that is more than
 * the longest stall repays. */
static uint64_t flow_opens(struct membership *m, struct paces *paces, struct flow *flow, const struct pace_request *request,
                           uint64_t now)
{
    struct pace *pace = &paces->pace[flow->device];
    struct share share = pace_share(m, flow->device);
    uint64_t credit = share.account ? share_credit(&share, now) : UINT64_MAX, flight = 0, at;

    /* Another process may be spending it. */
    if (credit && credit != UINT64_MAX && ledger_others_busy(&m->quota.ledger, (unsigned)m->quota.device[flow->device].index, now))
        credit = 0;
    bool room = mark_room(&paces->lane[flow->lane]);

    lock_take(&pace->lock);
    for (unsigned i = 0; i < pace->actives; i++)
        if (!paces->flow[pace->active[i]].stalled) /* what is not on the GPU is not in flight */
            flight += tail_of(&paces->flow[pace->active[i]]) + paces->flow[pace->active[i]].ahead;
    /* What nobody knows may be long too; but many functions that are new are not the same one again. */
    bool is_long = flow->marks && (flow->ahead / flow->marks >= PACE_LONG || flow->unknown == request->key);
    /* Only what will need a mark waits for room for it. */
    bool wants = flow_wants_mark(flow, request->expected), full = wants && flow->marks >= (is_long ? 1u : PACE_AHEAD);
    bool busy = flow->marks || tail_of(flow), repaid = flight <= share.max_stall * share.rate / SHARE_WHOLE;
    uint64_t since = flow->done > flow->begun ? flow->done : flow->begun;
    at = flow->marks ? since + flow->ahead / flow->marks : since + tail_of(flow);
    bool strays = !pace->stalled && ((wants && (!room || pace->strays >= PACE_AHEAD)) || pace->strays >= PACE_STRAYS);
    bool stalled = flow->stalled;
    lock_give(&pace->lock);
    if (stalled || (!full && ((!busy && repaid) || flight < credit || flight < PACE_MARK_NS)))
        return strays ? now + LOOK_STRAY : 0;
    /* What takes so much longer than expected is not looked at every 50 us until it ends. */
    if (at < now + LOOK_LEAST)
        at = now + LOOK_LEAST + (at + LOOK_LATE < now ? (now - at) / LOOK_LATER : 0);
    return at < now + LOOK_MOST ? at : now + LOOK_MOST;
}

/* All this time nothing was reached, perhaps since it waits for the program itself. It is not to wait for that again at each launch. */
static void stall(struct paces *paces, struct flow *flow)
{
    struct pace *pace = &paces->pace[flow->device];

    lock_take(&pace->lock);
    flow->stalled = true;
    pace->stalled = true;
    lock_give(&pace->lock);
}

/* The program launches in this stream now, and we let it wait: nothing that it was to launch can come between its last launch and this mark. */
static void close_flow(struct paces *paces, struct flow *flow, const struct pace_request *request)
{
    struct pace *pace = &paces->pace[flow->device];

    lock_take(&pace->lock);
    bool open = tail_of(flow) > 0;
    lock_give(&pace->lock);
    if (open)
        mark_record(paces, flow, request->life, request->stream, request->per_thread, true);
}

/* This device is idle, and work on another one takes longer than it should: a collective spins there until its part here is launched. The spinning costs
 * balance, so the stall would only get longer. */
static bool awaited(struct paces *paces, int device, uint64_t now)
{
    uint32_t devices = __atomic_load_n(&paces->devices, __ATOMIC_RELAXED);
    bool overdue = false;

    if (__atomic_load_n(&paces->pace[device].busy, __ATOMIC_RELAXED))
        return false;
    for (int i = 0; devices >> i && !overdue; i++) {
        struct pace *pace = &paces->pace[i];

        if (!(devices >> i & 1) || !__atomic_load_n(&pace->busy, __ATOMIC_RELAXED))
            continue;
        lock_take(&pace->lock);
        uint64_t due = pace->done > pace->from ? pace->done : pace->from;
        for (unsigned k = 0; k < pace->actives; k++)
            due += tail_of(&paces->flow[pace->active[k]]) + paces->flow[pace->active[k]].ahead;
        overdue = pace->busy && now >= due + OVERDUE_NS;
        lock_give(&pace->lock);
    }
    return overdue;
}

/* The same between processes. */
struct peers {
    bool some, wait;      /* another process has work on another device; it waits, perhaps for a launch here */
    const uint32_t *bell; /* changes when one does */
    uint32_t heard;
};

static struct peers peers_look(struct membership *m, struct paces *paces, int device, uint64_t now)
{
    const struct share_account *first = ledger_account(&m->quota.ledger, 0);
    unsigned own = (unsigned)m->quota.device[device].index;
    struct peers peers = {.bell = first ? &first->bell : NULL};

    if (!first || __atomic_load_n(&paces->pace[device].busy, __ATOMIC_RELAXED))
        return peers;
    peers.heard = __atomic_load_n(&first->bell, __ATOMIC_SEQ_CST);
    /* Also those that this process does not see. */
    for (unsigned i = 0; i < m->quota.ledger.devices && !peers.wait; i++) {
        const struct share_account *account = i == own ? NULL : ledger_account(&m->quota.ledger, i);

        if (!account || !share_read(&account->edge) || !ledger_others_busy(&m->quota.ledger, i, now))
            continue;
        peers.some = true;
        peers.wait = now - __atomic_load_n(&account->awaited, __ATOMIC_SEQ_CST) < TOLD_NS;
    }
    return peers;
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The first launch since the device was idle: what it waits for here is not the program's doing. */
static void note_gap(struct pace *pace, uint64_t now)
{
    lock_take(&pace->lock);
    if (pace->idled && !pace->busy) {
        pace->gap = now > pace->idled ? now - pace->idled : 0;
        pace->idled = 0;
    }
    lock_give(&pace->lock);
}

void pace_admit(struct membership *m, struct paces *paces, struct flow *flow, const struct pace_request *request)
{
    uint64_t now = clock_now(), longest = arm_config()->max_stall_us * 1000;
    uint64_t ends = now + longest; /* whatever it waits for */
    struct turn_wait turn;

    note_gap(&paces->pace[flow->device], now);
    for (;;) {
        uint32_t seen = __atomic_load_n(&paces->word, __ATOMIC_SEQ_CST);
        uint32_t epoch = __atomic_load_n(&paces->epoch, __ATOMIC_SEQ_CST);
        uint64_t look, at, woke;

        if (thread_over())
            return;
        look = pace_look(m, paces, now);
        if ((at = flow_opens(m, paces, flow, request, now))) {
            if (now < ends) {
                close_flow(paces, flow, request);
                clock_wait(&paces->word, seen, sooner(at, ends), false);
                now = clock_now();
                continue;
            }
            stall(paces, flow);
        }
        if ((at = balance_opens(m, now)) && now < ends) {
            struct peers peers = peers_look(m, paces, flow->device, now);
            if (peers.wait)
                return; /* this launch only: the epoch stays as it is */
            if (awaited(paces, flow->device, now))
                return;
            close_flow(paces, flow, request);
            turn_not_wanted(paces, now);
            clock_wait(peers.some ? peers.bell : &paces->word, peers.some ? peers.heard : seen,
                       sooner(sooner(at, ends), sooner(look, now + arm_config()->period_us * 1000)), peers.some);
            woke = clock_now();
            struct share share = pace_share(m, flow->device);
            share_throttled(&share, now, woke);
            now = woke;
            continue;
        }
        if (turn_ask(m, paces, flow->device, now, &turn)) {
            /* An epoch that has passed meanwhile makes the next launch ask again. */
            __atomic_store_n(&flow->epoch, epoch ? epoch : 1, __ATOMIC_RELEASE);
            return;
        }
        struct peers peers = peers_look(m, paces, flow->device, now);
        if (peers.wait)
            return;
        if (peers.some)
            look = sooner(look, now + LOOK_PEERS);
        close_flow(paces, flow, request);
        clock_wait(turn.word ? turn.word : &paces->word, turn.word ? turn.seen : seen, sooner(turn.until, look), turn.word != NULL);
        now = clock_now();
    }
}

void pace_synchronised(struct membership *m, struct paces *paces, struct flow *flow, CUcontext context)
{
    uint64_t now = clock_now();
    uint32_t devices = __atomic_load_n(&paces->devices, __ATOMIC_RELAXED);

    for (int i = 0; i < QUOTA_DEVICES && devices >> i; i++) {
        struct pace *pace = &paces->pace[i];

        if (!(devices >> i & 1) || (flow && flow->device != i) || !__atomic_load_n(&pace->busy, __ATOMIC_RELAXED))
            continue;
        if (__atomic_load_n(&pace->marks, __ATOMIC_RELAXED))
            mark_collect(m, paces, i);
        lock_take(&pace->lock);
        for (unsigned k = 0; k < pace->actives; k++) {
            struct flow *f = &paces->flow[pace->active[k]];

            if ((flow && f != flow) || (!flow && paces->lane[f->lane].context != (uint64_t)(uintptr_t)context &&
                                        paces->lane[f->lane].home != (uint64_t)(uintptr_t)context))
                continue;
            if (tail_of(f) && pace->done < now)
                pace->done = now;
            forget_tail(pace, f);
        }
        lock_give(&pace->lock);
        settle(m, paces, i, now);
    }
}
