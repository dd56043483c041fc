/* SPDX-License-Identifier: Apache-2.0 */
/* A tenant's own entry for a device: what it says of itself to the others. Its processes share it. */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>

#include "compat.h"
#include "turns_internal.h"

uint64_t turns_rank_by_now(const struct turns_mine *mine, uint64_t now)
{
    uint64_t hold = turns_load(&mine->entry->hold, TURNS_WORD_HOLD), rank = turns_own_rank(mine);

    if (turns_state(hold) >= TURNS_HELD)
        rank += turns_rank_of(turns_sooner(turns_age(hold, now), TURNS_COUNTED), turns_own_weight(mine));
    return rank & TURNS_VALUE_MASK;
}

void turns_set_slot(const struct turns_room *room, struct turns_mine *mine, enum turns_slot slot, uint64_t now)
{
    uint64_t value = turns_load(&mine->slots[room->slot], TURNS_WORD_SLOT);

    if (slot == TURNS_SLOT_NONE)
        turns_store(&mine->slots[room->slot], TURNS_WORD_SLOT, 0);
    else if ((value & 3) != slot || turns_age(value, now) >= TURNS_RENEW)
        turns_store(&mine->slots[room->slot], TURNS_WORD_SLOT, turns_moment(now, slot));
}

bool turns_others_at(const struct turns_room *room, const struct turns_mine *mine, enum turns_slot least, uint64_t now)
{
    uint64_t oldest = least == TURNS_SLOT_USES ? 2 * room->quantum : TURNS_STALE;

    for (unsigned i = 0; i < TURNS_FILE_SLOTS; i++) {
        uint64_t value = turns_load(&mine->slots[i], TURNS_WORD_SLOT);

        if (i != room->slot && (value & 3) >= least && turns_age(value, now) < oldest)
            return true;
    }
    return false;
}

void turns_wake(struct turns_mine *mine)
{
    int saved = errno;

    __atomic_fetch_add(&mine->entry->wake, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &mine->entry->wake, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    errno = saved;
}

void turns_say_want(struct turns_room *room, unsigned device, unsigned how, uint64_t now)
{
    struct turns_mine *mine = &room->mine[device];
    uint64_t want = turns_load(&mine->entry->want, TURNS_WORD_WANT), raw;
    struct turns_survey survey;

    if (want && turns_age(want, now) < TURNS_RENEW && !((want ^ how) & TURNS_PATIENT))
        return;
    if (!want || turns_age(want, now) >= TURNS_STALE) {
        raw = __atomic_load_n(&mine->entry->rank, __ATOMIC_SEQ_CST);
        turns_survey(room, device, turns_own_rank(mine), now, &survey);
        if (survey.any || survey.any_idle) {
            uint64_t rank = turns_own_rank(mine), floor = survey.any ? survey.lowest : survey.highest_idle;
            uint64_t ceiling = (survey.any ? survey.highest : survey.highest_idle) + turns_rank_of(TURNS_DEBT_MAX, 100);

            floor = (floor - turns_rank_of(room->credit, (uint32_t)turns_sooner(survey.weights, UINT32_MAX))) & TURNS_VALUE_MASK;
            if (!raw || turns_rank_minus(floor, rank) > 0)
                turns_swap(&mine->entry->rank, TURNS_WORD_RANK, rank, floor);
            else if (turns_rank_minus(rank, ceiling & TURNS_VALUE_MASK) > 0)
                turns_swap(&mine->entry->rank, TURNS_WORD_RANK, rank, ceiling);
        }
        turns_store(&mine->entry->since, TURNS_WORD_SINCE, turns_moment(now, 0));
    }
    turns_store(&mine->entry->want, TURNS_WORD_WANT, turns_moment(now, how));
}

void turns_say_draining(struct turns_mine *mine, uint64_t now)
{
    uint64_t want = turns_load(&mine->entry->want, TURNS_WORD_WANT);

    if (!(want & TURNS_DRAINING) || turns_age(want, now) >= TURNS_RENEW)
        turns_store(&mine->entry->want, TURNS_WORD_WANT, turns_moment(now, TURNS_DRAINING));
}

void turns_say_over(struct turns_mine *mine, bool over, uint64_t now)
{
    uint32_t moment = over ? turns_over_moment(now) : 0;

    if (__atomic_load_n(&mine->entry->over, __ATOMIC_RELAXED) != moment)
        __atomic_store_n(&mine->entry->over, moment, __ATOMIC_SEQ_CST);
}

void turns_charge(struct turns_mine *mine, uint64_t ns)
{
    turns_add(&mine->entry->rank, TURNS_WORD_RANK, turns_rank_of(ns, turns_own_weight(mine)));
    __atomic_fetch_add(&mine->entry->used, ns, __ATOMIC_SEQ_CST);
}
