/* SPDX-License-Identifier: Apache-2.0 */
/* Turns between the tenants on a GPU.
 *
 * A tenant's entry for a device says whether it wants, how much it had (its rank: GPU time divided by weight) and since when it holds. Who
 * holds is whoever says so and is believed (turns_judge.c). Where nobody does, the lowest rank among those who want is next: it claims at once, the one
 * behind it a grace later, and so on, so that one who does not come delays the others by a grace, once. A claim is two steps, "claiming", a look at
 * all others, "held", so that of two at once at least one sees the other; the better rank stays.
 *
 * A turn lasts as long as nobody else wants. From then on it lasts a quantum; then the holder drains and releases, or begins a new turn where its
 * rank is still the best by more than half a quantum. A waiter that was clearly ahead from the beginning of the turn is let in as soon as the
 * holder had its minimum. Who does not let go within another quantum has lost the turn: the waiters, by their own clocks from when they began to wait, go on
 * without it, and it finds out by itself. One that says every few milliseconds that it is draining, a long kernel, is given TURNS_DRAIN quanta: to run
 * beside it would take both longer, and it pays for what it takes. What somebody holds while a waiter is ahead of it adds up, however often it says that it has
 * only just begun.
 *
 * A turn costs the GPU time that was used in it, at least three quarters of what it lasted while others wanted. Who comes back from idling begins
 * at the lowest rank of those who want, less a credit: it is let in soon, but idling saves up no more than that.
 *
 * A tenant that needs several GPUs has the turn on all of them or on none: turns_joint.c tells for which it presses when.
 *
 * The processes of a tenant share its entry. Each has a slot that says whether it wants or uses the turn; the last one to release lets it go. All steps
 * are single compare-and-swaps: a process killed between two of them leaves something that is over when its time is. */
#include "softslice/turns.h"

#include <errno.h>
#include <string.h>

#include "compat.h"
#include "lock.h"
#include "softslice/log.h"
#include "turns_internal.h"

#define SOON    UINT64_C(50000) /* ns: ask again when what is in the way will have passed by itself */
#define RELOOKS 64              /* at one that claims at the same moment and has to step back */

/* The clock of one process comes from several threads, a little out of order; one that jumps back makes all that was seen before worthless. */
static uint64_t settle_clock(struct turns_room *room, uint64_t now)
{
    if (room->now > now && room->now - now < UINT64_C(1000000000))
        return room->now;
    if (room->now > now) {
        for (unsigned i = 0; i < TURNS_PEERS; i++)
            memset(room->peer[i].track, 0, sizeof(room->peer[i].track));
        for (unsigned i = 0; i < room->devices; i++)
            room->mine[i].waits = room->mine[i].contended = room->mine[i].awaited = room->mine[i].free = room->mine[i].look = 0;
        room->last_scan = room->last_stat = room->ready = room->pressed = 0;
    }
    room->now = now;
    return now;
}

/* ---- the end of a turn */

/* Since when others want what this tenant holds; 0 they do not. Who was not seen at once says itself when it began, and a process that was away
 * has to take it that they did right then. */
static void note_contention(struct turns_mine *mine, const struct turns_survey *survey, uint64_t hold, uint64_t last_look,
                            uint64_t quantum, uint64_t now)
{
    if (!survey->wanted && !survey->held) {
        mine->contended = 0;
    } else if (!mine->contended) {
        uint64_t from = survey->wanted ? survey->since : now;

        if (last_look && turns_since(last_look, now) >= quantum)
            mine->contended = last_look;
        else
            mine->contended = turns_sooner(now, turns_later(from, turns_since(quantum, now)));
    }
    if (mine->contended && mine->contended < turns_moment_ns(hold))
        mine->contended = turns_later(turns_moment_ns(hold), 1);
    if (!survey->patient)
        mine->awaited = mine->contended;
    else if (!mine->awaited)
        mine->awaited = mine->contended ? mine->contended : now;
}

