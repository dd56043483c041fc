/* SPDX-License-Identifier: Apache-2.0 */
/* What launches take, learned from segments between two marks. */
#include "softslice/estimate.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)

static struct estimate_table *fresh(void)
{
    size_t size = (estimate_size() + 63) & ~(size_t)63;
    struct estimate_table *table = aligned_alloc(64, size);

    cr_assert(table);
    memset(table, 0, size);
    return table;
}

static uint64_t key_of(uint64_t i)
{
    return estimate_key((const void *)(uintptr_t)(0x7f1234000000 + i * 256), 128, 1, 1, 256, 1, 1);
}

/* Keys that do not meet in a segment. */
static uint64_t apart(uint64_t i)
{
    return ESTIMATE_KEY | i << 40 | i;
}

static struct estimate_segment segment;
static bool gapless; /* the next segments */

/* Launch `n` of a key into the segment. */
static void launch(struct estimate_table *table, uint64_t key, unsigned n)
{
    while (n--)
        estimate_add(&segment, key, estimate_of(table, key));
}

static void mark(struct estimate_table *table, uint64_t elapsed)
{
    struct estimate_segment closed;

    estimate_close(table, &segment, &closed);
    cr_assert_eq(segment.launches, 0);
    estimate_learn(table, &closed, elapsed, gapless);
}

Test(estimate, a_single_launch_is_known_at_once)
{
    struct estimate_table *table = fresh();

    cr_assert_eq(estimate_of(table, key_of(1)), ESTIMATE_UNKNOWN);
    launch(table, key_of(1), 1);
    mark(table, 20 * US);
    cr_assert_eq(estimate_of(table, key_of(1)), 20 * US);
    cr_assert_eq(estimate_of(table, key_of(2)), ESTIMATE_UNKNOWN);
    mark(table, 1000 * MS);
    cr_assert_eq(estimate_of(table, key_of(1)), 20 * US, "nothing was launched");
    free(table);
}

Test(estimate, several_of_one_key_share_the_time)
{
    struct estimate_table *table = fresh();

    launch(table, key_of(1), 10);
    mark(table, 200 * US);
    cr_assert_eq(estimate_of(table, key_of(1)), 20 * US);
    free(table);
}

Test(estimate, it_moves_on_average)
{
    struct estimate_table *table = fresh();

    launch(table, key_of(1), 1);
    mark(table, 100 * US);
    launch(table, key_of(1), 1);
    mark(table, 180 * US);
    cr_assert_eq(estimate_of(table, key_of(1)), 120 * US);
    for (unsigned i = 0; i < 60; i++) {
        launch(table, key_of(1), 5);
        mark(table, 5 * 40 * US);
    }
    cr_assert_float_eq((double)estimate_of(table, key_of(1)), 40 * US, 10);
    launch(table, key_of(1), 1);
    mark(table, 30 * MS);
    cr_assert_eq(estimate_of(table, key_of(1)), 30 * MS, "much longer holds at once");
    free(table);
}

Test(estimate, the_rest_is_the_unknown_one)
{
    struct estimate_table *table = fresh();

    launch(table, key_of(1), 1);
    mark(table, 20 * US);
    launch(table, key_of(1), 30);
    launch(table, key_of(2), 1);
    mark(table, 600 * US + 5 * MS);
    cr_assert_eq(estimate_of(table, key_of(2)), 5 * MS);
    cr_assert_eq(estimate_of(table, key_of(1)), 20 * US);
    launch(table, key_of(1), 30);
    launch(table, key_of(3), 4);
    mark(table, 600 * US + 40 * US);
    cr_assert_eq(estimate_of(table, key_of(3)), 10 * US);
    free(table);
}

