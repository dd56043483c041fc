/* SPDX-License-Identifier: Apache-2.0 */
/* A process is single-stepped through each call on an account. Shared memory is all that a kill leaves behind, so what stands there after
 * each instruction is what the others would find: they can claim, nobody is charged for more than there was, at most the one claim is
 * missing, and nobody waits longer than max_stall. And where another claims everything in between and the process goes on, each moment is
 * charged and owed once. */
// timeout: 120
// unsanitized: single-steps, which takes long in instrumented code
// unemulated: single-steps, which an emulator cannot
#include <sys/ptrace.h>

#include "common.h"
#include "softslice/share.h"

#define MS    UINT64_C(1000000)
#define UNIT  UINT64_C(1024)
#define START (UINT64_C(5000000000000) / UNIT * UNIT)
#define AT(n) (START + (n)*1000 * UNIT) /* 1.024 ms each */

static struct share_account *account;
static volatile int *finished;

static struct share share_on(struct share_account *of)
{
    return (struct share){.account = of, .burst = 8 * MS, .max_stall = 2000 * MS, .period = MS, .rate = 1000};
}

static void do_claim(struct share *share)
{
    share_claim(share, AT(12), AT(20), AT(20));
}

static void do_claim_with_gap(struct share *share)
{
    share_claim(share, AT(18), AT(20), AT(20));
}

static void do_late_claim(struct share *share)
{
    share_claim(share, AT(3), AT(4), AT(20));
}

static void do_long_claim(struct share *share)
{
    share_claim(share, AT(0), AT(20), AT(20));
}

static void do_forgiven(struct share *share)
{
    share->max_stall = MS;
    share_claim(share, AT(12), AT(20), AT(20));
}

static void do_throttled(struct share *share)
{
    share_throttled(share, AT(5), AT(20));
}

static void do_begin(struct share *share)
{
    share_begin(share, AT(20), false);
}

static void do_heal(struct share *share)
{
    share_opens(share, AT(20));
}

static const struct operation {
    const char *name;
    void (*run)(struct share *share);
    uint64_t units; /* that it charges when it gets to the end */
    uint64_t gap;   /* that others could claim before, and may find gone */
    uint64_t due;   /* of the account before, if not 0 */
} operations[] = {
    {"claim", do_claim, 8000, 0, 0},
    {"claim, leaving a gap", do_claim_with_gap, 2000, 6000, 0},
    {"late claim", do_late_claim, 1000, 7000, 0},
    {"long claim", do_long_claim, 16000, 0, 0},
    {"forgiven", do_forgiven, 8000, 0, 0},
    {"throttled", do_throttled, 0, 0, 0},
    {"begin", do_begin, 0, 16000, 0},
    {"heal", do_heal, 0, 0, UINT64_MAX},
};

/* Charged from 0 to 2 and from 10 to 12, and what lies between is a gap. */
static void set_up(const struct operation *op)
{
    struct share share = share_on(account);

    memset(account, 0, sizeof(*account));
    share_begin(&share, AT(0), false);
    share_claim(&share, AT(0), AT(2), AT(2));
    share_claim(&share, AT(10), AT(12), AT(12));
    check(account->busy == 4000 * UNIT, "%lu", (unsigned long)account->busy);
    account->due = op->due ? op->due : account->due;
}

