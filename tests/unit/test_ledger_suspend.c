/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpointed members: what they hold leaves the total and stays theirs, and comes back on all devices or on none. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ledger_layout.h"
#include "scratch.h"
#include "softslice/ledger.h"

#define LIMIT UINT64_C(1000000)

static const uint8_t uuid[16] = {1, 2, 3}, second_uuid[16] = {9};
static struct ledger a, b;
static struct ledger_peer peer;
static struct ledger_refusal refusal;
static uint64_t cap[LEDGER_DEVICES];
static unsigned device, second;
static int dir;

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
    memset(cap, 0xff, sizeof(cap));
    join(&a);
    /* Both are of this process: it is the first that is found. */
    cr_assert_eq(ledger_find(&a, (uint32_t)getpid(), &peer), 0);
    join(&b);
}

static void teardown(void)
{
    ledger_set_witness(NULL);
    ledger_detach(&a);
    ledger_detach(&b);
    close(dir);
    scratch_remove();
}

TestSuite(ledger_suspend, .init = setup, .fini = teardown, .timeout = 60);

static void hold(struct ledger *ledger, unsigned where, uint64_t bytes)
{
    cr_assert_eq(ledger_reserve(ledger, where, bytes, LEDGER_NO_LIMIT), 0);
    ledger_settle(ledger, where, bytes, bytes);
}

static void expect(uint64_t current, uint64_t own)
{
    struct ledger_device_state state;

    cr_assert_eq(ledger_device_state(&b, device, &state), 0);
    cr_assert_eq(state.current, current, "%llu instead of %llu", (unsigned long long)state.current, (unsigned long long)current);
    cr_assert_eq(state.tentative, 0);
    cr_assert_eq(ledger_own(&a, device), own);
}

Test(ledger_suspend, finds_members_by_number)
{
    struct ledger_peer other;

    cr_assert_eq(ledger_find(&b, (uint32_t)getppid(), &other), -ENOENT);
    ledger_detach(&a);
    cr_assert_eq(ledger_find(&b, (uint32_t)getpid(), &other), 0);
    cr_assert_neq(other.slot, peer.slot);
    ledger_detach(&b);
    cr_assert_eq(ledger_find(&b, (uint32_t)getpid(), &other), -ENOENT);
}

Test(ledger_suspend, takes_out_and_brings_back)
{
    struct ledger_member list[2];
    static struct ledger_view view;

    hold(&a, device, 600);
    hold(&a, second, 70);
    hold(&b, device, 5);
    ledger_suspend(&b, &peer);
    expect(5, 600);
    cr_assert_eq(ledger_current(&b, second), 0);
    cr_assert(ledger_is_suspended(&a, device) && !ledger_is_suspended(&b, device));
    cr_assert_eq(ledger_members_list(&b, device, list, 2), 2);
    cr_assert(list[0].suspended && list[0].committed == 600 && !list[1].suspended);
    cr_assert_eq(ledger_read_members(dir, "tenant", uuid, list, 2), 2);
    cr_assert(list[0].suspended && list[0].committed == 600 && !list[1].suspended);
    cr_assert_eq(ledger_read(dir, "tenant", &view), 0);
    cr_assert_eq(view.device[device].current, 5);
    ledger_suspend(&b, &peer);
    expect(5, 600);
    cr_assert_eq(ledger_resume(&b, &peer, cap, &refusal), 2);
    expect(605, 600);
    cr_assert_eq(ledger_current(&b, second), 70);
    cr_assert_eq(ledger_resume(&b, &peer, cap, &refusal), 0);
    expect(605, 600);
}

Test(ledger_suspend, can_be_ones_own)
{
    hold(&a, device, 600);
    ledger_suspend(&a, &peer);
    expect(0, 600);
    cr_assert_eq(ledger_resume(&a, &peer, cap, &refusal), 1);
    expect(600, 600);
}

Test(ledger_suspend, makes_room_and_comes_back_only_into_room)
{
    hold(&a, device, LIMIT - 10);
    hold(&a, second, 20);
    ledger_suspend(&b, &peer);
    hold(&b, device, LIMIT);
    cr_assert_eq(ledger_resume(&b, &peer, cap, &refusal), -ENOMEM);
    cr_assert_eq(refusal.device, device);
    cr_assert_eq(refusal.bytes, LIMIT - 10);
    expect(LIMIT, LIMIT - 10);
    cr_assert_eq(ledger_current(&b, second), 0, "one device came back without the other");
    ledger_refund(&b, device, LIMIT - 11);
    cr_assert_eq(ledger_resume(&b, &peer, cap, &refusal), -ENOMEM);
    ledger_refund(&b, device, 1);
    cr_assert_eq(ledger_resume(&b, &peer, cap, &refusal), 2);
    expect(LIMIT, LIMIT - 10);
    cr_assert_eq(ledger_reserve(&b, device, 1, LEDGER_NO_LIMIT), -ENOMEM);
}