/* A kernel of 100 us of which is thought that it takes next to nothing would be launched thousands of times without a mark. */
Test(estimate, an_unknown_one_is_not_taken_for_nothing)
{
    struct estimate_table *table = fresh();

    launch(table, key_of(1), 1);
    mark(table, 20 * US);
    launch(table, key_of(1), 30);
    launch(table, key_of(4), 2);
    mark(table, 600 * US + 1 * US);
    cr_assert_geq(estimate_of(table, key_of(4)), 601 * US / 32 / 8);
    cr_assert_leq(estimate_of(table, key_of(4)), 601 * US / 32);
    launch(table, key_of(1), 30);
    for (uint64_t i = 0; i < 2; i++)
        launch(table, apart(i + 8), 1);
    mark(table, 600 * US + 1 * US);
    for (uint64_t i = 0; i < 2; i++)
        cr_assert_geq(estimate_of(table, apart(i + 8)), 601 * US / 32 / 8);
    launch(table, key_of(1), 30);
    launch(table, key_of(5), 1);
    mark(table, 500 * US);
    cr_assert_eq(estimate_of(table, key_of(5)), ESTIMATE_UNKNOWN, "nothing is left for it: the others' times are wrong");
    free(table);
}

Test(estimate, unknown_ones_of_several_keys_get_equal_parts)
{
    struct estimate_table *table = fresh();

    for (uint64_t i = 0; i < 3; i++) /* keys that do not meet in the segment */
        launch(table, apart(i + 8), 1);
    mark(table, 30 * US);
    for (uint64_t i = 0; i < 3; i++)
        cr_assert_eq(estimate_of(table, apart(i + 8)), 10 * US);
    free(table);
}

Test(estimate, a_segment_that_was_far_longer_makes_its_keys_unknown)
{
    struct estimate_table *table = fresh();

    for (uint64_t key = 8; key < 12; key++) {
        launch(table, apart(key), 1);
        mark(table, 10 * US);
    }
    for (uint64_t key = 8; key < 11; key++)
        launch(table, apart(key), 10);
    mark(table, 390 * US); /* 300 expected */
    cr_assert_eq(estimate_of(table, apart(8)), 10 * US);
    for (uint64_t key = 8; key < 11; key++)
        launch(table, apart(key), 10);
    mark(table, 6 * MS);
    for (uint64_t key = 8; key < 11; key++)
        cr_assert_eq(estimate_of(table, apart(key)), ESTIMATE_UNKNOWN);
    cr_assert_eq(estimate_of(table, apart(11)), 10 * US, "it was not in it");
    for (uint64_t key = 16; key < 18; key++) {
        launch(table, apart(key), 1);
        mark(table, 10 * US);
    }
    launch(table, apart(16), 1);
    launch(table, apart(17), 1);
    mark(table, 110 * US);
    cr_assert_neq(estimate_of(table, apart(16)), ESTIMATE_UNKNOWN, "100 us are no reason");
    free(table);
}

/* 20 us of every 35 us. */
/* A program that launches fast has several of them on their way when the first one shows that the estimate is wrong. */
Test(estimate, segments_in_flight_do_not_correct_twice)
{
    struct estimate_table *table = fresh();
    struct estimate_segment closed[10];

    launch(table, key_of(1), 1);
    mark(table, 30 * US);
    for (int i = 0; i < 10; i++) {
        launch(table, key_of(1), 7);
        estimate_close(table, &segment, &closed[i]);
    }
    for (int i = 0; i < 10; i++) {
        estimate_learn(table, &closed[i], 140 * US, true);
        cr_assert_geq(estimate_of(table, key_of(1)), 20 * US - 1, "after %d of them", i + 1);
    }
    cr_assert_leq(estimate_of(table, key_of(1)), 21 * US);
    free(table);
}

Test(estimate, a_program_that_launches_slowly_does_not_seem_to_be_at_work)
{
    struct estimate_table *table = fresh();

    launch(table, key_of(1), 1);
    mark(table, 20 * US);
    for (unsigned i = 0; i < 100; i++) {
        launch(table, key_of(1), 50);
        mark(table, 50 * 35 * US);
    }
    cr_assert_eq(estimate_of(table, key_of(1)), 20 * US);
    gapless = true;
    launch(table, key_of(1), 50);
    mark(table, 50 * 36 * US);
    cr_assert_eq(estimate_of(table, key_of(1)), 24 * US, "this one was at work all the time");
    gapless = false;
    launch(table, key_of(1), 50);
    mark(table, 50 * 50 * US);
    cr_assert_eq(estimate_of(table, key_of(1)), ESTIMATE_UNKNOWN, "it has to be measured alone");
    free(table);
}

