/* SPDX-License-Identifier: Apache-2.0 */
/* Turns between real processes: four tenants, of which holders and waiters are killed and stopped hundreds of times. Nobody hangs, a release wakes who
 * waits on a read-only mapping, and what the dead leave is collected. TURNS_FAULTS: how many of each kind (200). */
#include "common.h"
#include "softslice/clock.h"
#include "softslice/turns.h"

#define WORKERS 4
#define MS      UINT64_C(1000000)

struct shared {
    struct {
        uint64_t turns, held_since, longest, lost, woken;
        uint32_t holds;
    } worker[WORKERS];
    uint64_t overlap; /* how often a worker that got the turn saw another one hold it */
    uint32_t stage;
};

static struct shared *shared;

static int join(struct turns *turns, int dir, const char *name)
{
    struct turns_settings settings = {0};

    return turns_join(turns, dir, name, &test_uuid, 1, &settings, clock_now());
}

static void hold(struct turns *turns, unsigned self)
{
    uint64_t from = clock_now(), at = from;
    struct turns_demand demand;

    for (unsigned i = 0; i < WORKERS; i++)
        if (i != self && __atomic_load_n(&shared->worker[i].holds, __ATOMIC_SEQ_CST))
            __atomic_fetch_add(&shared->overlap, 1, __ATOMIC_SEQ_CST);
    do {
        /* The work of a mark is on the GPU, the process waits for it. */
        clock_wait(&shared->stage, UINT32_MAX - 1, at, true);
        usleep(300);
        at = clock_now();
        demand = turns_demand(turns, 1, at);
    } while (!demand.must_go && at - from < 50 * MS);
    shared->worker[self].lost += demand.lost;
    __atomic_store_n(&shared->worker[self].holds, 0, __ATOMIC_SEQ_CST);
    turns_release(turns, 1, at, at - from);
}

static void work(int dir, unsigned self)
{
    struct turns *turns = calloc(1, sizeof(*turns));
    uint64_t waits = 0, now;
    char name[16];

    snprintf(name, sizeof(name), "worker-%u", self);
    check(join(turns, dir, name) == 0, "%s", turns->error);
    for (;;) {
        struct turns_answer answer;

        now = clock_now();
        waits = waits ? waits : now;
        turns_look(turns, now);
        answer = turns_ask(turns, 1, now);
        if (!answer.mine) {
            uint32_t nothing = 0;

            if (clock_wait(answer.word ? answer.word : &nothing, answer.word ? answer.seen : 0, answer.until, answer.word != NULL))
                shared->worker[self].woken++;
            continue;
        }
        __atomic_store_n(&shared->worker[self].holds, 1, __ATOMIC_SEQ_CST);
        if (now - waits > shared->worker[self].longest)
            shared->worker[self].longest = now - waits;
        waits = 0;
        __atomic_fetch_add(&shared->worker[self].turns, 1, __ATOMIC_SEQ_CST);
        hold(turns, self);
    }
}

static pid_t start(int dir, unsigned self)
{
    pid_t pid = test_fork();

    if (pid == 0) {
        work(dir, self);
        _exit(1);
    }
    return pid;
}

/* Until each worker has had so many more turns. */
static void await_turns(uint64_t more)
{
    uint64_t goal[WORKERS];

    for (unsigned i = 0; i < WORKERS; i++)
        goal[i] = __atomic_load_n(&shared->worker[i].turns, __ATOMIC_SEQ_CST) + more;
    for (unsigned i = 0; i < WORKERS; i++)
        while (__atomic_load_n(&shared->worker[i].turns, __ATOMIC_SEQ_CST) < goal[i])
            usleep(500);
}

