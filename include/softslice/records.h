/* SPDX-License-Identifier: Apache-2.0 */
/* What this process was charged for: device pointer or handle -> bytes, device, owning context. Process-private. */
#ifndef SOFTSLICE_RECORDS_H
#define SOFTSLICE_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One charge. `bytes` is what to refund; `device` the index of the quota device, `family` an enum quota_family. */
struct record {
    uint64_t key;     /* CUdeviceptr or handle, never 0 */
    uint64_t context; /* CUcontext that owns it, 0: none (survives context destruction) */
    uint64_t bytes;
    uint16_t device;
    uint8_t family;
    uint8_t small; /* charged to the small-allocation slabs */
};

/* Zero-filled memory is an empty table, so that it can live in MADV_WIPEONFORK pages and an interrupted fork finds no lock held. */
struct records;

/* Bytes that a struct records takes, to be placed at a multiple of 64 in memory that a fork wipes. The shards map their tables
 * themselves, MADV_DONTFORK, so a child whose struct records was not wiped must not use it. */
size_t records_size(void);

/* Remember a charge. 0, or -ENOMEM (host memory), in which case the caller must undo. 1: a record was replaced because its address
 * was handed out again after a free that we did not see, and *old is it. In a large table that may come out later, at another
 * key's put, and *old has a key of its own. */
int records_put(struct records *records, const struct record *record, struct record *old);

/* Take a record out: exactly one of several racing callers gets it. Returns false if it is not there. */
bool records_take(struct records *records, uint64_t key, struct record *out);

/* The same, if it is a record of `context`. */
bool records_take_of(struct records *records, uint64_t key, uint64_t context, struct record *out);

/* Put a record where none of its key is: 0 or -ENOMEM. 1: there is one, *known is it, and it stays. */
int records_enter(struct records *records, const struct record *record, struct record *known);

/* Look without taking. */
bool records_find(struct records *records, uint64_t key, struct record *out);

/* Records that are sums: add part->bytes to the one of part->key, and set `small` if part's is. It comes, as a copy of *part, with the first
 * bytes. 0 if `small` was set before, 1 if not, -ENOMEM (host memory). */
int records_add(struct records *records, const struct record *part);

/* Take bytes off again; with the last of them the record goes. If its `small` is set then, `last` is called with it first, under a
 * lock: it may make a few memory accesses, and nothing of these records. */
void records_subtract(struct records *records, uint64_t key, uint64_t bytes,
                      void (*last)(void *argument, const struct record *record), void *argument);

/* Sums whose size decides: add `change`, which may be negative, to the bytes of part->key's record, a copy of *part where there is none yet; at
 * 0 it goes. *before is what it had. False, with nothing changed, if it would have more than `most`, or for want of host memory. */
bool records_shift(struct records *records, const struct record *part, int64_t change, uint64_t most, uint64_t *before);

/* The same, and nothing is added to a sum that is below `least`. */
bool records_shift_from(struct records *records, const struct record *part, int64_t change, uint64_t least, uint64_t most,
                        uint64_t *before);

/* Whether there is a record that `match`, called under a lock as above, is true for. *from, shared by threads, is where the last search found
 * one and this one begins. If there is none, *changes differs from what it was before if sums came or went since. */
bool records_search(struct records *records, bool (*match)(void *argument, const struct record *record), void *argument,
                    uint32_t *from, uint64_t *changes);

/* Whether there is any record on `device`. Looks at all of them: for small tables. */
bool records_on_device(struct records *records, unsigned device);

/* Whether there is any record of `context`. Looks at all of them: for small tables. */
bool records_of_context(struct records *records, uint64_t context);

/* Take out all records of `context` (0: none), calling `each` for every one with no lock held. */
void records_drop_context(struct records *records, uint64_t context, void (*each)(void *argument, const struct record *record),
                          void *argument);

/* Take out all records, likewise. */
void records_drop_all(struct records *records, void (*each)(void *argument, const struct record *record), void *argument);

/* Call `visit` once for each record that is there all the while; one that comes or goes meanwhile is visited once at most. Under a lock as above,
 * which is given back every few hundred records at the latest: who allocates waits for microseconds. */
void records_visit(struct records *records, void (*visit)(void *argument, const struct record *record), void *argument);

size_t records_count(struct records *records);

#endif
