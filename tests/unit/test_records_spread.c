/* SPDX-License-Identifier: Apache-2.0 */
/* Device pointers are far from random: however they are aligned, no shard may overflow and no search may become long. */
#include <criterion/criterion.h>

#define records_size         inner_size
#define records_put          inner_put
#define records_take         inner_take
#define records_find         inner_find
#define records_drop_context inner_drop_context
#define records_drop_all     inner_drop_all
#define records_count        inner_count
#define records_add          inner_add
#define records_subtract     inner_subtract
#define records_search       inner_search
#define records_take_of      inner_take_of
#define records_enter        inner_enter
#define records_shift        inner_shift
#define records_on_device    inner_on_device
#define records_of_context   inner_of_context
#define records_shift        inner_shift
#include "records.c"

static struct records records;

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
