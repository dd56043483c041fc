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
 * The processes of a tenant share its entry. Each has a slot that says whether it wants or uses the turn; the last one to release lets it go. All steps
 * are single compare-and-swaps: a process killed between two of them leaves something that is over when its time is. */
#include "softslice/turns.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>

#include "compat.h"
#include "lock.h"
#include "softslice/log.h"
#include "turns_internal.h"

#define SOON    UINT64_C(50000) /* ns: ask again when what is in the way will have passed by itself */
#define RELOOKS 64              /* at one that claims at the same moment and has to step back */

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t since(uint64_t then, uint64_t now)
{
    return now > then ? now - then : 0;
}

/* How long ago a moment of an own word was. One in the future is of a clock that has jumped back: long ago. */
static uint64_t age(uint64_t value, uint64_t now)
{
    uint64_t then = turns_moment_ns(value);

    return then > now + TURNS_SLACK ? UINT64_MAX : since(then, now);
}

/* The clock of one process comes from several threads, a little out of order; one that jumps back makes all that was seen before worthless. */
static uint64_t settle_clock(struct turns_room *room, uint64_t now)
{
    if (room->now > now && room->now - now < UINT64_C(1000000000))
        return room->now;
    if (room->now > now) {
        for (unsigned i = 0; i < TURNS_PEERS; i++)
            memset(room->peer[i].track, 0, sizeof(room->peer[i].track));
        for (unsigned i = 0; i < room->devices; i++)
            room->mine[i].waits = room->mine[i].contended = room->mine[i].free = room->mine[i].look = 0;
        room->last_scan = room->last_stat = 0;
    }
    room->now = now;
    return now;
}

/* ---- the own entry */

static unsigned state_of(uint64_t hold)
{
    return (unsigned)(hold & 3);
}

static uint32_t own_weight(const struct turns_mine *mine)
{
    return turns_settings_weight(turns_load(&mine->entry->settings, TURNS_WORD_SETTINGS));
}

static uint64_t own_rank(const struct turns_mine *mine)
{
    return turns_load(&mine->entry->rank, TURNS_WORD_RANK);
}

/* With what the turn has cost so far. */
static uint64_t rank_by_now(const struct turns_mine *mine, uint64_t now)
{
    uint64_t hold = turns_load(&mine->entry->hold, TURNS_WORD_HOLD), rank = own_rank(mine);

    if (state_of(hold) >= TURNS_HELD)
        rank += turns_rank_of(sooner(age(hold, now), TURNS_COUNTED), own_weight(mine));
    return rank & TURNS_VALUE_MASK;
}

static void set_slot(const struct turns_room *room, struct turns_mine *mine, enum turns_slot slot, uint64_t now)
{
    uint64_t value = turns_load(&mine->slots[room->slot], TURNS_WORD_SLOT);

    if (slot == TURNS_SLOT_NONE)
        turns_store(&mine->slots[room->slot], TURNS_WORD_SLOT, 0);
    else if ((value & 3) != slot || age(value, now) >= TURNS_RENEW)
        turns_store(&mine->slots[room->slot], TURNS_WORD_SLOT, turns_moment(now, slot));
}

/* Whether another process of the tenant is at least at `least`. One that was killed is not for longer than it would have renewed its slot. */
static bool others_at(const struct turns_room *room, const struct turns_mine *mine, enum turns_slot least, uint64_t now)
{
    uint64_t oldest = least == TURNS_SLOT_USES ? 2 * room->quantum : TURNS_STALE;

    for (unsigned i = 0; i < TURNS_FILE_SLOTS; i++) {
        uint64_t value = turns_load(&mine->slots[i], TURNS_WORD_SLOT);

        if (i != room->slot && (value & 3) >= least && age(value, now) < oldest)
            return true;
    }
    return false;
}

