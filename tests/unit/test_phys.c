/* SPDX-License-Identifier: Apache-2.0 */
/* Physical allocations: they end with the last of what holds them, whatever it is, once; and never twice or for another one of the same handle. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "softslice/phys.h"

#define MIB (UINT64_C(1) << 20)

static uint64_t given_back;
static unsigned ends;
static uint64_t last_address;

static void ended(void *argument, const struct phys_end *end)
{
    (void)argument;
    given_back += end->bytes;
    last_address = end->address;
    ends++;
}

static struct phys_use use;

static void setup(void)
{
    use = (struct phys_use){.table = aligned_alloc(64, (phys_size() + 63) / 64 * 64), .ended = ended};
    memset(use.table, 0, phys_size());
    given_back = ends = 0;
}

TestSuite(phys, .init = setup);

static void release(uint64_t handle)
{
    phys_release_end(&use, phys_release_begin(&use, handle), true);
}

static void map(uint64_t handle, uint64_t address, uint64_t size)
{
    cr_assert(phys_map_end(&use, phys_map_begin(&use, handle), true, address, size));
}

Test(phys, ends_with_its_last_reference)
{
    cr_assert_eq(phys_create(&use, 7, 0, 2 * MIB), 0);
    cr_assert(phys_retain(&use, 7));
    release(7);
    cr_expect_eq(given_back, 0);
    release(7);
    cr_expect_eq(given_back, 2 * MIB);
    release(7); /* unknown by now */
    cr_expect_eq(given_back, 2 * MIB);
    cr_expect_eq(phys_count(use.table), 0);
}

Test(phys, a_mapping_holds_it)
{
    cr_assert_eq(phys_create(&use, 7, 0, 2 * MIB), 0);
    map(7, 0x200000, 2 * MIB);
    map(7, 0x600000, 2 * MIB);
    release(7);
    phys_unmap(&use, 0x200000, 2 * MIB);
    cr_expect_eq(given_back, 0);
    phys_unmap(&use, 0x600000, 2 * MIB);
    cr_expect_eq(given_back, 2 * MIB);
    cr_expect_eq(last_address, 0x600000);
    phys_unmap(&use, 0x600000, 2 * MIB);
    cr_expect_eq(ends, 1);
}

Test(phys, one_unmap_of_many_mappings)
{
    for (uint64_t i = 0; i < 400; i++) {
        cr_assert_eq(phys_create(&use, 1000 + i, 0, 2 * MIB), 0);
        map(1000 + i, (1 + i) * 2 * MIB, 2 * MIB);
        release(1000 + i);
    }
    phys_unmap(&use, 2 * MIB, 400 * MIB);
    cr_expect_eq(ends, 200);
    phys_unmap(&use, 402 * MIB, 128 * MIB);
    cr_expect_eq(ends, 264);
    phys_unmap(&use, 530 * MIB, 1000 * MIB);
    cr_expect_eq(ends, 400);
    cr_expect_eq(given_back, 800 * MIB);
}

Test(phys, a_refused_call_changes_nothing)
{
    cr_assert_eq(phys_create(&use, 7, 0, 2 * MIB), 0);
    phys_release_end(&use, phys_release_begin(&use, 7), false);
    cr_assert(phys_map_end(&use, phys_map_begin(&use, 7), false, 0x200000, 2 * MIB));
    phys_unmap(&use, 0x200000, 2 * MIB); /* was never there */
    cr_expect_eq(ends, 0);
    release(7);
    cr_expect_eq(ends, 1);
}

/* The driver hands the handle out again before the first one's release is back. */
Test(phys, the_handle_is_used_again)
{
    cr_assert_eq(phys_create(&use, 7, 0, 2 * MIB), 0);
    struct phys_call call = phys_release_begin(&use, 7);
    cr_assert_eq(phys_create(&use, 7, 1, 4 * MIB), 0);
    phys_release_end(&use, call, true);
    cr_expect_eq(given_back, 2 * MIB);
    release(7);
    cr_expect_eq(given_back, 6 * MIB);
}

/* One thread maps while another releases the last reference. */
Test(phys, a_release_during_a_mapping)
{
    cr_assert_eq(phys_create(&use, 7, 0, 2 * MIB), 0);
    struct phys_call mapping = phys_map_begin(&use, 7), releasing = phys_release_begin(&use, 7);
    phys_release_end(&use, releasing, true);
    cr_expect_eq(ends, 0);
    cr_assert(phys_map_end(&use, mapping, true, 0x200000, 2 * MIB));
    cr_expect_eq(ends, 0);
    phys_unmap(&use, 0x200000, 2 * MIB);
    cr_expect_eq(ends, 1);

    cr_assert_eq(phys_create(&use, 8, 0, 2 * MIB), 0);
    mapping = phys_map_begin(&use, 8);
    release(8);
    cr_assert(phys_map_end(&use, mapping, false, 0x200000, 2 * MIB)); /* it came too late */
    cr_expect_eq(ends, 2);
}

/* An unmapping is back before the release that began earlier. */
Test(phys, the_last_call_gives_it_back)
{
    cr_assert_eq(phys_create(&use, 7, 0, 2 * MIB), 0);
    map(7, 0x200000, 2 * MIB);
    struct phys_call call = phys_release_begin(&use, 7);
    phys_unmap(&use, 0x200000, 2 * MIB);
    cr_expect_eq(ends, 0);
    phys_release_end(&use, call, true);
    cr_expect_eq(ends, 1);
}

