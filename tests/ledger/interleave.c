/* SPDX-License-Identifier: Apache-2.0 */
/* Two members in every order: one is single-stepped through an operation, and after each instruction the other acts or looks. A charge
 * that is being settled is never missed by one who sums, and a refusal waits for charges that may yet be given back. */
#include <sys/ptrace.h>

#include "common.h"

#define LIMIT  UINT64_C(1000000)
#define CHARGE UINT64_C(600000)

static struct ledger *ledger, *other;
static int dir;
static unsigned device;

/* Start a member that runs `operation` under ptrace and exits with its result. 0 where there is no ptrace. */
static pid_t start(int (*prepare)(void), int (*operation)(void))
{
    pid_t pid = test_fork();
    int status;

    if (pid == 0) {
        test_attach(other, dir, "interleave", LIMIT);
        if (prepare && prepare())
            _exit(1);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
            _exit(77);
        raise(SIGSTOP);
        _exit(operation());
    }
    check(waitpid(pid, &status, 0) == pid, "%s", strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        return 0;
    check(WIFSTOPPED(status), "status %x", status);
    return pid;
}

/* One instruction further. Whether it has not ended. */
static bool step(pid_t pid, int *status)
{
    check(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0 && waitpid(pid, status, 0) == pid, "%s", strerror(errno));
    return WIFSTOPPED(*status);
}

static int take_too_much(void)
{
    return ledger_reserve(other, device, LIMIT - CHARGE + 1, LEDGER_NO_LIMIT) == -ENOMEM ? 0 : 2;
}

static int reserve_charge(void)
{
    return ledger_reserve(other, device, CHARGE, LEDGER_NO_LIMIT);
}

static int settle_charge(void)
{
    ledger_settle(other, device, CHARGE, CHARGE);
    return 0;
}

/* A charge settled between any two instructions of a sum is counted by it. */
static bool settled_during_a_sum(void)
{
    unsigned long steps = 1;
    bool running = true;
    int status = 0;

    while (running) {
        pid_t pid;

        check(ledger_reserve(ledger, device, CHARGE, LEDGER_NO_LIMIT) == 0, "no room");
        pid = start(NULL, take_too_much);
        if (!pid)
            return false;
        for (unsigned long i = 0; i < steps && running; i++)
            running = step(pid, &status);
        ledger_settle(ledger, device, CHARGE, CHARGE);
        if (running) {
            check(ptrace(PTRACE_CONT, pid, NULL, NULL) == 0 && waitpid(pid, &status, 0) == pid, "%s", strerror(errno));
        }
        check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "over the limit: settled after instruction %lu, status %x", steps,
              status);
        ledger_refund(ledger, device, CHARGE);
        /* Beyond its first attempt it repeats itself, with pauses of random length. */
        if (++steps > 600)
            break;
    }
    printf("a charge settled after each of %lu instructions of a sum: counted\n", steps - 1);
    return true;
}

/* Between any two instructions of settling, the charge is counted. */
static void sum_during_settling(void)
{
    pid_t pid = start(reserve_charge, settle_charge);
    unsigned long steps = 0;
    int status;

    while (step(pid, &status)) {
        uint64_t now = ledger_current(ledger, device);

        /* Its exit ends the charge; everything before must count it. */
        if (now == 0 && ledger_members(ledger) == 1)
            break;
        check(now == CHARGE || now == 2 * CHARGE, "%llu after instruction %lu of settling", (unsigned long long)now, steps);
        steps++;
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    check(steps > 20, "only %lu instructions", steps);
    printf("a sum after each of %lu instructions of settling: the charge is in it\n", steps);
}

static int resume_parent(void)
{
    uint64_t cap[LEDGER_DEVICES];
    struct ledger_refusal refusal;
    struct ledger_peer peer;

    memset(cap, 0xff, sizeof(cap));
    if (ledger_find(other, (uint32_t)getppid(), &peer) != 0)
        return 1;
    return ledger_resume(other, &peer, cap, &refusal) == 1 ? 0 : 2;
}

/* Between any two instructions of bringing a checkpointed member back, what it holds is counted once or not at all, and then for good. */
static void sum_during_resuming(void)
{
    unsigned long steps = 0, counted = 0;
    struct ledger_peer self;
    int status;

    test_hold(ledger, (int)device, CHARGE);
    check(ledger_find(ledger, (uint32_t)getpid(), &self) == 0, "not a member");
    ledger_suspend(ledger, &self);
    pid_t pid = start(NULL, resume_parent);
    while (step(pid, &status)) {
        uint64_t now = ledger_current(ledger, device);

        check(now == (counted ? CHARGE : 0) || now == CHARGE, "%llu after instruction %lu of resuming", (unsigned long long)now,
              steps);
        counted += now == CHARGE;
        steps++;
    }
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
    check(counted > 20 && counted < steps, "counted after %lu of %lu instructions", counted, steps);
    check(ledger_current(ledger, device) == CHARGE, "%llu", (unsigned long long)ledger_current(ledger, device));
    ledger_refund(ledger, device, CHARGE);
    printf("a sum after each of %lu instructions of resuming: it is counted once, from the %luth on\n", steps, steps - counted);
}

/* What is only tentative may be given back: who would fit then waits and gets it. */
static void refusal_waits(void)
{
    int *ready = test_shared(sizeof(*ready)), status;
    pid_t pid = test_fork();

    if (pid == 0) {
        test_attach(other, dir, "interleave", LIMIT);
        check(ledger_reserve(other, device, LIMIT, LEDGER_NO_LIMIT) == 0, "no room");
        *(volatile int *)ready = 1;
        usleep(100000);
        ledger_settle(other, device, LIMIT, 0);
        for (;;)
            pause();
    }
    while (!*(volatile int *)ready)
        usleep(100);
    check(ledger_reserve(ledger, device, LIMIT, LEDGER_NO_LIMIT) == 0, "refused because of a charge that was given back");
    ledger_settle(ledger, device, LIMIT, 0);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    printf("a refusal waits for what may be given back\n");
}

int main(void)
{
    dir = test_begin(240);
    setvbuf(stdout, NULL, _IOLBF, 0);
    ledger = test_handle();
    other = test_handle();
    device = (unsigned)test_attach(ledger, dir, "interleave", LIMIT);
    refusal_waits();
    if (!settled_during_a_sum()) {
        printf("skipped: this machine lets no process be single-stepped\n");
        return 77;
    }
    sum_during_settling();
    sum_during_resuming();
    return 0;
}
