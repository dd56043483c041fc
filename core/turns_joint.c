/* SPDX-License-Identifier: Apache-2.0 */
/* Turns of a tenant on several devices, which it has together or not at all. What it has of them before it has the last one nobody can use. So it does not
 * press for a device while another one takes longer: who holds that goes on, who waits for it may have it. Once the last of the others, by what was seen of
 * their holders, needs no longer to let go than this one, all are pressed for, and what becomes free is taken. */
#include "turns_internal.h"

/* A device that the tenant needs and does not have. */
struct missing {
    uint64_t ready; /* when it could have it, about */
    uint64_t lead;  /* how long before that it has to press */
};

static struct missing miss(struct turns_room *room, unsigned device, uint64_t now, struct turns_patience *patience)
{
    uint64_t rank = turns_load(&room->mine[device].entry->rank, TURNS_WORD_RANK);
    struct turns_survey survey;

    turns_survey(room, device, rank, now, &survey);
    patience->comes &= survey.drains;
    if (!survey.held)
        return (struct missing){.ready = now + survey.ahead * survey.quantum};
    return (struct missing){.ready = survey.due + survey.drain + survey.ahead * survey.quantum, .lead = survey.drain};
}

struct turns_patience turns_patience(struct turns_room *room, uint64_t devices, uint64_t now)
{
    struct turns_patience patience = {.until = TURNS_NEVER, .comes = true};
    struct missing missing[TURNS_DEVICES];
    uint64_t last = 0, due = TURNS_NEVER, all = devices;

    for (unsigned i = 0; i < room->devices; i++) {
        if (devices >> i & 1 && (turns_load(&room->mine[i].entry->hold, TURNS_WORD_HOLD) & 3) >= TURNS_HELD)
            devices &= ~(UINT64_C(1) << i);
        if (!(devices >> i & 1))
            continue;
        missing[i] = miss(room, i, now, &patience);
        if (missing[i].ready > last) {
            last = missing[i].ready;
            due = last - missing[i].lead;
        }
    }
    /* Somebody else came in between. */
    if (room->ready && last > room->ready + room->quantum)
        room->ready = room->pressed = 0;
    if (!room->ready && now >= due)
        room->ready = last;
    if (room->ready && devices != all)
        room->ready = now;
    if (room->ready)
        last = room->ready;
    for (unsigned i = 0; i < room->devices; i++) {
        if (!(devices >> i & 1) || room->pressed >> i & 1)
            continue;
        if (now + missing[i].lead >= last) {
            room->pressed |= room->ready ? UINT64_C(1) << i : 0;
            continue;
        }
        if (last - missing[i].lead < patience.until)
            patience.until = last - missing[i].lead;
        if (room->ready || missing[i].ready < last)
            patience.devices |= UINT64_C(1) << i;
    }
    return patience;
}
