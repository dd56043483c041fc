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
size_t slabs_size(void);

/* Whether an allocation of `bytes` shares a granule with others. */
bool slabs_is_small(uint64_t bytes, uint64_t granule);

/* Whether some slab of `device` may have room for `bytes`. A guess, for the room may be in pieces, in another context's slab, or gone. */
bool slabs_have_room(const struct slabs *slabs, unsigned device, uint64_t bytes);

/* The driver put `bytes` at `address`. 0: into a slab that is charged; 1: into one that nobody has charged yet; -ENOMEM (host memory). */
int slabs_add(struct slabs *slabs, unsigned device, uint64_t granule, uint64_t address, uint64_t bytes);

/* The slab of `address` is to be charged: true for exactly one caller, who has reserved a granule and keeps it. */
bool slabs_charge(struct slabs *slabs, uint64_t granule, uint64_t address);

/* The same bytes are gone again. True: the slab was charged and is empty now, and the caller refunds it. */
bool slabs_remove(struct slabs *slabs, unsigned device, uint64_t granule, uint64_t address, uint64_t bytes);

#endif
