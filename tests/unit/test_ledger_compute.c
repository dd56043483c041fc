/* SPDX-License-Identifier: Apache-2.0 */
/* Shares and weights in the ledger: who sets them, who replaces them, and whose work counts as the tenant's. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ledger_internal.h"
#include "scratch.h"
#include "softslice/clock.h"

#define LIMIT UINT64_C(1000000)

static const uint8_t uuid[16] = {1, 2, 3}, second_uuid[16] = {9};
static struct ledger a, b;
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
    join(&a);
}

static void teardown(void)
{
    ledger_detach(&a);
    ledger_detach(&b);
    close(dir);
    scratch_remove();
}

TestSuite(ledger_compute, .init = setup, .fini = teardown, .timeout = 60);

static void be_busy(struct ledger *ledger, unsigned where, uint64_t since)
{
    __atomic_store_n(ledger_busy_word(ledger, where), since, __ATOMIC_SEQ_CST);
}

static struct ledger_slot_more *more_of(const struct ledger *ledger)
{
    return (struct ledger_slot_more *)(ledger_slot_at(ledger, ledger->slot) + 1);
}

/* ---- shares and weights */

Test(ledger_compute, is_whole_where_nobody_says_anything)
{
    cr_assert_eq(ledger_share(&a, device), SHARE_WHOLE);
    cr_assert_eq(ledger_weight(&a, device), 0);
    ledger_enter_compute(&a, device, SHARE_WHOLE, 0);
    cr_assert_eq(ledger_share(&a, device), SHARE_WHOLE);
    cr_assert_eq(ledger_weight(&a, device), 0);
    cr_assert_eq(ledger_share(&b, 0), SHARE_WHOLE, "not attached");
    cr_assert_eq(ledger_share(&a, LEDGER_DEVICES), SHARE_WHOLE, "no device");
}

Test(ledger_compute, is_the_first_members_to_set)
{
    ledger_enter_compute(&a, device, 3000, 200);
    join(&b);
    ledger_enter_compute(&b, device, 5000, 300);
    cr_assert_eq(ledger_share(&b, device), 3000);
    cr_assert_eq(ledger_weight(&b, device), 200);
    cr_assert_eq(ledger_share(&b, second), SHARE_WHOLE);
    ledger_enter_compute(&b, second, 5000, 300);
    cr_assert_eq(ledger_share(&a, second), 5000, "nobody had set one");
    ledger_enter_compute(&a, second, 4000, 0);
    cr_assert_eq(ledger_share(&a, second), 4000, "the first may set one that a joiner set before it");
    cr_assert_eq(ledger_weight(&a, second), 300);
}

Test(ledger_compute, is_replaced)
{
    ledger_enter_compute(&a, device, 3000, 200);
    ledger_set_share(&a, device, 6000);
    ledger_set_weight(&a, device, 10000);
    ledger_enter_compute(&a, device, 3000, 200);
    cr_assert_eq(ledger_share(&a, device), 6000, "the replacement holds");
    cr_assert_eq(ledger_weight(&a, device), 10000);
    ledger_set_share(&a, device, SHARE_WHOLE);
    cr_assert_eq(ledger_share(&a, device), SHARE_WHOLE);
}

Test(ledger_compute, begins_anew_with_a_first_member)
{
    ledger_set_share(&a, device, 6000);
    ledger_set_weight(&a, second, 7);
    share_count(&ledger_account(&a, device)->turns_taken, 1);
    share_count(&ledger_account(&a, device)->turns_taken, 1);
    share_count(&ledger_account(&a, device)->turns_lost, 1);
    ledger_account(&a, device)->busy = 4711;
    ledger_detach(&a);
    join(&a);
    cr_assert_eq(ledger_share(&a, device), SHARE_WHOLE);
    cr_assert_eq(ledger_weight(&a, second), 0);
    cr_assert_eq(ledger_account(&a, device)->busy, 4711, "counters outlive the members");
    cr_assert_eq(ledger_account(&a, device)->turns_taken, 2);
    cr_assert_eq(ledger_account(&a, device)->turns_lost, 1);
}

