/* SPDX-License-Identifier: Apache-2.0 */
/* Slabs by address: a record for each, with the units in use and whether it is charged (`small`). Exactly one of those who put something
 * into it sets that, and exactly the one who takes the last unit out finds it set. */
#include "softslice/slabs.h"

#include "softslice/quota.h"
#include "softslice/records.h"

#define UNIT      512
#define SMALL_MAX (UINT64_C(1) << 20) /* what is larger is not put into a slab, whatever the granule */

struct slabs {
    uint32_t from; /* where room was found last */
    char records[] __attribute__((aligned(64)));
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

/* With the device, and whether it is managed memory: an address may be another one's as soon as the driver has it back, before the last block
 * here is taken out. */
static uint64_t key_of(unsigned device, unsigned family, uint64_t granule, uint64_t address)
{
    uint64_t kind = 2 * (uint64_t)device + (family == QUOTA_MANAGED);

    return (address >> __builtin_ctzll(granule)) * 2 * QUOTA_DEVICES + kind + 1;
}

bool slabs_is_small(uint64_t bytes, uint64_t granule)
{
    return bytes && bytes <= SMALL_MAX && bytes <= granule / 2;
}

struct wish {
    unsigned device;
    uint64_t most; /* units in use, for there to be room */
};

static bool has_room(void *argument, const struct record *slab)
{
    const struct wish *wish = argument;

    return slab->device == wish->device && slab->bytes <= wish->most;
}

bool slabs_have_room(struct slabs *slabs, unsigned device, uint64_t granule, uint64_t bytes, uint64_t *changes)
{
    struct wish wish = {.device = device, .most = granule / UNIT - units_of(bytes)};

    return records_search(records_of(slabs), has_room, &wish, &slabs->from, changes);
}

int slabs_add(struct slabs *slabs, unsigned device, unsigned family, uint64_t granule, uint64_t address, uint64_t bytes,
              bool charge)
{
    struct record part = {.key = key_of(device, family, granule, address),
                          .bytes = units_of(bytes),
                          .device = (uint16_t)device,
                          .family = (uint8_t)family,
                          .small = charge};

    return records_add(records_of(slabs), &part);
}

void slabs_remove(struct slabs *slabs, uint64_t granule, const struct record *block,
                  void (*refund)(void *argument, const struct record *slab), void *argument)
{
    records_subtract(records_of(slabs), key_of(block->device, block->family, granule, block->key), units_of(block->bytes), refund,
                     argument);
}

void slabs_visit(struct slabs *slabs, void (*visit)(void *argument, const struct record *slab), void *argument)
{
    records_visit(records_of(slabs), visit, argument);
}

static bool add_block(void *units, const struct record *block)
{
    *(uint64_t *)units += block->small ? units_of(block->bytes) : 0;
    return false;
}

static bool add_slab(void *units, const struct record *slab)
{
    *(uint64_t *)units += slab->bytes;
    return false;
}

static uint64_t sum(struct records *records, bool (*add)(void *units, const struct record *record))
{
    uint64_t units = 0, changes = 0;

    records_search(records, add, &units, &(uint32_t){0}, &changes);
    return units;
}

/* A block comes into its slab first and goes from it last, so what is on its way makes the slabs' sum larger, and if it ends between the
 * readings the blocks' change. */
bool slabs_settled(struct slabs *slabs, struct records *blocks)
{
    uint64_t before = sum(blocks, add_block);

    return sum(records_of(slabs), add_slab) == before && sum(blocks, add_block) == before;
}
