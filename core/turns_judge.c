/* SPDX-License-Identifier: Apache-2.0 */
/* What is believed of the other tenants. Nothing that a peer's file says is taken for granted: a word must pass its check, moments must be sane, and
 * what it holds is held against what this process has seen of it. What is wrong with an entry costs its author. */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "compat.h"
#include "turns_internal.h"

#define CAUGHT    UINT64_C(1000000000) /* ns for which one that lied or overstayed is given no benefit of a doubt */
#define UNNOTICED UINT64_C(20000000)   /* ns that one may want before it is seen */

#define DRAIN_MOST 5 /* quanta that a peer is expected to drain for */

void turns_note(struct turns_room *room, unsigned device, unsigned peer, enum turns_note note)
{
    struct turns_peer *entry = &room->peer[peer];

    if (!(entry->told & 1U << note)) {
        if (!entry->told)
            room->ignored[device]++;
        entry->told |= (uint8_t)(1U << note);
        entry->due |= (uint8_t)(1U << note);
    }
}

/* Read a line of a peer's file. Its owner may cut the file short at any moment: a load would then be SIGBUS, what the kernel reads for us is EFAULT. */
static bool read_line(struct turns_room *room, void *to, const void *from, size_t size)
{
    struct iovec local = {to, size}, remote = {(void *)(uintptr_t)from, size};
    int saved = errno;
    long result = -1;

    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!room->direct) {
        result = syscall(SYS_process_vm_readv, room->pid, &local, 1UL, &remote, 1UL, 0UL);
        if (result < 0 && (errno == ENOSYS || errno == EPERM))
            room->direct = true;
        errno = saved;
    }
    if (!room->direct)
        return result == (long)size;
    for (size_t at = 0; at < size / 8; at++)
        ((uint64_t *)to)[at] = __atomic_load_n((const uint64_t *)from + at, __ATOMIC_SEQ_CST);
    return true;
}

static bool read_view(struct turns_room *room, unsigned peer, unsigned device, struct turns_view *view)
{
    const struct turns_device *entry =
        (const struct turns_device *)(turns_window(room, peer) + TURNS_HEADER_SIZE) + room->peer[peer].entry[device];
    uint64_t line[8];

    /* A word that is just being written may come out torn. */
    if (room->direct && room->peer[peer].foreign)
        return false;
    for (unsigned attempt = 0; attempt < 3; attempt++) {
        if (!read_line(room, line, &entry->hold, sizeof(line)))
            break;
        if (!turns_word_good(TURNS_WORD_HOLD, line[0]) || !turns_word_good(TURNS_WORD_WANT, line[1]) ||
            !turns_word_good(TURNS_WORD_SINCE, line[2]) || !turns_word_good(TURNS_WORD_RANK, line[3]) ||
            !turns_word_good(TURNS_WORD_SETTINGS, line[5]))
            continue;
        view->hold = line[0] & TURNS_VALUE_MASK;
        view->want = line[1] & TURNS_VALUE_MASK;
        view->since = line[2] & TURNS_VALUE_MASK;
        view->rank = line[3] & TURNS_VALUE_MASK;
        view->settings = line[5] & TURNS_VALUE_MASK;
        memcpy(&view->wake, &line[6], sizeof(view->wake));
        memcpy(&view->over, (const char *)&line[6] + sizeof(view->wake), sizeof(view->over));
        return true;
    }
    turns_note(room, device, peer, TURNS_NOTE_DAMAGED);
    return false;
}

static uint64_t age_of(uint64_t value, uint64_t now)
{
    uint64_t then = turns_moment_ns(value);

    return now > then ? now - then : 0;
}

/* One peer on a device, judged. */
struct judged {
    unsigned state; /* enum turns_hold; TURNS_FREE where its hold is over */
    bool wants;     /* ... and waits */
    bool patient;   /* ... for other devices, rather than for this one */
    bool has_work;  /* wants or holds */
    uint64_t rank;  /* believed, its unfinished turn included */
    uint32_t weight;
    uint64_t quantum, left; /* of its hold: ns until it is over if it stays */
};

/* A moment in the future counts for nothing. It is held against the peer only if a later look finds one again: we may have been held up after we read the
 * clock. */