/* What a turn is charged that was claimed, or begun anew, at `hold`. What it lasted beyond its time others had, where they waited for no other device. */
static uint64_t cost(const struct turns_room *room, const struct turns_mine *mine, uint64_t hold, uint64_t now)
{
    int64_t used = turns_rank_minus(turns_load(&mine->entry->turn_used, TURNS_WORD_TURN_USED), 0);
    uint64_t lasted = turns_sooner(turns_age(hold, now), TURNS_COUNTED);
    uint64_t least = mine->awaited ? turns_since(turns_later(mine->awaited, turns_moment_ns(hold)), now) / 4 * 3 : 0;

    if (mine->awaited == mine->contended)
        least = turns_sooner(least, 2 * room->quantum);
    return turns_sooner(turns_later(used > 0 ? (uint64_t)used << 4 : 0, least), lasted);
}

/* The turn is over its time and others have gone on without this tenant. */
static void lose(const struct turns_room *room, struct turns_mine *mine, uint64_t hold, uint64_t now)
{
    uint64_t ns = cost(room, mine, hold, now);

    if (turns_swap(&mine->entry->hold, TURNS_WORD_HOLD, hold, turns_moment(now, TURNS_FREE))) {
        turns_charge(mine, ns);
        turns_add(&mine->entry->turn_used, TURNS_WORD_TURN_USED, 0 - (ns >> 4));
        __atomic_fetch_add(&mine->entry->lost, 1, __ATOMIC_SEQ_CST);
        /* Not until it asks again: it may have a long kernel to wait for, and others would make room in vain. */
        turns_store(&mine->entry->want, TURNS_WORD_WANT, 0);
        turns_wake(mine);
    }
    mine->contended = mine->awaited = 0;
}

/* What was used in a turn that is lost already. */
static void charge_late(struct turns_mine *mine, uint64_t used)
{
    int64_t units = turns_rank_minus(turns_load(&mine->entry->turn_used, TURNS_WORD_TURN_USED), 0) + (int64_t)(used >> 4);

    if (units > 0)
        turns_charge(mine, (uint64_t)units << 4);
    turns_store(&mine->entry->turn_used, TURNS_WORD_TURN_USED, 0);
}

/* Let the turn go if no other process of the tenant uses it. */
static void let_go(const struct turns_room *room, struct turns_mine *mine, uint64_t now)
{
    uint64_t hold;

    while (turns_state(hold = turns_load(&mine->entry->hold, TURNS_WORD_HOLD)) >= TURNS_HELD) {
        uint64_t ns;

        if (turns_others_at(room, mine, TURNS_SLOT_USES, now))
            return;
        ns = cost(room, mine, hold, now);
        /* First, so that nobody sees it free and cheap. Who is killed in between has paid for nothing. */
        turns_charge(mine, ns);
        if (turns_swap(&mine->entry->hold, TURNS_WORD_HOLD, hold, turns_moment(now, TURNS_FREE))) {
            turns_store(&mine->entry->turn_used, TURNS_WORD_TURN_USED, 0);
            break;
        }
        turns_add(&mine->entry->rank, TURNS_WORD_RANK, 0 - turns_rank_of(ns, turns_own_weight(mine)));
        __atomic_fetch_sub(&mine->entry->used, ns, __ATOMIC_SEQ_CST);
    }
    mine->contended = mine->awaited = 0;
}

/* What is demanded of the holder. */
static struct turns_demand demand_one(struct turns_room *room, unsigned device, uint64_t now)
{
    struct turns_mine *mine = &room->mine[device];
    uint64_t hold = turns_load(&mine->entry->hold, TURNS_WORD_HOLD), last_look = mine->look, rank, quantum, lasted, fought;
    struct turns_demand demand = {.until = TURNS_NEVER};
    struct turns_survey survey;