static void wake(struct turns_mine *mine)
{
    int saved = errno;

    __atomic_fetch_add(&mine->entry->wake, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &mine->entry->wake, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    errno = saved;
}

/* Say that the tenant wants. One that comes back from idling takes its place among the others first. */
static void say_want(struct turns_room *room, unsigned device, uint64_t now)
{
    struct turns_mine *mine = &room->mine[device];
    uint64_t want = turns_load(&mine->entry->want, TURNS_WORD_WANT), raw;
    struct turns_survey survey;

    if (want && age(want, now) < TURNS_RENEW)
        return;
    if (!want || age(want, now) >= TURNS_STALE) {
        raw = __atomic_load_n(&mine->entry->rank, __ATOMIC_SEQ_CST);
        turns_survey(room, device, own_rank(mine), now, &survey);
        if (survey.any || survey.any_idle) {
            uint64_t rank = own_rank(mine), floor = survey.any ? survey.lowest : survey.highest_idle;
            uint64_t ceiling = (survey.any ? survey.highest : survey.highest_idle) + turns_rank_of(TURNS_DEBT_MAX, 100);

            floor = (floor - turns_rank_of(room->credit, (uint32_t)sooner(survey.weights, UINT32_MAX))) & TURNS_VALUE_MASK;
            if (!raw || turns_rank_minus(floor, rank) > 0)
                turns_swap(&mine->entry->rank, TURNS_WORD_RANK, rank, floor);
            else if (turns_rank_minus(rank, ceiling & TURNS_VALUE_MASK) > 0)
                turns_swap(&mine->entry->rank, TURNS_WORD_RANK, rank, ceiling);
        }
        turns_store(&mine->entry->since, TURNS_WORD_SINCE, turns_moment(now, 0));
    }
    turns_store(&mine->entry->want, TURNS_WORD_WANT, turns_moment(now, 0));
}

/* ---- the end of a turn */

/* It has to go, lives, and waits for what it has on the GPU. */
static void say_draining(struct turns_mine *mine, uint64_t now)
{
    uint64_t want = turns_load(&mine->entry->want, TURNS_WORD_WANT);

    if (!(want & TURNS_DRAINING) || age(want, now) >= TURNS_RENEW)
        turns_store(&mine->entry->want, TURNS_WORD_WANT, turns_moment(now, TURNS_DRAINING));
}

static void charge(struct turns_mine *mine, uint64_t ns)
{
    turns_add(&mine->entry->rank, TURNS_WORD_RANK, turns_rank_of(ns, own_weight(mine)));
    __atomic_fetch_add(&mine->entry->used, ns, __ATOMIC_SEQ_CST);
}

/* Since when others want what this tenant holds; 0 they do not. Who was not seen at once says itself when it began, and a process that was away
 * has to take it that they did right then. */
static void note_contention(struct turns_mine *mine, const struct turns_survey *survey, uint64_t hold, uint64_t last_look,
                            uint64_t quantum, uint64_t now)
{
    if (!survey->wanted && !survey->held) {
        mine->contended = 0;
    } else if (!mine->contended) {
        uint64_t from = survey->wanted ? survey->since : now;

        if (last_look && since(last_look, now) >= quantum)
            mine->contended = last_look;
        else
            mine->contended = sooner(now, later(from, since(quantum, now)));
    }
    if (mine->contended && mine->contended < turns_moment_ns(hold))
        mine->contended = later(turns_moment_ns(hold), 1);
}

/* What a turn is charged that was claimed, or begun anew, at `hold`. What it lasted beyond its time others had. */
static uint64_t cost(const struct turns_room *room, const struct turns_mine *mine, uint64_t hold, uint64_t now)
{
    int64_t used = turns_rank_minus(turns_load(&mine->entry->turn_used, TURNS_WORD_TURN_USED), 0);
    uint64_t lasted = sooner(age(hold, now), TURNS_COUNTED);
    uint64_t least = mine->contended ? since(later(mine->contended, turns_moment_ns(hold)), now) / 4 * 3 : 0;

    least = sooner(least, 2 * room->quantum);
    return sooner(later(used > 0 ? (uint64_t)used << 4 : 0, least), lasted);
}

/* The turn is over its time and others have gone on without this tenant. */
static void lose(const struct turns_room *room, struct turns_mine *mine, uint64_t hold, uint64_t now)
{
    uint64_t ns = cost(room, mine, hold, now);

    if (turns_swap(&mine->entry->hold, TURNS_WORD_HOLD, hold, turns_moment(now, TURNS_FREE))) {
        charge(mine, ns);
        turns_add(&mine->entry->turn_used, TURNS_WORD_TURN_USED, 0 - (ns >> 4));
        __atomic_fetch_add(&mine->entry->lost, 1, __ATOMIC_SEQ_CST);
        /* Not until it asks again: it may have a long kernel to wait for, and others would make room in vain. */
        turns_store(&mine->entry->want, TURNS_WORD_WANT, 0);
        wake(mine);
    }
    mine->contended = 0;
}

/* What was used in a turn that is lost already. */
static void charge_late(struct turns_mine *mine, uint64_t used)
{
    int64_t units = turns_rank_minus(turns_load(&mine->entry->turn_used, TURNS_WORD_TURN_USED), 0) + (int64_t)(used >> 4);

    if (units > 0)
        charge(mine, (uint64_t)units << 4);
    turns_store(&mine->entry->turn_used, TURNS_WORD_TURN_USED, 0);
}

/* Let the turn go if no other process of the tenant uses it. */
static void let_go(const struct turns_room *room, struct turns_mine *mine, uint64_t now)
{
    uint64_t hold;

    while (state_of(hold = turns_load(&mine->entry->hold, TURNS_WORD_HOLD)) >= TURNS_HELD) {
        uint64_t ns;

        if (others_at(room, mine, TURNS_SLOT_USES, now))
            return;
        ns = cost(room, mine, hold, now);
        /* First, so that nobody sees it free and cheap. Who is killed in between has paid for nothing. */
        charge(mine, ns);
        if (turns_swap(&mine->entry->hold, TURNS_WORD_HOLD, hold, turns_moment(now, TURNS_FREE))) {
            turns_store(&mine->entry->turn_used, TURNS_WORD_TURN_USED, 0);
            break;
        }
        turns_add(&mine->entry->rank, TURNS_WORD_RANK, 0 - turns_rank_of(ns, own_weight(mine)));
        __atomic_fetch_sub(&mine->entry->used, ns, __ATOMIC_SEQ_CST);
    }
    mine->contended = 0;
}

/* What is demanded of the holder. */
static struct turns_demand demand_one(struct turns_room *room, unsigned device, uint64_t now)
{
    struct turns_mine *mine = &room->mine[device];
    uint64_t hold = turns_load(&mine->entry->hold, TURNS_WORD_HOLD), last_look = mine->look, rank, quantum, lasted, fought;
    struct turns_demand demand = {.until = TURNS_NEVER};
    struct turns_survey survey;

    if (state_of(hold) < TURNS_HELD || !mine->granted) {
        turns_survey(room, device, own_rank(mine), now, &survey);
        return (struct turns_demand){.lost = true, .must_go = true, .wanted = survey.wanted, .since = survey.since, .until = now};
    }
    rank = rank_by_now(mine, now);
    turns_survey(room, device, rank, now, &survey);
    quantum = survey.quantum;
    note_contention(mine, &survey, hold, last_look, quantum, now);
    demand.wanted = survey.wanted;
    demand.since = survey.since;
    lasted = age(hold, now);
    fought = mine->contended ? since(mine->contended, now) : 0;
    if (lasted == UINT64_MAX || fought >= (since(last_look, now) < quantum ? TURNS_DRAIN : 2) * room->quantum ||
        (survey.held && survey.newest > turns_moment_ns(hold) && fought >= quantum)) {
        lose(room, mine, hold, now);
        set_slot(room, mine, TURNS_SLOT_WANTS, now);
        demand.lost = demand.must_go = true;
        demand.until = now;
        return demand;
    }
    if (survey.held && survey.newest > turns_moment_ns(hold))
        turns_note(room, device, (unsigned)survey.newest_peer, TURNS_NOTE_EARLY);
    demand.until = mine->contended ? now + since(fought, quantum) : TURNS_NEVER;
    if (survey.held)
        /* Two at once, however that came about: neither begins anew. */
        demand.must_go = fought >= quantum;
    else if (survey.wanted && fought >= quantum)
        /* It is ahead, or so little behind that it would be before half a quantum is over. */
        demand.must_go = turns_rank_minus(rank + turns_rank_of(quantum / 2, own_weight(mine)), survey.first) > 0;
    else if (survey.wanted)
        demand.must_go = lasted >= room->minimum && turns_rank_ns(turns_rank_minus(own_rank(mine), survey.first),
                                                                  survey.first_weight) > (int64_t)(quantum / 2);
    if (demand.must_go)
        say_draining(mine, now);
    if (demand.must_go || survey.held || (survey.wanted ? fought : lasted) < quantum)
        return demand;
    /* A new turn at once. */
    lasted = sooner(lasted, TURNS_COUNTED);
    if (turns_swap(&mine->entry->hold, TURNS_WORD_HOLD, hold, turns_moment(now, state_of(hold)))) {
        charge(mine, lasted);
        turns_add(&mine->entry->turn_used, TURNS_WORD_TURN_USED, 0 - (lasted >> 4));
        mine->contended = survey.wanted ? now : 0;
        demand.until = survey.wanted ? now + quantum : TURNS_NEVER;
    }
    return demand;
}

/* ---- the beginning of one */

static struct turns_answer wait_for(const struct turns_room *room, uint64_t until, uint32_t *word, uint32_t seen, uint64_t now)
{
    return (struct turns_answer){.until = sooner(until, now + 2 * room->quantum), .word = word, .seen = seen};
}

/* Others of this process's tenant hold: come in beside them, unless it is time to go. */
static struct turns_answer come_in(struct turns_room *room, unsigned device, uint64_t hold, uint64_t now)
{
    struct turns_mine *mine = &room->mine[device];
    uint64_t slot = turns_load(&mine->slots[room->slot], TURNS_WORD_SLOT), last_look = mine->look, fought;
    uint32_t seen = __atomic_load_n(&mine->entry->wake, __ATOMIC_SEQ_CST);
    struct turns_survey survey;

    turns_survey(room, device, rank_by_now(mine, now), now, &survey);
    note_contention(mine, &survey, hold, last_look, survey.quantum, now);
    fought = mine->contended ? since(mine->contended, now) : 0;
    if (age(hold, now) == UINT64_MAX || fought >= 2 * room->quantum ||
        (survey.held && survey.newest > turns_moment_ns(hold) && fought >= survey.quantum)) {
        lose(room, mine, hold, now);
        return wait_for(room, now, NULL, 0, now);
    }
    if (!mine->granted || (slot & 3) != TURNS_SLOT_USES || age(slot, now) >= 2 * room->quantum) {
        if (fought >= survey.quantum)
            return wait_for(room, mine->contended + 2 * room->quantum, &mine->entry->wake, seen, now);
        set_slot(room, mine, TURNS_SLOT_USES, now);
        /* Who was about to let it go has to look again. */
        if (!turns_swap(&mine->entry->hold, TURNS_WORD_HOLD, hold, hold ^ TURNS_HELD ^ TURNS_HELD_AGAIN)) {
            set_slot(room, mine, TURNS_SLOT_WANTS, now);
            return wait_for(room, now, NULL, 0, now);
        }
        mine->granted = now;
    }
    set_slot(room, mine, TURNS_SLOT_USES, now);
    return (struct turns_answer){.mine = true, .until = survey.wanted ? now + since(fought, survey.quantum) : TURNS_NEVER};
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
        turns_survey(room, device, own_rank(mine), now, &survey);
        if (survey.held || survey.claims_better || !survey.claims_worse)
            break;
    }
    if (survey.held || survey.claims_better || survey.claims_worse) {
        turns_swap(&mine->entry->hold, TURNS_WORD_HOLD, claiming,
                   state_of(hold) == TURNS_FREE ? hold : turns_moment(now, TURNS_FREE));
        return false;
    }
    turns_store(&mine->entry->turn_used, TURNS_WORD_TURN_USED, 0);
    set_slot(room, mine, TURNS_SLOT_USES, now);
    if (!turns_swap(&mine->entry->hold, TURNS_WORD_HOLD, claiming, turns_moment(now, TURNS_HELD))) {
        set_slot(room, mine, TURNS_SLOT_WANTS, now);
        return false;
    }
    __atomic_fetch_add(&mine->entry->taken, 1, __ATOMIC_SEQ_CST);
    mine->granted = now;
    mine->contended = survey.wanted ? now : 0;
    mine->waits = mine->free = 0;
    return true;
}

