/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of softslice that know no CUDA cost by themselves: one measurement a run, one line of tab-separated figures.
 *
 *   core steps LIVE         ns of each step of an allocation (reserve, keep, put) and of a free (take, refund) of a random one of
 *                           LIVE blocks of 2 MiB; medians of rounds, each step timed over many blocks
 *   core visit LIVE         what `softslice explain` does to a process with LIVE records: ms of a visit of all; then of a free and an allocation, without and
 *                           with visits one after the other in another thread: ns at the median and at 99.9 %, and us of the longest
 *   core machine            ns of one dependent random read in 64 MiB, of one atomic addition that nobody contends, and of one multiplication that waits
 *                           for the one before: what a trip to memory, the least that is exact among threads, and some three cycles take on this
 *                           machine, now
 *   core shared             ns of five additions that wait for nothing, on the processor where they take longest: a core whose other thread somebody else
 *                           uses does some half as many, which no system's books show */
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"
#include "softslice/quota.h"

#define ROUNDS 15
#define BLOCKS 20000 /* of a round, in batches so small that they stay in the cache */
#define BATCH  64
#define BYTES  (UINT64_C(2) << 20)

#define PROCESSORS 8 /* that are asked */
#define PROBES     9
#define ADDITIONS  1000000

enum step { RESERVE, KEEP, PUT, TAKE, REFUND, STEPS };

static struct quota *quota;
static struct records *records;

static void *map(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return bench_need(memory == MAP_FAILED ? NULL : memory, "memory");
}

static void join(void)
{
    struct config *config = map(sizeof(*config));
    struct config_device device = {.uuid = {1}, .physical = UINT64_C(16) << 40};
    const char *state = getenv("SOFTSLICE_STATE_DIR");
    char path[PATH_MAX];
    int directory;

    quota = map(sizeof(*quota));
    records = map(records_size());
    directory = ledger_state_dir(&quota->ledger, state ? state : "", path, sizeof(path));
    if (directory < 0 || ledger_attach(&quota->ledger, directory, "bench-core") != 0 ||
        quota_add_device(quota, config, &device, 0) != 0) {
        fprintf(stderr, "bench: %s\n", quota->ledger.error);
        exit(1);
    }
    close(directory);
}

static void make(uint64_t *key, uint64_t *next)
{
    struct quota_charge charge;
    struct record record = {.key = *key = (*next += BYTES), .context = 1}, old;

    if (quota_reserve(quota, &charge, 0, BYTES, QUOTA_LINEAR) != 0)
        exit(1);
    quota_keep(quota, &charge, 0, &record);
    if (records_put(records, &record, &old) != 0)
        exit(1);
}

/* The same step for a whole batch, then the next step, so that the clock is read seldom and between equal things. */
static void round_of(uint64_t *ring, size_t live, size_t *at, uint64_t *next, double ns[STEPS])
{
    struct quota_charge charge[BATCH];
    struct record record[BATCH], old;
    double mark[STEPS + 1];

    for (unsigned done = 0; done < BLOCKS; done += BATCH) {
        uint64_t *keys = ring + *at;

        *at = *at + 2 * BATCH <= live ? *at + BATCH : 0;
        mark[TAKE] = bench_now();
        for (unsigned i = 0; i < BATCH; i++)
            if (!records_take(records, keys[i], &record[i]))
                exit(1);
        mark[REFUND] = bench_now();
        for (unsigned i = 0; i < BATCH; i++)
            quota_refund(quota, &record[i]);
        mark[RESERVE] = bench_now();
        for (unsigned i = 0; i < BATCH; i++)
            if (quota_reserve(quota, &charge[i], 0, BYTES, QUOTA_LINEAR) != 0)
                exit(1);
        mark[KEEP] = bench_now();
        for (unsigned i = 0; i < BATCH; i++)
            quota_keep(quota, &charge[i], 0, &record[i]);
        mark[PUT] = bench_now();
        for (unsigned i = 0; i < BATCH; i++) {
            record[i].key = keys[i] = (*next += BYTES);
            if (records_put(records, &record[i], &old) != 0)
                exit(1);
        }
        mark[STEPS] = bench_now();
        ns[TAKE] += mark[REFUND] - mark[TAKE];
        ns[REFUND] += mark[RESERVE] - mark[REFUND];
        ns[RESERVE] += mark[KEEP] - mark[RESERVE];
        ns[KEEP] += mark[PUT] - mark[KEEP];
        ns[PUT] += mark[STEPS] - mark[PUT];
    }
}

static int steps(size_t live)
{
    double ns[STEPS][ROUNDS] = {{0}};
    uint64_t seed = 88172645463325252u, next = UINT64_C(1) << 40;
    size_t at = 0;
    uint64_t *ring;

    live = live < BATCH ? BATCH : live;
    ring = bench_need(calloc(live, sizeof(*ring)), "memory");
    join();
    for (size_t i = 0; i < live; i++)
        make(&ring[i], &next);
    bench_shuffle(ring, live, &seed);
    for (unsigned round = 0; round < ROUNDS; round++) {
        double sum[STEPS] = {0};

        round_of(ring, live, &at, &next, sum);
        for (unsigned i = 0; i < STEPS; i++)
            ns[i][round] = sum[i] / BLOCKS;
    }
    for (unsigned i = 0; i < STEPS; i++)
        printf("%.1f%c", bench_quantile(ns[i], ROUNDS, 0.5), i + 1 < STEPS ? '\t' : '\n');
    return 0;
}