static void judge_moments(struct turns_room *room, unsigned device, unsigned peer, struct turns_view *view, uint64_t now)
{
    struct turns_track *track = &room->peer[peer].track[device];
    bool want = turns_moment_ns(view->want) > now + TURNS_SLACK;
    bool hold = (view->hold & 3) && turns_moment_ns(view->hold) > now + TURNS_SLACK;

    if (want)
        view->want = 0;
    if (hold)
        view->hold = 0;
    if ((want || hold) && track->absurd && track->look != now)
        turns_note(room, device, peer, TURNS_NOTE_ABSURD);
    track->absurd = want || hold;
    if (turns_moment_ns(view->since) > now)
        view->since = turns_moment(now, 0);
}

/* For how long, since the last look, a peer seems to have held what it holds now. That it says to have begun anew counts only where it released in
 * between, and was never caught at keeping the GPU. */
static uint64_t held_for(const struct turns_room *room, unsigned device, unsigned peer, const struct turns_view *view, uint64_t now)
{
    const struct turns_track *track = &room->peer[peer].track[device];
    uint64_t from = track->look, claimed = turns_moment_ns(view->hold);

    if (!track->known || (view->hold & 3) < TURNS_HELD || now - track->look >= TURNS_STALE)
        return 0;
    if ((track->hold & 3) < TURNS_HELD || (view->wake != track->wake && now >= track->caught))
        from = claimed > from ? claimed : from;
    return now > from ? now - from : 0;
}

/* The lowest rank of those that want, this tenant included, when it was last looked. */
static uint64_t lowest_known(const struct turns_mine *mine)
{
    uint64_t own = turns_load(&mine->entry->rank, TURNS_WORD_RANK);

    return mine->others && turns_rank_minus(mine->lowest, own) < 0 ? mine->lowest : own;
}

static bool wants(const struct turns_view *view, uint64_t now)
{
    return view->want && age_of(view->want, now) < TURNS_STALE;
}

static bool is_newcomer(const struct turns_room *room, unsigned device, unsigned peer, const struct turns_view *view, uint64_t now)
{
    const struct turns_track *track = &room->peer[peer].track[device];

    return wants(view, now) && !(track->known && now - track->look < TURNS_STALE && track->wanted);
}

/* Its own rank with its unfinished turn, unless that is too far below what was seen of it. */
static uint64_t believed_rank(struct turns_room *room, unsigned device, unsigned peer, uint64_t credit, uint32_t weight,
                              uint64_t now)
{
    const struct turns_view *view = &room->view[peer];
    struct turns_mine *mine = &room->mine[device];
    struct turns_track *track = &room->peer[peer].track[device];
    bool caught = now < track->caught;
    uint64_t rank = view->rank, held = age_of(view->hold, now);
    int64_t below, tolerated;

    if ((view->hold & 3) >= TURNS_HELD)
        rank = (rank + turns_rank_of(held < TURNS_COUNTED ? held : TURNS_COUNTED, weight)) & TURNS_VALUE_MASK;
    /* One that is stopped holds in vain. */
    if ((mine->waits || mine->granted) && view->hold != track->expired) {
        held = held_for(room, device, peer, view, now);
        track->seen = (track->seen + turns_rank_of(caught ? held : held / 4 * 3, weight)) & TURNS_VALUE_MASK;
    }
    if (!track->known || turns_rank_minus(view->rank, track->seen) > 0)
        track->seen = view->rank;
    /* Who was idle is let in a little before those who were not; how little, everybody works out for itself. */
    if ((mine->waits || mine->granted) && is_newcomer(room, device, peer, view, now)) {
        uint32_t own = turns_settings_weight(turns_load(&mine->entry->settings, TURNS_WORD_SETTINGS));
        uint64_t ago = age_of(view->since, now), unseen = track->known ? now - track->look : UNNOTICED,
                 floor = lowest_known(mine) - credit;

        /* That was so when it began to want; since then ours may have grown. */
        floor = (floor - turns_rank_of(ago < unseen ? ago : unseen, own)) & TURNS_VALUE_MASK;
        if (turns_rank_minus(floor, track->seen) > 0) {
            track->unseen = track->known ? track->unseen : (floor - track->seen) & TURNS_VALUE_MASK;
            track->seen = floor;
        }
    }
    track->wanted = wants(view, now);
    below = turns_rank_minus(track->seen, rank);
    tolerated = caught ? 0 : (int64_t)turns_rank_of(2 * room->quantum, weight);
    if (below <= tolerated)
        return rank;
    if (below > tolerated + (int64_t)track->unseen) {
        turns_note(room, device, peer, TURNS_NOTE_LIES);
        track->caught = now + CAUGHT;
    }
    return track->seen;
}