static struct turns_answer ask_one(struct turns_room *room, unsigned device, uint64_t now)
{
    struct turns_mine *mine = &room->mine[device];
    uint64_t hold = turns_load(&mine->entry->hold, TURNS_WORD_HOLD), rank, turn;
    struct turns_survey survey;

    if (state_of(hold) >= TURNS_HELD)
        return come_in(room, device, hold, now);
    /* Whatever this process believes, the turn is gone. */
    mine->granted = 0;
    set_slot(room, mine, TURNS_SLOT_WANTS, now);
    if (state_of(hold) == TURNS_CLAIMING && age(hold, now) < room->grace)
        return wait_for(room, now + SOON, NULL, 0, now);
    rank = own_rank(mine);
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

    if (mine->granted && state_of(hold) >= TURNS_HELD) {
        turns_survey(room, device, rank_by_now(mine, now), now, &survey);
        note_contention(mine, &survey, hold, last_look, survey.quantum, now);
        turns_add(&mine->entry->turn_used, TURNS_WORD_TURN_USED, sooner(used, since(mine->granted, now)) >> 4);
    } else if (mine->granted) {
        charge_late(mine, sooner(used, since(mine->granted, now)));
    }
    set_slot(room, mine, TURNS_SLOT_NONE, now);
    let_go(room, mine, now);
    mine->granted = mine->partial = mine->waits = 0;
    if (!others_at(room, mine, TURNS_SLOT_WANTS, now)) {
        uint64_t want = turns_load(&mine->entry->want, TURNS_WORD_WANT);

        turns_swap(&mine->entry->want, TURNS_WORD_WANT, want, 0);
        /* One that began to want meanwhile may have seen the word as it was. */
        if (others_at(room, mine, TURNS_SLOT_WANTS, now))
            turns_store(&mine->entry->want, TURNS_WORD_WANT, want);
    } else {
        turns_store(&mine->entry->since, TURNS_WORD_SINCE, turns_moment(now, 0));
        turns_store(&mine->entry->want, TURNS_WORD_WANT, turns_moment(now, 0));
    }
    wake(mine);
}

