/* SPDX-License-Identifier: Apache-2.0 */
/* timeout: 120 */
/* The ring of events with many writers: whoever is killed, and however far others overtake, a reader never takes half of an event, or a mixture of two, for
 * one; where nobody is overtaken none is missed; and a storm's counts add up. */
#include <pthread.h>
#include <sys/mman.h>

#include "common.h"
#include "ledger_layout.h"

#define WRITERS 8
#define THREADS 4
#define LANE    (LEDGER_RING / LEDGER_LANES)

static int dir;
static struct ledger *member;
static struct ledger_told told[LEDGER_RING];

/* Numbers that belong together, so that a mixture shows. */
static void tell_one(struct ledger *ledger, uint64_t number)
{
    ledger_tell(ledger, LEDGER_SET_VRAM, 0, number, ledger_mix(number), ledger_mix(number + (uint64_t)getpid()));
}

static void check_one(const struct ledger_told *one)
{
    if (one->kind != LEDGER_SET_VRAM)
        return;
    check(one->limit == ledger_mix(one->bytes) && one->current == ledger_mix(one->bytes + one->pid) && one->count == 1 &&
              one->on_device && memcmp(one->uuid, test_uuid, 16) == 0 && one->uid == geteuid(),
          "a mixture: %llu %llu %llu of %u", (unsigned long long)one->bytes, (unsigned long long)one->limit,
          (unsigned long long)one->current, one->pid);
}

static unsigned read_on(struct ledger_cursor *cursor, bool all)
{
    int count = ledger_read_events(dir, "ring", cursor, all, told, LEDGER_RING);

    check(count >= 0, "%d", count);
    for (int i = 0; i < count; i++)
        check_one(&told[i]);
    return (unsigned)count;
}

static pid_t writer(unsigned number, unsigned pause)
{
    pid_t pid = test_fork();

    if (pid == 0) {
        struct ledger *ledger = test_handle();

        if (ledger_attach(ledger, dir, "ring") || ledger_add_device(ledger, test_uuid, 1000) != 0)
            _exit(1);
        for (uint64_t n = 0;; n++) {
            tell_one(ledger, n * WRITERS + number);
            if (pause)
                usleep(pause);
        }
    }
    return pid;
}

static void end_all(const pid_t *pids)
{
    for (unsigned i = 0; i < WRITERS; i++)
        kill(pids[i], SIGKILL);
    for (unsigned i = 0; i < WRITERS; i++)
        waitpid(pids[i], NULL, 0);
}

static uint64_t tickets(void)
{
    return __atomic_load_n(&member->file->event_next[LEDGER_LANE_SELDOM], __ATOMIC_SEQ_CST) +
           __atomic_load_n(&member->file->event_next[LEDGER_LANE_OFTEN], __ATOMIC_SEQ_CST);
}

/* As fast as they can, killed at any instruction and replaced. */
static void kills(unsigned seconds)
{
    uint64_t end = test_now() + seconds * UINT64_C(1000000000), random = 88172645463325252, seen = 0, killed = 0,
             before = tickets();
    struct ledger_cursor cursor = {0};
    pid_t pids[WRITERS];

    read_on(&cursor, true);
    for (unsigned i = 0; i < WRITERS; i++)
        pids[i] = writer(i, 0);
    while (test_now() < end) {
        unsigned victim = (unsigned)(test_random(&random) % WRITERS);

        for (unsigned n = 0; n < 20; n++)
            seen += read_on(&cursor, n % 2);
        kill(pids[victim], SIGKILL);
        waitpid(pids[victim], NULL, 0);
        pids[victim] = writer(victim, 0);
        killed++;
    }
    end_all(pids);
    seen += read_on(&cursor, true);
    check(seen > LANE && cursor.lost > 0, "%llu seen, %llu lost", (unsigned long long)seen, (unsigned long long)cursor.lost);
    check(seen + cursor.lost + cursor.damaged == tickets() - before, "%llu seen and %llu lost and %llu mixed of %llu",
          (unsigned long long)seen, (unsigned long long)cursor.lost, (unsigned long long)cursor.damaged,
          (unsigned long long)(tickets() - before));
    printf("%llu killed: %llu events seen, %llu overwritten, %llu mixtures recognised\n", (unsigned long long)killed,
           (unsigned long long)seen, (unsigned long long)cursor.lost, (unsigned long long)cursor.damaged);
}

