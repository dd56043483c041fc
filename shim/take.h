/* SPDX-License-Identifier: Apache-2.0 */
/* What the wrappers of allocating and freeing calls have in common: ask, call the driver, keep the charge or give it back. */
#ifndef SOFTSLICE_SHIM_TAKE_H
#define SOFTSLICE_SHIM_TAKE_H

#include <stdbool.h>

#include "process.h"

/* An allocation between asking and keeping; lives on the wrapper's stack. While it is open, calls that the driver makes to itself on this
 * thread go straight through. */
struct take {
    struct membership *membership; /* NULL: nothing to charge, the driver answers by itself */
    uint64_t owner;                /* of the current context */
    uint64_t endings;              /* context_endings() before that */
    unsigned attempt, device;
    enum quota_family family;
    uint64_t small; /* bytes, if it shares a granule with others: then `charge` is one granule, or nothing where a slab has room */
    bool
        unreserved; /* `charge` is nothing: what the driver takes all the same is told by shim/returns.h, until it is charged or given back */
    bool displaced; /* by take_end() */
    bool quiet;     /* what would be a refusal is not told: something else is tried then */
    struct quota_charge charge;
};

/* Reserve `bytes` on a quota device for any family. Before it refuses, what can be given back is; a refusal is counted and told. */
bool take_reserve(struct membership *membership, struct quota_charge *charge, unsigned device, uint64_t bytes,
                  enum quota_family family);

/* Ask for `bytes` on the current context's device. CUDA_SUCCESS: call the driver now, then take_end(), whatever it said. Anything else is
 * the answer for the program: CUDA_ERROR_OUT_OF_MEMORY (over budget), CUDA_ERROR_OPERATING_SYSTEM (limits cannot be kept). Not
 * charged, because the driver will refuse: no current context, `bytes` 0. */
CUresult take_begin(struct take *take, uint64_t bytes, enum quota_family family);

/* The same, saying nothing where it is over the budget, here or later. */
CUresult take_begin_quiet(struct take *take, uint64_t bytes, enum quota_family family);

/* Whether the driver's CUDA_ERROR_OUT_OF_MEMORY is worth asking again: a member died a moment ago and its memory is on its way back. */
bool take_again(struct take *take, CUresult result);

/* Widen the charge to `bytes` before take_end() (a pitch that only the driver knew). False: over budget; free and refuse. */
bool take_widen(struct take *take, uint64_t bytes);

/* Keep the charge under `pointer` if `result` is CUDA_SUCCESS, else give it back. False (the charge is given back) if it could not be
 * remembered for want of host memory, or if the driver took a granule for a small allocation where it had room and the budget has none
 * for that: free what the driver gave and answer CUDA_ERROR_OUT_OF_MEMORY. */
bool take_end(struct take *take, CUresult result, uint64_t pointer);

/* After take_end() said no and the driver was told to free: whether to begin anew, because the slab that had room was on its way out when the
 * driver was asked: it has gone by now. `times` counts, from 0. If not, this was a refusal. */
bool take_anew(struct take *take, unsigned *times);

/* Give back what the record of an allocation was charged with. */
void take_refund(struct membership *membership, const struct record *record);

/* Enter what was charged into `records` (process_allocations(), process_handles()), its owner having been current after `endings` was read from
 * context_endings(): if that context has ended meanwhile, it is given back at once. False, with the charge given back, for want of host
 * memory: undo. */
bool take_enter(struct membership *membership, struct records *records, const struct record *record, uint64_t endings);

/* A free: the record comes out before the driver's call, for the address can be handed out again at once. */
struct give {
    struct membership *membership; /* NULL: not ours, only forwarded */
    struct records *records;
    struct record record;
    uint64_t endings;
};
void give_begin(struct give *give, uint64_t pointer);
void give_begin_handle(struct give *give, const void *handle); /* of process_handles() */

/* Refund if the driver freed it (or is gone, with all its memory), put the record back if not. */
void give_end(struct give *give, CUresult result);

#endif
