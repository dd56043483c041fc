/* SPDX-License-Identifier: Apache-2.0 */
/* kill -9 at random moments among processes that attach, charge, refund and bury: no byte is lost or left, nobody hangs, and everyone
 * can join again. Settings: LEDGER_KILLS, LEDGER_KILL_PROCESSES, LEDGER_KILL_SEED. */
#include "common.h"
#include "softslice/clock.h"

#define LIMIT         (UINT64_C(1) << 24)
#define HELD_MAX      8
#define PROCESSES_MAX 64
#define ROUND         64 /* kills between two comparisons */

/* A member's own account, written while it stands still. */
static struct member {
    uint64_t held, round;
} * members;
static uint64_t *round_asked; /* raised to make all stand still, 0 to go on */

static struct ledger *ledger;
static int dir;

/* The driver shows some of the dead for a while: two in three times. */
static void witness(const uint8_t uuid[16], const uint32_t *pids, bool *shown, unsigned count)
{
    static uint64_t random = 4711;

    (void)uuid;
    (void)pids;
    for (unsigned i = 0; i < count; i++)
        shown[i] = test_random(&random) % 3 != 0;
}

/* Wait until what the dead held is off. */
static void await_current(unsigned device, uint64_t expected)
{
    uint64_t end = test_now() + UINT64_C(10000000000);
    struct ledger_member list[PROCESSES_MAX];
    unsigned count, dead;

    do {
        ledger_members(ledger);
        count = ledger_members_list(ledger, device, list, PROCESSES_MAX);
        dead = 0;
        for (unsigned i = 0; i < count && i < PROCESSES_MAX; i++)
            dead += list[i].dead;
    } while (dead && test_now() < end);
    check(!dead, "%u are dead and not buried", dead);
    check(ledger_current(ledger, device) == expected, "%llu in the ledger, %llu held",
          (unsigned long long)ledger_current(ledger, device), (unsigned long long)expected);
}

static void be_busy(unsigned device, bool busy)
{
    __atomic_store_n(ledger_busy_word(ledger, device), busy ? clock_now() : 0, __ATOMIC_SEQ_CST);
}

static void stand_still(unsigned self, uint64_t held)
{
    uint64_t round = __atomic_load_n(round_asked, __ATOMIC_SEQ_CST);

    members[self].held = held;
    __atomic_store_n(&members[self].round, round, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(round_asked, __ATOMIC_SEQ_CST))
        usleep(200);
}

static void member(unsigned self, uint64_t random)
{
    uint64_t held[HELD_MAX], sum = 0;
    unsigned count = 0, device;

    device = (unsigned)test_attach(ledger, dir, "killed", LIMIT);
    for (;;) {
        uint64_t bytes = 1 + test_random(&random) % (LIMIT / 12);

        be_busy(device, test_random(&random) % 2);
        if (__atomic_load_n(round_asked, __ATOMIC_SEQ_CST)) {
            be_busy(device, false);
            stand_still(self, sum);
        }
        if (count == HELD_MAX || (count && test_random(&random) % 3 == 0)) {
            count--;
            sum -= held[count];
            ledger_refund(ledger, device, held[count]);
        } else if (ledger_reserve(ledger, device, bytes, LEDGER_NO_LIMIT) == 0) {
            uint64_t kept = test_random(&random) % 4 ? bytes : 0;

            ledger_settle(ledger, device, bytes, kept);
            sum += kept;
            if (kept)
                held[count++] = kept;
        }
        if (test_random(&random) % 64 == 0)
            ledger_members(ledger);
    }
}

static pid_t start(unsigned self, uint64_t seed)
{
    pid_t pid = test_fork();

    if (pid == 0) {
        alarm(600);
        member(self, seed);
    }
    return pid;
}

static void compare(unsigned processes, unsigned device, uint64_t round)
{
    uint64_t sum = 0, end = test_now() + UINT64_C(60000000000);

    __atomic_store_n(round_asked, round, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < processes; i++) {
        while (__atomic_load_n(&members[i].round, __ATOMIC_SEQ_CST) != round) {
            check(test_now() < end, "process %u hangs after %llu kills", i, (unsigned long long)round * ROUND);
            usleep(100);
        }
        sum += members[i].held;
    }
    test_await_members(ledger, processes + 1);
    await_current(device, sum);
    check(!ledger_others_busy(ledger, device, clock_now()), "somebody is busy who is dead");
    __atomic_store_n(round_asked, 0, __ATOMIC_SEQ_CST);
}

int main(void)
{
    unsigned long kills = test_setting("LEDGER_KILLS", 2000);
    unsigned processes = (unsigned)test_setting("LEDGER_KILL_PROCESSES", 8), device;
    uint64_t random = test_setting("LEDGER_KILL_SEED", (unsigned long)test_now()) | 1, seed = random, began = test_now();
    struct ledger_device_state state;
    pid_t pid[PROCESSES_MAX];

    check(processes <= PROCESSES_MAX, "%u processes", processes);
    dir = test_begin((unsigned)(120 + kills / 10));
    members = test_shared(sizeof(*members) * PROCESSES_MAX);
    round_asked = test_shared(sizeof(*round_asked));
    ledger_set_witness(witness);
    ledger = test_handle();
    device = (unsigned)test_attach(ledger, dir, "killed", LIMIT);
    for (unsigned i = 0; i < processes; i++)
        pid[i] = start(i, test_random(&random) | 1);
    for (unsigned long done = 0; done < kills; done++) {
        unsigned victim = (unsigned)(test_random(&random) % processes);
        int status;

        usleep((useconds_t)(test_random(&random) % 1500));
        kill(pid[victim], SIGKILL);
        check(waitpid(pid[victim], &status, 0) == pid[victim], "%s", strerror(errno));
        check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "a member ended with status %d after %lu kills, seed %llu",
              status, done, (unsigned long long)seed);
        pid[victim] = start(victim, test_random(&random) | 1);
        if (done % ROUND == ROUND - 1)
            compare(processes, device, done / ROUND + 1);
    }
    for (unsigned i = 0; i < processes; i++) {
        kill(pid[i], SIGKILL);
        waitpid(pid[i], NULL, 0);
    }
    test_await_members(ledger, 1);
    await_current(device, 0);
    check(ledger_reserve(ledger, device, LIMIT, LEDGER_NO_LIMIT) == 0, "the whole budget is free and cannot be had");
    check(ledger_device_state(ledger, device, &state) == 0 && state.events[LEDGER_EVENT_UNDERFLOW] == 0, "%llu underflows",
          (unsigned long long)state.events[LEDGER_EVENT_UNDERFLOW]);
    printf(
        "%lu kills among %u processes in %.1f s, %llu of them buried with bytes: nothing lost, nothing left, no hang (seed %llu)\n",
        kills, processes, (double)(test_now() - began) / 1e9, (unsigned long long)state.events[LEDGER_EVENT_BURIED],
        (unsigned long long)seed);
    return 0;
}
