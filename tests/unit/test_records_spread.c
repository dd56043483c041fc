/* SPDX-License-Identifier: Apache-2.0 */
/* Device pointers are far from random: however they are aligned, no shard may overflow and no search may become long. */
#include <criterion/criterion.h>

#include "records.c"

static struct records records;

/* What stays while a shard is visited, and what comes and goes between two windows. */
enum { STAY = 60000, PASS = 60000 };
static unsigned seen[STAY + 1];

static uint64_t stay_key(unsigned i)
{
    return (uint64_t)(2 * i) << 21;
}

static void see(void *argument, const struct record *record)
{
    (void)argument;
    if ((record->key >> 21) % 2 == 0)
        seen[record->key >> 22]++;
}

static void put(uint64_t key)
{
    struct record record = {.key = key, .bytes = 1}, old;

    cr_assert_eq(records_put(&records, &record, &old), 0);
}

static uint64_t passing_key(unsigned i)
{
    return (uint64_t)(2 * i + 1) << 21;
}

/* Grow, and close gaps, with what stays in all shards and in all places. */
static void stir(unsigned step)
{
    struct record out;

    for (unsigned i = 0; i < 400; i++) {
        unsigned key = (step * 400 + i) % (2 * PASS);

        if (key < PASS)
            put(passing_key(key));
        else
            cr_assert(records_take(&records, passing_key(PASS - 1 - (key - PASS)), &out));
    }
    /* The newest of a shard goes into the table when the next one comes. */
    for (unsigned i = 1 + step % 61; i <= STAY; i += 61) {
        cr_assert(records_take(&records, stay_key(i), &out));
        put(stay_key(i));
    }
}

Test(records_spread, a_visit_sees_once_what_moves)
{
    unsigned step = 0;

    for (unsigned i = 1; i <= STAY; i++)
        put(stay_key(i));
    for (unsigned s = 0; s < SHARDS; s++) {
        struct shard *shard = &records.shard[s];
        uint64_t mask = shard->mask;

        cr_assert(mask >= WINDOW);
        for (uint64_t at = 0; at <= mask; at += WINDOW, stir(step++))
            visit_window(shard, mask, at, see, NULL);
    }
    for (unsigned i = 1; i <= STAY; i++)
        cr_assert_eq(seen[i], 1, "record %u was seen %u times", i, seen[i]);
    records_drop_all(&records, see, NULL);
}

static void each(void *argument, const struct record *record)
{
    (void)argument;
    (void)record;
}

Test(records_spread, no_alignment_makes_long_searches)
{
    static const uint64_t bases[] = {UINT64_C(0x7f0000000000), UINT64_C(0x302000000), UINT64_C(0x1c00000000000)};
    enum { BLOCKS = 200000 };

    for (unsigned shift = 3; shift <= 28; shift++) {
        for (unsigned b = 0; b < 3; b++) {
            uint64_t total = 0, longest = 0;
            uint32_t fullest = 0;

            for (uint64_t i = 0; i < BLOCKS; i++) {
                struct record record = {.key = bases[b] + (i << shift), .bytes = 1}, old;

                cr_assert_eq(records_put(&records, &record, &old), 0);
            }
            for (unsigned s = 0; s < SHARDS; s++) {
                const struct shard *shard = &records.shard[s];

                fullest = shard->count > fullest ? shard->count : fullest;
                for (uint64_t i = 0; i <= shard->mask; i++) {
                    uint64_t distance = (i - home_of(mix(shard->table[i].key), shard->mask)) & shard->mask;

                    if (!shard->table[i].key)
                        continue;
                    total += distance;
                    longest = distance > longest ? distance : longest;
                }
            }
            cr_expect_lt(fullest, 2 * BLOCKS / SHARDS, "shift %u base %u: fullest shard %u", shift, b, fullest);
            cr_expect_lt(total, 2 * BLOCKS, "shift %u base %u: %f steps on average", shift, b, (double)total / BLOCKS);
            cr_expect_lt(longest, 128, "shift %u base %u: longest %lu", shift, b, (unsigned long)longest);
            records_drop_all(&records, each, NULL);
        }
    }
}
