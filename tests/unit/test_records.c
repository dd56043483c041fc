/* SPDX-License-Identifier: Apache-2.0 */
/* The table of charges: what is put is found and taken once, at any size, after a fork and without host memory. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "softslice/records.h"

static struct records *records;

static void setup(void)
{
    records = mmap(NULL, records_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(records, MAP_FAILED);
    cr_assert_eq(madvise(records, records_size(), MADV_WIPEONFORK), 0);
}

TestSuite(records, .init = setup);

static struct record make(uint64_t key, uint64_t context)
{
    return (struct record){.key = key, .context = context, .bytes = key * 3, .device = 5, .family = 1, .small = 1};
}

static int put(uint64_t key, uint64_t context)
{
    struct record record = make(key, context), old;

    return records_put(records, &record, &old);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

Test(records, an_empty_table_holds_nothing)
{
    struct record out;

    cr_assert_eq(records_count(records), 0);
    cr_assert_not(records_take(records, 0x7f0000000000, &out));
    cr_assert_not(records_find(records, 0x7f0000000000, &out));
    cr_assert_not(records_take(records, 0, &out), "0 is no key");
}

Test(records, what_was_put_is_found_whole_and_taken_once)
{
    struct record in = make(0x7f0000200000, 0x55aa), out, old;

    cr_assert_eq(records_put(records, &in, &old), 0);
    cr_assert(records_find(records, in.key, &out));
    cr_assert_eq(memcmp(&in, &out, sizeof(in)), 0);
    memset(&out, 0, sizeof(out));
    cr_assert(records_take(records, in.key, &out));
    cr_assert_eq(memcmp(&in, &out, sizeof(in)), 0);
    cr_assert_not(records_take(records, in.key, &out));
    cr_assert_not(records_find(records, in.key, &out));
    cr_assert_not(records_find(records, 0, &out));
    cr_assert_eq(records_count(records), 0);
}

Test(records, a_key_that_comes_again_replaces_and_hands_back_the_old_one)
{
    struct record first = make(4096, 1), second = make(4096, 2), old, out;

    cr_assert_eq(records_put(records, &first, &old), 0);
    cr_assert_eq(records_put(records, &second, &old), 1);
    cr_assert_eq(old.context, 1);
    cr_assert_eq(records_count(records), 1);
    cr_assert(records_take(records, 4096, &out));
    cr_assert_eq(out.context, 2);
}

/* Every growth, in the address patterns of real allocators. */
Test(records, a_hundred_thousand_of_every_stride)
{
    static const uint64_t strides[] = {1, 16, 512, 4096, 65536, 2 << 20, UINT64_C(1) << 30};
    struct record out;

    for (size_t s = 0; s < sizeof(strides) / sizeof(*strides); s++) {
        uint64_t base = UINT64_C(0x1000000000000);

        for (uint64_t i = 0; i < 100000; i++)
            cr_assert_eq(put(base + i * strides[s], i), 0);
        cr_assert_eq(records_count(records), 100000);
        for (uint64_t i = 0; i < 100000; i++) {
            cr_assert(records_take(records, base + i * strides[s], &out));
            cr_assert_eq(out.context, i);
        }
        cr_assert_eq(records_count(records), 0);
    }
}

/* Deletion in the middle of runs, around the end of the table too, against the plainest model there is. */
static void random_operations(uint64_t keys, bool again, uint64_t operations)
{
    uint64_t *model = calloc(keys, sizeof(*model)); /* context + 1, 0: not there */
    uint64_t seed = 88172645463325252u, there = 0;
    struct record out;

    for (uint64_t i = 0; i < operations; i++) {
        uint64_t k = next_random(&seed) % keys, context = next_random(&seed) % 5, key = (k + 1) * 512;
        /* Waves: mostly filling, then mostly emptying, so that runs of all lengths come and go. */
        unsigned filling = i / (4 * keys) % 2 ? 3 : 7;

        if (next_random(&seed) % 10 < filling) {
            if (model[k] && !again)
                continue;
            cr_assert_eq(put(key, context), model[k] ? 1 : 0);
            there += !model[k];
            model[k] = context + 1;
        } else {
            cr_assert_eq(records_take(records, key, &out), model[k] != 0);
            if (model[k])
                cr_assert(out.key == key && out.context == model[k] - 1);
            there -= model[k] != 0;
            model[k] = 0;
        }
    }
    cr_assert_eq(records_count(records), there);
    for (uint64_t k = 0; k < keys; k++) {
        cr_assert_eq(records_find(records, (k + 1) * 512, &out), model[k] != 0);
        if (model[k])
            cr_assert_eq(out.context, model[k] - 1);
    }
    free(model);
}

