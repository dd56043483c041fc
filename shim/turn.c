/* SPDX-License-Identifier: Apache-2.0 */
/* Asks for turns and lets them go. */
#include "turn.h"

#include <stdlib.h>
#include <string.h>

#include "../core/lock.h"
#include "arm.h"
#include "pacer.h"
#include "softslice/clock.h"
#include "softslice/compute.h"
#include "softslice/log.h"
#include "softslice/native.h"

#define RECENT_NS UINT64_C(100000000) /* a device that the tenant had work on since then is part of its turns */
#define SHORT_NS  UINT64_C(200000)    /* a pause that is too short for others to make use of */
#define AGAIN_NS  UINT64_C(100000)    /* another thread is asking */
#define WATCH_NS  UINT64_C(4000000)   /* how closely a turn is watched that others wait for */
#define DRAIN_NS  UINT64_C(2000000)   /* the same once it is to go: that it still drains is to be said as often */
#define ASKED_NS  UINT64_C(2000000)   /* a launch that asked since then saw all that there is to see */
#define LOOKED_NS UINT64_C(10000000)  /* after a launch looked for others it does so again, or there is none */
#define STUCK_NS  UINT64_C(2000000)   /* what does not drain for so long may wait for work of ours on another device */
#define BLIND_NS                                                                                                                   \
    UINT64_C(1000000) /* that the GPU was idle until it was seen: the program does not wait for its work, nor ask about it */
#define SILENT_NS UINT64_C(1000000)    /* after the last launch of such a program it is looked whether that is done */
#define KNOWN_NS  UINT64_C(200000000)  /* how long it counts as one */
#define TELL_NS   UINT64_C(50000000)   /* how often weights and counters are renewed */
#define UNUSED_NS UINT64_C(4000000)    /* a turn that is not used is let go, for who comes next */
#define AFRESH_NS UINT64_C(1000000000) /* after which a join that failed is tried again; doubled each time */

#define AFRESH_DOUBLED 6 /* times, at most */

enum { JOIN_NOT, JOIN_NOW, JOIN_FAILED, JOIN_DONE };

/* False: not now. What goes wrong is told and leaves turns off: shares hold without them, as well as they can. */
static bool join(struct membership *m, struct turn *turn, uint64_t now)
{
    struct turns_settings settings = {.quantum = arm_config()->quantum_us * 1000,
                                      .mode = arm_config()->mode == CONFIG_MODE_SHARE ? TURNS_SHARE : TURNS_CAP};
    uint8_t uuid[TURNS_DEVICES][16];
    static char path[PATH_MAX], found[PATH_MAX]; /* this may be a thread with a small stack */
    char *tenant, *slash;
    unsigned devices = m->quota.devices < TURNS_DEVICES ? m->quota.devices : TURNS_DEVICES;

    if (native_mps_serves(getenv(NATIVE_MPS_PIPES))) {
        log_info("MPS runs kernels of several processes at once: no turns are taken");
        return true;
    }
    for (unsigned i = 0; i < devices; i++) {
        memcpy(uuid[i], m->quota.device[i].id.uuid, 16);
        settings.weight[i] = turn->weight[i] = compute_weight(&m->quota, i);
        settings.share[i] = compute_share(&m->quota, i);
    }
    /* STATE/TENANT/ledger */
    log_format(path, sizeof(path), "%s", m->quota.ledger.path);
    for (int part = 0; part < 2; part++) {
        if (!(slash = strrchr(path, '/')))
            return true;
        *slash = '\0';
        tenant = slash + 1;
    }
    int directory = ledger_state_dir(&turn->errors, path, found, sizeof(found));
    if (directory < 0)
        return false;
    int result = turns_join(&turn->turns, directory, tenant, (const uint8_t(*)[16])uuid, devices, &settings, now);
    ledger_state_dir_close(directory, found);
    if (result < 0)
        log_line(turn->failed ? LOG_DEBUG : LOG_WARN, "no turns with other tenants: %s", turn->turns.error);
    else if (turn->failed)
        log_info("turns with other tenants from now on");
    return result == 0;
}

