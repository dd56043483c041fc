/* SPDX-License-Identifier: Apache-2.0 */
/* Slabs by address: who charges one, who refunds it, and what is guessed about room. */
#include "softslice/slabs.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "softslice/quota.h"
#include "softslice/records.h"

#define G ((uint64_t)2 << 20)
#define A (UINT64_C(0x7f0000000000))

static struct slabs *fresh(void)
{
    struct slabs *slabs = aligned_alloc(64, (slabs_size() + 63) & ~(size_t)63);

    cr_assert(slabs);
    memset(slabs, 0, slabs_size());
    return slabs;
}

Test(slabs, small_is_up_to_half_a_granule_and_a_mebibyte)
{
    cr_assert_not(slabs_is_small(0, G));
    cr_assert(slabs_is_small(1, G));
    cr_assert(slabs_is_small(G / 2, G));
    cr_assert_not(slabs_is_small(G / 2 + 1, G));
    cr_assert(slabs_is_small(32 << 10, 64 << 10));
    cr_assert_not(slabs_is_small((32 << 10) + 1, 64 << 10));
    cr_assert_not(slabs_is_small((1 << 20) + 1, 4 << 20));
}

static unsigned refunded;

static void count_refund(void *device, const struct record *slab)
{
    cr_assert_eq(slab->device, *(unsigned *)device);
    refunded++;
}

/* How often a slab is refunded by this. */
static unsigned removed(struct slabs *slabs, unsigned device, uint64_t address, uint64_t bytes)
{
    refunded = 0;
    slabs_remove(slabs, G, &(struct record){.key = address, .bytes = bytes, .device = (uint16_t)device}, count_refund, &device);
    return refunded;
}

Test(slabs, the_first_charges_and_the_last_refunds)
{
    struct slabs *slabs = fresh();

    cr_assert_eq(slabs_add(slabs, 3, QUOTA_LINEAR, G, A, 1000, false), 1);
    cr_assert_eq(slabs_add(slabs, 3, QUOTA_LINEAR, G, A + 4096, 1000, false), 1, "nobody has charged it yet");
    cr_assert_eq(slabs_add(slabs, 3, QUOTA_LINEAR, G, A, 0, false), 1, "nor by asking");
    cr_assert_eq(slabs_add(slabs, 3, QUOTA_LINEAR, G, A, 0, true), 1);
    cr_assert_eq(slabs_add(slabs, 3, QUOTA_LINEAR, G, A + 4096, 0, true), 0, "once is enough");
    cr_assert_eq(slabs_add(slabs, 3, QUOTA_LINEAR, G, A + G - 512, 512, true), 0);
    cr_assert_eq(slabs_add(slabs, 3, QUOTA_LINEAR, G, A + G, 512, false), 1, "the next granule");
    cr_assert_eq(slabs_add(slabs, 3, QUOTA_LINEAR, G, A + 2 * G, 512, true), 1, "charged with the first");
    cr_assert_eq(slabs_add(slabs, 3, QUOTA_LINEAR, G, A + 2 * G, 512, true), 0);
    cr_assert_eq(removed(slabs, 3, A + 4096, 1000), 0);
    cr_assert_eq(removed(slabs, 3, A + G - 512, 512), 0);
    cr_assert_eq(removed(slabs, 3, A, 1000), 1);
    cr_assert_eq(removed(slabs, 3, A, 1000), 0, "it is gone");
    cr_assert_eq(removed(slabs, 3, A + G, 512), 0, "never charged, so not refunded");
    cr_assert_eq(removed(slabs, 3, A + 2 * G, 512), 0);
    cr_assert_eq(removed(slabs, 3, A + 2 * G, 512), 1);
    cr_assert_eq(slabs_add(slabs, 3, QUOTA_LINEAR, G, A, 0, true), 1, "nothing is there to charge");
    cr_assert_eq(removed(slabs, 3, A, 0), 0, "and nothing came");
    cr_assert_eq(slabs_add(slabs, 3, QUOTA_LINEAR, G, A, 512, false), 1, "as new");
    free(slabs);
}

/* The driver gives the last block's slab back, and its address to another device, before that block is taken out here. */
Test(slabs, an_address_moves_to_another_device)
{
    struct slabs *slabs = fresh();

    cr_assert_eq(slabs_add(slabs, 3, QUOTA_LINEAR, G, A, 1000, true), 1);
    cr_assert_eq(slabs_add(slabs, 0, QUOTA_LINEAR, G, A + 512, 512, true), 1, "charged there");
    cr_assert_eq(removed(slabs, 3, A, 1000), 1, "and no longer here");
    cr_assert_eq(removed(slabs, 0, A + 512, 512), 1);
    free(slabs);
}

static bool have_room(struct slabs *slabs, unsigned device, uint64_t bytes)
{
    uint64_t changes;

    return slabs_have_room(slabs, device, G, bytes, &changes);
}

