/* SPDX-License-Identifier: Apache-2.0 */
/* The limits that the quota keeps on a real ledger: whose holds for whom, in which order members come and whatever is set meanwhile. */
#include "quota_helper.h"

TestSuite(quota_limits, .init = setup, .fini = scratch_remove);

Test(quota_limits, the_smallest_limit_holds)
{
    struct quota *first = join("a", "10GiB", 0), *smaller = join("a", "4GiB", 0), *larger = join("a", "30GiB", 0);
    struct quota *none = join("a", NULL, 0);
    struct record record;

    cr_assert_eq(quota_limit(first, 0), 10 * GIB);
    cr_assert_eq(quota_limit(smaller, 0), 4 * GIB, "a joiner's smaller value binds that joiner");
    cr_assert_eq(quota_limit(larger, 0), 10 * GIB);
    cr_assert_eq(quota_limit(none, 0), 10 * GIB);
    cr_assert(take(first, 3 * GIB, QUOTA_LINEAR, 0, &record));
    cr_assert_not(take(smaller, GIB + 1, QUOTA_LINEAR, 0, &record), "the tenant's total counts, not the joiner's own");
    cr_assert(take(smaller, GIB, QUOTA_LINEAR, 0, &record));
    cr_assert_not(take(larger, 6 * GIB + 1, QUOTA_LINEAR, 0, &record));
    cr_assert(take(larger, 6 * GIB, QUOTA_LINEAR, 0, &record));
    ledger_set_limit(&none->ledger, 0, 20 * GIB);
    cr_assert_eq(quota_limit(first, 0), 20 * GIB, "who set the limit is not bound by what it once set");
    cr_assert_eq(quota_limit(smaller, 0), 4 * GIB);
    first->device[0].native = 15 * GIB;
    cr_assert_eq(quota_limit(first, 0), 15 * GIB);
    first->device[0].admin = 14 * GIB;
    cr_assert_eq(quota_limit(first, 0), 14 * GIB);
    cr_assert_not(take(first, 4 * GIB + 1, QUOTA_LINEAR, 0, &record));
    first->device[0].id.physical = 12 * GIB;
    cr_assert_eq(quota_limit(first, 0), 12 * GIB);
}

/* A first member that has joined, and enters its limit later. */
static struct ledger *begin_first(void)
{
    static struct ledger first;
    char path[PATH_MAX];
    int directory = ledger_state_dir(&first, scratch, path, sizeof(path));

    cr_assert_geq(directory, 0, "%s", first.error);
    cr_assert_eq(ledger_attach(&first, directory, "a"), 0, "%s", first.error);
    close(directory);
    return &first;
}

/* Between joining and entering its limit the first member asks the driver for its devices: others come in between. */
Test(quota_limits, who_comes_before_the_first_limit_keeps_its_own)
{
    struct ledger *first = begin_first();
    struct quota *early = join("a", "5GiB", 0);

    cr_assert_eq(ledger_add_device(first, device.uuid, 20 * GIB), 0);
    cr_expect_eq(quota_limit(early, 0), 5 * GIB);
    cr_expect_eq(ledger_limit(first, 0), 20 * GIB);
    cr_expect_eq(quota_limit(join("a", "30GiB", 0), 0), 20 * GIB);
}

/* Ranks that start at once with the same budget: those that come before the first one have set what is replaced. */
Test(quota_limits, set_reaches_who_came_before_the_first_limit)
{
    struct ledger *first = begin_first();
    struct quota *early = join("a", "20GiB", 0), *less = join("a", "5GiB", 0), *more = join("a", "30GiB", 0);

    cr_assert_eq(quota_limit(more, 0), 20 * GIB);
    cr_assert_eq(ledger_add_device(first, device.uuid, 20 * GIB), 0);
    cr_assert_eq(quota_limit(less, 0), 5 * GIB);
    cr_assert_eq(quota_limit(early, 0), 20 * GIB);
    cr_assert_eq(quota_limit(more, 0), 20 * GIB);
    ledger_set_limit(first, 0, 40 * GIB);
    cr_expect_eq(quota_limit(early, 0), 40 * GIB, "it was started with no less than the first one");
    cr_expect_eq(quota_limit(more, 0), 40 * GIB);
    cr_expect_eq(quota_limit(less, 0), 5 * GIB, "it was");
    ledger_set_limit(first, 0, 4 * GIB);
    cr_expect_eq(quota_limit(less, 0), 4 * GIB);
    ledger_set_limit(first, 0, 50 * GIB);
    cr_expect_eq(quota_limit(early, 0), 50 * GIB);
    cr_expect_eq(quota_limit(less, 0), 5 * GIB);
    ledger_set_limit(first, 0, LEDGER_NO_LIMIT);
    cr_expect_eq(quota_limit(early, 0), 80 * GIB);
}

