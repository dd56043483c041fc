/* SPDX-License-Identifier: Apache-2.0 */
/* Physical allocations (cuMemCreate), which live while a reference to their handle, a mapping or an attachment is left, in whatever order these
 * go: rule R5. No CUDA in here. Process-private.
 *
 * What may end an allocation is told before the driver is called and again after it: the driver can hand the same handle value out for another
 * allocation before the caller is back. One short lock guards the tables; nobody holds it while a driver works. */
#ifndef SOFTSLICE_PHYS_H
#define SOFTSLICE_PHYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zero-filled memory is an empty table, to be placed at a multiple of 64 in memory that a fork wipes. */
struct phys;
size_t phys_size(void);

/* An allocation that has ended. */
struct phys_end {
    uint64_t bytes;   /* as phys_create() was told: what to refund */
    uint64_t address; /* of its latest mapping, 0: never mapped, or phys_forget() */
    uint64_t shared;  /* as phys_share() was told */
    uint16_t device;
};

/* Called under the lock for each allocation that ends: may give bytes back in the ledger, and does nothing with this table. Attachments that it
 * owns end with it. */
typedef void phys_ended(void *argument, const struct phys_end *end);

struct phys_use {
    struct phys *table;
    phys_ended *ended;
    void *argument;
};

/* The driver made an allocation, with one reference; or it handed out another process's, which costs nothing here: of 0 bytes, on PHYS_NO_DEVICE if
 * it takes nothing of any. 0, or -ENOMEM (host memory): undo. An allocation that still stands under the handle, and of
 * which nothing is left but references, ended on a road that we do not see: it ends now. */
#define PHYS_NO_DEVICE UINT16_MAX
int phys_create(const struct phys_use *use, uint64_t handle, unsigned device, uint64_t bytes);

/* The driver handed a handle out once more (retained, or imported where it was known). False where there is no such allocation. */
bool phys_retain(const struct phys_use *use, uint64_t handle);

/* A call about a handle, between begin and end; lives on the wrapper's stack. An unknown handle is none of ours: nothing happens at the end. */
struct phys_call {
    uint32_t entry;  /* 0: none */
    bool foreign;    /* of a mapping: it is another process's, and its size is not known yet */
    uint16_t device; /* which it is on then */
};

/* Around a release. `done`: the driver did it. */
struct phys_call phys_release_begin(const struct phys_use *use, uint64_t handle);
void phys_release_end(const struct phys_use *use, struct phys_call call, bool done);

/* Around a mapping of all of it at `address`. False, after the driver did it: no host memory to remember it; undo, then call again as not
 * done. */
struct phys_call phys_map_begin(const struct phys_use *use, uint64_t handle);
bool phys_map_end(const struct phys_use *use, struct phys_call call, bool done, uint64_t address, uint64_t size);

/* Between begin and end of a mapping that is done: tells how large another process's allocation is. True for one call only. */
bool phys_share(const struct phys_use *use, struct phys_call call, uint64_t bytes);

/* The driver undid the mappings in a range, which is made of whole ones. */
void phys_unmap(const struct phys_use *use, uint64_t address, uint64_t size);

/* A range of addresses was freed, with no mapping in it: no allocation was mapped there any more. Looks at all of them. */
void phys_forget(const struct phys_use *use, uint64_t address, uint64_t size);

/* Around anything else that holds the memory, e.g. a binding of a multicast object: `key` names the attachment, `owner` what it ends with (an
 * allocation's phys_object(), or a number of the caller's with PHYS_FOREIGN_OWNER set). An attachment of the same key is replaced. */
#define PHYS_FOREIGN_OWNER (UINT64_C(1) << 63)
struct phys_call phys_attach_begin(const struct phys_use *use, uint64_t handle);
bool phys_attach_end(const struct phys_use *use, struct phys_call call, bool done, uint64_t owner, uint64_t key);
void phys_detach(const struct phys_use *use, uint64_t key);
void phys_drop_owner(const struct phys_use *use, uint64_t owner);

/* A number that no other allocation of this table ever had: of the one behind a handle, 0: unknown. */
uint64_t phys_object(struct phys *table, uint64_t handle);

/* A key from up to three words that name an attachment. */
uint64_t phys_key(uint64_t a, uint64_t b, uint64_t c);

/* Call `visit` once for each allocation that is charged here and there all the while, under the lock, which is given back every few hundred: it may
 * make a few memory accesses, and nothing of this table. */
void phys_visit(struct phys *table, void (*visit)(void *argument, unsigned device, uint64_t bytes), void *argument);

/* How many allocations are known. */
size_t phys_count(struct phys *table);

#endif