Test(records, random_operations_agree_with_a_model)
{
    random_operations(60000, true, 2000000);
}

Test(records, random_operations_agree_with_a_model_where_the_newest_waits)
{
    random_operations(400000, false, 6000000);
}

/* In a large table a replaced record may come out later, but it comes out, once. */
Test(records, no_charge_is_lost_where_keys_come_again_in_a_large_table)
{
    enum { KEYS = 200000 };
    uint64_t seed = 4711, in = 0, back = 0, serial = 0, sum[2] = {0, 0};
    struct record record, out;

    for (unsigned i = 0; i < 2000000; i++) {
        record = make((next_random(&seed) % KEYS + 1) << 21, 1);
        record.bytes = ++serial;
        if (next_random(&seed) % 4) {
            int result = records_put(records, &record, &out);

            cr_assert_geq(result, 0);
            in++;
            sum[0] += serial;
            back += (uint64_t)result;
            sum[1] += result ? out.bytes : 0;
        } else if (records_take(records, record.key, &out)) {
            cr_assert_eq(out.key, record.key);
            back++;
            sum[1] += out.bytes;
        }
    }
    cr_assert_eq(records_count(records), in - back);
    for (uint64_t k = 1; k <= KEYS; k++)
        while (records_take(records, k << 21, &out)) {
            back++;
            sum[1] += out.bytes;
        }
    cr_assert_eq(back, in);
    cr_assert_eq(sum[1], sum[0]);
    cr_assert_eq(records_count(records), 0);
}

struct dropped {
    unsigned count;
    uint64_t context, sum;
    bool look; /* use the table from the callback */
};

static void on_drop(void *argument, const struct record *record)
{
    struct dropped *dropped = argument;
    struct record out;

    cr_assert(!dropped->context || record->context == dropped->context);
    dropped->count++;
    dropped->sum += record->key;
    if (dropped->look) {
        cr_assert_not(records_find(records, record->key, &out), "taken out before the call");
        cr_assert_eq(put(record->key + (UINT64_C(1) << 40), 3), 0, "no lock is held");
    }
}

Test(records, a_sum_is_shifted_within_its_bounds_and_goes_at_nothing)
{
    struct records *r = records;
    struct record part = {.key = 7, .device = 3}, out;
    uint64_t before = 99;

    cr_assert(!records_shift(r, &part, 100, 99, &before));
    cr_assert(before == 0 && !records_find(r, 7, &out));
    cr_assert(records_shift(r, &part, 100, 100, &before) && before == 0);
    cr_assert(records_find(r, 7, &out) && out.bytes == 100 && out.device == 3);
    cr_assert(!records_shift(r, &part, 1, 100, &before) && before == 100);
    cr_assert(records_shift(r, &part, 20, UINT64_MAX, &before) && before == 100);
    cr_assert(records_shift(r, &part, -110, 0, &before) && before == 120, "to take off is never too much");
    cr_assert(records_find(r, 7, &out) && out.bytes == 10);
    cr_assert(records_shift(r, &part, -11, 0, &before) && before == 10, "nor can it wrap");
    cr_assert(!records_find(r, 7, &out) && records_count(r) == 0);
    cr_assert(records_shift(r, &part, -1, 0, &before) && before == 0 && records_count(r) == 0);
}

Test(records, dropping_a_context_takes_its_records_and_no_other)
{
    struct dropped dropped = {.context = 1, .look = true};
    struct record out;
    uint64_t sum = 0;

    for (uint64_t i = 1; i <= 300000; i++) {
        cr_assert_eq(put(i << 21, i % 3), 0);
        sum += i % 3 == 1 ? i << 21 : 0;
    }
    records_drop_context(records, 1, on_drop, &dropped);
    cr_assert_eq(dropped.count, 100000);
    cr_assert_eq(dropped.sum, sum);
    cr_assert_eq(records_count(records), 300000, "each of them was put again under another key");
    for (uint64_t i = 1; i <= 300000; i++)
        cr_assert_eq(records_find(records, i << 21, &out), i % 3 != 1);
}

Test(records, no_context_is_nobodys_to_drop)
{
    struct dropped dropped = {0};

    cr_assert_eq(put(512, 0), 0);
    records_drop_context(records, 0, on_drop, &dropped);
    records_drop_context(records, 7, on_drop, &dropped);
    cr_assert_eq(dropped.count, 0);
    cr_assert_eq(records_count(records), 1);
}