/* A member of an older library began the tenant: it left the shares of the life before. */
Test(ledger_compute, begins_anew_with_the_first_who_knows)
{
    ledger_set_share(&a, device, 100);
    more_of(&a)->mark = 0;
    join(&b);
    cr_assert_not(b.first);
    cr_assert_eq(ledger_share(&b, device), SHARE_WHOLE);
    ledger_enter_compute(&b, device, 3000, 0);
    ledger_enter_compute(&b, device, 4000, 0);
    cr_assert_eq(ledger_share(&b, device), 4000, "not the first who knows");
}

/* Every word there can be is a share or a weight that there is, and a damaged one never more than what was set. */
Test(ledger_compute, never_reads_more_from_a_damaged_word)
{
    struct ledger_compute *compute = ledger_compute(&a, device);
    uint64_t good = ledger_limit_encode(3000, 0);

    for (unsigned bit = 0; bit < 64; bit++) {
        compute->share = compute->weight = good ^ UINT64_C(1) << bit;
        cr_assert_eq(ledger_share(&a, device), 1, "bit %u", bit);
        cr_assert_eq(ledger_weight(&a, device), 1, "bit %u", bit);
    }
    compute->share = compute->weight = ledger_limit_encode(10001, 0);
    cr_assert_eq(ledger_share(&a, device), 1);
    cr_assert_eq(ledger_weight(&a, device), 1);
    compute->share = compute->weight = ledger_limit_encode(LEDGER_NO_LIMIT, 0);
    cr_assert_eq(ledger_share(&a, device), 1);
    cr_assert_eq(ledger_weight(&a, device), 1);
}

/* ---- what is armed */

static unsigned arms(void)
{
    static struct ledger_view view;

    cr_assert_eq(ledger_read(dir, "tenant", &view), 0);
    return view.arms;
}

Test(ledger_compute, tells_what_the_living_have_armed)
{
    struct ledger_device_state state;
    static struct ledger_view view;

    cr_assert_eq(arms(), 0);
    ledger_arm(&a, LEDGER_ARMS_VRAM);
    cr_assert_eq(arms(), LEDGER_ARMS_VRAM);
    join(&b);
    ledger_arm(&b, LEDGER_ARMS_COMPUTE);
    cr_assert_eq(arms(), LEDGER_ARMS_VRAM | LEDGER_ARMS_COMPUTE);
    ledger_enter_compute(&b, second, 3000, 77);
    share_count(&ledger_account(&b, second)->turns_lost, 1);
    cr_assert_eq(ledger_device_state(&a, second, &state), 0);
    cr_assert(state.compute && state.share == 3000 && state.weight == 77 && state.turns_taken == 0 && state.turns_lost == 1);
    cr_assert_eq(ledger_read(dir, "tenant", &view), 0);
    cr_assert(view.device[second].compute && view.device[second].share == 3000 && view.device[second].turns_lost == 1);
    ledger_detach(&b);
    cr_assert_eq(arms(), LEDGER_ARMS_VRAM);
    cr_assert_eq(ledger_device_state(&a, second, &state), 0);
    cr_assert_not(state.compute, "nobody alive has armed it");
    ledger_detach(&a);
    cr_assert_eq(arms(), 0);
}

/* An older library takes a slot without its mark: what the slot's last owner had armed is not its own. */
Test(ledger_compute, believes_no_mark_of_another_owner)
{
    ledger_arm(&a, LEDGER_ARMS_COMPUTE);
    more_of(&a)->tag = ledger_slot_at(&a, a.slot)->since += 1;
    cr_assert_eq(arms(), LEDGER_ARMS_VRAM);
    ledger_arm(&a, LEDGER_ARMS_COMPUTE);
    cr_assert_eq(arms(), LEDGER_ARMS_VRAM, "such a member arms nothing that it does not know");
}

