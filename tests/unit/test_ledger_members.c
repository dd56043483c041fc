/* SPDX-License-Identifier: Apache-2.0 */
/* Who is in a tenant and what each holds, as a member and as somebody outside sees it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scratch.h"
#include "softslice/ledger.h"

#define LIMIT UINT64_C(1000000)

static const uint8_t uuid[16] = {1, 2, 3}, second_uuid[16] = {9};
static struct ledger a, b;
static int dir;

static void setup(void)
{
    scratch_make();
    cr_assert((dir = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0);
}

static void teardown(void)
{
    ledger_detach(&a);
    ledger_detach(&b);
    close(dir);
    scratch_remove();
}

TestSuite(ledger_members, .init = setup, .fini = teardown, .timeout = 60);

static unsigned join(struct ledger *ledger)
{
    cr_assert_eq(ledger_attach(ledger, dir, "tenant"), 0, "%s", ledger->error);
    int device = ledger_add_device(ledger, uuid, LIMIT);
    cr_assert(device >= 0, "%s", ledger->error);
    return (unsigned)device;
}

static void hold(struct ledger *ledger, unsigned device, uint64_t bytes)
{
    cr_assert_eq(ledger_reserve(ledger, device, bytes, LEDGER_NO_LIMIT), 0);
    ledger_settle(ledger, device, bytes, bytes);
}

static uint64_t own_namespace(void)
{
    struct stat status;

    cr_assert(stat("/proc/self/ns/pid", &status) == 0);
    return status.st_ino;
}

static void expect_both(const struct ledger_member *list)
{
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(list[i].pid, (uint32_t)getpid());
        cr_assert_eq(list[i].pid_namespace, own_namespace());
        cr_assert(!list[i].dead && !list[i].suspended);
    }
    cr_assert_eq(list[0].committed, 100);
    cr_assert_eq(list[0].tentative, 0);
    cr_assert_eq(list[0].spilled, 7);
    cr_assert_eq(list[1].committed, 20);
    cr_assert_eq(list[1].tentative, 3);
    cr_assert_eq(list[1].spilled, 0);
}

Test(ledger_members, are_listed_with_what_they_hold)
{
    struct ledger_member list[3] = {{0}};
    unsigned device = join(&a);

    join(&b);
    hold(&a, device, 100);
    hold(&b, device, 20);
    cr_assert_eq(ledger_reserve(&b, device, 3, LEDGER_NO_LIMIT), 0);
    ledger_spill(&a, device, 7);
    cr_assert_eq(ledger_members_list(&b, device, list, 3), 2);
    expect_both(list);
    memset(list, 0, sizeof(list));
    cr_assert_eq(ledger_read_members(dir, "tenant", uuid, list, 3), 2);
    expect_both(list);
}

Test(ledger_members, are_counted_even_where_there_is_no_room_for_them)
{
    struct ledger_member list[2] = {{0}, {.pid = 4711}};
    unsigned device = join(&a);

    join(&b);
    cr_assert_eq(ledger_members_list(&a, device, list, 1), 2);
    cr_assert_eq(list[1].pid, 4711, "wrote behind the end");
    cr_assert_eq(ledger_read_members(dir, "tenant", uuid, list, 1), 2);
    cr_assert_eq(list[1].pid, 4711, "wrote behind the end");
    cr_assert_eq(ledger_members_list(&a, device, NULL, 0), 2);
    cr_assert_eq(ledger_members_list(&a, LEDGER_DEVICES, list, 1), 0);
}

Test(ledger_members, of_a_device_that_nobody_knows_are_none)
{
    struct ledger_member list[2];

    cr_assert_eq(ledger_read_members(dir, "tenant", uuid, list, 2), -ENOENT);
    join(&a);
    cr_assert_eq(ledger_read_members(dir, "tenant", second_uuid, list, 2), -ENOENT);
    ledger_detach(&a);
    cr_assert_eq(ledger_members_list(&a, 0, list, 2), 0);
    cr_assert_eq(ledger_read_members(dir, "tenant", uuid, list, 2), 0);
}

Test(ledger_members, hold_each_device_apart)
{
    struct ledger_member list[2];
    unsigned device = join(&a), second = (unsigned)ledger_add_device(&a, second_uuid, LIMIT);

    hold(&a, device, 1);
    hold(&a, second, 2);
    ledger_spill(&a, second, 3);
    cr_assert_eq(ledger_members_list(&a, device, list, 2), 1);
    cr_assert(list[0].committed == 1 && list[0].spilled == 0);
    cr_assert_eq(ledger_members_list(&a, second, list, 2), 1);
    cr_assert(list[0].committed == 2 && list[0].spilled == 3);
    cr_assert_eq(ledger_read_members(dir, "tenant", second_uuid, list, 2), 1);
    cr_assert(list[0].committed == 2 && list[0].spilled == 3);
}

Test(ledger_members, spilled_bytes_are_in_no_total_and_saturate)
{
    struct ledger_device_state state;
    static struct ledger_view view;
    unsigned device = join(&a);

    join(&b);
    hold(&a, device, LIMIT);
    ledger_spill(&a, device, 1000);
    ledger_spill(&b, device, 50);
    ledger_spill(&a, device, -400);
    cr_assert_eq(ledger_device_state(&b, device, &state), 0);
    cr_assert_eq(state.spilled, 650);
    cr_assert_eq(state.current, LIMIT);
    cr_assert_eq(ledger_read(dir, "tenant", &view), 0);
    cr_assert_eq(view.device[0].spilled, 650);
    cr_assert_eq(view.device[0].current, LIMIT);
    ledger_spill(&a, device, -601);
    cr_assert_eq(ledger_device_state(&b, device, &state), 0);
    cr_assert_eq(state.spilled, 50);
    ledger_spill(&b, device, INT64_MIN);
    ledger_spill(&b, device, INT64_MAX);
    ledger_spill(&b, device, INT64_MAX);
    ledger_spill(&b, device, INT64_MAX);
    ledger_spill(&a, device, 5);
    cr_assert_eq(ledger_device_state(&b, device, &state), 0);
    cr_assert_eq(state.spilled, UINT64_MAX);
    ledger_spill(&a, LEDGER_DEVICES, 5);
}

Test(ledger_members, spilled_bytes_go_with_the_process)
{
    struct ledger_device_state state;
    unsigned device = join(&a);
    pid_t pid = fork();

    if (pid == 0) {
        ledger_spill(&b, join(&b), 4000);
        kill(getpid(), SIGKILL);
    }
    waitpid(pid, NULL, 0);
    cr_assert_eq(ledger_members(&a), 1);
    cr_assert_eq(ledger_device_state(&a, device, &state), 0);
    cr_assert_eq(state.spilled, 0);
    join(&b);
    ledger_spill(&b, device, 9);
    ledger_detach(&b);
    join(&b);
    cr_assert_eq(ledger_device_state(&a, device, &state), 0);
    cr_assert_eq(state.spilled, 0, "a slot's next owner has what the last one spilled");
}
