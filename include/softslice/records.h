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

/* Look without taking. */
bool records_find(struct records *records, uint64_t key, struct record *out);

/* Add `delta` to the bytes of the record of `key`, which is there exactly while that is above 0: it comes, with `small` 0, by the first
 * addition and goes at 0 or below. *before receives it as it was, bytes 0 if it was not there. 0 or -ENOMEM (host memory). */
int records_add(struct records *records, uint64_t key, int64_t delta, struct record *before);

/* Set `small` of a record. True for exactly one of several callers; false too where it is not there. */
bool records_mark(struct records *records, uint64_t key);

/* Take out all records of `context` (0: none), calling `each` for every one with no lock held. */
void records_drop_context(struct records *records, uint64_t context, void (*each)(void *argument, const struct record *record),
                          void *argument);

/* Take out all records, likewise. */
void records_drop_all(struct records *records, void (*each)(void *argument, const struct record *record), void *argument);

size_t records_count(struct records *records);

#endif
