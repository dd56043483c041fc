/* SPDX-License-Identifier: Apache-2.0 */
/* The dead count for as long as the witness sees them, 2 s at most, on each device by itself. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ledger_internal.h"
#include "scratch.h"
#include "softslice/ledger.h"

#define LIMIT UINT64_C(1000000)
#define HELD  UINT64_C(300000)

static const uint8_t uuid[16] = {1, 2, 3}, second_uuid[16] = {9};
static struct ledger a, b;
static unsigned device, second;
static int dir;

static bool shown_on[2]; /* what the witness says */
static uint32_t asked[8];
static unsigned asked_count, times;

static void witness(const uint8_t where[16], const uint32_t *pids, bool *shown, unsigned count)
{
    times++;
    asked_count = count < 8 ? count : 8;
    for (unsigned i = 0; i < count; i++) {
        if (i < 8)
            asked[i] = pids[i];
        shown[i] = shown_on[memcmp(where, uuid, 16) != 0];
    }
}

static void join(struct ledger *ledger)
{
    cr_assert_eq(ledger_attach(ledger, dir, "tenant"), 0, "%s", ledger->error);
    device = (unsigned)ledger_add_device(ledger, uuid, LIMIT);
    second = (unsigned)ledger_add_device(ledger, second_uuid, LIMIT);
}

