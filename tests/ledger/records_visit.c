/* SPDX-License-Identifier: Apache-2.0 */
/* Records are visited while threads put and take others, so that tables grow, empty and close their gaps under the visit: what is there all the
 * while is seen exactly once. A plain program, so that it can run under ThreadSanitizer. */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "softslice/records.h"

#define MOVERS  3
#define STABLE  60000
#define MOVING  60000 /* of each thread, at most: shards grow from nothing to the size at which they keep their newest apart */
#define ROUNDS  90    /* of each mover, at least */
#define STEP    (UINT64_C(2) << 20)
#define CONTEXT 77

static struct records *records;
static uint8_t seen[2 * (STABLE + MOVERS * MOVING)];
static uint32_t faults, done, rounds[MOVERS];

/* Every second key is stable; the others are the movers'. */
static uint64_t stable_key(uint64_t i)
{
    return (2 * i + 2) * STEP;
}

static uint64_t moving_key(unsigned mover, uint64_t i)
{
    return (2 * (i * MOVERS + mover) + 1) * STEP;
}

static void fault(const char *what, uint64_t key, unsigned times)
{
    if (__atomic_fetch_add(&faults, 1, __ATOMIC_RELAXED) < 10)
        fprintf(stderr, "records_visit: key %#lx was %s (%u)\n", (unsigned long)key, what, times);
}

static void put(uint64_t key, uint64_t context)
{
    struct record record = {.key = key, .bytes = key / 2, .context = context}, old;

    if (records_put(records, &record, &old) != 0)
        fault("not put, or there already", key, 0);
}

static void ignore(void *argument, const struct record *record)
{
    (void)argument;
    (void)record;
}

/* Grow to a size of its own, then shrink by one way or another. */
static void *move(void *argument)
{
    unsigned me = (unsigned)(uintptr_t)argument;
    struct record out;

    for (unsigned round = 0; !__atomic_load_n(&done, __ATOMIC_ACQUIRE); round++) {
        uint64_t most = (round % 3 == 0 ? 300 : round % 3 == 1 ? 6000 : MOVING) - me * 20;

        for (uint64_t i = 0; i < most; i++)
            put(moving_key(me, i), CONTEXT + me);
        if (round % 2)
            records_drop_context(records, CONTEXT + me, ignore, NULL);
        for (uint64_t i = 0; i < most && round % 2 == 0; i++)
            if (!records_take(records, moving_key(me, most - 1 - i), &out))
                fault("not there to be taken", moving_key(me, most - 1 - i), 0);
        __atomic_store_n(&rounds[me], round, __ATOMIC_RELEASE);
    }
    return NULL;
}

static void visit(void *argument, const struct record *record)
{
    uint64_t number = record->key / STEP - 1;

    (void)argument;
    if (record->bytes != record->key / 2 || number >= sizeof(seen))
        fault("torn", record->key, 0);
    else if (seen[number] < 255)
        seen[number]++;
    if (number % 97 == 0)
        sched_yield(); /* the others wait for this shard, and have it before the next window */
}

static void look(void)
{
    memset(seen, 0, sizeof(seen));
    records_visit(records, visit, NULL);
    for (uint64_t i = 0; i < STABLE; i++)
        if (seen[stable_key(i) / STEP - 1] != 1)
            fault("not seen once", stable_key(i), seen[stable_key(i) / STEP - 1]);
}

static bool moved_enough(void)
{
    for (unsigned i = 0; i < MOVERS; i++)
        if (__atomic_load_n(&rounds[i], __ATOMIC_ACQUIRE) < ROUNDS)
            return false;
    return true;
}

int main(void)
{
    pthread_t thread[MOVERS];
    unsigned visits = 0;

    records = mmap(NULL, records_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (records == MAP_FAILED)
        return 1;
    for (uint64_t i = 0; i < STABLE; i++)
        put(stable_key(i), 1);
    for (uintptr_t i = 0; i < MOVERS; i++)
        if (pthread_create(&thread[i], NULL, move, (void *)i) != 0)
            return 1;
    for (; !moved_enough(); visits++)
        look();
    __atomic_store_n(&done, 1, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < MOVERS; i++)
        pthread_join(thread[i], NULL);
    look();
    printf("records_visit: %u visits of %d records among %d threads, %u faults\n", visits, STABLE, MOVERS, faults);
    return faults ? 1 : 0;
}