/* The turn begins when the last device is had: until then it could not be used, and costs nothing. */
static void begin_whole(struct turns_mine *mine, uint64_t now)
{
    uint64_t hold = turns_load(&mine->entry->hold, TURNS_WORD_HOLD);

    if (mine->partial && now > mine->partial && state_of(hold) >= TURNS_HELD && turns_moment_ns(hold) <= mine->partial &&
        turns_swap(&mine->entry->hold, TURNS_WORD_HOLD, hold, turns_moment(now, state_of(hold))) && mine->contended)
        mine->contended = now;
    mine->partial = 0;
}

/* All or none, in the same order for everybody: what is had while another one is not is given back after a quantum. */
static struct turns_answer ask_all(struct turns_room *room, uint64_t devices, uint64_t now)
{
    struct turns_answer answer = {.mine = true, .until = TURNS_NEVER}, one;
    uint64_t partial = 0;

    for (unsigned i = 0; i < room->devices; i++) {
        struct turns_mine *mine = &room->mine[i];

        if (!(devices >> i & 1))
            continue;
        if (!mine->granted && (!mine->waits || since(mine->look, now) >= TURNS_STALE)) {
            mine->waits = now;
            mine->free = 0;
        }
        if (!mine->granted)
            set_slot(room, mine, TURNS_SLOT_WANTS, now);
        say_want(room, i, now);
    }
    for (unsigned i = 0; i < room->devices && answer.mine; i++) {
        unsigned device = room->order[i];
        struct turns_mine *mine = &room->mine[device];

        if (!(devices >> device & 1))
            continue;
        one = ask_one(room, device, now);
        if (one.mine) {
            partial |= UINT64_C(1) << device;
            answer.until = sooner(answer.until, one.until);
            if (!mine->partial)
                mine->partial = now;
        } else {
            answer = one;
        }
    }
    for (unsigned i = 0; i < room->devices; i++) {
        struct turns_mine *mine = &room->mine[i];

        if (!(partial >> i & 1) || answer.mine) {
            if (partial >> i & 1)
                begin_whole(mine, now);
            continue;
        }
        if (since(mine->partial, now) >= room->quantum) {
            release_one(room, i, now, 0);
            say_want(room, i, now);
        } else {
            answer.until = sooner(answer.until, mine->partial + room->quantum);
        }
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
    all->until = sooner(all->until, one->until);
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
            set_slot(room, &room->mine[i], TURNS_SLOT_USES, now);
        /* Before anything else looks around: it has to know how long nobody did. */
        one = demand_one(room, i, now);
        add_demand(&all, &one);
        if (!one.lost)
            say_want(room, i, now);
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
    for (unsigned i = 0; i < room->devices; i++) {
        if (devices >> i & 1)
            release_one(room, i, now, used);
    }
    lock_give(&room->lock);
}

void turns_look(struct turns *turns, uint64_t now)
{
    struct turns_room *room = turns->room;

    if (!room || !lock_try(&room->lock))
        return;
    now = settle_clock(room, now);
    turns_scan(room, now, false);
    lock_give(&room->lock);
}