Test(ledger_suspend, comes_back_on_no_device_where_the_last_has_no_room)
{
    hold(&a, device, 100);
    hold(&a, second, 200);
    ledger_suspend(&b, &peer);
    cap[second] = 199;
    cr_assert_eq(ledger_resume(&b, &peer, cap, &refusal), -ENOMEM);
    cr_assert_eq(refusal.device, second);
    expect(0, 100);
    cr_assert_eq(ledger_current(&b, second), 0);
    cap[second] = 200;
    cr_assert_eq(ledger_resume(&b, &peer, cap, &refusal), 2);
}

Test(ledger_suspend, goes_on_settling_and_refunding)
{
    hold(&a, device, 600);
    cr_assert_eq(ledger_reserve(&a, device, 50, LEDGER_NO_LIMIT), 0);
    ledger_suspend(&b, &peer);
    ledger_settle(&a, device, 50, 50);
    expect(0, 650);
    ledger_refund(&a, device, 100);
    expect(0, 550);
    cr_assert_eq(ledger_resume(&b, &peer, cap, &refusal), 1);
    expect(550, 550);
    ledger_suspend(&b, &peer);
    ledger_refund(&a, device, 551);
    expect(0, 0);
    cr_assert_eq(ledger_resume(&b, &peer, cap, &refusal), 1);
    expect(0, 0);
    struct ledger_device_state state;
    cr_assert_eq(ledger_device_state(&b, device, &state), 0);
    cr_assert_eq(state.events[LEDGER_EVENT_UNDERFLOW], 1);
    hold(&a, device, LIMIT);
}

Test(ledger_suspend, ends_with_the_member)
{
    hold(&a, device, 600);
    ledger_suspend(&b, &peer);
    ledger_detach(&a);
    cr_assert_eq(ledger_current(&b, device), 0);
    cr_assert_eq(ledger_resume(&b, &peer, cap, &refusal), 0);
    /* Its slot's next owner is somebody else. */
    join(&a);
    hold(&a, device, 30);
    ledger_suspend(&b, &peer);
    expect(30, 30);
    ledger_resume_anyway(&b, &peer);
    expect(30, 30);
}

Test(ledger_suspend, is_counted_again_whatever_the_limit_where_it_runs)
{
    hold(&a, device, LIMIT);
    ledger_suspend(&b, &peer);
    hold(&b, device, 100);
    ledger_resume_anyway(&b, &peer);
    expect(LIMIT + 100, LIMIT);
    cr_assert_eq(ledger_reserve(&b, device, 1, LEDGER_NO_LIMIT), -ENOMEM);
}

/* Somebody else is at it: what he reserved counts for both. */
Test(ledger_suspend, is_restored_by_one_at_a_time)
{
    struct ledger_hold *word = (struct ledger_hold *)((char *)a.file + a.hold_offset) + (size_t)device * a.slots + peer.slot;

    hold(&a, device, 600);
    ledger_suspend(&b, &peer);
    word->committed |= UINT64_C(4) << LEDGER_RESTORER_SHIFT;
    cr_assert_eq(ledger_current(&b, device), 600);
    cr_assert_eq(ledger_resume(&b, &peer, cap, &refusal), 0);
    cr_assert(word->committed & LEDGER_SUSPENDED);
    cr_assert_eq(ledger_restorer(word->committed), 4);
}

static void never_shown(const uint8_t device_uuid[16], const uint32_t *pids, bool *shown, unsigned count)
{
    (void)device_uuid;
    (void)pids;
    for (unsigned i = 0; i < count; i++)
        shown[i] = true;
}

/* It is not on the GPU: nobody waits for the driver to release it. */
Test(ledger_suspend, is_not_waited_for_when_it_dies)
{
    static struct ledger dead;
    struct ledger_peer victim;
    int go[2], done[2];
    char byte;

    ledger_set_witness(never_shown);
    cr_assert(pipe(go) == 0 && pipe(done) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        join(&dead);
        hold(&dead, device, 4000);
        hold(&dead, second, 50);
        if (write(done[1], "x", 1) == 1 && read(go[0], &byte, 1) == 1)
            kill(getpid(), SIGKILL);
        _exit(1);
    }
    cr_assert(read(done[0], &byte, 1) == 1);
    cr_assert_eq(ledger_find(&b, (uint32_t)pid, &victim), 0);
    ledger_suspend(&b, &victim);
    cr_assert(write(go[1], "x", 1) == 1);
    waitpid(pid, NULL, 0);
    cr_assert_eq(ledger_members(&b), 2);
    cr_assert_eq(ledger_members_list(&b, device, NULL, 0), 2, "its slot is still taken");
    cr_assert_eq(ledger_current(&b, device), 0);
    cr_assert_eq(ledger_current(&b, second), 0);
}