Test(phys, ended_where_nobody_saw_it)
{
    cr_assert_eq(phys_create(&use, 7, 0, 2 * MIB), 0);
    cr_assert_eq(phys_create(&use, 7, 0, 4 * MIB), 0);
    cr_expect_eq(given_back, 2 * MIB);
    map(7, 0x200000, 4 * MIB);
    cr_assert_eq(phys_create(&use, 8, 0, 8 * MIB), 0);
    map(8, 0x200000, 8 * MIB); /* the other mapping cannot be there any more */
    release(7);
    cr_expect_eq(given_back, 6 * MIB);
    release(8);
    phys_unmap(&use, 0x200000, 8 * MIB);
    cr_expect_eq(given_back, 14 * MIB);
}

Test(phys, attachments_end_by_key_or_with_their_owner)
{
    cr_assert_eq(phys_create(&use, 7, 0, 2 * MIB), 0);
    cr_assert_eq(phys_create(&use, 8, 0, 4 * MIB), 0);
    cr_assert_eq(phys_create(&use, 9, 0, 0), 0);
    uint64_t owner = phys_object(use.table, 9);
    cr_assert(phys_attach_end(&use, phys_attach_begin(&use, 7), true, owner, phys_key(owner, 0, 0)));
    cr_assert(phys_attach_end(&use, phys_attach_begin(&use, 8), true, owner, phys_key(owner, 1, 0)));
    release(7);
    release(8);
    cr_expect_eq(given_back, 0);
    phys_detach(&use, phys_key(owner, 0, 0));
    cr_expect_eq(given_back, 2 * MIB);
    phys_detach(&use, phys_key(owner, 0, 0));
    cr_expect_eq(given_back, 2 * MIB);
    release(9);
    cr_expect_eq(given_back, 6 * MIB);
    cr_expect_eq(ends, 3);
    cr_expect_eq(phys_count(use.table), 0);

    cr_assert_eq(phys_create(&use, 7, 0, 2 * MIB), 0);
    cr_assert(phys_attach_end(&use, phys_attach_begin(&use, 7), true, PHYS_FOREIGN_OWNER | 5, 77));
    release(7);
    phys_drop_owner(&use, PHYS_FOREIGN_OWNER | 6);
    cr_expect_eq(ends, 3);
    phys_drop_owner(&use, PHYS_FOREIGN_OWNER | 5);
    cr_expect_eq(ends, 4);
}

Test(phys, addresses_are_forgotten)
{
    for (uint64_t i = 1; i <= 3; i++) {
        cr_assert_eq(phys_create(&use, i, 0, 2 * MIB), 0);
        map(i, i * 2 * MIB, 2 * MIB);
    }
    phys_unmap(&use, 2 * MIB, 6 * MIB);
    phys_forget(&use, 4 * MIB, 2 * MIB);
    for (uint64_t i = 1; i <= 3; i++) {
        release(i);
        cr_expect_eq(last_address, i == 2 ? 0 : i * 2 * MIB);
    }
}

Test(phys, another_processes_tell_their_size_once)
{
    cr_assert_eq(phys_create(&use, 7, 3, 0), 0);
    struct phys_call call = phys_map_begin(&use, 7);
    cr_expect(call.foreign);
    cr_expect_eq(call.device, 3);
    cr_expect(phys_share(&use, call, 2 * MIB));
    cr_expect_not(phys_share(&use, call, 2 * MIB));
    cr_assert(phys_map_end(&use, call, true, 0x200000, 2 * MIB));
    call = phys_map_begin(&use, 7);
    cr_expect_not(call.foreign);
    cr_assert(phys_map_end(&use, call, false, 0, 0));
    cr_assert_eq(phys_create(&use, 8, PHYS_NO_DEVICE, 0), 0);
    call = phys_map_begin(&use, 8);
    cr_expect_not(call.foreign);
    cr_assert(phys_map_end(&use, call, false, 0, 0));
}

Test(phys, many)
{
    for (uint64_t round = 0; round < 2; round++) {
        for (uint64_t i = 1; i <= 20000; i++)
            cr_assert_eq(phys_create(&use, i << 12, 0, MIB), 0);
        cr_expect_eq(phys_count(use.table), 20000);
        for (uint64_t i = 20000; i; i--)
            release(i << 12);
        cr_expect_eq(given_back, (round + 1) * 20000 * MIB);
    }
}

static uint64_t visited;
static unsigned visits;

static void visit(void *argument, unsigned device, uint64_t bytes)
{
    cr_expect_eq(device, *(unsigned *)argument);
    visited += bytes;
    visits++;
}

Test(phys, what_is_charged_is_visited)
{
    unsigned device = 3;

    for (uint64_t i = 1; i <= 1000; i++)
        cr_assert_eq(phys_create(&use, i, device, i * MIB), 0);
    cr_assert_eq(phys_create(&use, 2000, PHYS_NO_DEVICE, 0), 0); /* another process's */
    release(77);
    phys_visit(use.table, visit, &device);
    cr_expect_eq(visits, 999);
    cr_expect_eq(visited, (1000 * 1001 / 2 - 77) * MIB);
}