/* The larger one of two that came before the first member is bound by its own, not by the smaller one's. */
Test(quota_limits, the_first_limit_does_not_raise_who_came_before)
{
    struct ledger *first = begin_first();

    join("a", "5GiB", 0);
    struct quota *early = join("a", "10GiB", 0);
    cr_assert_eq(ledger_add_device(first, device.uuid, 20 * GIB), 0);
    cr_expect_eq(quota_limit(early, 0), 10 * GIB);
}

/* The first member has no limit: the tenant's is a joiner's, and so is what replaces it. */
Test(quota_limits, set_reaches_who_set_the_limit)
{
    struct quota *none = join("a", NULL, 0), *second = join("a", "10GiB", 0), *less = join("a", "5GiB", 0);

    cr_assert_eq(quota_limit(none, 0), 10 * GIB);
    ledger_set_limit(&none->ledger, 0, 40 * GIB);
    cr_expect_eq(quota_limit(none, 0), 40 * GIB);
    cr_expect_eq(quota_limit(second, 0), 40 * GIB);
    cr_expect_eq(quota_limit(less, 0), 5 * GIB);
}

/* Set between the joining of the first member and its entering: that is what holds, for it too. */
Test(quota_limits, set_comes_before_the_first_limit)
{
    struct quota *first = mmap(NULL, sizeof(*first), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *late;

    first->ledger = *begin_first();
    late = join("a", "10GiB", 0);
    ledger_set_limit(&late->ledger, 0, 40 * GIB);
    struct config *config = load("a", "20GiB");
    cr_assert_eq(quota_add_device(first, config, &device, 0), 0);
    free(config);
    cr_expect_eq(quota_limit(first, 0), 40 * GIB);
    cr_expect_eq(quota_limit(late, 0), 40 * GIB);
}

/* A worker that is started again after a change, as the others were, is not bound by what was replaced. */
Test(quota_limits, set_holds_for_who_joins_later)
{
    struct quota *first = join("a", "10GiB", 0);

    ledger_set_limit(&first->ledger, 0, 40 * GIB);
    cr_expect_eq(quota_limit(join("a", "10GiB", 0), 0), 40 * GIB);
    cr_expect_eq(quota_limit(join("a", "9GiB", 0), 0), 9 * GIB);
    cr_expect_eq(quota_limit(join("a", NULL, 0), 0), 40 * GIB);
    ledger_detach(&first->ledger);
}

/* What the last life of the tenant began with is nobody's any more. */
Test(quota_limits, each_life_has_its_own_first_limit)
{
    struct quota *first = join("a", "10GiB", 0);

    ledger_set_limit(&first->ledger, 0, 40 * GIB);
    ledger_detach(&first->ledger);
    struct quota *second = join("a", "20GiB", 0), *less = join("a", "15GiB", 0);
    cr_assert_eq(quota_limit(second, 0), 20 * GIB);
    ledger_set_limit(&second->ledger, 0, 40 * GIB);
    cr_expect_eq(quota_limit(second, 0), 40 * GIB);
    cr_expect_eq(quota_limit(less, 0), 15 * GIB);
}

Test(quota_limits, without_a_limit_the_device_is_the_limit)
{
    struct quota *quota = join("a", NULL, 0);
    struct record record;

    cr_assert_eq(quota_limit(quota, 0), 80 * GIB);
    cr_assert_not(take(quota, 80 * GIB + 1, QUOTA_LINEAR, 0, &record));
    cr_assert(take(quota, 80 * GIB, QUOTA_LINEAR, 0, &record));
}