/* Whether what a peer holds is still its own. */
static bool hold_is_good(struct turns_room *room, unsigned device, unsigned peer, const struct turns_view *view,
                         struct judged *judged, uint64_t own_rank, uint64_t now)
{
    struct turns_mine *mine = &room->mine[device];
    struct turns_track *track = &room->peer[peer].track[device];
    uint64_t claimed = turns_moment_ns(view->hold), start = claimed < now ? claimed : now, limit = 2 * room->quantum;
    bool we_are_ahead = turns_rank_minus(judged->rank, own_rank) > 0;
    bool drains = (view->want & TURNS_DRAINING) && age_of(view->want, now) < room->quantum / 4 * 3 && now >= track->caught;

    if (mine->waits && start < mine->waits)
        start = mine->waits < now ? mine->waits : now;
    if (track->dead == view->hold || track->expired == view->hold)
        return false;
    if (drains)
        limit = TURNS_DRAIN * room->quantum;
    if (track->blame < limit &&
        (!we_are_ahead || (view->wake != track->wake && track->excused != mine->waits && now >= track->caught))) {
        track->blame = 0;
        track->excused = mine->waits;
    }
    if (mine->waits && we_are_ahead && track->waited) {
        uint64_t held = held_for(room, device, peer, view, now), waited = now - mine->waits;
        /* A rank grows with the time that is held: so long ago we came to be ahead. */
        uint64_t ahead = (uint64_t)turns_rank_ns(turns_rank_minus(judged->rank, own_rank), judged->weight);

        waited = waited < ahead ? waited : ahead;
        track->blame += held < waited ? held : waited;
    }
    if (now - start >= limit || track->blame >= limit) {
        track->expired = view->hold;
        if (track->blame >= limit)
            track->caught = now + CAUGHT;
        turns_note(room, device, peer, TURNS_NOTE_OVERSTAYS);
        return false;
    }
    judged->left = limit - (now - start);
    if (we_are_ahead && limit - track->blame < judged->left)
        judged->left = limit - track->blame;
    /* Whether it still does has to be looked at. */
    if (drains && judged->left > room->quantum)
        judged->left = room->quantum;
    return true;
}

/* Read what all say, before any of it is judged. How much lower than the lowest that was known one may rank that comes from idling: those that come at
 * once each go by the one before. */
static uint64_t read_all(struct turns_room *room, unsigned device, uint64_t now)
{
    uint32_t own = turns_settings_weight(turns_load(&room->mine[device].entry->settings, TURNS_WORD_SETTINGS));
    uint64_t credit = 0;

    for (unsigned i = 0; i < TURNS_PEERS; i++) {
        struct turns_view *view = &room->view[i];

        view->good = room->peer[i].present && room->peer[i].entry[device] != TURNS_NO_DEVICE && read_view(room, i, device, view);
        if (!view->good)
            continue;
        judge_moments(room, device, i, view, now);
        if (is_newcomer(room, device, i, view, now))
            credit += turns_rank_of(room->credit, turns_settings_weight(view->settings) + own);
    }
    return credit;
}

/* How long a peer takes from when it is to let go for this process, which is woken when it does. */
static void learn_drain(const struct turns_room *room, struct turns_track *track, const struct turns_view *view)
{
    uint64_t freed = turns_moment_ns(view->hold), took = freed > track->due ? freed - track->due : 0;

    if (!track->due || view->hold == track->hold)
        return;
    if ((track->hold & 3) >= TURNS_HELD && (view->hold & 3) == TURNS_FREE)
        track->drain = (track->drain + (took < DRAIN_MOST * room->quantum ? took : DRAIN_MOST * room->quantum)) / 2;
    track->due = 0;
}

