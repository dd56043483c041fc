/* SPDX-License-Identifier: Apache-2.0 */
/* Slabs by address: who charges one, who refunds it, and what is guessed about room. */
#include "softslice/slabs.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

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

Test(slabs, the_first_charges_and_the_last_refunds)
{
    struct slabs *slabs = fresh();

    cr_assert_eq(slabs_add(slabs, 0, G, A, 1000), 1);
    cr_assert_eq(slabs_add(slabs, 0, G, A + 4096, 1000), 1, "nobody has charged it yet");
    cr_assert(slabs_charge(slabs, G, A));
    cr_assert_not(slabs_charge(slabs, G, A + 4096), "once is enough");
    cr_assert_eq(slabs_add(slabs, 0, G, A + G - 512, 512), 0);
    cr_assert_eq(slabs_add(slabs, 0, G, A + G, 512), 1, "the next granule");
    cr_assert_not(slabs_remove(slabs, 0, G, A + 4096, 1000));
    cr_assert_not(slabs_remove(slabs, 0, G, A + G - 512, 512));
    cr_assert(slabs_remove(slabs, 0, G, A, 1000));
    cr_assert_not(slabs_remove(slabs, 0, G, A, 1000), "it is gone");
    cr_assert_not(slabs_remove(slabs, 0, G, A + G, 512), "never charged, so not refunded");
    cr_assert_not(slabs_charge(slabs, G, A), "nothing is there to charge");
    cr_assert_eq(slabs_add(slabs, 0, G, A, 512), 1, "as new");
    free(slabs);
}

Test(slabs, room_is_what_is_left_in_one_slab)
{
    struct slabs *slabs = fresh();

    cr_assert_not(slabs_have_room(slabs, 0, 512));
    for (unsigned i = 0; i < 100; i++)
        for (unsigned half = 0; half < 2; half++)
            slabs_add(slabs, 0, G, A + i * G + half * G / 2, 700 << 10);
    cr_assert(slabs_have_room(slabs, 0, 600 << 10));
    cr_assert_not(slabs_have_room(slabs, 0, 700 << 10), "two thirds of a mebibyte are left in each, and nowhere more");
    cr_assert_not(slabs_have_room(slabs, 1, 512), "another device");
    slabs_remove(slabs, 0, G, A, 700 << 10);
    cr_assert(slabs_have_room(slabs, 0, 700 << 10));
    slabs_remove(slabs, 0, G, A + G / 2, 700 << 10);
    cr_assert_not(slabs_have_room(slabs, 0, 700 << 10), "an empty slab is none");
    free(slabs);

    slabs = fresh();
    for (uint64_t at = 0; at < G; at += 512) {
        cr_assert_eq(slabs_have_room(slabs, 0, 512), at > 0, "to the last unit");
        slabs_add(slabs, 0, G, A + at, 512);
    }
    cr_assert_not(slabs_have_room(slabs, 0, 512));
    free(slabs);
}

static struct slabs *shared;
static uint64_t charged; /* slabs, as the threads count them */

static void *use(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;

    for (int i = 0; i < 200000; i++) {
        uint64_t address = A + (uint64_t)((unsigned)rand_r(&seed) % 3) * G + (uintptr_t)argument * 512;

        if (slabs_add(shared, 0, G, address, 512) && slabs_charge(shared, G, address))
            __atomic_fetch_add(&charged, 1, __ATOMIC_SEQ_CST);
        if (slabs_remove(shared, 0, G, address, 512))
            __atomic_fetch_sub(&charged, 1, __ATOMIC_SEQ_CST);
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
    cr_assert_not(slabs_have_room(shared, 0, 512), "nothing is left");
}