/* ---- who is busy */

Test(ledger_compute, sees_others_work_by_device)
{
    uint64_t now = clock_now();

    join(&b);
    cr_assert_not(ledger_others_busy(&a, device, now));
    be_busy(&a, device, now);
    cr_assert_not(ledger_others_busy(&a, device, now), "it is not another one");
    cr_assert(ledger_others_busy(&b, device, now));
    cr_assert_not(ledger_others_busy(&b, second, now));
    be_busy(&a, device, 0);
    cr_assert_not(ledger_others_busy(&b, device, now));
}

/* One that lives counts however old its word is, stopped or not. */
Test(ledger_compute, counts_who_lives)
{
    uint64_t now = clock_now();

    join(&b);
    be_busy(&b, device, now - UINT64_C(3600000000000));
    errno = 4711;
    cr_assert(ledger_others_busy(&a, device, now));
    be_busy(&b, device, now + UINT64_C(3600000000000));
    cr_assert(ledger_others_busy(&a, device, now));
    cr_assert_eq(errno, 4711);
}

Test(ledger_compute, counts_nobody_who_died)
{
    pid_t pid = fork();
    uint64_t end = clock_now() + UINT64_C(10000000000);

    if (pid == 0) {
        static struct ledger mine;

        join(&mine);
        be_busy(&mine, device, clock_now());
        kill(getpid(), SIGKILL);
    }
    cr_assert(waitpid(pid, NULL, 0) == pid);
    while (ledger_others_busy(&a, device, clock_now()))
        cr_assert_lt(clock_now(), end);
    cr_assert_eq(*ledger_busy_at(&a, device, 1), 0);
}

/* The driver may still show it, so its bytes count; it works no more. */
static void witness(const uint8_t where[16], const uint32_t *pids, bool *shown, unsigned count)
{
    (void)where;
    (void)pids;
    for (unsigned i = 0; i < count; i++)
        shown[i] = true;
}

Test(ledger_compute, counts_no_work_of_the_dead_whose_bytes_count)
{
    pid_t pid = fork();

    if (pid == 0) {
        static struct ledger mine;

        join(&mine);
        be_busy(&mine, device, clock_now());
        cr_assert_eq(ledger_reserve(&mine, device, 5, LEDGER_NO_LIMIT), 0);
        kill(getpid(), SIGKILL);
    }
    cr_assert(waitpid(pid, NULL, 0) == pid);
    ledger_set_witness(witness);
    cr_assert_eq(ledger_members(&a), 1);
    cr_assert_eq(ledger_current(&a, device), 5);
    cr_assert_eq(*ledger_busy_at(&a, device, 1), 0);
    cr_assert_not(ledger_others_busy(&a, device, clock_now()));
}

Test(ledger_compute, counts_nobody_who_is_checkpointed)
{
    struct ledger_peer peer = {.slot = 1};
    uint64_t now = clock_now();

    join(&b);
    cr_assert_eq(ledger_reserve(&b, device, 5, LEDGER_NO_LIMIT), 0);
    ledger_settle(&b, device, 5, 5);
    be_busy(&b, device, now);
    peer.since = ledger_slot_at(&b, b.slot)->since;
    ledger_suspend(&a, &peer);
    cr_assert_not(ledger_others_busy(&a, device, now));
    ledger_resume_anyway(&a, &peer);
    cr_assert(ledger_others_busy(&a, device, now));
}

Test(ledger_compute, leaves_no_work_behind)
{
    join(&b);
    be_busy(&b, device, clock_now());
    ledger_detach(&b);
    cr_assert_eq(*ledger_busy_at(&a, device, 1), 0);
    *ledger_busy_at(&a, device, 1) = 4711; /* an older library buried its owner */
    cr_assert_not(ledger_others_busy(&a, device, clock_now()));
    join(&b);
    cr_assert_eq(b.slot, 1);
    cr_assert_eq(*ledger_busy_word(&b, device), 0);
}