/* One thread joins, the others go on meanwhile without turns. */
static void join_from(struct membership *m, struct turn *turn, uint64_t now, uint32_t state)
{
    bool done;

    if (!__atomic_compare_exchange_n(&turn->joined, &state, JOIN_NOW, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return;
    done = join(m, turn, now);
    if (!done) {
        turn->afresh = now + (AFRESH_NS << turn->failed);
        turn->failed += turn->failed < AFRESH_DOUBLED;
    }
    __atomic_store_n(&turn->joined, done ? JOIN_DONE : JOIN_FAILED, __ATOMIC_RELEASE);
}

static bool joined(const struct turn *turn)
{
    return __atomic_load_n(&turn->joined, __ATOMIC_ACQUIRE) == JOIN_DONE && turn->turns.room;
}

/* All devices of the tenant that have work, so that its processes go on and stop together. */
static uint64_t devices_of(struct membership *m, const struct paces *paces, int device, uint64_t now)
{
    uint64_t devices = UINT64_C(1) << device;

    for (unsigned i = 0; i < m->quota.devices; i++) {
        const struct share_account *account = ledger_account(&m->quota.ledger, (unsigned)m->quota.device[i].index);

        if ((account && share_read(&account->edge) + RECENT_NS > now) || __atomic_load_n(&paces->pace[i].busy, __ATOMIC_RELAXED))
            devices |= UINT64_C(1) << i;
    }
    return devices;
}

static bool drained(const struct paces *paces)
{
    uint32_t devices = __atomic_load_n(&paces->devices, __ATOMIC_RELAXED);

    for (int i = 0; i < QUOTA_DEVICES && devices >> i; i++)
        if ((devices >> i & 1) && __atomic_load_n(&paces->pace[i].busy, __ATOMIC_RELAXED))
            return false;
    return true;
}

/* Up to `now`, what others had of the time while this process had work. Lock held. */
static void count_others(const struct paces *paces, struct turn *turn, uint64_t now)
{
    for (unsigned i = 0; i < TURNS_DEVICES; i++) {
        unsigned crowd = turn->crowd[i];

        if (crowd && now > turn->counted && __atomic_load_n(&paces->pace[i].busy, __ATOMIC_RELAXED))
            __atomic_add_fetch(&turn->theirs[i], (now - turn->counted) / (crowd + 1) * crowd, __ATOMIC_RELAXED);
        crowd = turn->held && turn->devices >> i & 1 ? turns_crowd(&turn->turns, i) : 0;
        __atomic_store_n(&turn->crowd[i], crowd, __ATOMIC_RELAXED);
    }
    if (now > turn->counted)
        turn->counted = now;
}

/* Lock held. */
static void release(struct paces *paces, struct turn *turn, uint64_t now)
{
    turn->held = turn->going = turn->lost = false;
    count_others(paces, turn, now);
    for (unsigned i = 0; i < TURNS_DEVICES; i++)
        if (turn->devices >> i & 1)
            turns_release(&turn->turns, UINT64_C(1) << i, now, __atomic_exchange_n(&turn->used[i], 0, __ATOMIC_RELAXED));
    turn->devices = 0;
}

/* What is demanded of the turn that is held. Lock held. */
static struct turns_demand demand_of(const struct paces *paces, struct turn *turn, uint64_t now)
{
    struct turns_demand demand = turns_demand(&turn->turns, turn->devices, now);

    count_others(paces, turn, now);
    turn->lost = demand.lost;
    turn->contended = demand.wanted;
    return demand;
}

/* The launches are to ask again; it goes when nothing is in flight. Lock held. */
static void go(struct paces *paces, struct turn *turn, uint64_t now)
{
    if (!turn->going) {
        pace_new_epoch(paces);
        turn->gone = now;
    }
    turn->going = true;
    if (drained(paces))
        release(paces, turn, now);
}

/* A collective that was launched on one device and not yet on this one spins there until it is: who waits for that to drain waits for ever. */
static bool stuck(const struct paces *paces, const struct turn *turn, int device, uint64_t now)
{
    return turn->going && now - turn->gone >= STUCK_NS && !__atomic_load_n(&paces->pace[device].busy, __ATOMIC_RELAXED) &&
           !drained(paces);
}

bool turn_ask(struct membership *m, struct paces *paces, int device, uint64_t now, struct turn_wait *wait)
{
    struct turn *turn = &paces->turn;
    bool mine;

    *wait = (struct turn_wait){.until = now + AGAIN_NS};
    if (__atomic_load_n(&turn->joined, __ATOMIC_RELAXED) == JOIN_NOT)
        join_from(m, turn, now, JOIN_NOT);
    if (!joined(turn))
        return true;
    if (!lock_try(&turn->lock))
        return false;
    /* What is in flight may wait for this very launch, or for the program. */
    if (turn->going && now - turn->gone >= arm_config()->max_stall_us * 1000)
        release(paces, turn, now);
    uint64_t devices = devices_of(m, paces, device, now);
    if (turn->held && !(devices & ~turn->devices)) {
        if (demand_of(paces, turn, now).must_go)
            go(paces, turn, now);
        mine = turn->held && !turn->going;
    } else if (turn->going) {
        mine = false;
        wait->until = now + DRAIN_NS; /* or when what is in flight should be done, which the caller knows */
    } else {
        /* Of some of its devices a tenant has the turn together or not at all. */
        if (turn->held)
            release(paces, turn, now);
        /* With what it was refused before: that is asked for until it is released. */
        devices |= turn->devices;
        struct turns_answer answer = turns_ask(&turn->turns, devices, now);

        mine = answer.mine;
        if (!mine && !turn->wanted)
            turn->wanted = now;
        if (mine && !turn->held) {
            __atomic_store_n(&turn->waited, turn->wanted ? now - turn->wanted : 0, __ATOMIC_RELAXED);
            turn->wanted = 0;
        }
        turn->held |= mine;
        turn->devices |= devices;
        count_others(paces, turn, now);
        turn->contended = !mine || answer.until != UINT64_MAX;
        if (!mine)
            *wait = (struct turn_wait){.until = answer.until, .word = answer.word, .seen = answer.seen};
    }
    mine |= stuck(paces, turn, device, now);
    turn->idle = 0;
    turn->asked = now;
    lock_give(&turn->lock);
    return mine;
}

void turn_used(struct paces *paces, int device, uint64_t used)
{
    if (device < TURNS_DEVICES)
        __atomic_add_fetch(&paces->turn.used[device], used, __ATOMIC_RELAXED);
}

uint64_t turn_theirs(struct paces *paces, int device, const struct turn_claim *claim, uint64_t now)
{
    struct turn *turn = &paces->turn;

    if (device >= TURNS_DEVICES)
        return 0;
    uint64_t before = __atomic_exchange_n(&turn->claimed[device], now, __ATOMIC_RELAXED);
    if (!__atomic_load_n(&turn->crowd[device], __ATOMIC_RELAXED) && !__atomic_load_n(&turn->theirs[device], __ATOMIC_RELAXED))
        return 0;
    lock_take(&turn->lock);
    count_others(paces, turn, now);
    uint64_t theirs = __atomic_exchange_n(&turn->theirs[device], 0, __ATOMIC_RELAXED);
    bool lost = turn->lost;
    lock_give(&turn->lock);
    /* Of that time a part was claimed: as much of others' slices fell into it. */
    uint64_t since = before > claim->from ? before : claim->from, passed = now > since ? now - since : 1;
    theirs = theirs < passed ? (uint64_t)((double)theirs / (double)passed * (double)claim->used) : claim->used;
    uint64_t beyond = claim->used > claim->work ? claim->used - claim->work : 0;
    if (theirs && claim->work && lost == (beyond < theirs))
        theirs = beyond;
    __atomic_add_fetch(&turn->waited, theirs, __ATOMIC_RELAXED);
    return theirs;
}

bool turn_blind(const struct paces *paces, uint64_t now)
{
    return now < __atomic_load_n(&paces->turn.blind, __ATOMIC_RELAXED);
}

void turn_idle(struct paces *paces, uint64_t now, bool told)
{
    struct turn *turn = &paces->turn;
    uint64_t gap = CLOCK_NEVER, idled = 0;

    if (!turn->held || !drained(paces))
        return;
    for (unsigned i = 0; i < QUOTA_DEVICES; i++) {
        if (!(turn->devices >> i & 1))
            continue;
        if (paces->pace[i].gap < gap)
            gap = paces->pace[i].gap;
        if (paces->pace[i].idled > idled)
            idled = paces->pace[i].idled;
    }
    lock_take(&turn->lock);
    bool blind = turn_blind(paces, now);
    if (turn->contended && idled && (blind ? !told : now > idled + BLIND_NS)) {
        if (blind || now < turn->unseen + RECENT_NS) /* not for once: the program's threads may have got no processor */
            __atomic_store_n(&turn->blind, now + KNOWN_NS, __ATOMIC_RELAXED);
        turn->unseen = now;
    }
    if (turn->held && (turn->going || (turn->contended && gap >= SHORT_NS)))
        release(paces, turn, now);
    else
        turn->idle = now;
    lock_give(&turn->lock);
}

void turn_end(struct paces *paces, uint64_t now)
{
    struct turn *turn = &paces->turn;

    if (!turn->devices)
        return;
    lock_take(&turn->lock);
    if (turn->devices)
        release(paces, turn, now);
    lock_give(&turn->lock);
}

void turn_not_wanted(struct paces *paces, uint64_t now)
{
    struct turn *turn = &paces->turn;

    if (!turn->devices)
        return;
    lock_take(&turn->lock);
    turn->wanted = 0;
    if (turn->devices)
        go(paces, turn, now);
    lock_give(&turn->lock);
}

static void renew_weights(struct membership *m, struct turn *turn)
{
    for (unsigned i = 0; i < m->quota.devices && i < TURNS_DEVICES; i++) {
        uint32_t weight = compute_weight(&m->quota, i);

        if (weight != turn->weight[i])
            turns_set_weight(&turn->turns, i, turn->weight[i] = weight, compute_share(&m->quota, i));
    }
}

/* For people: the tenant's, of all its processes. */
static void count(struct membership *m, struct turn *turn)
{
    for (unsigned i = 0; i < m->quota.devices && i < TURNS_DEVICES; i++) {
        struct share_account *account = ledger_account(&m->quota.ledger, (unsigned)m->quota.device[i].index);
        struct turns_counts counts;

        if (!account)
            continue;
        turns_counts(&turn->turns, i, &counts);
        __atomic_store_n(&account->turns_taken, counts.taken, __ATOMIC_RELAXED);
        __atomic_store_n(&account->turns_lost, counts.lost, __ATOMIC_RELAXED);
    }
}

static void tell(struct turn *turn)
{
    char line[256];
    bool damage;

    while (turns_report(&turn->turns, line, sizeof(line), &damage))
        log_line(damage ? LOG_WARN : LOG_INFO, "%s", line);
}

bool turn_alone(const struct paces *paces)
{
    return joined(&paces->turn) && turns_alone(&paces->turn.turns);
}

void turn_look(struct paces *paces, uint64_t now)
{
    if (!joined(&paces->turn))
        return;
    if (turns_look(&paces->turn.turns, now))
        __atomic_store_n(&paces->turn.looked, now, __ATOMIC_RELAXED);
    if (!turn_alone(paces))
        pacer_look(paces, now + PACER_SOON_NS);
}

uint64_t turn_looked(const struct paces *paces)
{
    return __atomic_load_n(&paces->turn.looked, __ATOMIC_RELAXED) + LOOKED_NS;
}

/* When the pacer is to look at a turn again. Launches that come one after another see by themselves that it is over. Lock held. */
static uint64_t next_look(const struct paces *paces, const struct turn *turn, const struct turns_demand *demand, uint64_t now)
{
    bool asked = turn->asked + ASKED_NS > now;
    uint64_t until = demand->until > now ? demand->until : now, next;

    if (turn_alone(paces) && now < turn_looked(paces))
        return now + PACER_ALONE_NS;
    if (turn->going)
        return now + DRAIN_NS;
    if (turn->idle && demand->wanted)
        return now + SHORT_NS;
    if (asked && turn->contended && turn_blind(paces, now))
        return turn->asked + SILENT_NS > now ? turn->asked + SILENT_NS : now + SHORT_NS;
    if (asked)
        next = now + PACER_TICK_NS;
    else if (demand->wanted)
        next = now + WATCH_NS;
    else
        next = now + (turn_alone(paces) ? PACER_ALONE_NS : UNUSED_NS);
    if (asked && until < CLOCK_NEVER)
        until += ASKED_NS;
    return until < next ? until : next;
}

uint64_t turn_tick(struct membership *m, struct paces *paces, uint64_t now)
{
    struct turn *turn = &paces->turn;
    uint64_t next = CLOCK_NEVER;

    if (__atomic_load_n(&turn->joined, __ATOMIC_ACQUIRE) == JOIN_FAILED && now >= turn->afresh)
        join_from(m, turn, now, JOIN_FAILED);
    if (!joined(turn))
        return CLOCK_NEVER;
    turns_look(&turn->turns, now);
    if (now - turn->told >= TELL_NS) {
        turn->told = now;
        renew_weights(m, turn);
        count(m, turn);
        tell(turn);
    }
    lock_take(&turn->lock);
    if (turn->held) {
        struct turns_demand demand = demand_of(paces, turn, now);

        if (demand.must_go)
            go(paces, turn, now);
        else if (drained(paces) && !turn->idle)
            turn->idle = now;
        else if (turn->idle && drained(paces) && now - turn->idle >= (demand.wanted ? SHORT_NS : UNUSED_NS))
            release(paces, turn, now);
        if (turn->held)
            next = next_look(paces, turn, &demand, now);
    }
    lock_give(&turn->lock);
    return next;
}