static void faults(int dir)
{
    unsigned count = (unsigned)test_setting("TURNS_FAULTS", 200);
    uint64_t random = 88172645463325252;
    pid_t worker[WORKERS];

    for (unsigned i = 0; i < WORKERS; i++)
        worker[i] = start(dir, i);
    await_turns(3);
    for (unsigned i = 0; i < 2 * count; i++) {
        unsigned victim = (unsigned)(test_random(&random) % WORKERS);

        /* Every other one while it holds. */
        for (unsigned tries = 0; i & 2 && tries < 1000 && !__atomic_load_n(&shared->worker[victim].holds, __ATOMIC_SEQ_CST);
             tries++)
            usleep(20);
        usleep((unsigned)(test_random(&random) % 2000));
        if (i & 1) {
            check(kill(worker[victim], SIGKILL) == 0 && waitpid(worker[victim], NULL, 0) == worker[victim], "%s", strerror(errno));
            __atomic_store_n(&shared->worker[victim].holds, 0, __ATOMIC_SEQ_CST);
            worker[victim] = start(dir, victim);
        } else {
            check(kill(worker[victim], SIGSTOP) == 0, "%s", strerror(errno));
            usleep((unsigned)(test_random(&random) % 20000));
            check(kill(worker[victim], SIGCONT) == 0, "%s", strerror(errno));
        }
    }
    await_turns(3);
    for (unsigned i = 0; i < WORKERS; i++) {
        check(waitpid(worker[i], NULL, WNOHANG) == 0, "worker %u has ended by itself", i);
        kill(worker[i], SIGKILL);
        waitpid(worker[i], NULL, 0);
        printf("worker %u: %llu turns, %llu lost, %llu wakes, longest wait %.1f ms\n", i,
               (unsigned long long)shared->worker[i].turns, (unsigned long long)shared->worker[i].lost,
               (unsigned long long)shared->worker[i].woken, (double)shared->worker[i].longest / 1e6);
    }
    printf("%llu times two at once\n", (unsigned long long)shared->overlap);
}

/* The word is in a mapping for reading alone, and no page of this process's own. */
static void wakes(int dir)
{
    struct turns *turns = calloc(1, sizeof(*turns));
    int status;
    pid_t pid;

    check(join(turns, dir, "holder") == 0, "%s", turns->error);
    check(turns_ask(turns, 1, clock_now()).mine, "alone");
    pid = test_fork();
    if (pid == 0) {
        struct turns *own = calloc(1, sizeof(*own));
        struct turns_answer answer;

        check(join(own, dir, "waiter") == 0, "%s", own->error);
        answer = turns_ask(own, 1, clock_now());
        check(!answer.mine && answer.word, "%d", answer.mine);
        __atomic_store_n(&shared->stage, 1, __ATOMIC_SEQ_CST);
        check(clock_wait(answer.word, answer.seen, clock_now() + 60000 * MS, true), "it was not woken");
        check(__atomic_load_n(&shared->stage, __ATOMIC_SEQ_CST) == 2, "it did not wait");
        _exit(0);
    }
    while (__atomic_load_n(&shared->stage, __ATOMIC_SEQ_CST) != 1)
        usleep(100);
    usleep(20000);
    __atomic_store_n(&shared->stage, 2, __ATOMIC_SEQ_CST);
    turns_release(turns, 1, clock_now(), 0);
    check(waitpid(pid, &status, 0) == pid && status == 0, "the waiter: 0x%x", status);
    turns_leave(turns, clock_now());
    free(turns);
}

static void collected(int dir)
{
    uint64_t end = clock_now() + 20000 * MS;
    struct turns *turns = calloc(1, sizeof(*turns));
    struct turns_counts counts;

    check(join(turns, dir, "last") == 0, "%s", turns->error);
    do {
        usleep(1000);
        turns_look(turns, clock_now());
        turns_counts(turns, 0, &counts);
        check(clock_now() < end, "%u files are left", counts.peers);
    } while (counts.peers || faccessat(dir, "turns/worker-0.turns", F_OK, 0) == 0);
    turns_leave(turns, clock_now());
    free(turns);
}

int main(void)
{
    int dir = test_begin(240);

    shared = test_shared(sizeof(*shared));
    wakes(dir);
    faults(dir);
    collected(dir);
    return 0;
}
