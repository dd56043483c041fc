/* SPDX-License-Identifier: Apache-2.0 */
/* The quota on a real ledger: rounding, what a program is told, the one line of a refusal, and who is awaited. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "quota_helper.h"
#include "softslice/clock.h"
#include "softslice/explain.h"

#define SLAB QUOTA_GRANULE

static uint64_t used(struct quota *quota)
{
    return ledger_current(&quota->ledger, 0);
}

static uint64_t count_of(struct quota *quota, enum ledger_event event)
{
    struct ledger_device_state state;

    cr_assert_eq(ledger_device_state(&quota->ledger, 0, &state), 0);
    return state.events[event];
}

TestSuite(quota, .init = setup, .fini = scratch_remove);

Test(quota, sizes_are_rounded_to_what_the_gpu_takes)
{
    static const struct {
        uint64_t bytes, charged;
    } cases[] = {
        {1, SLAB},
        {512, SLAB},
        {513, SLAB},
        {MIB, SLAB},
        {MIB + 1, SLAB},
        {SLAB, SLAB},
        {SLAB + 1, 2 * SLAB},
        {3 * MIB, 2 * SLAB},
        {GIB, GIB},
        {GIB + 1, GIB + SLAB},
        {20 * GIB - 1, 20 * GIB},
        {20 * GIB, 20 * GIB},
        {20 * GIB + 1, 0},
        {UINT64_C(1) << 62, 0},
        {INT64_MAX, 0},
        {UINT64_MAX - SLAB, 0},
        {UINT64_MAX - SLAB + 1, 0},
        {UINT64_MAX - SLAB + 2, 0},
        {UINT64_MAX - 1, 0},
        {UINT64_MAX, 0},
    };
    struct quota *quota = join("a", "20GiB", 0);
    struct record record;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        bool granted = take(quota, cases[i].bytes, QUOTA_LINEAR, 0, &record);

        cr_expect_eq(granted, cases[i].charged != 0, "%lu bytes", (unsigned long)cases[i].bytes);
        cr_expect_eq(used(quota), cases[i].charged, "%lu bytes", (unsigned long)cases[i].bytes);
        if (granted)
            quota_refund(quota, &record);
        cr_expect_eq(used(quota), 0);
    }
    cr_expect_eq(count_of(quota, LEDGER_EVENT_UNDERFLOW), 0);
}

Test(quota, nothing_costs_nothing)
{
    struct quota *quota = join("a", "1MiB", 0);
    struct record record;

    cr_assert(take(quota, 0, QUOTA_LINEAR, 0, &record));
    cr_assert_eq(record.bytes, 0);
    quota_refund(quota, &record);
    cr_assert_eq(used(quota), 0);
}

Test(quota, other_granules)
{
    struct quota *quota = join("a", "1GiB", 64 * KIB);
    struct record record[2];

    cr_assert(take(quota, 1, QUOTA_LINEAR, 0, &record[0]));
    cr_assert_eq(used(quota), 64 * KIB);
    cr_assert(take(quota, 64 * KIB + 1, QUOTA_MANAGED, 0, &record[1]));
    cr_assert_eq(used(quota), 192 * KIB);
}

Test(quota, what_the_driver_refuses_is_given_back)
{
    static const uint64_t sizes[] = {0, 1, 512, MIB, MIB + 1, GIB};
    struct quota *quota = join("a", "2GiB", 0);
    struct quota_charge charge;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        cr_assert_eq(quota_reserve(quota, &charge, 0, sizes[i], QUOTA_LINEAR), 0);
        cr_assert_eq(used(quota), (sizes[i] + SLAB - 1) / SLAB * SLAB, "it is charged while the driver works");
        quota_cancel(quota, &charge);
        cr_assert_eq(used(quota), 0);
    }
}

Test(quota, what_is_tried_in_vain_is_not_a_refusal)
{
    struct quota *quota = join("a", "2MiB", 0);
    struct quota_charge charge, other;

    cr_assert(quota_try_reserve(quota, &charge, 0, 1, QUOTA_LINEAR));
    quota_keep(quota, &charge, 0, &(struct record){0});
    cr_assert_not(quota_try_reserve(quota, &other, 0, 1, QUOTA_LINEAR));
    quota_cancel(quota, &other);
    cr_assert_eq(used(quota), SLAB, "nothing was there to give back");
    cr_assert_eq(count_of(quota, LEDGER_EVENT_REFUSED), 0);
    cr_assert_eq(quota_refuse(quota, 0, 1, QUOTA_LINEAR), -ENOMEM);
    cr_assert_eq(count_of(quota, LEDGER_EVENT_REFUSED), 1);
}

Test(quota, what_it_came_to_is_what_is_kept)
{
    static const struct {
        uint64_t asked, actual, kept;
        enum quota_family family;
    } cases[] = {
        {512, 1000, SLAB, QUOTA_LINEAR},
        {512, 5 * MIB, 6 * MIB, QUOTA_LINEAR},
        {3 * MIB, 3 * MIB, 4 * MIB, QUOTA_LINEAR},
        {3 * MIB, 7 * MIB, 8 * MIB, QUOTA_LINEAR},
        {512 * MIB, 300 * MIB, 300 * MIB, QUOTA_CONTEXT},
        {512 * MIB, 700 * MIB, 700 * MIB, QUOTA_CONTEXT},
        {512 * MIB, 0, 512 * MIB, QUOTA_CONTEXT},
    };
    struct quota *quota = join("a", "1GiB", 0);
    struct record record;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        cr_assert(take(quota, cases[i].asked, cases[i].family, cases[i].actual, &record));
        cr_expect_eq(record.bytes, cases[i].kept, "case %zu", i);
        cr_expect_not(record.small, "case %zu", i);
        cr_expect_eq(used(quota), cases[i].kept, "case %zu", i);
        quota_refund(quota, &record);
        cr_expect_eq(used(quota), 0, "case %zu", i);
    }
}

Test(quota, a_program_is_told_what_it_may_have)
{
    struct quota *quota = join("a", "10GiB", 0);
    uint64_t total, free_bytes;
    struct record record;

    quota_info(quota, 0, 79 * GIB, &total, &free_bytes);
    cr_expect(total == 10 * GIB && free_bytes == 10 * GIB);
    cr_assert(take(quota, 3 * GIB, QUOTA_LINEAR, 0, &record));
    quota_info(quota, 0, 79 * GIB, &total, &free_bytes);
    cr_expect(total == 10 * GIB && free_bytes == 7 * GIB);
    quota_info(quota, 0, 5 * GIB, &total, &free_bytes);
    cr_expect(total == 10 * GIB && free_bytes == 5 * GIB, "neighbours hold the rest");
    quota_info(quota, 0, 0, &total, &free_bytes);
    cr_expect(total == 10 * GIB && free_bytes == 0);
    ledger_set_limit(&quota->ledger, 0, 2 * GIB);
    quota_info(quota, 0, 79 * GIB, &total, &free_bytes);
    cr_expect(total == 2 * GIB && free_bytes == 0, "more is held than may be: nothing is free, not less");
    ledger_set_limit(&quota->ledger, 0, 200 * GIB);
    quota_info(quota, 0, UINT64_MAX, &total, &free_bytes);
    cr_expect(total == 80 * GIB && free_bytes == 77 * GIB, "a limit above the device");
}

static const char *logged(void)
{
    static char text[4096];
    int file = open(scratch_path("log"), O_RDONLY);
    ssize_t length = file < 0 ? 0 : read(file, text, sizeof(text) - 1);

    text[length > 0 ? length : 0] = 0;
    close(file);
    return text;
}

Test(quota, the_first_refusal_says_one_line)
{
    struct quota *quota = join("a", "20GiB", 0);
    struct record record;
    char expected[256];

    cr_assert(take(quota, 18 * GIB + 512 * MIB, QUOTA_LINEAR, 0, &record));
    cr_assert_str_empty(logged());
    errno = 4711;
    for (unsigned i = 0; i < 5; i++)
        cr_assert_not(take(quota, 3 * GIB, QUOTA_LINEAR, 0, &record));
    cr_assert_eq(errno, 4711);
    snprintf(expected, sizeof(expected),
             "softslice: [%d] tenant \"a\", GPU-01020300-0000-0000-0000-000000000000: refused 3 GiB: 18.50 GiB of 20 GiB in use\n",
             getpid());
    cr_assert_str_eq(logged(), expected);
    cr_assert_eq(count_of(quota, LEDGER_EVENT_REFUSED), 5);
    cr_assert_eq(quota->device[0].refusals, 5);
}

/* As if what was refused were that much longer ago. */
static void age(struct quota *quota, unsigned spans)
{
    struct quota_refusals *lately = quota->device[0].lately, before[QUOTA_SPANS];

    memcpy(before, lately, sizeof(before));
    memset(lately, 0, sizeof(before));
    for (unsigned i = 0; i < QUOTA_SPANS; i++) {
        if (!before[i].span)
            continue;
        before[i].span -= spans;
        before[i].at -= spans * (EXPLAIN_LATELY / QUOTA_SPANS);
        lately[before[i].span % QUOTA_SPANS] = before[i];
    }
}

