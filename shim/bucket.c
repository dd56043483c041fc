/* SPDX-License-Identifier: Apache-2.0 */
/* Sums by context. Each change of a sum that passes a multiple of the granule upwards owes a granule, each one downwards gives one back; whoever
 * makes the change settles it, so that when all have, the sum is charged, rounded up, in whatever order they came. */
#include "bucket.h"

#include "take.h"

static uint64_t granule_of(const struct membership *m, unsigned device)
{
    return m->quota.device[device].granule;
}

static uint64_t granules(uint64_t sum, uint64_t granule)
{
    return (sum + granule - 1) / granule;
}

/* Whether the share could be added to a granule that is charged already. */
static bool add_to_begun(struct bucket *bucket, const struct record *part, uint64_t granule)
{
    uint64_t before;
    struct record sum;

    while (records_find(process_buckets(), part->key, &sum)) {
        uint64_t most = granules(sum.bytes, granule) * granule;

        if (bucket->share > most - sum.bytes)
            return false;
        /* Not if that granule has been given back since: another thread's removal may have taken the sum below it. */
        if (records_shift_from(process_buckets(), part, (int64_t)bucket->share, most - granule + 1, most, &before))
            return true;
    }
    return false;
}

bool bucket_begin(struct membership *m, struct bucket *bucket, uint64_t owner, unsigned device, uint64_t bytes)
{
    uint64_t granule = granule_of(m, device), before;
    struct record part = {.key = owner, .device = (uint16_t)device, .family = QUOTA_ARRAY};

    *bucket = (struct bucket){.owner = owner, .device = device, .share = granule / (granule / bytes)};
    if (add_to_begun(bucket, &part, granule))
        return true;
    if (!take_reserve(m, &bucket->charge, device, granule, QUOTA_ARRAY))
        return false;
    if (!records_shift(process_buckets(), &part, (int64_t)bucket->share, UINT64_MAX, &before)) {
        quota_cancel(&m->quota, &bucket->charge);
        return false;
    }
    if (granules(before, granule) == granules(before + bucket->share, granule)) { /* another one has begun it meanwhile */
        quota_cancel(&m->quota, &bucket->charge);
        bucket->charge.bytes = 0;
    }
    return true;
}

void bucket_keep(struct membership *m, struct bucket *bucket, struct record *record)
{
    quota_keep(&m->quota, &bucket->charge, 0, record);
    record->context = bucket->owner;
    record->bytes = bucket->share;
    record->device = (uint16_t)bucket->device;
    record->family = QUOTA_ARRAY;
    record->small = true;
}

/* Take the share off the sum; whether that leaves a granule unused. */
static bool shrink(uint64_t owner, uint64_t share, uint64_t granule)
{
    struct record part = {.key = owner};
    uint64_t before = 0;

    records_shift(process_buckets(), &part, -(int64_t)share, UINT64_MAX, &before);
    return before && granules(before, granule) != granules(before > share ? before - share : 0, granule);
}

void bucket_cancel(struct membership *m, struct bucket *bucket)
{
    uint64_t granule = granule_of(m, bucket->device);
    bool unused = shrink(bucket->owner, bucket->share, granule);
    struct record record;

    if (bucket->charge.bytes && unused)
        quota_cancel(&m->quota, &bucket->charge);
    else if (bucket->charge.bytes) /* others have come to need it */
        quota_keep(&m->quota, &bucket->charge, 0, &record);
    else if (unused)
        quota_refund(&m->quota, &(struct record){.bytes = granule, .device = (uint16_t)bucket->device});
}

void bucket_remove(struct membership *m, const struct record *record)
{
    uint64_t granule = granule_of(m, record->device);

    if (shrink(record->context, record->bytes, granule))
        quota_refund(&m->quota, &(struct record){.bytes = granule, .device = record->device});
}