static uint32_t visiting, visits;

static void add_up(void *argument, const struct record *record)
{
    *(uint64_t *)argument += record->bytes;
}

static void *visit_on(void *argument)
{
    uint64_t sum = 0;

    for (; __atomic_load_n(&visiting, __ATOMIC_RELAXED); visits++)
        records_visit(records, add_up, &sum);
    (void)argument;
    return NULL;
}

/* Each on its own, of random records that stay. */
static void churn(const uint64_t *keys, size_t live, double *ns, size_t count)
{
    uint64_t seed = 88172645463325252u;
    struct record record, old;

    for (size_t i = 0; i < count; i++) {
        uint64_t key = keys[bench_random(&seed) % live];
        double start = bench_now();

        if (!records_take(records, key, &record) || records_put(records, &record, &old) != 0)
            exit(1);
        ns[i] = bench_now() - start;
    }
    printf("\t%.0f\t%.0f\t%.1f", bench_quantile(ns, count, 0.5), bench_quantile(ns, count, 0.999),
           bench_quantile(ns, count, 1) / 1000);
}

static int visit(size_t live)
{
    const size_t count = 1000000;
    uint64_t next = UINT64_C(1) << 40, sum = 0, *keys = bench_need(calloc(live, sizeof(*keys)), "memory");
    double *ns = bench_need(calloc(count, sizeof(*ns)), "memory"), best = 0;
    struct record old;
    pthread_t thread;

    records = map(records_size());
    for (size_t i = 0; i < live; i++) {
        struct record record = {.key = keys[i] = (next += BYTES), .bytes = BYTES, .context = 1};

        if (records_put(records, &record, &old) != 0)
            return 1;
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        double start = bench_now();

        records_visit(records, add_up, &sum);
        best = !round || bench_now() - start < best ? bench_now() - start : best;
    }
    printf("%.2f", best / 1e6);
    churn(keys, live, ns, count);
    visiting = 1;
    if (pthread_create(&thread, NULL, visit_on, NULL) != 0)
        return 1;
    churn(keys, live, ns, count);
    __atomic_store_n(&visiting, 0, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    printf("\t%u visits\n", visits);
    return sum == 0;
}

static int machine(void)
{
    const size_t size = 64 << 20;
    const volatile unsigned char *bytes = map(size);
    uint64_t seed = 88172645463325252u, depends = 0;
    double ns[ROUNDS], locked[ROUNDS], multiplied[ROUNDS];
    uint64_t word = 0, product = 1;

    memset((void *)(uintptr_t)bytes, 0, size);
    for (unsigned round = 0; round < ROUNDS; round++) {
        double start = bench_now();

        for (unsigned i = 0; i < BLOCKS; i++)
            depends = bytes[(bench_random(&seed) + depends) % size];
        ns[round] = (bench_now() - start) / BLOCKS;
        start = bench_now();
        for (unsigned i = 0; i < BLOCKS; i++)
            __atomic_fetch_add(&word, 1, __ATOMIC_RELAXED);
        locked[round] = (bench_now() - start) / BLOCKS;
        start = bench_now();
        for (unsigned i = 0; i < BLOCKS; i++) {
            product *= UINT64_C(0x5851f42d4c957f2d);
            __asm__ volatile("" : "+r"(product)); /* each of them */
        }
        multiplied[round] = (bench_now() - start) / BLOCKS;
    }
    printf("%.1f\t%.1f\t%.2f\n", bench_quantile(ns, ROUNDS, 0.5), bench_quantile(locked, ROUNDS, 0.5),
           bench_quantile(multiplied, ROUNDS, 0.5));
    return 0;
}

static double additions(void)
{
    uint64_t a = 0, b = 0, c = 0, d = 0;
    double start = bench_now();

    for (unsigned i = 0; i < ADDITIONS; i++) {
        a += 1, b += 2, c += 3, d += 4;
        __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d)); /* each of them */
    }
    return (bench_now() - start) / ADDITIONS;
}

static int shared(void)
{
    double longest = 0, ns[PROBES];
    cpu_set_t all, one;

    if (sched_getaffinity(0, sizeof(all), &all) != 0)
        return 1;
    for (unsigned cpu = 0, probed = 0; cpu < CPU_SETSIZE && probed < PROCESSORS; cpu++) {
        if (!CPU_ISSET(cpu, &all))
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        if (sched_setaffinity(0, sizeof(one), &one) != 0)
            return 1;
        for (unsigned i = 0; i < PROBES; i++)
            ns[i] = additions();
        double middle = bench_quantile(ns, PROBES, 0.5);
        longest = middle > longest ? middle : longest;
        probed++;
    }
    printf("%.3f\n", longest);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "steps"))
        return steps(strtoul(argv[2], NULL, 0));
    if (argc == 2 && !strcmp(argv[1], "machine"))
        return machine();
    if (argc == 2 && !strcmp(argv[1], "shared"))
        return shared();
    if (argc == 3 && !strcmp(argv[1], "visit"))
        return visit(strtoul(argv[2], NULL, 0));
    fprintf(stderr, "usage: core steps LIVE | core visit LIVE | core machine | core shared\n");
    return 2;
}