Test(quota, the_refusals_of_late_are_remembered)
{
    struct quota *quota = join("a", "10GiB", 0);
    struct quota_refused refused = quota_refused(quota, 0);

    cr_expect(!refused.count && !refused.most && !refused.ago, "none");
    for (unsigned i = 0; i < 3; i++)
        quota_refuse(quota, 0, (uint64_t[]){5, 9, 7}[i], QUOTA_LINEAR);
    refused = quota_refused(quota, 0);
    cr_expect(refused.count == 3 && refused.most == 9 && refused.ago, "%lu, %lu", refused.count, refused.most);
    if (clock_now() < 2 * EXPLAIN_LATELY) /* since the machine was started: there was no such time */
        return;
    age(quota, 6);
    quota_refuse(quota, 0, 8, QUOTA_LINEAR);
    refused = quota_refused(quota, 0);
    cr_expect(refused.count == 4 && refused.most == 9 && refused.ago > EXPLAIN_LATELY / 2, "%lu, %lu", refused.count, refused.most);
    /* What was hidden by a larger one is not forgotten with it. */
    age(quota, 6);
    refused = quota_refused(quota, 0);
    cr_expect(refused.count == 1 && refused.most == 8 && refused.ago < EXPLAIN_LATELY, "%lu, %lu", refused.count, refused.most);
    age(quota, 6);
    refused = quota_refused(quota, 0);
    cr_expect(!refused.count && !refused.most && !refused.ago, "%lu, %lu", refused.count, refused.most);
}

