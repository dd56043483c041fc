/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked and told of turns beside taking them. */
#include "lock.h"
#include "softslice/log.h"
#include "softslice/turns.h"
#include "turns_internal.h"

bool turns_wanted(struct turns *turns, uint64_t devices, uint64_t now, uint64_t *since_when)
{
    struct turns_demand demand = turns_demand(turns, devices, now);

    if (since_when)
        *since_when = demand.since;
    return demand.wanted;
}

void turns_set_weight(struct turns *turns, unsigned device, uint32_t weight, uint32_t share)
{
    struct turns_room *room = turns->room;
    uint64_t value;

    if (!room || device >= room->devices)
        return;
    value = turns_load(&room->mine[device].entry->settings, TURNS_WORD_SETTINGS);
    weight = weight ? (weight < TURNS_WEIGHT_MAX ? weight : TURNS_WEIGHT_MAX) : TURNS_WEIGHT;
    turns_store(&room->mine[device].entry->settings, TURNS_WORD_SETTINGS,
                turns_settings_word(weight, share, value >> 28 & 1, turns_settings_quantum(value)));
}

void turns_counts(const struct turns *turns, unsigned device, struct turns_counts *counts)
{
    struct turns_room *room = turns->room;

    *counts = (struct turns_counts){0};
    if (!room || device >= room->devices)
        return;
    counts->taken = __atomic_load_n(&room->mine[device].entry->taken, __ATOMIC_RELAXED);
    counts->lost = __atomic_load_n(&room->mine[device].entry->lost, __ATOMIC_RELAXED);
    counts->used = __atomic_load_n(&room->mine[device].entry->used, __ATOMIC_RELAXED);
    lock_take(&room->lock);
    counts->ignored = room->ignored[device];
    for (unsigned i = 0; i < TURNS_PEERS; i++)
        counts->peers += room->peer[i].present && !room->peer[i].dead && room->peer[i].entry[device] != TURNS_NO_DEVICE;
    lock_give(&room->lock);
}

bool turns_alone(const struct turns *turns)
{
    return turns->room && !__atomic_load_n(&turns->room->peers, __ATOMIC_RELAXED);
}

unsigned turns_crowd(const struct turns *turns, unsigned device)
{
    const struct turns_room *room = turns->room;

    return room && device < room->devices ? __atomic_load_n(&room->mine[device].crowd, __ATOMIC_RELAXED) : 0;
}

bool turns_report(struct turns *turns, char *line, size_t size, bool *damage)
{
    static const char *const text[TURNS_NOTES] = {[TURNS_NOTE_DAMAGED] = "is damaged and ignored",
                                                  [TURNS_NOTE_ABSURD] = "says absurd times and is ignored",
                                                  [TURNS_NOTE_OVERSTAYS] = "kept the GPU beyond its turn: others go on without it",
                                                  [TURNS_NOTE_EARLY] = "took a turn that was another's",
                                                  [TURNS_NOTE_LIES] = "uses more than it says: it is ranked by what was seen"};
    struct turns_room *room = turns->room;
    bool told = false;

    if (!room)
        return false;
    lock_take(&room->lock);
    for (unsigned i = 0; !told && i < TURNS_PEERS; i++) {
        for (unsigned note = 0; !told && note < TURNS_NOTES; note++) {
            uint8_t bit = (uint8_t)(1U << note);

            if (!(room->peer[i].due & bit))
                continue;
            room->peer[i].due &= (uint8_t)~bit;
            log_format(line, size, "turns: the entry of tenant %s %s", room->peer[i].name, text[note]);
            if (damage)
                *damage = note == TURNS_NOTE_DAMAGED || note == TURNS_NOTE_ABSURD;
            told = true;
        }
    }
    lock_give(&room->lock);
    return told;
}