    if (turns_state(hold) < TURNS_HELD || !mine->granted) {
        turns_survey(room, device, turns_own_rank(mine), now, &survey);
        turns_say_over(mine, mine->granted, now);
        return (struct turns_demand){.lost = true, .must_go = true, .wanted = survey.wanted, .since = survey.since, .until = now};
    }
    rank = turns_rank_by_now(mine, now);
    turns_survey(room, device, rank, now, &survey);
    quantum = survey.quantum;
    note_contention(mine, &survey, hold, last_look, quantum, now);
    demand.wanted = survey.wanted;
    demand.since = survey.since;
    lasted = turns_age(hold, now);
    fought = mine->contended ? turns_since(mine->contended, now) : 0;
    if (lasted == UINT64_MAX || fought >= (turns_since(last_look, now) < quantum ? TURNS_DRAIN : 2) * room->quantum ||
        (survey.held && survey.newest > turns_moment_ns(hold) && fought >= quantum)) {
        lose(room, mine, hold, now);
        turns_say_over(mine, true, now);
        turns_set_slot(room, mine, TURNS_SLOT_WANTS, now);
        demand.lost = demand.must_go = true;
        demand.until = now;
        return demand;
    }
    if (survey.held && survey.newest > turns_moment_ns(hold))
        turns_note(room, device, (unsigned)survey.newest_peer, TURNS_NOTE_EARLY);
    demand.until = mine->contended ? now + turns_since(fought, quantum) : TURNS_NEVER;
    if (survey.held)
        /* Two at once, however that came about: neither begins anew. */
        demand.must_go = fought >= quantum;
    else if (survey.wanted && fought >= quantum)
        /* It is ahead, or so little behind that it would be before half a quantum is over. */
        demand.must_go = turns_rank_minus(rank + turns_rank_of(quantum / 2, turns_own_weight(mine)), survey.first) > 0;
    else if (survey.wanted)
        demand.must_go = lasted >= room->minimum && turns_rank_ns(turns_rank_minus(turns_own_rank(mine), survey.first),
                                                                  survey.first_weight) > (int64_t)(quantum / 2);
    if (demand.must_go)
        turns_say_draining(mine, now);
    /* Who will want when it can have its other devices finds a turn that began long ago, and is let in at once. */
    if (survey.patient)
        demand.until = turns_sooner(demand.until, now + quantum / 4);
    if (demand.must_go || survey.held || (survey.wanted ? fought : lasted) < quantum || (survey.patient && !survey.wanted))
        return demand;
    /* A new turn at once. */
    lasted = turns_sooner(lasted, TURNS_COUNTED);
    if (turns_swap(&mine->entry->hold, TURNS_WORD_HOLD, hold, turns_moment(now, turns_state(hold)))) {
        turns_charge(mine, lasted);
        turns_add(&mine->entry->turn_used, TURNS_WORD_TURN_USED, 0 - (lasted >> 4));
        mine->contended = mine->awaited = survey.wanted ? now : 0;
        demand.until = survey.wanted ? now + quantum : TURNS_NEVER;
    }
    return demand;
}

/* ---- the beginning of one */

static struct turns_answer wait_for(const struct turns_room *room, uint64_t until, uint32_t *word, uint32_t seen, uint64_t now)
{
    return (struct turns_answer){.until = turns_sooner(until, now + 2 * room->quantum), .word = word, .seen = seen};
}

/* Others of this process's tenant hold: come in beside them, unless it is time to go. */
static struct turns_answer come_in(struct turns_room *room, unsigned device, uint64_t hold, uint64_t now)
{
    struct turns_mine *mine = &room->mine[device];
    uint64_t slot = turns_load(&mine->slots[room->slot], TURNS_WORD_SLOT), last_look = mine->look, fought;
    uint32_t seen = __atomic_load_n(&mine->entry->wake, __ATOMIC_SEQ_CST);
    struct turns_survey survey;

    turns_survey(room, device, turns_rank_by_now(mine, now), now, &survey);
    note_contention(mine, &survey, hold, last_look, survey.quantum, now);
    fought = mine->contended ? turns_since(mine->contended, now) : 0;
    if (turns_age(hold, now) == UINT64_MAX || fought >= 2 * room->quantum ||
        (survey.held && survey.newest > turns_moment_ns(hold) && fought >= survey.quantum)) {
        lose(room, mine, hold, now);
        return wait_for(room, now, NULL, 0, now);
    }
    if (!mine->granted || (slot & 3) != TURNS_SLOT_USES || turns_age(slot, now) >= 2 * room->quantum) {
        if (fought >= survey.quantum)
            return wait_for(room, mine->contended + 2 * room->quantum, &mine->entry->wake, seen, now);
        turns_set_slot(room, mine, TURNS_SLOT_USES, now);
        /* Who was about to let it go has to look again. */
        if (!turns_swap(&mine->entry->hold, TURNS_WORD_HOLD, hold, hold ^ TURNS_HELD ^ TURNS_HELD_AGAIN)) {
            turns_set_slot(room, mine, TURNS_SLOT_WANTS, now);
            return wait_for(room, now, NULL, 0, now);
        }
        mine->granted = now;
    }
    turns_set_slot(room, mine, TURNS_SLOT_USES, now);
    return (struct turns_answer){.mine = true, .until = survey.wanted ? now + turns_since(fought, survey.quantum) : TURNS_NEVER};
}

