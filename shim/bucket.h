/* SPDX-License-Identifier: Apache-2.0 */
/* Charges for what is small and has no address: arrays of at most half a granule share granules, and nobody says which. So they are charged as one
 * sum for each context, rounded up to granules. What a driver holds beyond that, because the array that would close a gap has not come yet,
 * shows in its figure for the process. */
#ifndef SOFTSLICE_SHIM_BUCKET_H
#define SOFTSLICE_SHIM_BUCKET_H

#include <stdbool.h>

#include "process.h"

/* A small array between asking and keeping; lives on the wrapper's stack. */
struct bucket {
    uint64_t owner; /* of the context */
    unsigned device;
    uint64_t share;             /* of a granule, in bytes: as many as the granule has room for make a whole one */
    struct quota_charge charge; /* the granule that it begins, else nothing */
};

/* Ask for `bytes`, which slabs_is_small(), of the context `owner`. False: over the budget, and said so. */
bool bucket_begin(struct membership *membership, struct bucket *bucket, uint64_t owner, unsigned device, uint64_t bytes);

/* The driver succeeded: fill *record but for its key. Or it failed. */
void bucket_keep(struct membership *membership, struct bucket *bucket, struct record *record);
void bucket_cancel(struct membership *membership, struct bucket *bucket);

/* Give back what bucket_keep()'s record was charged with. */
void bucket_remove(struct membership *membership, const struct record *record);

#endif
