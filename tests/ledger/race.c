/* SPDX-License-Identifier: Apache-2.0 */
/* Processes and threads race for one budget: the granted sum never exceeds it, and what fits is granted in the end, to the byte.
 * Settings: LEDGER_RACE_PROCESSES, LEDGER_RACE_THREADS, LEDGER_RACE_SECONDS, LEDGER_RACE_ROUNDS. */
#include <pthread.h>

#include "common.h"

#define LIMIT       (UINT64_C(1) << 30)
#define HELD_MAX    16
#define THREADS_MAX 64

static struct shared {
    uint64_t granted, most, over, grants, refusals; /* granted: raised after a grant, lowered before a refund */
    uint64_t held;
    uint64_t winners, errors;
    int stop;
    pthread_barrier_t barrier;
} * shared;

static struct ledger *ledger;
static unsigned processes, threads, rounds, seconds;
static int dir, device;

static void count_grant(uint64_t bytes)
{
    uint64_t now = __atomic_add_fetch(&shared->granted, bytes, __ATOMIC_SEQ_CST);
    uint64_t most = __atomic_load_n(&shared->most, __ATOMIC_SEQ_CST);

    if (now > LIMIT)
        __atomic_add_fetch(&shared->over, 1, __ATOMIC_SEQ_CST);
    while (now > most && !__atomic_compare_exchange_n(&shared->most, &most, now, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
    __atomic_add_fetch(&shared->grants, 1, __ATOMIC_RELAXED);
}

static void give_back(uint64_t bytes)
{
    __atomic_sub_fetch(&shared->granted, bytes, __ATOMIC_SEQ_CST);
    ledger_refund(ledger, (unsigned)device, bytes);
}

/* Take and free blocks of all sizes until told to stop; what is then held stays held. */
static uint64_t hover(uint64_t *random)
{
    uint64_t held[HELD_MAX], sum = 0;
    unsigned count = 0;

    while (!__atomic_load_n(&shared->stop, __ATOMIC_SEQ_CST)) {
        uint64_t bytes = 1 + test_random(random) % (LIMIT >> (4 + test_random(random) % 16));
        int result;

        if (count == HELD_MAX || (count && test_random(random) % 3 == 0)) {
            unsigned i = (unsigned)(test_random(random) % count);

            give_back(held[i]);
            held[i] = held[--count];
            continue;
        }
        result = ledger_reserve(ledger, (unsigned)device, bytes, LEDGER_NO_LIMIT);
        if (result == -ENOMEM) {
            __atomic_add_fetch(&shared->refusals, 1, __ATOMIC_RELAXED);
            if (count) {
                count--;
                give_back(held[count]);
            }
            continue;
        }
        if (result) {
            __atomic_add_fetch(&shared->errors, 1, __ATOMIC_SEQ_CST);
            break;
        }
        count_grant(bytes);
        if (test_random(random) % 8 == 0) {
            __atomic_sub_fetch(&shared->granted, bytes, __ATOMIC_SEQ_CST);
            ledger_settle(ledger, (unsigned)device, bytes, 0);
        } else {
            ledger_settle(ledger, (unsigned)device, bytes, bytes);
            held[count++] = bytes;
        }
    }
    for (unsigned i = 0; i < count; i++)
        sum += held[i];
    return sum;
}

/* Room for exactly one: of all that ask at once exactly one must get it. */
static void one_place(void)
{
    for (unsigned i = 0; i < rounds; i++) {
        bool mine;

        pthread_barrier_wait(&shared->barrier);
        mine = ledger_reserve(ledger, (unsigned)device, LIMIT, LEDGER_NO_LIMIT) == 0;
        if (mine) {
            __atomic_add_fetch(&shared->winners, 1, __ATOMIC_SEQ_CST);
            ledger_settle(ledger, (unsigned)device, LIMIT, LIMIT);
        }
        pthread_barrier_wait(&shared->barrier);
        if (__atomic_load_n(&shared->winners, __ATOMIC_SEQ_CST) != i + 1)
            __atomic_add_fetch(&shared->errors, 1, __ATOMIC_SEQ_CST);
        if (mine)
            ledger_refund(ledger, (unsigned)device, LIMIT);
    }
    pthread_barrier_wait(&shared->barrier);
}

static void *racer(void *argument)
{
    uint64_t random = ((uint64_t)getpid() << 32) + (uintptr_t)argument * UINT64_C(0x9e3779b97f4a7c15) + UINT64_C(88172645463325252);

    one_place();
    __atomic_add_fetch(&shared->held, hover(&random), __ATOMIC_SEQ_CST);
    pthread_barrier_wait(&shared->barrier);
    /* Until the parent has compared: the holds end with the process. */
    pthread_barrier_wait(&shared->barrier);
    return NULL;
}

static int process(void)
{
    pthread_t thread[THREADS_MAX];

    device = test_attach(ledger, dir, "race", LIMIT);
    for (unsigned i = 0; i < threads; i++)
        check(pthread_create(&thread[i], NULL, racer, (void *)(uintptr_t)i) == 0, "no thread");
    for (unsigned i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    return 0;
}

int main(void)
{
    pthread_barrierattr_t across;
    uint64_t left;
    int status;

    processes = (unsigned)test_setting("LEDGER_RACE_PROCESSES", 8);
    threads = (unsigned)test_setting("LEDGER_RACE_THREADS", 8);
    seconds = (unsigned)test_setting("LEDGER_RACE_SECONDS", 3);
    rounds = (unsigned)test_setting("LEDGER_RACE_ROUNDS", 100);
    check(threads <= THREADS_MAX, "%u threads", threads);
    dir = test_begin(seconds + 240);
    shared = test_shared(sizeof(*shared));
    pthread_barrierattr_init(&across);
    pthread_barrierattr_setpshared(&across, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&shared->barrier, &across, processes * threads + 1);
    ledger = test_handle();
    device = test_attach(ledger, dir, "race", LIMIT);
    for (unsigned i = 0; i < processes; i++) {
        pid_t pid = test_fork();

        if (pid == 0)
            exit(process());
    }
    for (unsigned i = 0; i < 2 * rounds + 1; i++)
        pthread_barrier_wait(&shared->barrier);
    sleep(seconds);
    __atomic_store_n(&shared->stop, 1, __ATOMIC_SEQ_CST);
    pthread_barrier_wait(&shared->barrier);

    check(shared->errors == 0, "%llu errors, %llu winners of %u rounds", (unsigned long long)shared->errors,
          (unsigned long long)shared->winners, rounds);
    check(shared->over == 0, "over the limit %llu times, by %llu bytes at most", (unsigned long long)shared->over,
          (unsigned long long)(shared->most - LIMIT));
    check(shared->held == shared->granted, "%llu held, %llu granted", (unsigned long long)shared->held,
          (unsigned long long)shared->granted);
    check(ledger_current(ledger, (unsigned)device) == shared->held, "%llu in the ledger, %llu held",
          (unsigned long long)ledger_current(ledger, (unsigned)device), (unsigned long long)shared->held);
    left = LIMIT - shared->held;
    check(ledger_reserve(ledger, (unsigned)device, left + 1, LEDGER_NO_LIMIT) == -ENOMEM, "a byte too many was granted");
    check(ledger_reserve(ledger, (unsigned)device, left, LEDGER_NO_LIMIT) == 0, "%llu bytes fit", (unsigned long long)left);
    ledger_settle(ledger, (unsigned)device, left, left);
    check(ledger_reserve(ledger, (unsigned)device, 1, LEDGER_NO_LIMIT) == -ENOMEM, "a byte too many was granted");
    pthread_barrier_wait(&shared->barrier);
    for (unsigned i = 0; i < processes; i++) {
        check(wait(&status) > 0 && status == 0, "a racer ended with status %d", status);
    }
    check(ledger_current(ledger, (unsigned)device) == left || ledger_members(ledger) == 1, "the dead were not buried");
    check(ledger_current(ledger, (unsigned)device) == left, "%llu left of the dead",
          (unsigned long long)(ledger_current(ledger, (unsigned)device) - left));
    printf("%u processes of %u threads: %llu grants, %llu refusals, at most %llu of %llu bytes granted at a time\n", processes,
           threads, (unsigned long long)shared->grants, (unsigned long long)shared->refusals, (unsigned long long)shared->most,
           (unsigned long long)LIMIT);
    return 0;
}