/* Nobody holds and this tenant is next: claim. */
static bool claim(struct turns_room *room, unsigned device, uint64_t hold, uint64_t now)
{
    struct turns_mine *mine = &room->mine[device];
    uint64_t claiming = turns_moment(now, TURNS_CLAIMING);
    struct turns_survey survey;

    if (!turns_swap(&mine->entry->hold, TURNS_WORD_HOLD, hold, claiming))
        return false;
    for (unsigned i = 0; i < RELOOKS; i++) {
        turns_survey(room, device, turns_own_rank(mine), now, &survey);
        if (survey.held || survey.claims_better || !survey.claims_worse)
            break;
    }
    if (survey.held || survey.claims_better || survey.claims_worse) {
        turns_swap(&mine->entry->hold, TURNS_WORD_HOLD, claiming,
                   turns_state(hold) == TURNS_FREE ? hold : turns_moment(now, TURNS_FREE));
        return false;
    }
    turns_store(&mine->entry->turn_used, TURNS_WORD_TURN_USED, 0);
    turns_set_slot(room, mine, TURNS_SLOT_USES, now);
    if (!turns_swap(&mine->entry->hold, TURNS_WORD_HOLD, claiming, turns_moment(now, TURNS_HELD))) {
        turns_set_slot(room, mine, TURNS_SLOT_WANTS, now);
        return false;
    }
    __atomic_fetch_add(&mine->entry->taken, 1, __ATOMIC_SEQ_CST);
    mine->granted = now;
    mine->contended = survey.wanted ? now : 0;
    mine->awaited = survey.wanted || survey.patient ? now : 0;
    mine->waits = mine->free = 0;
    return true;
}

static struct turns_answer ask_one(struct turns_room *room, unsigned device, uint64_t now)
{
    struct turns_mine *mine = &room->mine[device];
    uint64_t hold = turns_load(&mine->entry->hold, TURNS_WORD_HOLD), rank, turn;
    struct turns_survey survey;

    if (turns_state(hold) >= TURNS_HELD)
        return come_in(room, device, hold, now);
    /* Whatever this process believes, the turn is gone. */
    mine->granted = 0;
    turns_set_slot(room, mine, TURNS_SLOT_WANTS, now);
    if (turns_state(hold) == TURNS_CLAIMING && turns_age(hold, now) < room->grace)
        return wait_for(room, now + SOON, NULL, 0, now);
    rank = turns_own_rank(mine);
    turns_survey(room, device, rank, now, &survey);
    if (survey.held) {
        mine->free = 0;
        return wait_for(room, survey.expires, survey.word, survey.seen, now);
    }
    if (!mine->free)
        mine->free = now;
    turn = mine->free + survey.ahead * room->grace;
    if (now < turn)
        return wait_for(room, turn, survey.word, survey.seen, now);
    if (survey.ahead)
        turns_pass_over(room, device, rank, now);
    if (!claim(room, device, hold, now))
        return wait_for(room, now + SOON, NULL, 0, now);
    return (struct turns_answer){.mine = true, .until = survey.wanted ? now + survey.quantum : TURNS_NEVER};
}

/* ---- the calls */

static uint64_t known_devices(const struct turns_room *room, uint64_t devices)
{
    return devices & ((UINT64_C(1) << room->devices) - 1);
}