/* What others do with the account when the process has died here. `done`: it had finished. */
static void inspect(const struct operation *op, unsigned step, bool done)
{
    struct share_account left = *account;
    struct share share = share_on(&left);
    uint64_t before = left.busy / UNIT, charged, opens;

    check(left.busy % UNIT == 0 && (before == 4000 || before == 4000 + op->units || op->run == do_long_claim),
          "%s, step %u: busy %lu", op->name, step, (unsigned long)left.busy);
    check(!done || before == 4000 + op->units, "%s: %lu at the end", op->name, (unsigned long)before);
    opens = share_opens(&share, AT(20));
    check(opens <= AT(20) + share.max_stall, "%s, step %u: closed for %lu", op->name, step, (unsigned long)(opens - AT(20)));
    charged = share_claim(&share, AT(20), AT(21), AT(21)) / UNIT;
    check(charged == 1000, "%s, step %u: new work counts as %lu", op->name, step, (unsigned long)charged);
    charged = share_claim(&share, AT(0), AT(22), AT(22)) / UNIT;
    check(left.busy <= 22000 * UNIT, "%s, step %u: busy %lu in 22000", op->name, step, (unsigned long)left.busy);
    check(left.busy + (op->units + op->gap) * UNIT >= 22000 * UNIT, "%s, step %u: busy %lu in 22000", op->name, step,
          (unsigned long)left.busy);
    share_throttled(&share, AT(0), AT(22));
    check(left.throttled <= 22000 * UNIT && left.throttled + (op->run == do_throttled ? 20000 * UNIT : 0) >= 22000 * UNIT,
          "%s, step %u: throttled %lu", op->name, step, (unsigned long)left.throttled);
    check(left.nr_throttled <= left.nr_periods && left.nr_periods < 30, "%s, step %u: %lu periods, %lu throttled", op->name, step,
          (unsigned long)left.nr_periods, (unsigned long)left.nr_throttled);
}

/* A process that stands before the first instruction of the operation. */
static pid_t start(const struct operation *op)
{
    struct share share;
    int status;
    pid_t pid;

    set_up(op);
    *finished = 0;
    pid = test_fork();
    if (pid == 0) {
        share = share_on(account);
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        op->run(&share);
        *finished = 1;
        _exit(0);
    }
    check(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status), "%s", op->name);
    return pid;
}

static void step(const struct operation *op, pid_t pid)
{
    int status;

    check(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0, "%s", strerror(errno));
    check(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status), "%s: %#x", op->name, status);
}

static void step_through(const struct operation *op)
{
    pid_t pid = start(op);
    unsigned steps;

    for (steps = 0; !*finished; steps++) {
        step(op, pid);
        inspect(op, steps, false);
    }
    inspect(op, steps, true);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    printf("%-22s %u instructions\n", op->name, steps);
    check(steps > 50, "%s: %u instructions", op->name, steps);
}

/* Another claims and waits for everything after `steps` instructions. Returns false if the process had finished by then. */
static bool meet(const struct operation *op, unsigned steps)
{
    struct share share = share_on(account);
    uint64_t owed = AT(0) - 80 * MS + 220000 * UNIT;
    pid_t pid = start(op);
    bool met;
    int status;

    for (unsigned i = 0; i < steps && !*finished; i++)
        step(op, pid);
    met = !*finished;
    share_claim(&share, AT(0), AT(21), AT(21));
    share_throttled(&share, AT(0), AT(21));
    check(ptrace(PTRACE_CONT, pid, NULL, NULL) == 0, "%s", strerror(errno));
    check(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && *finished, "%s: %#x", op->name, status);
    share_claim(&share, AT(0), AT(22), AT(22));
    check(account->busy == 22000 * UNIT || (op->run == do_begin && account->busy < 22000 * UNIT), "%s, met after %u: busy %lu",
          op->name, steps, (unsigned long)account->busy);
    check(account->due == owed || op->run == do_begin || op->run == do_forgiven || op->run == do_heal,
          "%s, met after %u: owed %ld less", op->name, steps, (long)(owed - account->due));
    check(account->throttled == 21000 * UNIT || (op->run == do_throttled && account->throttled == 16000 * UNIT),
          "%s, met after %u: throttled %lu", op->name, steps, (unsigned long)account->throttled);
    check(account->nr_throttled <= account->nr_periods && account->nr_periods <= 2 * 24,
          "%s, met after %u: %lu periods, %lu throttled", op->name, steps, (unsigned long)account->nr_periods,
          (unsigned long)account->nr_throttled);
    return met;
}

int main(void)
{
    account = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(account != MAP_FAILED, "%s", strerror(errno));
    finished = (volatile int *)(account + 1);
    test_owner = getpid();
    test_one_processor();
    alarm(100);
    for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
        step_through(&operations[i]);
        for (unsigned steps = 0; meet(&operations[i], steps); steps++)
            ;
    }
    return 0;
}