/* Whether it has work of a turn that it has lost on the GPU. */
static bool is_over(const struct turns_view *view, uint64_t now)
{
    int32_t ago = (int32_t)(turns_over_moment(now) - view->over);

    return view->over && ago >= -TURNS_OVER && ago <= TURNS_OVER;
}

static bool is_draining(const struct turns_view *view)
{
    return (view->want & TURNS_DRAINING) && !(view->want & TURNS_PATIENT);
}

/* When a peer that holds is to let go for this process, by the rules that it goes by itself. */
static uint64_t due(const struct turns_room *room, unsigned device, unsigned peer, const struct judged *judged, uint64_t own_rank,
                    uint64_t now)
{
    const struct turns_view *view = &room->view[peer];
    const struct turns_mine *mine = &room->mine[device];
    uint64_t claimed = turns_moment_ns(view->hold), from = turns_moment_ns(turns_load(&mine->entry->since, TURNS_WORD_SINCE));
    uint64_t quantum = judged->quantum >= 1000000 && judged->quantum < room->quantum ? judged->quantum : room->quantum, moment;
    uint32_t own = turns_settings_weight(turns_load(&mine->entry->settings, TURNS_WORD_SETTINGS));

    if (is_draining(view))
        return room->peer[peer].track[device].due ? room->peer[peer].track[device].due : now;
    moment = (from > claimed ? from : claimed) + quantum;
    uint64_t rank = judged->rank + turns_rank_of((moment > now ? moment - now : 0) + quantum / 2, judged->weight);
    int64_t behind = turns_rank_ns(turns_rank_minus(own_rank, rank), judged->weight);
    if (behind >= 0) /* it begins anew */
        moment += ((uint64_t)behind < TURNS_COUNTED ? (uint64_t)behind / quantum + 1 : TURNS_COUNTED / quantum) * quantum;
    else if (turns_rank_ns(turns_rank_minus(view->rank, own_rank), own) > (int64_t)(quantum / 2))
        moment = claimed + room->minimum;
    return moment > mine->waits ? moment : mine->waits;
}

static void judge(struct turns_room *room, unsigned device, unsigned peer, uint64_t credit, uint64_t own_rank, uint64_t now,
                  struct judged *judged)
{
    struct turns_track *track = &room->peer[peer].track[device];
    const struct turns_view *view = &room->view[peer];

    *judged = (struct judged){.state = view->hold & 3, .weight = turns_settings_weight(view->settings)};
    judged->quantum = turns_settings_quantum(view->settings);
    judged->rank = believed_rank(room, device, peer, credit, judged->weight, now);
    if (judged->state < TURNS_HELD)
        track->blame = 0;
    else if (!hold_is_good(room, device, peer, view, judged, own_rank, now))
        judged->state = TURNS_FREE;
    if (judged->state == TURNS_CLAIMING && age_of(view->hold, now) > room->grace)
        judged->state = TURNS_FREE;
    judged->has_work = wants(view, now);
    /* Whose turn is over though it still says it holds does not run for the next one. */
    judged->wants = judged->has_work && (view->hold & 3) < TURNS_HELD && view->want != track->missed;
    judged->patient = judged->wants && (view->want & TURNS_PATIENT);
    judged->wants &= !judged->patient;
    learn_drain(room, track, view);
    track->known = true;
    track->look = now;
    track->hold = view->hold;
    track->wake = view->wake;
    track->waited = room->mine[device].waits != 0;
}

static bool is_ahead(const struct turns_room *room, unsigned peer, uint64_t rank, uint64_t own_rank)
{
    int64_t behind = turns_rank_minus(rank, own_rank);

    return behind < 0 || (behind == 0 && room->peer[peer].id < room->id);
}

static void count_rank(struct turns_survey *survey, const struct judged *judged)
{
    if (judged->has_work || judged->state >= TURNS_HELD) {
        survey->weights += judged->weight;
        if (!survey->any || turns_rank_minus(judged->rank, survey->lowest) < 0)
            survey->lowest = judged->rank;
        if (!survey->any || turns_rank_minus(judged->rank, survey->highest) > 0)
            survey->highest = judged->rank;
        survey->any = true;
    } else {
        if (!survey->any_idle || turns_rank_minus(judged->rank, survey->highest_idle) > 0)
            survey->highest_idle = judged->rank;
        survey->any_idle = true;
    }
}