Test(slabs, room_is_what_is_left_in_one_slab)
{
    struct slabs *slabs = fresh();

    cr_assert_not(have_room(slabs, 0, 512));
    for (unsigned i = 0; i < 100; i++)
        for (unsigned half = 0; half < 2; half++)
            slabs_add(slabs, 0, QUOTA_LINEAR, G, A + i * G + half * G / 2, 700 << 10, true);
    cr_assert(have_room(slabs, 0, 648 << 10));
    cr_assert_not(have_room(slabs, 0, (648 << 10) + 1), "two thirds of a mebibyte are left in each, and nowhere more");
    cr_assert_not(have_room(slabs, 1, 512), "another device");
    for (unsigned i = 0; i < 100; i++) { /* wherever the last search ended */
        removed(slabs, 0, A + i * G, 700 << 10);
        cr_assert(have_room(slabs, 0, 700 << 10));
        removed(slabs, 0, A + i * G + G / 2, 700 << 10);
        cr_assert_not(have_room(slabs, 0, 700 << 10), "an empty slab is none");
    }
    free(slabs);

    slabs = fresh();
    for (uint64_t at = 0; at < G; at += 512) {
        cr_assert_eq(have_room(slabs, 0, 512), at > 0, "to the last unit");
        slabs_add(slabs, 0, QUOTA_LINEAR, G, A + at, 512, true);
    }
    cr_assert_not(have_room(slabs, 0, 512));
    free(slabs);
}

Test(slabs, who_finds_no_room_learns_of_changes)
{
    struct slabs *slabs = fresh();
    uint64_t changes[5];

    slabs_add(slabs, 0, QUOTA_LINEAR, G, A, G / 2, true);
    slabs_add(slabs, 0, QUOTA_LINEAR, G, A + G / 2, G / 2, true);
    cr_assert_not(slabs_have_room(slabs, 0, G, 512, &changes[0]));
    cr_assert_not(slabs_have_room(slabs, 0, G, 512, &changes[1]));
    cr_assert_eq(changes[1], changes[0]);
    slabs_add(slabs, 1, QUOTA_LINEAR, G, A + G, 512, true);
    cr_assert_not(slabs_have_room(slabs, 0, G, 512, &changes[2]));
    cr_assert_neq(changes[2], changes[1], "one came");
    removed(slabs, 1, A + G, 512);
    cr_assert_not(slabs_have_room(slabs, 0, G, 512, &changes[3]));
    cr_assert_neq(changes[3], changes[2], "and went");
    cr_assert_neq(changes[3], changes[1]);
    free(slabs);
}

Test(slabs, what_is_on_its_way_is_not_settled)
{
    struct slabs *slabs = fresh();
    struct records *blocks = aligned_alloc(64, records_size());
    struct record block = {.key = A, .bytes = 1000, .small = 1}, large = {.key = A + G, .bytes = G}, old;

    cr_assert(blocks);
    memset(blocks, 0, records_size());
    cr_assert(slabs_settled(slabs, blocks));
    cr_assert_eq(records_put(blocks, &large, &old), 0);
    cr_assert(slabs_settled(slabs, blocks), "that one is in no slab");
    slabs_add(slabs, 0, QUOTA_LINEAR, G, A, 1000, true);
    cr_assert_not(slabs_settled(slabs, blocks), "allocated, but not recorded yet");
    cr_assert_eq(records_put(blocks, &block, &old), 0);
    cr_assert(slabs_settled(slabs, blocks));
    cr_assert(records_take(blocks, A, &old));
    cr_assert_not(slabs_settled(slabs, blocks), "on its way to be freed");
    removed(slabs, 0, A, 1000);
    cr_assert(slabs_settled(slabs, blocks));
    free(blocks);
    free(slabs);
}

static struct slabs *shared;
static uint64_t charged; /* slabs, as the threads count them */

static void refund_shared(void *argument, const struct record *slab)
{
    (void)argument;
    (void)slab;
    __atomic_fetch_sub(&charged, 1, __ATOMIC_SEQ_CST);
}

static void *use(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;

    for (int i = 0; i < 200000; i++) {
        uint64_t address = A + (uint64_t)((unsigned)rand_r(&seed) % 3) * G + (uintptr_t)argument * 512;
        bool early = i % 2;

        if (slabs_add(shared, 0, QUOTA_LINEAR, G, address, 512, early) &&
            (early || slabs_add(shared, 0, QUOTA_LINEAR, G, address, 0, true)))
            __atomic_fetch_add(&charged, 1, __ATOMIC_SEQ_CST);
        slabs_remove(shared, G, &(struct record){.key = address, .bytes = 512}, refund_shared, NULL);
    }
    return NULL;
}

Test(slabs, threads_charge_and_refund_each_once)
{
    pthread_t thread[8];

    shared = fresh();
    for (uintptr_t i = 0; i < 8; i++)
        cr_assert_eq(pthread_create(&thread[i], NULL, use, (void *)i), 0);
    for (int i = 0; i < 8; i++)
        pthread_join(thread[i], NULL);
    cr_assert_eq(charged, 0);
    cr_assert_not(have_room(shared, 0, 512), "nothing is left");
}