Test(quota, the_line_names_the_headroom)
{
    struct quota *quota = join("a", "20GiB", 0);
    struct record record;

    quota->device[0].headroom = 2 * GIB;
    cr_assert(take(quota, 15 * GIB, QUOTA_LINEAR, 0, &record));
    cr_assert_not(take(quota, 4 * GIB, QUOTA_LINEAR, 0, &record));
    cr_assert(strstr(logged(), "refused 4 GiB: 15 GiB of 20 GiB in use, 2 GiB kept as headroom\n"), "%s", logged());
}

Test(quota, the_line_says_what_for)
{
    static const struct {
        enum quota_family family;
        const char *words;
    } cases[] = {
        {QUOTA_MANAGED, "1 GiB of managed memory: "},
        {QUOTA_CONTEXT, "1 GiB for a context: "},
        {QUOTA_ARRAY, "1 GiB for an array: "},
        {QUOTA_VMM, "1 GiB by cuMemCreate: "},
        {QUOTA_POOL, "1 GiB by a memory pool: "},
        {QUOTA_GRAPH, "1 GiB by a graph's memory nodes: "},
        {QUOTA_GROWTH, "1 GiB for what the driver keeps: "},
        {QUOTA_RESTORED, "1 GiB for a process that is restored: "},
        {QUOTA_FAMILIES, "1 GiB: "},
    };
    struct quota *quota = join("a", "1MiB", 0);

    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        quota->device[0].refusals = 0;
        cr_assert_eq(quota_refuse(quota, 0, GIB, cases[i].family), -ENOMEM);
        cr_assert_neq(strstr(logged(), cases[i].words), NULL, "%s: %s", cases[i].words, logged());
    }
}

static unsigned looks;

static void shown_for_a_while(const uint8_t uuid[16], const uint32_t *pids, bool *shown, unsigned count)
{
    (void)uuid;
    (void)pids;
    for (unsigned i = 0; i < count; i++)
        shown[i] = looks > 0;
    looks -= looks > 0;
}

Test(quota, who_is_refused_for_the_dead_alone_waits)
{
    struct quota *quota = join("a", "10MiB", 0);
    struct quota_charge charge;
    struct record record;
    pid_t child;

    ledger_set_witness(shown_for_a_while);
    for (unsigned round = 0; round < 2; round++) {
        child = fork();
        if (child == 0) {
            take(join("a", NULL, 0), 6 * MIB, QUOTA_LINEAR, 0, &record);
            kill(getpid(), SIGKILL);
        }
        waitpid(child, NULL, 0);
        looks = 10;
        cr_assert_not(quota_try_reserve(quota, &charge, 0, 8 * MIB, QUOTA_LINEAR));
        cr_assert_geq(looks, 8, "waited, %u looks are left", looks);
        if (round == 0) {
            cr_assert(take(quota, 8 * MIB, QUOTA_LINEAR, 0, &record));
            cr_assert_eq(looks, 0, "granted while the dead were shown");
            cr_assert_str_empty(logged());
            quota_refund(quota, &record);
        } else {
            /* Not because of the dead. */
            cr_assert_not(take(quota, 12 * MIB, QUOTA_LINEAR, 0, &record));
            cr_assert_geq(looks, 6, "waited for nothing, %u looks are left", looks);
        }
    }
    ledger_set_witness(NULL);
}

