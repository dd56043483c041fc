/* SPDX-License-Identifier: Apache-2.0 */
/* Slabs by address, and for each device how many of them have how much room.
 *
 * A slab's record carries the units in use and whether it is charged (`small`): exactly one of those who put something into it sets that,
 * and exactly the one who takes the last unit out finds it set. The counts of room are a guess beside that, right when nobody is busy. */
#include "softslice/slabs.h"

#include "softslice/quota.h"
#include "softslice/records.h"

#define UNIT      512
#define SMALL_MAX (UINT64_C(1) << 20) /* what is larger is not put into a slab, whatever the granule */

/* Classes of room in units: exact below 64, then 16 to each power of two. */
#define EXACT        64
#define EXACT_LOG    6
#define STEPS        16
#define ROOM_CLASSES (EXACT + (20 - EXACT_LOG) * STEPS) /* up to 2^20 units: a granule of 512 MiB */

struct slabs {
    uint32_t room[QUOTA_DEVICES][ROOM_CLASSES];  /* atomic: slabs with that much room */
    char records[] __attribute__((aligned(64))); /* key: address / granule + 1, bytes: units in use */
};

size_t slabs_size(void)
{
    return sizeof(struct slabs) + records_size();
}

static struct records *records_of(struct slabs *slabs)
{
    return (struct records *)slabs->records;
}

static uint64_t units_of(uint64_t bytes)
{
    return (bytes + UNIT - 1) / UNIT;
}

/* The class of slabs with about `units` of room. */
static unsigned class_of(uint64_t units)
{
    if (units < EXACT)
        return (unsigned)units;
    unsigned log = 63 - (unsigned)__builtin_clzll(units);
    unsigned step = EXACT + (log - EXACT_LOG) * STEPS + (unsigned)((units >> (log - 4)) & (STEPS - 1));
    return step < ROOM_CLASSES ? step : ROOM_CLASSES - 1;
}

static void count_room(struct slabs *slabs, unsigned device, uint64_t units, uint32_t by)
{
    if (units)
        __atomic_fetch_add(&slabs->room[device][class_of(units)], by, __ATOMIC_RELAXED);
}

/* A slab's use went from `before` to `after` of `all` units; one that is empty is none. */
static void recount(struct slabs *slabs, unsigned device, uint64_t all, uint64_t before, uint64_t after)
{
    if (before)
        count_room(slabs, device, before < all ? all - before : 0, (uint32_t)-1);
    if (after)
        count_room(slabs, device, after < all ? all - after : 0, 1);
}

bool slabs_is_small(uint64_t bytes, uint64_t granule)
{
    return bytes && bytes <= SMALL_MAX && bytes <= granule / 2;
}

static uint64_t key_of(uint64_t granule, uint64_t address)
{
    return address / granule + 1;
}

bool slabs_have_room(const struct slabs *slabs, unsigned device, uint64_t bytes)
{
    for (unsigned i = class_of(units_of(bytes)); i < ROOM_CLASSES; i++)
        if ((int32_t)__atomic_load_n(&slabs->room[device][i], __ATOMIC_RELAXED) > 0)
            return true;
    return false;
}

int slabs_add(struct slabs *slabs, unsigned device, uint64_t granule, uint64_t address, uint64_t bytes)
{
    uint64_t units = units_of(bytes);
    struct record before;
    int result = records_add(records_of(slabs), key_of(granule, address), (int64_t)units, &before);

    if (result)
        return result;
    recount(slabs, device, granule / UNIT, before.bytes, before.bytes + units);
    return !before.small;
}

bool slabs_charge(struct slabs *slabs, uint64_t granule, uint64_t address)
{
    return records_mark(records_of(slabs), key_of(granule, address));
}

bool slabs_remove(struct slabs *slabs, unsigned device, uint64_t granule, uint64_t address, uint64_t bytes)
{
    uint64_t units = units_of(bytes);
    struct record before;

    records_add(records_of(slabs), key_of(granule, address), -(int64_t)units, &before);
    if (before.bytes == 0)
        return false;
    uint64_t after = before.bytes > units ? before.bytes - units : 0;
    recount(slabs, device, granule / UNIT, before.bytes, after);
    return after == 0 && before.small;
}
