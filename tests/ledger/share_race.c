/* SPDX-License-Identifier: Apache-2.0 */
/* Threads claim the same GPU time at once: each moment is charged once, none that only one of them leaves out is lost, and what is
 * waited for at once is counted once. And they learn and look up the same estimates. A plain program, so that it can run under
 * ThreadSanitizer. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "softslice/estimate.h"
#include "softslice/share.h"

#define THREADS 8
#define ROUNDS  300
#define STEPS   200
#define KEYS    6000 /* more than there is room for */
#define UNIT    UINT64_C(1024)
#define START   (UINT64_C(5000000000000) / UNIT * UNIT)

static struct share_account account;
static struct estimate_table *table;
static struct estimate_segment segment;
static pthread_barrier_t barrier;
static uint64_t clock_word, charged;
static uint32_t faults;

static void fault(const char *what, uint64_t is, uint64_t expected)
{
    if (__atomic_fetch_add(&faults, 1, __ATOMIC_RELAXED) < 10)
        fprintf(stderr, "share_race: %s: %lu, and not %lu\n", what, (unsigned long)is, (unsigned long)expected);
}

static uint64_t dice(uint64_t *state, uint64_t sides)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state % sides;
}

static void claim(struct share *share, uint64_t from, uint64_t until)
{
    __atomic_fetch_add(&charged, share_claim(share, from, until, until), __ATOMIC_RELAXED);
}

/* Somewhere behind the edge: what is claimed from there leaves no gap. */
static uint64_t behind(const uint64_t *edge, uint64_t *state)
{
    uint64_t seen = share_read(edge);

    return dice(state, 4) ? START : seen - dice(state, seen - START + 1);
}

/* All claim to their now without gaps, so nothing may be lost either. */
static void claim_all(struct share *share, uint64_t *state)
{
    for (unsigned i = 0; i < STEPS; i++) {
        uint64_t until = __atomic_add_fetch(&clock_word, 1 + dice(state, 3000), __ATOMIC_RELAXED);

        claim(share, behind(&account.edge, state), until);
        share_throttled(share, behind(&account.throttle_edge, state), until);
        if (share_opens(share, until) > until + share->max_stall)
            fault("opens", share_opens(share, until), until + share->max_stall);
    }
    claim(share, START, __atomic_load_n(&clock_word, __ATOMIC_RELAXED));
    share_throttled(share, START, __atomic_load_n(&clock_word, __ATOMIC_RELAXED));
}

static void check_all(void)
{
    uint64_t span = clock_word - START;

    if (account.busy != span)
        fault("busy", account.busy, span);
    if (charged != span)
        fault("charged", charged, span);
    if (account.throttled != span)
        fault("throttled", account.throttled, span);
    if (account.repaired)
        fault("repaired", account.repaired, 0);
    if (account.due + 1 < START + span * 10 / 3 || account.due > START + span * 10 / 3 + 1)
        fault("owed", account.due - START, span * 10 / 3);
}

/* One leaves five gaps, all fill them: each may have pieces of each, and together they have all. */
#define GAP (100 * UNIT)
static void leave_gaps(struct share *share)
{
    share_begin(share, clock_word, false);
    for (unsigned i = 0; i < 5; i++) {
        clock_word += 2 * GAP;
        claim(share, clock_word - GAP, clock_word);
    }
    clock_word += UNIT;
}

static void fill_gaps(struct share *share, uint64_t *state)
{
    uint64_t last = __atomic_load_n(&clock_word, __ATOMIC_RELAXED) - UNIT, first = last - 10 * GAP;

    if (dice(state, 2)) {
        uint64_t from = first + dice(state, 9) * GAP;

        claim(share, from, from + GAP + GAP / 2);
    }
    claim(share, first, last);
}

static void estimates(uint64_t *state)
{
    struct estimate_segment closed;

    for (unsigned i = 0; i < STEPS; i++) {
        uint64_t key = estimate_key_of((void *)(uintptr_t)dice(state, dice(state, 2) ? 10 : KEYS)), ns = estimate_of(table, key);

        if (ns != ESTIMATE_UNKNOWN && (ns < ESTIMATE_LEAST || ns > UINT32_MAX))
            fault("estimate", ns, ESTIMATE_LEAST);
        estimate_add(&segment, key, ns);
        if (ns == ESTIMATE_UNKNOWN || dice(state, 20) == 0) {
            estimate_close(table, &segment, &closed);
            estimate_learn(table, &closed, dice(state, 4) ? 20000 * (uint64_t)closed.launches : dice(state, 50000000),
                           dice(state, 2));
        }
    }
}

static void *run(void *argument)
{
    struct share share = {.account = &account, .burst = 8000000, .max_stall = 2000000000, .period = 100000, .rate = 3000};
    uint64_t me = (uint64_t)(uintptr_t)argument, state = 88172645463325252u + me;

    for (unsigned round = 0; round < ROUNDS; round++) {
        if (me == 0) {
            account = (struct share_account){.due = START, .edge = START, .throttle_edge = START};
            clock_word = START;
            charged = 0;
        }
        pthread_barrier_wait(&barrier);
        claim_all(&share, &state);
        pthread_barrier_wait(&barrier);
        if (me == 0) {
            check_all();
            clock_word = (clock_word / UNIT + 1) * UNIT;
            charged = 0;
            leave_gaps(&share);
        }
        pthread_barrier_wait(&barrier);
        fill_gaps(&share, &state);
        pthread_barrier_wait(&barrier);
        if (me == 0 && (charged > 10 * GAP || charged + 8 * THREADS * UNIT < 10 * GAP))
            fault("gaps", charged, 10 * GAP);
        estimates(&state);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

int main(void)
{
    size_t size = (estimate_size() + 63) & ~(size_t)63;
    pthread_t thread[THREADS];

    alarm(300);
    table = aligned_alloc(64, size);
    if (!table)
        return 1;
    __builtin_memset(table, 0, size);
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (uintptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&thread[i], NULL, run, (void *)i))
            return 1;
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    free(table);
    return faults != 0;
}