/* Slowly enough for the reader: none is missed. */
static void unhurried(void)
{
    uint64_t end = test_now() + 1000000000, before = tickets(), seen = 0, after;
    struct ledger_cursor cursor = {0};
    pid_t pids[WRITERS];

    read_on(&cursor, true);
    cursor.lost = cursor.damaged = 0;
    for (unsigned i = 0; i < WRITERS; i++)
        pids[i] = writer(i, 20000);
    while (test_now() < end)
        seen += read_on(&cursor, false);
    end_all(pids);
    seen += read_on(&cursor, true);
    after = tickets();
    /* A writer may have been killed in the middle of one. */
    check(seen + cursor.lost == after - before && cursor.lost <= WRITERS && !cursor.damaged, "%llu of %llu seen, %llu lost",
          (unsigned long long)seen, (unsigned long long)(after - before), (unsigned long long)cursor.lost);
    printf("%llu events, each seen\n", (unsigned long long)seen);
}

static uint64_t *refused; /* by all processes */

/* Until the ring is nearly full, too: a machine that gives them no time would have them begin one storm after the other, and what is
 * overwritten is not counted. */
static void *storm(void *argument)
{
    struct ledger *ledger = argument;
    const uint64_t *begun = &ledger->file->event_next[LEDGER_LANE_OFTEN];
    uint64_t told_here = 0;

    for (; told_here < 20000 && __atomic_load_n(begun, __ATOMIC_SEQ_CST) < LANE - WRITERS * THREADS; told_here++)
        ledger_tell_storm(ledger, LEDGER_REFUSED, 0, 5, 1000, 0);
    __atomic_fetch_add(refused, told_here, __ATOMIC_SEQ_CST);
    return NULL;
}

/* Each refusal is counted once, by whichever of the threads and in whichever of the events. */
static void storms(void)
{
    struct ledger_cursor cursor = {0};
    uint64_t sum = 0;
    pid_t pids[WRITERS];
    unsigned count;
    int status;

    refused = mmap(NULL, sizeof(*refused), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(refused != MAP_FAILED, "mmap");
    for (unsigned i = 0; i < WRITERS; i++) {
        if ((pids[i] = test_fork()) == 0) {
            struct ledger *ledger = test_handle();
            pthread_t threads[THREADS];

            if (ledger_attach(ledger, dir, "ring") || ledger_add_device(ledger, test_uuid, 1000) != 0)
                _exit(1);
            for (unsigned n = 0; n < THREADS; n++)
                check(pthread_create(&threads[n], NULL, storm, ledger) == 0, "no thread");
            for (unsigned n = 0; n < THREADS; n++)
                pthread_join(threads[n], NULL);
            ledger_detach(ledger);
            _exit(0);
        }
    }
    for (unsigned i = 0; i < WRITERS; i++)
        check(waitpid(pids[i], &status, 0) == pids[i] && status == 0, "status %d", status);
    count = read_on(&cursor, true);
    for (unsigned i = 0; i < count; i++)
        sum += told[i].kind == LEDGER_REFUSED ? told[i].count : 0;
    check(sum == *refused && sum > WRITERS * THREADS, "%llu refusals are told of %llu", (unsigned long long)sum,
          (unsigned long long)*refused);
    printf("%llu refusals by %u threads: counted once\n", (unsigned long long)sum, WRITERS * THREADS);
}

int main(void)
{
    dir = test_begin(110);
    member = test_handle();
    test_attach(member, dir, "ring", 1000);
    storms();
    kills((unsigned)test_setting("SECONDS", 3));
    unhurried();
    ledger_detach(member);
    return 0;
}