static void release_one(struct turns_room *room, unsigned device, uint64_t now, uint64_t used)
{
    struct turns_mine *mine = &room->mine[device];
    uint64_t hold = turns_load(&mine->entry->hold, TURNS_WORD_HOLD), last_look = mine->look;
    struct turns_survey survey;

    if (mine->granted && turns_state(hold) >= TURNS_HELD) {
        turns_survey(room, device, turns_rank_by_now(mine, now), now, &survey);
        note_contention(mine, &survey, hold, last_look, survey.quantum, now);
        turns_add(&mine->entry->turn_used, TURNS_WORD_TURN_USED, turns_sooner(used, turns_since(mine->granted, now)) >> 4);
    } else if (mine->granted) {
        charge_late(mine, turns_sooner(used, turns_since(mine->granted, now)));
    }
    turns_set_slot(room, mine, TURNS_SLOT_NONE, now);
    turns_say_over(mine, false, now);
    let_go(room, mine, now);
    mine->granted = mine->partial = mine->waits = 0;
    if (!turns_others_at(room, mine, TURNS_SLOT_WANTS, now)) {
        uint64_t want = turns_load(&mine->entry->want, TURNS_WORD_WANT);

        turns_swap(&mine->entry->want, TURNS_WORD_WANT, want, 0);
        /* One that began to want meanwhile may have seen the word as it was. */
        if (turns_others_at(room, mine, TURNS_SLOT_WANTS, now))
            turns_store(&mine->entry->want, TURNS_WORD_WANT, want);
    } else {
        turns_store(&mine->entry->since, TURNS_WORD_SINCE, turns_moment(now, 0));
        turns_store(&mine->entry->want, TURNS_WORD_WANT, turns_moment(now, 0));
    }
    turns_wake(mine);
}

/* The turn begins when the last device is had: until then it could not be used, and costs nothing. */
static void begin_whole(struct turns_mine *mine, uint64_t now)
{
    uint64_t hold = turns_load(&mine->entry->hold, TURNS_WORD_HOLD);

    if (mine->partial && now > mine->partial && turns_state(hold) >= TURNS_HELD && turns_moment_ns(hold) <= mine->partial &&
        turns_swap(&mine->entry->hold, TURNS_WORD_HOLD, hold, turns_moment(now, turns_state(hold)))) {
        /* To those who wait it is as if it had been released: nobody needs to wake up for that. */
        __atomic_fetch_add(&mine->entry->wake, 1, __ATOMIC_SEQ_CST);
        if (mine->contended)
            mine->contended = now;
        if (mine->awaited)
            mine->awaited = now;
    }
    mine->partial = 0;
}

/* Say of all that they are wanted, and which of them are to be let go now. */
static struct turns_patience want_all(struct turns_room *room, uint64_t devices, uint64_t now)
{
    struct turns_patience patience = {.until = TURNS_NEVER};

    for (unsigned i = 0; i < room->devices; i++) {
        struct turns_mine *mine = &room->mine[i];

        if (!(devices >> i & 1))
            continue;
        if (!mine->granted && (!mine->waits || turns_since(mine->look, now) >= TURNS_STALE)) {
            mine->waits = now;
            mine->free = 0;
        }
        if (!mine->granted)
            turns_set_slot(room, mine, TURNS_SLOT_WANTS, now);
        unsigned how = turns_load(&mine->entry->want, TURNS_WORD_WANT) & TURNS_PATIENT;
        turns_say_want(room, i, mine->partial ? TURNS_DRAINING | TURNS_PATIENT : how, now);
        if (how && !mine->partial) /* nobody was to let go until now */
            mine->waits = now;
    }
    if (devices & (devices - 1))
        patience = turns_patience(room, devices, now);
    for (unsigned i = 0; i < room->devices; i++) {
        struct turns_mine *mine = &room->mine[i];

        if (!(devices >> i & 1))
            continue;
        if (patience.devices >> i & 1) {
            turns_say_want(room, i, TURNS_PATIENT, now);
            mine->free = 0;
        } else {
            turns_say_want(room, i, mine->partial ? TURNS_DRAINING | TURNS_PATIENT : 0, now);
        }
    }
    return patience;
}

/* Before the others are had: give it back after a quantum, or half as much more where those come. */
static uint64_t keep_part(struct turns_room *room, unsigned device, bool comes, uint64_t now)
{
    struct turns_mine *mine = &room->mine[device];
    uint64_t until = mine->partial + (comes ? room->quantum / 2 * 3 : room->quantum);

    if (now < until)
        return turns_sooner(until, now + room->quantum / 2); /* and says that it still waits */
    release_one(room, device, now, 0);
    turns_say_want(room, device, 0, now);
    room->ready = room->pressed = 0;
    return now + SOON;
}