Test(estimate, a_segment_that_was_far_shorter_shrinks_them)
{
    struct estimate_table *table = fresh();

    for (uint64_t key = 8; key < 10; key++) {
        launch(table, apart(key), 1);
        mark(table, 100 * US);
    }
    for (unsigned i = 0; i < 60; i++) {
        launch(table, apart(8), 10);
        launch(table, apart(9), 10);
        mark(table, 200 * US);
    }
    for (uint64_t key = 8; key < 10; key++)
        cr_assert_float_eq((double)estimate_of(table, apart(key)), 10 * US, 10);
    free(table);
}

Test(estimate, nothing_is_shorter_than_the_least_or_longer_than_a_word)
{
    struct estimate_table *table = fresh();

    launch(table, key_of(1), 1);
    mark(table, 0);
    cr_assert_eq(estimate_of(table, key_of(1)), ESTIMATE_LEAST);
    launch(table, key_of(2), 1);
    mark(table, UINT64_MAX);
    cr_assert_gt(estimate_of(table, key_of(2)), 4000 * MS);
    launch(table, key_of(1), 1);
    launch(table, key_of(2), 1);
    mark(table, UINT64_MAX);
    launch(table, apart(0), 3);
    mark(table, UINT64_MAX / 2);
    free(table);
}

/* A table that is full takes every new key, and keeps most of the others. */
Test(estimate, a_full_table_makes_room)
{
    struct estimate_table *table = fresh();
    unsigned known = 0, wrong = 0;

    for (uint64_t i = 0; i < 100000; i++) {
        launch(table, key_of(i), 1);
        mark(table, 10 * US + i);
        cr_assert_eq(estimate_of(table, key_of(i)), 10 * US + i, "%lu", (unsigned long)i);
    }
    for (uint64_t i = 0; i < 100000; i++) {
        uint64_t ns = estimate_of(table, key_of(i));

        known += ns != ESTIMATE_UNKNOWN;
        wrong += ns != ESTIMATE_UNKNOWN && ns != 10 * US + i;
    }
    cr_assert_geq(known, 4096);
    cr_assert_leq(known, 4096 + wrong);
    cr_assert_eq(wrong, 0);
    for (unsigned i = known = 0; i < 100; i++)
        known += estimate_of(table, key_of(99999 - i)) != ESTIMATE_UNKNOWN;
    cr_assert_geq(known, 90, "of the newest %u", known);
    free(table);
}

/* 2,048 keys at once, half of what there is room for, stay known. */
Test(estimate, keys_spread)
{
    struct estimate_table *table = fresh();
    unsigned known = 0;

    for (uint64_t i = 0; i < 2048; i++) {
        uint64_t key =
            estimate_key((const void *)(uintptr_t)(0x7f1234000000 + i % 64 * 4096), (uint32_t)(i / 64) + 1, 1, 1, 256, 1, 1);

        launch(table, key, 1);
        mark(table, 10 * US);
    }
    for (uint64_t i = 0; i < 2048; i++) {
        uint64_t key =
            estimate_key((const void *)(uintptr_t)(0x7f1234000000 + i % 64 * 4096), (uint32_t)(i / 64) + 1, 1, 1, 256, 1, 1);

        known += estimate_of(table, key) == 10 * US;
    }
    cr_assert_geq(known, 1950, "%u", known);
    free(table);
}

/* Each number that a launch has makes another key, also where two are exchanged. */
Test(estimate, keys_differ)
{
    const void *function = (const void *)0x7f1234000000;
    uint64_t keys[] = {
        estimate_key(function, 1, 1, 1, 1, 1, 1), estimate_key(function, 2, 1, 1, 1, 1, 1),
        estimate_key(function, 1, 2, 1, 1, 1, 1), estimate_key(function, 1, 1, 2, 1, 1, 1),
        estimate_key(function, 1, 1, 1, 2, 1, 1), estimate_key(function, 1, 1, 1, 1, 2, 1),
        estimate_key(function, 1, 1, 1, 1, 1, 2), estimate_key_of(function),
        estimate_key(NULL, 0, 0, 0, 0, 0, 0),
    };

    for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        for (unsigned k = 0; k < i; k++)
            cr_assert_neq(keys[i], keys[k], "%u and %u", i, k);
    for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        cr_assert_neq(keys[i], 0);
}