Test(records, dropping_all_leaves_a_table_that_works)
{
    struct dropped dropped = {0};
    struct record out;

    for (unsigned round = 0; round < 3; round++) {
        dropped.count = 0;
        for (uint64_t i = 1; i <= 300000; i++)
            cr_assert_eq(put(i << 9, i % 4), 0);
        records_drop_all(records, on_drop, &dropped);
        cr_assert_eq(dropped.count, 300000);
        cr_assert_eq(records_count(records), 0);
        cr_assert_not(records_find(records, 512, &out));
    }
}

/* The child must neither see the parent's records, nor wait for a lock that a thread of the parent held. */
Test(records, a_forked_child_starts_empty_and_unlocked)
{
    struct record out;
    pid_t child;
    int status;

    for (uint64_t i = 1; i <= 10000; i++)
        cr_assert_eq(put(i << 21, 1), 0);
    for (size_t i = 0; i < records_size(); i += 64)
        ((uint32_t *)records)[i / sizeof(uint32_t)] = 1; /* the lock word of each shard: taken */
    child = fork();
    if (child == 0) {
        bool good = records_count(records) == 0 && !records_take(records, 1 << 21, &out);

        for (uint64_t i = 1; i <= 10000; i++)
            good = good && put(i << 21, 2) == 0;
        good = good && records_take(records, 1 << 21, &out) && out.context == 2 && records_count(records) == 9999;
        _exit(good ? 0 : 1);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    for (size_t i = 0; i < records_size(); i += 64)
        ((uint32_t *)records)[i / sizeof(uint32_t)] = 0;
    cr_assert_eq(records_count(records), 10000);
    cr_assert(records_take(records, 1 << 21, &out) && out.context == 1);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#    define LIMITED .disabled = true /* their shadow memory does not live with an address space limit */
#else
#    define LIMITED .disabled = false
#endif

Test(records, without_host_memory_it_says_so_and_keeps_what_it_has, LIMITED)
{
    struct rlimit limit;
    uint64_t stored = 0;
    struct record out;
    int result = 0;

    for (uint64_t i = 1; i <= 1000; i++, stored++)
        cr_assert_eq(put(i << 21, 1), 0);
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = 1 << 20;
    cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
    errno = 4711;
    for (uint64_t i = 1001; i <= 10000000 && result == 0; i++) {
        result = put(i << 21, 1);
        stored += result == 0;
    }
    cr_expect_eq(errno, 4711, "errno is the program's");
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_AS, &limit);
    cr_assert_eq(result, -ENOMEM);
    cr_assert_eq(records_count(records), stored);
    for (uint64_t i = 1; i <= stored; i++)
        cr_assert(records_take(records, i << 21, &out));
    cr_assert_eq(put(1 << 21, 1), 0);
}

static uint64_t visited;

static void visit(void *argument, const struct record *record)
{
    (void)argument;
    cr_expect_eq(record->bytes, record->key * 3);
    visited++;
}

/* At each size, some of them with their newest beside the table. */
Test(records, all_are_visited)
{
    struct record out;

    for (uint64_t i = 1; i <= 200000; i++) {
        if (((i - 1) & (i - 2)) == 0) {
            visited = 0;
            records_visit(records, visit, NULL);
            cr_assert_eq(visited, i - 1);
        }
        cr_assert_eq(put(i << 21, 1), 0);
    }
    for (uint64_t i = 1; i <= 200000; i += 3)
        cr_assert(records_take(records, i << 21, &out));
    visited = 0;
    records_visit(records, visit, NULL);
    cr_assert_eq(visited, records_count(records));
}

/* Between a look at a sum and an addition to it another thread may have taken it down, past what the look was good for. */
Test(records, a_sum_that_fell_is_not_added_to)
{
    struct records *r = calloc(1, records_size());
    struct record part = {.key = 7}, sum;
    uint64_t before;

    cr_assert(records_shift(r, &part, 30, UINT64_MAX, &before) && before == 0);
    cr_assert(records_shift_from(r, &part, 5, 21, 40, &before) && before == 30);
    cr_assert_not(records_shift_from(r, &part, 6, 21, 40, &before));
    cr_assert(records_shift(r, &part, -15, UINT64_MAX, &before) && before == 35);
    cr_assert_not(records_shift_from(r, &part, 5, 21, 40, &before));
    cr_assert(before == 20 && records_find(r, 7, &sum) && sum.bytes == 20);
    cr_assert(records_shift(r, &part, -20, UINT64_MAX, &before));
    cr_assert_not(records_shift_from(r, &part, 5, 1, 40, &before));
    cr_assert_not(records_find(r, 7, &sum));
    free(r);
}