/* When it is to let go, and is expected to have done so. */
static void count_holder(struct turns_room *room, unsigned device, unsigned peer, const struct judged *judged, uint64_t own_rank,
                         uint64_t now, struct turns_survey *survey)
{
    struct turns_track *track = &room->peer[peer].track[device];
    uint64_t moment = due(room, device, peer, judged, own_rank, now);
    bool pressed = room->mine[device].waits && room->mine[device].waits < now;

    if (pressed && (!track->due || moment < track->due))
        track->due = moment;
    if (moment > survey->due)
        survey->due = moment;
    if (track->drain > survey->drain)
        survey->drain = track->drain;
    survey->drains &= is_draining(&room->view[peer]);
}

void turns_survey(struct turns_room *room, unsigned device, uint64_t rank, uint64_t now, struct turns_survey *survey)
{
    struct turns_mine *mine = &room->mine[device];
    uint64_t credit = read_all(room, device, now), ahead_rank = 0;

    *survey = (struct turns_survey){.expires = TURNS_NEVER, .quantum = room->quantum, .newest_peer = -1, .drains = true};
    survey->weights = turns_settings_weight(turns_load(&mine->entry->settings, TURNS_WORD_SETTINGS));
    for (unsigned i = 0; i < TURNS_PEERS; i++) {
        const struct turns_view *view = &room->view[i];
        struct turns_device *entry;
        struct judged judged;

        if (!view->good)
            continue;
        judge(room, device, i, credit, rank, now, &judged);
        entry = (struct turns_device *)(turns_window(room, i) + TURNS_HEADER_SIZE) + room->peer[i].entry[device];
        count_rank(survey, &judged);
        survey->over += judged.state < TURNS_HELD && is_over(view, now);
        if (judged.state >= TURNS_HELD) {
            uint64_t claimed = turns_moment_ns(view->hold);

            survey->held++;
            count_holder(room, device, i, &judged, rank, now, survey);
            if (now + judged.left < survey->expires) {
                survey->expires = now + judged.left;
                survey->word = &entry->wake;
                survey->seen = view->wake;
            }
            if (claimed > survey->newest) {
                survey->newest = claimed;
                survey->newest_peer = (int)i;
            }
        } else if (judged.state == TURNS_CLAIMING) {
            if (is_ahead(room, i, judged.rank, rank))
                survey->claims_better++;
            else
                survey->claims_worse++;
        }
        survey->patient |= judged.patient;
        if (!judged.wants)
            continue;
        if (judged.quantum >= 1000000 && judged.quantum < survey->quantum)
            survey->quantum = judged.quantum;
        if (!survey->wanted || turns_moment_ns(view->since) < survey->since)
            survey->since = turns_moment_ns(view->since);
        if (!survey->wanted || turns_rank_minus(judged.rank, survey->first) < 0) {
            survey->first = judged.rank;
            survey->first_weight = judged.weight;
        }
        survey->wanted = true;
        if (!is_ahead(room, i, judged.rank, rank))
            continue;
        if (!survey->held && (!survey->ahead || turns_rank_minus(judged.rank, ahead_rank) < 0)) {
            ahead_rank = judged.rank;
            survey->word = &entry->wake;
            survey->seen = view->wake;
        }
        survey->ahead++;
    }
    mine->look = now;
    __atomic_store_n(&mine->crowd, survey->held + survey->over, __ATOMIC_RELAXED);
    mine->others = survey->any;
    mine->lowest = survey->lowest;
}

void turns_pass_over(struct turns_room *room, unsigned device, uint64_t rank, uint64_t now)
{
    uint64_t credit = read_all(room, device, now);

    for (unsigned i = 0; i < TURNS_PEERS; i++) {
        struct judged judged;

        if (!room->view[i].good)
            continue;
        judge(room, device, i, credit, rank, now, &judged);
        if (judged.wants && is_ahead(room, i, judged.rank, rank))
            room->peer[i].track[device].missed = room->view[i].want;
    }
}
