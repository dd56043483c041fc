/* SPDX-License-Identifier: Apache-2.0 */
/* Threads race for the same records: each is taken exactly once, whoever takes it and however. A plain program, so that it can run
 * under ThreadSanitizer. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "softslice/records.h"

#define THREADS  8
#define KEYS     100000 /* so that large shards are raced for too */
#define ROUNDS   8
#define CONTEXTS 4

static struct records *records;
static pthread_barrier_t barrier;
static uint32_t taken[KEYS]; /* how often in this round */
static uint32_t faults;

static uint64_t key_of(uint64_t i)
{
    return (i + 1) << 21;
}

static void fault(const char *what, uint64_t key)
{
    if (__atomic_fetch_add(&faults, 1, __ATOMIC_RELAXED) < 10)
        fprintf(stderr, "records_race: %s (key %#lx)\n", what, (unsigned long)key);
}

static void count(void *argument, const struct record *record)
{
    (void)argument;
    if (record->bytes != record->key / 2)
        fault("a record was torn", record->key);
    __atomic_fetch_add(&taken[(record->key >> 21) - 1], 1, __ATOMIC_RELAXED);
}

/* All threads put their share, then all try to take all of them, each in another order and way. */
static void one_round(unsigned me, unsigned round)
{
    struct record record, out;

    for (uint64_t i = me; i < KEYS; i += THREADS) {
        record = (struct record){.key = key_of(i), .bytes = key_of(i) / 2, .context = 1 + i % CONTEXTS};
        if (records_put(records, &record, &out) != 0)
            fault("not put, or there already", record.key);
        if (i % 7 == 0 && records_take(records, record.key, &out))
            count(NULL, &out);
    }
    if (round % 2)
        pthread_barrier_wait(&barrier); /* in even rounds the takers meet those who still put */
    if ((me + round) % 4 == 0)
        records_drop_context(records, 1 + (me + round) / 4 % CONTEXTS, count, NULL);
    else if ((me + round) % 8 == 1)
        records_drop_all(records, count, NULL);
    for (uint64_t n = 0; n < KEYS; n++) {
        uint64_t i = (n * 7919 + me * 101) % KEYS;

        if (records_take(records, key_of(i), &out))
            count(NULL, &out);
    }
    pthread_barrier_wait(&barrier);
    if (me == 0) {
        records_drop_all(records, count, NULL);
        for (uint64_t i = 0; i < KEYS; i++) {
            if (taken[i] != 1)
                fault(taken[i] ? "taken more than once" : "lost", key_of(i));
            taken[i] = 0;
        }
        if (records_count(records) != 0)
            fault("records are left", 0);
    }
    pthread_barrier_wait(&barrier);
}

static void *run(void *argument)
{
    for (unsigned round = 0; round < ROUNDS; round++)
        one_round((unsigned)(uintptr_t)argument, round);
    return NULL;
}

int main(void)
{
    pthread_t thread[THREADS];

    records = mmap(NULL, records_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (records == MAP_FAILED)
        return 1;
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (uintptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&thread[i], NULL, run, (void *)i) != 0)
            return 1;
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    printf("records_race: %d threads, %d rounds of %d records, %u faults\n", THREADS, ROUNDS, KEYS, faults);
    return faults ? 1 : 0;
}
