/* SPDX-License-Identifier: Apache-2.0 */
/* Who may launch when. */
#include "pace.h"

#include "../core/lock.h"
#include "arm.h"
#include "softslice/clock.h"
#include "softslice/compute.h"
#include "turn.h"

#define OVERDUE_NS UINT64_C(5000000) /* beyond what was estimated, until work counts as waiting for other work */
#define TOLD_NS                                                                                                                    \
    UINT64_C(                                                                                                                      \
        16000000) /* how long it holds that work is late: it is said again at each look, and at the pacer's ticks, which come sooner */
#define LOOK_PEERS UINT64_C(500000) /* ns between two looks at that where no bell is heard */
#define LOOK_MOST  UINT64_C(1000000)
#define LOOK_STRAY UINT64_C(200000)
#define LOOK_LATE  UINT64_C(16000000)
#define LOOK_LATER 64 /* what is late by more is looked at again after this part of that time */
/* Where nobody else has to see soon what becomes of this process's work. PACE_BURST and what is owed are what a share may be exceeded by in a window. */
#define AHEAD_NS   (PACE_ALONE * PACE_MARK_NS)       /* of work that may be in flight */
#define DEBT_NS    (3 * PACE_MARK_NS)                /* of that, beyond what the balance has, when more is launched */
#define OWED_NS    (PACE_MARK_NS + PACE_MARK_NS / 4) /* of what is done, before a launch waits until nothing is owed */
#define MORE_NS    UINT64_C(2000000)                 /* how much later than it may a launch goes on, so that more can be launched */
#define LOOK_ALONE PACE_BURST                        /* what is earned between two looks is not lost */
#define LOOK_PART  2 /* a long kernel is looked at after this part of the time that it should take */

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

size_t paces_size(void)
{
    return sizeof(struct paces) + estimate_size();
}

struct share pace_share(struct membership *m, int device)
{
    const struct config *config = arm_config();
    const struct quota_device *d = &m->quota.device[device];
    uint32_t rate = compute_share(&m->quota, (unsigned)device);
    struct paces *paces = process_paces();
    struct share_account *account = ledger_account(&m->quota.ledger, (unsigned)d->index);
    uint64_t waited = __atomic_load_n(&paces->turn.waited, __ATOMIC_RELAXED);

    /* Who waited for its turn, or while others had slices of it, was not idle: what it earned meanwhile is not lost to it. */
    if (waited > PACE_WAITED)
        waited = PACE_WAITED;
    return (struct share){.account = account ? account : &paces->pace[device].own,
                          .burst = PACE_BURST + waited * rate / SHARE_WHOLE,
                          .max_stall = config->max_stall_us * 1000,
                          .period = config->period_us * 1000,
                          .rate = rate,
                          .never_closes = config->mode == CONFIG_MODE_SHARE};
}

