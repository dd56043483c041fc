/* SPDX-License-Identifier: Apache-2.0 */
/* This process's part in its tenant's turns (softslice/turns.h): when it asks, when it must go, when it lets go. Where turns are off (nobody else to be
 * seen, MPS, no state directory) every question is answered "go". */
#ifndef SOFTSLICE_SHIM_TURN_H
#define SOFTSLICE_SHIM_TURN_H

#include "pace.h"

/* When to ask again, at the latest, and the word of another tenant's file that may change before; NULL: none. */
struct turn_wait {
    uint64_t until;
    uint32_t *word, seen;
};

/* Whether this process may launch on `device` now. False: wait, and ask again. */
bool turn_ask(struct membership *membership, struct paces *paces, int device, uint64_t now, struct turn_wait *wait);

/* GPU time was charged. */
void turn_used(struct paces *paces, int device, uint64_t used);

/* How much of what was claimed was other tenants' slices of the GPU: as much as each has that works beside others, as far as turns tell. Where the work's
 * estimate is known, who holds the turn had no more than that, since it may have filled its slices badly; who has lost it had no less. */
struct turn_claim {
    uint64_t used; /* ns that were claimed, of those since the last claim, or since `from` */
    uint64_t from;
    uint64_t work; /* what was done, by estimate; 0: not known */
};
uint64_t turn_theirs(struct paces *paces, int device, const struct turn_claim *claim, uint64_t now);

/* The device is idle as far as this process goes. `told`: by the program's waiting for it. */
void turn_idle(struct paces *paces, uint64_t now, bool told);

/* Whether the program leaves it to us to see that its work is done, while others wait for the GPU. */
bool turn_blind(const struct paces *paces, uint64_t now);

/* The process ends: its turn is over. */
void turn_end(struct paces *paces, uint64_t now);

/* The balance is in debt: there is nothing to launch for a while. */
void turn_not_wanted(struct paces *paces, uint64_t now);

/* No other tenant is seen on any GPU. False where turns are off, too: who else is there is not known. */
bool turn_alone(const struct paces *paces);

/* For a launch that waits while nobody else is seen: look whether somebody came. And until when that one did counts: the next will have looked by then. */
void turn_look(struct paces *paces, uint64_t now);
uint64_t turn_looked(const struct paces *paces);

/* For the pacer: let go when it is time to. When to look again, CLOCK_NEVER if there is nothing to look after. */
uint64_t turn_tick(struct membership *membership, struct paces *paces, uint64_t now);

#endif
