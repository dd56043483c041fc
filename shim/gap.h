/* SPDX-License-Identifier: Apache-2.0 */
/* The gap: what the driver's own figure for this process shows beyond the ledger. Contexts, modules, heaps, stacks: what no argument tells.
 *
 * It is one number for each device, and every reading sets it: whatever several threads do at once, it is charged once. A reading is a
 * ticket that is taken before the driver is asked, and is applied only if none with a later ticket has been; so when all calls are done, what
 * stands is what was read after the last of them. */
#ifndef SOFTSLICE_SHIM_GAP_H
#define SOFTSLICE_SHIM_GAP_H

#include <stdbool.h>

#include "process.h"

/* Read, and charge or refund the difference. What the driver has taken by itself is never refused here: over the limit, it is charged and one
 * line says so. False where the figure cannot be read: then nothing changes, but that without a context there is no gap either. Asks NVML: not for
 * hot paths, no lock held. */
bool gap_read(struct membership *membership, int device);

/* Before a refusal: whether the driver has given back some of it by itself. Unless it has to be known `now`, programs that are refused over and
 * over do not pay for it each time: it is looked for every 100 ms. */
bool gap_fell(struct membership *membership, int device, bool now);

/* gap_read() soon, by the thread that reads now and then; for news such as a member's death. At once where there is no such thread. */
void gap_poke(struct membership *membership, int device);

/* Bytes that are mapped here and charged elsewhere (negative: no longer). Whether the driver's figure for a process counts them is not known, so
 * they neither raise nor lower what is charged here. */
void gap_note_import(int device, int64_t bytes);

/* Bytes of managed memory that are charged here (negative: no longer). How many of them are on the GPU is the driver's affair: what is charged
 * for the gap is neither raised nor lowered by them. */
void gap_note_managed(int device, int64_t bytes);

/* Bytes charged for it now, and whether they are only the least that it can be: other threads were allocating and freeing. */
uint64_t gap_bytes(int device);
bool gap_is_rough(int device);

/* What of this process's charges must be in the driver's figure for it. */
uint64_t gap_least(const struct membership *membership, int device);

/* ---- around a call by which the driver takes memory that no argument tells */

enum gap_devices { GAP_CURRENT = -2, GAP_ALL = -3 }; /* that of the current context; wherever this process has one */

struct growth {
    struct membership *membership; /* NULL: nothing to do */
    int first, last;
    uint64_t owner; /* of the current context */
    uint64_t before[QUOTA_DEVICES];
    uint64_t free,
        tenant; /* without a figure: the device's free bytes, and what the tenant holds of it; `free` UINT64_MAX: not known */
    unsigned attempt;
};

/* Call the driver after it, then growth_end(). `device`: one, PROCESS_NO_DEVICE, or an enum gap_devices. */
void growth_begin(struct growth *growth, int device);

/* Whether the driver's CUDA_ERROR_OUT_OF_MEMORY is worth asking again. */
bool growth_again(struct growth *growth, CUresult result);

/* Charge what the call took; `handle` is what it made (0: nothing that ends by itself). False: that is over the budget, and not charged; undo
 * it, call growth_undone() and answer CUDA_ERROR_OUT_OF_MEMORY. */
bool growth_end(struct growth *growth, CUresult result, uint64_t handle);
void growth_undone(struct growth *growth);

/* The end of what a call made: the record of `handle`, if there is one, comes out before the driver is asked. */
struct shrink {
    struct membership *membership;
    int first, last;
    bool recorded;
    struct record record;
};
void shrink_begin(struct shrink *shrink, int device, uint64_t handle);
void shrink_end(struct shrink *shrink, CUresult result);

/* ---- for contexts (shim/context.c) */

/* `bytes` were reserved for what the driver is about to take; gap_settle() or gap_cancel() ends that. */
void gap_expect(const struct quota_charge *charge);
void gap_cancel(struct membership *membership, const struct quota_charge *charge);

/* Turn an expected charge into what is measured. GAP_UNKNOWN: there is no figure, and the charge is as it was, no longer expected. GAP_REFUSED:
 * the budget has no room for what was not expected; all is given back, the context has to go and gap_read() to follow. `likely` is what to
 * assume where other threads do not let it be measured; *took is set to what was measured, 0 if it was not. */
enum gap_verdict { GAP_UNKNOWN, GAP_KEPT, GAP_REFUSED };
enum gap_verdict gap_settle(struct membership *membership, const struct quota_charge *charge, uint64_t before, uint64_t likely,
                            uint64_t *took);

#endif
