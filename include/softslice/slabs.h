/* SPDX-License-Identifier: Apache-2.0 */
/* Which granules of HBM hold small allocations, and how full they are. A driver puts small allocations into granules ("slabs") that it
 * takes and gives back whole; how it fills them is its own affair, and the addresses that it hands out tell. Process-private. */
#ifndef SOFTSLICE_SLABS_H
#define SOFTSLICE_SLABS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zero-filled memory is an empty table, to be placed at a multiple of 64 in memory that a fork wipes. */
struct slabs;
struct record;
struct records;
size_t slabs_size(void);

/* Whether an allocation of `bytes` shares a granule with others. */
bool slabs_is_small(uint64_t bytes, uint64_t granule);

/* Whether some slab of `device` has room for `bytes`. The driver may see that otherwise: the room may be in pieces, or in another
 * context's slab. If there is none, *changes differs from what it was before if slabs came or went since. */
bool slabs_have_room(struct slabs *slabs, unsigned device, uint64_t granule, uint64_t bytes, uint64_t *changes);

/* The driver put `bytes` at `address`. 0: into a slab that is charged; 1: into one that nobody has charged yet, and if `charge` is set it
 * is the caller who does now, with the granule that it has reserved; -ENOMEM (host memory). With 0 bytes it asks, or charges, later. Managed
 * memory (`family`) has slabs of its own. */
int slabs_add(struct slabs *slabs, unsigned device, unsigned family, uint64_t granule, uint64_t address, uint64_t bytes,
              bool charge);

/* The block is gone again: its device, family, address (`key`) and bytes. If the slab was charged and is empty now, `refund` is called, under a
 * lock so that nobody finds neither the slab nor its granule: it gives a granule of slab->device back, of slab->family, and does nothing else. */
void slabs_remove(struct slabs *slabs, uint64_t granule, const struct record *block,
                  void (*refund)(void *argument, const struct record *slab), void *argument);

/* records_visit() of the slabs: `small` is set in those that are charged, with a granule each of their device and family. */
void slabs_visit(struct slabs *slabs, void (*visit)(void *argument, const struct record *slab), void *argument);

/* Whether the slabs hold what the small ones of `blocks` come to, so that no thread is between the driver and us with one. Looks at all of
 * both. */
bool slabs_settled(struct slabs *slabs, struct records *blocks);

#endif