/* What somebody has been asking for for long, stopped perhaps, is refused for as ever. */
Test(quota, who_is_refused_for_the_living_does_not_wait_for_the_dead, .timeout = 20)
{
    struct quota *quota = join("a", "10MiB", 0), *other = join("a", NULL, 0);
    struct quota_charge charge;
    struct record record;

    cr_assert_eq(quota_reserve(other, &charge, 0, 8 * MIB, QUOTA_LINEAR), 0);
    cr_assert_not(take(quota, 4 * MIB, QUOTA_LINEAR, 0, &record));
    quota_cancel(other, &charge);
    cr_assert(take(quota, 4 * MIB, QUOTA_LINEAR, 0, &record));
}

Test(quota, a_process_that_is_its_own_tenant_has_no_name)
{
    struct quota *quota = join(NULL, "1GiB", 0);
    struct record record;
    char expected[256];

    cr_assert_not(take(quota, UINT64_MAX, QUOTA_LINEAR, 0, &record));
    cr_assert_eq(count_of(quota, LEDGER_EVENT_REFUSED), 1);
    snprintf(expected, sizeof(expected), "softslice: [%d] GPU-01020300-0000-0000-0000-000000000000: refused", getpid());
    cr_assert_eq(strncmp(logged(), expected, strlen(expected)), 0, "%s", logged());
}

Test(quota, devices)
{
    struct quota *quota = join("a", "1GiB", 0);
    struct config *config = calloc(1, sizeof(*config));
    struct config_device id = {.uuid = {1, 2, 3}, .physical = GIB};

    cr_assert_eq(quota_add_device(quota, config, &id, 0), 0, "known already");
    cr_assert_eq(quota->devices, 1);
    id.uuid[0] = 9;
    cr_assert_eq(quota_add_device(quota, config, &id, 3 * MIB), -EINVAL);
    cr_assert(strstr(quota->ledger.error, "3145728"));
    cr_assert_eq(quota_add_device(quota, config, &id, 256), -EINVAL);
    for (uint8_t i = 1; i < QUOTA_DEVICES; i++) {
        id.uuid[1] = i;
        cr_assert_eq(quota_add_device(quota, config, &id, 0), i);
    }
    id.uuid[1] = 99;
    cr_assert_eq(quota_add_device(quota, config, &id, 0), -ENOSPC);
    cr_assert_neq(quota->ledger.error[0], 0);
    free(config);
}

Test(quota, an_oom_without_a_death_is_not_tried_again)
{
    struct quota *quota = join("a", "1GiB", 0);
    unsigned attempt = 0;

    cr_assert_not(quota_retry_oom(quota, 0, &attempt));
    cr_assert_eq(count_of(quota, LEDGER_EVENT_OOM), 1);
}

Test(quota, an_oom_after_a_death_is_tried_again_for_a_while)
{
    struct quota *quota = join("a", "1GiB", 0);
    unsigned attempt = 0;
    int ready[2];
    char byte;
    pid_t child;

    cr_assert_eq(pipe(ready), 0);
    child = fork();
    if (child == 0) {
        struct quota *own = join("a", "1GiB", 0);
        struct record record;

        byte = take(own, 100 * MIB, QUOTA_LINEAR, 0, &record) ? 'y' : 'n';
        if (write(ready[1], &byte, 1) == 1)
            pause();
        _exit(1);
    }
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    cr_assert_eq(byte, 'y');
    kill(child, SIGKILL);
    cr_assert_eq(waitpid(child, NULL, 0), child);
    errno = 4711;
    while (quota_retry_oom(quota, 0, &attempt))
        continue;
    cr_assert_eq(errno, 4711);
    cr_assert_geq(attempt, 1, "the dead member was found");
    cr_assert_leq(attempt, 200);
    cr_assert_eq(used(quota), 0);
    cr_assert_eq(count_of(quota, LEDGER_EVENT_OOM), 1, "one for the program's call, not for each try");
}

/* What is kept free for the driver is in nobody's way who has died. */
Test(quota, nobody_is_awaited_for_the_headroom)
{
    struct quota *quota = join("a", "1GiB", 0);
    struct quota_charge charge;
    uint64_t since = 0;

    quota->device[0].headroom = 200 * MIB;
    cr_assert(quota_try_reserve(quota, &charge, 0, 700 * MIB, QUOTA_LINEAR));
    cr_assert(!quota_try_reserve(quota, &charge, 0, 300 * MIB, QUOTA_LINEAR));
    cr_expect(!quota_await_dead(quota, 0, 300 * MIB, QUOTA_LINEAR, &since));
}