void pace_tell_busy(struct membership *m, int device, uint64_t since)
{
    uint64_t *word = ledger_busy_word(&m->quota.ledger, (unsigned)m->quota.device[device].index);

    if (word)
        __atomic_store_n(word, since, __ATOMIC_SEQ_CST);
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
        uint64_t at = share_opens(&share, now);

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

bool pace_alone(struct membership *m, const struct paces *paces)
{
    uint32_t devices = __atomic_load_n(&paces->devices, __ATOMIC_RELAXED);

    return !(devices & (devices - 1)) && turn_alone(paces) && !ledger_has_others(&m->quota.ledger);
}

/* Marks of one of a device's flows that may be on their way. Lock held. */
static uint32_t marks_ahead(const struct pace *pace, bool deep)
{
    uint32_t flows = PACE_MARK_NS / PACE_LEAST, most;

    most = PACE_ALONE * flows / (pace->actives > flows ? pace->actives : flows);
    return deep && most > PACE_AHEAD ? most : PACE_AHEAD;
}

/* When to look again whether the flow has room for more; 0: it has. `done`: when what is in flight on the device should be. Beside what a single flow may
 * have on its way, a flow with work waits while what is in flight is more than the balance has for it: what is launched on credit has to be repaid by a stall.
 * So does one without, if that is more than the longest stall repays. A process that is alone takes some of that credit: then it sleeps seldom and long, for
 * each time takes some 20 us of a processor. */
static uint64_t flow_opens(struct membership *m, struct paces *paces, struct flow *flow, const struct pace_request *request,
                           bool alone, uint64_t now, uint64_t *done)
{
    struct pace *pace = &paces->pace[flow->device];
    struct share share = pace_share(m, flow->device);
    uint64_t credit = share_credit(&share, now), flight = 0, longest = LOOK_MOST, at;

    /* Another process may be spending it. */
    if (credit && credit != UINT64_MAX && ledger_others_busy(&m->quota.ledger, (unsigned)m->quota.device[flow->device].index, now))
        credit = 0;
    bool room = mark_room(&paces->lane[flow->lane]);
    uint64_t opens = share_opens(&share, now), owed = opens ? (opens - now) * share.rate / SHARE_WHOLE : 0;

    lock_take(&pace->lock);
    for (unsigned i = 0; i < pace->actives; i++)
        if (!paces->flow[pace->active[i]].stalled) /* what is not on the GPU is not in flight */
            flight += flow_tail(&paces->flow[pace->active[i]]) + paces->flow[pace->active[i]].ahead;
    /* What nobody knows may be long too; but many functions that are new are not the same one again. */
    bool is_long = flow->marks && (flow->ahead / flow->marks >= PACE_LONG || flow->unknown == request->key);
    /* Only what will need a mark waits for room for it. */
    bool wants = flow_wants_mark(flow, request->expected), deep = alone && flight < AHEAD_NS;
    uint64_t unasked = (uint64_t)pace->actives * PACE_LEAST; /* what each flow launches before it asks */
    bool affordable = flight + owed + (unasked > PACE_MARK_NS ? unasked - PACE_MARK_NS : 0) < credit + DEBT_NS;
    bool full = wants && flow->marks >= (is_long ? 1 : marks_ahead(pace, deep));
    bool busy = flow->marks || flow_tail(flow), repaid = flight <= share.max_stall * share.rate / SHARE_WHOLE;
    uint64_t since = flow->done > flow->begun ? flow->done : flow->begun;
    at = flow->marks ? since + flow->ahead / flow->marks : since + flow_tail(flow);
    *done = flow->hasty ? 0 : later(pace->done, pace->from) + flight;
    /* Until no more is left than others may have; and no longer than the GPU may idle where the estimate is too long. */
    if (alone && !flow->hasty) {
        at = later(at, *done - sooner(*done, PACE_AHEAD * PACE_MARK_NS));
        longest = is_long ? sooner(later(LOOK_MOST, flow->ahead / LOOK_PART), LOOK_ALONE) : AHEAD_NS - PACE_AHEAD * PACE_MARK_NS;
    }
    bool strays = !pace->stalled && ((wants && (!room || pace->strays >= PACE_AHEAD)) || pace->strays >= PACE_STRAYS);
    bool stalled = flow->stalled;
    lock_give(&pace->lock);
    if (stalled || (!full && ((!busy && repaid) || flight < credit || flight < PACE_MARK_NS || (deep && repaid && affordable))))
        return strays ? now + LOOK_STRAY : 0;
    /* What takes so much longer than expected is not looked at every 50 us until it ends. */
    if (at < now + PACE_LOOK)
        at = now + PACE_LOOK + (at + LOOK_LATE < now ? (now - at) / LOOK_LATER : 0);
    return sooner(at, now + longest);
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
    bool open = flow_tail(flow) > 0;
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
        overdue = pace->busy && now >= pace_due(paces, pace) + OVERDUE_NS;
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

/* When to go on instead of `at`: a little after the balance should be open again, with what is in flight `done` then, if that is later. */
static uint64_t paid_at(struct membership *m, int device, uint64_t at, uint64_t done, uint64_t now)
{
    struct share share = pace_share(m, device);
    uint64_t edge = share_read(&share.account->edge), from = done > edge ? edge : now;
    uint64_t paid = share_opens_after(&share, from, done > edge ? done - edge : 0, now);

    return paid > at ? sooner(paid + (paid < done ? 0 : MORE_NS), now + LOOK_ALONE) : at;
}

/* Whether little is owed, if the balance opens then. */
static bool owes_little(struct membership *m, int device, uint64_t opens, uint64_t now)
{
    struct share share = pace_share(m, device);
    uint64_t little = OWED_NS * SHARE_WHOLE / (share.rate ? share.rate : 1);

    return opens - now <= sooner(little, share.max_stall / 8);
}

static void throttled(struct membership *m, int device, uint64_t from, uint64_t until)
{
    struct share share = pace_share(m, device);

    share_throttled(&share, from, until);
}

/* Not 0, which memory is filled with. */
static uint32_t epoch_now(struct paces *paces)
{
    if (!__atomic_load_n(&paces->epoch, __ATOMIC_SEQ_CST))
        pace_new_epoch(paces);
    return __atomic_load_n(&paces->epoch, __ATOMIC_SEQ_CST);
}

void pace_admit(struct membership *m, struct paces *paces, struct flow *flow, const struct pace_request *request)
{
    uint64_t now = clock_now(), longest = arm_config()->max_stall_us * 1000;
    uint64_t ends = now + longest; /* whatever it waits for */
    struct turn_wait turn;
    bool waited = false;

    note_gap(&paces->pace[flow->device], now);
    for (bool first = true;; first = false) {
        uint32_t seen = __atomic_load_n(&paces->word, __ATOMIC_SEQ_CST);
        uint32_t epoch = epoch_now(paces);
        uint64_t look, at, woke, done;

        if (thread_over())
            return;
        look = first ? pace_look_before(m, paces, flow, request, now) : pace_look(m, paces, now, false);
        bool alone = pace_alone(m, paces);
        if ((at = flow_opens(m, paces, flow, request, alone, now, &done))) {
            if (now < ends) {
                uint64_t until = alone ? later(at, paid_at(m, flow->device, at, done, now)) : at;

                close_flow(paces, flow, request);
                if (alone)
                    turn_look(paces, now);
                clock_wait(&paces->word, seen, sooner(until, ends), false);
                now = clock_now();
                if (until > at) { /* with nothing on the GPU it waited for the balance */
                    waited = true;
                    throttled(m, flow->device, later(at, done), now);
                }
                continue;
            }
            stall(paces, flow);
        }
        at = balance_opens(m, now);
        if (at && now < ends && !(alone && !waited && done <= now && owes_little(m, flow->device, at, now))) {
            struct peers peers = peers_look(m, paces, flow->device, now);
            if (peers.wait)
                return; /* this launch only: the epoch stays as it is */
            if (awaited(paces, flow->device, now))
                return;
            close_flow(paces, flow, request);
            turn_not_wanted(paces, now);
            waited = true;
            clock_wait(peers.some ? peers.bell : &paces->word, peers.some ? peers.heard : seen,
                       sooner(sooner(at, ends), sooner(look, now + arm_config()->period_us * 1000)), peers.some);
            woke = clock_now();
            throttled(m, flow->device, now, woke);
            now = woke;
            continue;
        }
        if (turn_ask(m, paces, flow->device, now, &turn)) {
            /* An epoch that has passed meanwhile makes the next launch ask again. */
            __atomic_store_n(&flow->epoch, epoch, __ATOMIC_RELEASE);
            return;
        }
        struct peers peers = peers_look(m, paces, flow->device, now);
        /* It waits for others' turns however long those take, but for what its own process has in flight no longer than for its balance. */
        if (peers.wait || (!turn.word && now >= ends))
            return;
        if (peers.some)
            look = sooner(look, now + LOOK_PEERS);
        close_flow(paces, flow, request);
        clock_wait(turn.word ? turn.word : &paces->word, turn.word ? turn.seen : seen,
                   sooner(sooner(turn.until, look), turn.word ? CLOCK_NEVER : ends), turn.word != NULL);
        now = clock_now();
    }
}