static void setup(void)
{
    scratch_make();
    cr_assert((dir = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0);
    ledger_set_witness(witness);
    shown_on[0] = shown_on[1] = true;
    join(&a);
}

static void teardown(void)
{
    ledger_detach(&a);
    ledger_detach(&b);
    close(dir);
    scratch_remove();
}

TestSuite(ledger_burial, .init = setup, .fini = teardown, .timeout = 60);

static void hold(struct ledger *ledger, unsigned where, uint64_t bytes)
{
    cr_assert_eq(ledger_reserve(ledger, where, bytes, LEDGER_NO_LIMIT), 0);
    ledger_settle(ledger, where, bytes, bytes);
}

/* A member that held something on both devices, and asked for more, and is dead. */
static pid_t dead(uint64_t first_bytes, uint64_t second_bytes, uint64_t asked_bytes)
{
    pid_t pid = fork();

    if (pid == 0) {
        static struct ledger mine;

        join(&mine);
        hold(&mine, device, first_bytes);
        hold(&mine, second, second_bytes);
        cr_assert_eq(ledger_reserve(&mine, device, asked_bytes, LEDGER_NO_LIMIT), 0);
        kill(getpid(), SIGKILL);
    }
    cr_assert(waitpid(pid, NULL, 0) == pid);
    return pid;
}

static struct ledger_slot_more *more_of(unsigned slot)
{
    return (struct ledger_slot_more *)((char *)a.file + a.slot_offset + (size_t)slot * a.slot_stride + sizeof(struct ledger_slot));
}

Test(ledger_burial, counts_while_the_witness_sees)
{
    static struct ledger_view view;
    struct ledger_member list[2];
    pid_t pid = dead(HELD, 0, 0);

    cr_assert_eq(ledger_members(&a), 1);
    cr_assert_eq(ledger_current(&a, device), HELD);
    cr_assert_eq(asked_count, 1);
    cr_assert_eq(asked[0], (uint32_t)pid);
    cr_assert_eq(ledger_members_list(&a, device, list, 2), 2);
    cr_assert(list[1].dead && list[1].pid == (uint32_t)pid && list[1].committed == HELD);
    cr_assert_eq(ledger_read_members(dir, "tenant", uuid, list, 2), 2);
    cr_assert(list[1].dead && list[1].pid == (uint32_t)pid && list[1].committed == HELD);
    cr_assert_eq(ledger_read(dir, "tenant", &view), 0);
    cr_assert_eq(view.members, 1);
    cr_assert_eq(view.device[device].current, HELD);
    cr_assert_eq(ledger_reserve(&a, device, LIMIT - HELD + 1, LEDGER_NO_LIMIT), -ENOMEM);
    cr_assert(ledger_fits_without_dead(&a, device, LIMIT, LEDGER_NO_LIMIT));
    cr_assert_not(ledger_fits_without_dead(&a, device, LIMIT + 1, LEDGER_NO_LIMIT));
    shown_on[0] = false;
    hold(&a, device, LIMIT);
    cr_assert_eq(ledger_members_list(&a, device, list, 2), 1);
}

Test(ledger_burial, leaves_each_device_by_itself)
{
    dead(HELD, 2 * HELD, 0);
    shown_on[0] = false;
    cr_assert_eq(ledger_members(&a), 1);
    cr_assert_eq(ledger_current(&a, device), 0);
    cr_assert_eq(ledger_current(&a, second), 2 * HELD);
    shown_on[1] = false;
    cr_assert_eq(ledger_members(&a), 1);
    cr_assert_eq(ledger_current(&a, second), 0);
}

/* What a dead member was asking for is no reason to wait as for one that may still settle. */
Test(ledger_burial, counts_what_was_asked_for_as_settled)
{
    dead(0, 0, HELD);
    cr_assert_eq(ledger_members(&a), 1);
    cr_assert_eq(ledger_current(&a, device), HELD);
    times = 0;
    cr_assert_eq(ledger_reserve(&a, device, LIMIT, LEDGER_NO_LIMIT), -ENOMEM);
    cr_assert_leq(times, 2, "looked %u times before it refused", times);
    cr_assert(ledger_fits_without_dead(&a, device, LIMIT, LEDGER_NO_LIMIT));
    shown_on[0] = false;
    hold(&a, device, LIMIT);
}

Test(ledger_burial, waits_for_nobody_who_held_nothing)
{
    dead(0, 0, 0);
    cr_assert_eq(ledger_members(&a), 1);
    cr_assert_eq(times, 0);
    join(&b);
    cr_assert_eq(b.slot, 1);
}

Test(ledger_burial, ends_after_two_seconds_whatever_the_witness_says)
{
    dead(HELD, 0, 0);
    cr_assert_eq(ledger_members(&a), 1);
    cr_assert_eq(ledger_current(&a, device), HELD);
    more_of(1)->died -= LEDGER_DEAD_NS - UINT64_C(1000000000);
    cr_assert_eq(ledger_members(&a), 1);
    cr_assert_eq(ledger_current(&a, device), HELD);
    more_of(1)->died -= UINT64_C(1000000000);
    cr_assert_eq(ledger_members(&a), 1);
    cr_assert_eq(ledger_current(&a, device), 0);
}

/* A ledger on a disk: its clock was another one. */
Test(ledger_burial, does_not_outlive_a_boot)
{
    static struct ledger_view view;

    dead(HELD, 0, 0);
    cr_assert_eq(ledger_members(&a), 1);
    more_of(1)->died += UINT64_C(1000000000) * 3600;
    cr_assert_eq(ledger_read(dir, "tenant", &view), 0);
    cr_assert_eq(view.device[device].current, 0);
    cr_assert_eq(ledger_members(&a), 1);
    cr_assert_eq(ledger_current(&a, device), 0);
}

/* Who cannot tell of it leaves it to those who can, until it is over. */
Test(ledger_burial, asks_only_about_processes_of_this_namespace)
{
    dead(HELD, 0, 0);
    more_of(1)->pid_namespace++;
    cr_assert_eq(ledger_members(&a), 1);
    cr_assert_eq(ledger_current(&a, device), 0, "kept somebody of whom nobody can tell");
    dead(HELD, 0, 0);
    cr_assert_eq(ledger_members(&a), 1);
    cr_assert_eq(ledger_current(&a, device), HELD);
    more_of(1)->pid_namespace++;
    shown_on[0] = false;
    cr_assert_eq(ledger_members(&a), 1);
    cr_assert_eq(ledger_current(&a, device), HELD, "asked for somebody of another namespace");
}

Test(ledger_burial, is_at_once_without_a_witness)
{
    ledger_set_witness(NULL);
    dead(HELD, 0, 0);
    cr_assert_eq(ledger_members(&a), 1);
    cr_assert_eq(ledger_current(&a, device), 0);
    cr_assert_neq(ledger_last_burial(&a, device), 0);
}

Test(ledger_burial, slots_of_the_dead_are_nobodys)
{
    dead(HELD, 0, 0);
    cr_assert_eq(ledger_members(&a), 1);
    join(&b);
    cr_assert_eq(b.slot, 2);
    cr_assert_eq(ledger_current(&b, device), HELD);
    shown_on[0] = false;
    cr_assert_eq(ledger_members(&b), 2);
    cr_assert_eq(ledger_current(&b, device), 0);
    ledger_detach(&b);
    join(&b);
    cr_assert_eq(b.slot, 1);
    cr_assert_eq(ledger_current(&b, device), 0);
}

/* All have died, found or not: the next life's first member sets its limit, and finds them counted. */
Test(ledger_burial, reaches_into_the_next_life)
{
    for (int found = 0; found < 2; found++) {
        shown_on[0] = true;
        dead(HELD, 0, 0);
        if (found)
            cr_assert_eq(ledger_members(&a), 1);
        ledger_detach(&a);
        join(&a);
        cr_assert(a.first);
        cr_assert_eq(ledger_current(&a, device), HELD);
        cr_assert_eq(ledger_reserve(&a, device, LIMIT - HELD + 1, LEDGER_NO_LIMIT), -ENOMEM);
        cr_assert(ledger_fits_without_dead(&a, device, LIMIT, LEDGER_NO_LIMIT));
        shown_on[0] = false;
        hold(&a, device, LIMIT);
        ledger_refund(&a, device, LIMIT);
    }
}

/* More than the witness is asked about at once. */
Test(ledger_burial, ends_for_many)
{
    for (unsigned i = 0; i < 100; i++)
        dead(HELD / 100, 0, 0);
    cr_assert_eq(ledger_members(&a), 1);
    cr_assert_eq(ledger_current(&a, device), HELD);
    shown_on[0] = false;
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(ledger_members(&a), 1);
    cr_assert_eq(ledger_current(&a, device), 0);
}

/* A table with no slot left but one of a dead member's: who joins waits for that one, and is not told that the tenant is full. */
Test(ledger_burial, makes_room_for_one_who_joins)
{
    struct ledger_header header;
    static struct ledger c, d;
    int file;

    ledger_detach(&a);
    ledger_header_init(&header, 2);
    cr_assert_eq(mkdirat(dir, "small", 0700), 0);
    cr_assert((file = openat(dir, "small/ledger", O_CREAT | O_RDWR | O_CLOEXEC, 0600)) >= 0);
    cr_assert(pwrite(file, &header, sizeof(header), 0) == sizeof(header) && ftruncate(file, (off_t)header.file_size) == 0);
    close(file);
    cr_assert_eq(ledger_attach(&a, dir, "small"), 0, "%s", a.error);
    device = (unsigned)ledger_add_device(&a, uuid, LIMIT);
    pid_t pid = fork();
    if (pid == 0) {
        cr_assert_eq(ledger_attach(&c, dir, "small"), 0);
        hold(&c, device, HELD);
        kill(getpid(), SIGKILL);
    }
    cr_assert(waitpid(pid, NULL, 0) == pid);
    cr_assert_eq(ledger_members(&a), 1);
    more_of(1)->died -= LEDGER_DEAD_NS - UINT64_C(300000000);
    cr_assert_eq(ledger_attach(&c, dir, "small"), 0, "%s", c.error);
    cr_assert_eq(c.slot, 1);
    cr_assert_eq(ledger_current(&c, device), 0);
    cr_assert_eq(ledger_attach(&d, dir, "small"), -EUSERS);
    ledger_detach(&c);
}