/* All or none. */
static struct turns_answer ask_all(struct turns_room *room, uint64_t devices, uint64_t now)
{
    struct turns_patience patience = want_all(room, devices, now);
    struct turns_answer answer = {.mine = !patience.devices, .until = patience.until}, one;
    uint64_t partial = 0, lasts = TURNS_NEVER;
    unsigned missing = 0;

    for (unsigned i = 0; i < room->devices; i++) {
        struct turns_mine *mine = &room->mine[i];

        if (!(devices >> i & 1) || patience.devices >> i & 1 || (missing && !room->ready && !mine->partial))
            continue;
        one = ask_one(room, i, now);
        if (one.mine) {
            partial |= UINT64_C(1) << i;
            lasts = turns_sooner(lasts, one.until);
            if (!mine->partial)
                mine->partial = now;
        } else {
            mine->partial = 0;
            answer.mine = false;
            answer.until = turns_sooner(answer.until, one.until);
            answer.word = one.word;
            answer.seen = one.seen;
            if (missing++) /* only one word can be waited on */
                answer.until = turns_sooner(answer.until, now + room->grace / 2);
        }
    }
    if (answer.mine) {
        room->ready = room->pressed = 0;
        answer.until = lasts;
    }
    for (unsigned i = 0; i < room->devices; i++) {
        if (!(partial >> i & 1))
            continue;
        if (answer.mine)
            begin_whole(&room->mine[i], now);
        else
            answer.until = turns_sooner(answer.until, keep_part(room, i, patience.comes, now));
    }
    return answer;
}

struct turns_answer turns_ask(struct turns *turns, uint64_t devices, uint64_t now)
{
    struct turns_answer answer = {.mine = true, .until = TURNS_NEVER};
    struct turns_room *room = turns->room;

    if (!room)
        return answer;
    if (!lock_try(&room->lock))
        return (struct turns_answer){.until = now + SOON};
    now = settle_clock(room, now);
    turns_scan(room, now, false);
    answer = ask_all(room, known_devices(room, devices), now);
    lock_give(&room->lock);
    return answer;
}

static void add_demand(struct turns_demand *all, const struct turns_demand *one)
{
    if (one->wanted && (!all->wanted || one->since < all->since))
        all->since = one->since;
    all->wanted |= one->wanted;
    all->must_go |= one->must_go;
    all->lost |= one->lost;
    all->until = turns_sooner(all->until, one->until);
}

struct turns_demand turns_demand(struct turns *turns, uint64_t devices, uint64_t now)
{
    struct turns_demand all = {.until = TURNS_NEVER};
    struct turns_room *room = turns->room;

    if (!room)
        return all;
    lock_take(&room->lock);
    now = settle_clock(room, now);
    devices = known_devices(room, devices);
    for (unsigned i = 0; i < room->devices; i++) {
        struct turns_demand one;

        if (!(devices >> i & 1))
            continue;
        if (room->mine[i].granted)
            turns_set_slot(room, &room->mine[i], TURNS_SLOT_USES, now);
        /* Before anything else looks around: it has to know how long nobody did. */
        one = demand_one(room, i, now);
        add_demand(&all, &one);
        if (!one.lost)
            turns_say_want(room, i, 0, now);
    }
    lock_give(&room->lock);
    return all;
}

void turns_release(struct turns *turns, uint64_t devices, uint64_t now, uint64_t used)
{
    struct turns_room *room = turns->room;

    if (!room)
        return;
    lock_take(&room->lock);
    now = settle_clock(room, now);
    devices = known_devices(room, devices);
    room->ready = room->pressed = 0;
    for (unsigned i = 0; i < room->devices; i++) {
        if (devices >> i & 1)
            release_one(room, i, now, used);
    }
    lock_give(&room->lock);
}

bool turns_look(struct turns *turns, uint64_t now)
{
    struct turns_room *room = turns->room;

    if (!room || !lock_try(&room->lock))
        return false;
    now = settle_clock(room, now);
    turns_scan(room, now, false);
    lock_give(&room->lock);
    return true;
}
