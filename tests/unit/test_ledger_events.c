/* SPDX-License-Identifier: Apache-2.0 */
/* The ring of events: what is told comes out as it was told, storms are one event and push nothing else out, and what is lost, half written or scribbled over
 * is counted instead of believed. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "ledger_internal.h"
#include "scratch.h"
#include "softslice/clock.h"
#include "softslice/quota.h"

#define LANE (LEDGER_RING / LEDGER_LANES)

static const uint8_t uuid[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static struct ledger member;
static struct ledger_told told[LEDGER_RING];
static unsigned device;
static int state_dir;

static void begin(void)
{
    scratch_make();
    cr_assert((state_dir = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0);
    cr_assert(ledger_attach(&member, state_dir, "a") == 0, "%s", member.error);
    device = (unsigned)ledger_add_device(&member, uuid, 1000);
    ledger_arm(&member, LEDGER_ARMS_VRAM | LEDGER_ARMS_COMPUTE);
}

static void end(void)
{
    ledger_detach(&member);
    close(state_dir);
    scratch_remove();
}

TestSuite(ledger_events, .init = begin, .fini = end, .timeout = 60);

static int read_with(struct ledger_cursor *cursor, bool all)
{
    return ledger_read_events(state_dir, "a", cursor, all, told, LEDGER_RING);
}

static struct ledger_event_entry *entry_of(unsigned lane, uint64_t ticket)
{
    return (struct ledger_event_entry *)((char *)member.file + member.event_offset) + lane * LANE + ticket % LANE;
}

Test(ledger_events, a_member_comes_and_goes)
{
    struct ledger_cursor cursor = {0};
    uint64_t before = 0;

    cr_assert_eq(read_with(&cursor, true), 1);
    cr_assert_eq(told[0].kind, LEDGER_JOINED);
    cr_assert_eq(told[0].pid, (uint32_t)getpid());
    cr_assert_eq(told[0].uid, geteuid());
    cr_assert_eq(told[0].pid_namespace, member.pid_namespace);
    cr_assert_eq(told[0].count, 1);
    cr_assert_gt(told[0].limit, UINT64_C(1500000000) * 1000000000, "no `since`");
    cr_assert_not(told[0].on_device);
    before = told[0].limit;
    cr_assert_eq(read_with(&cursor, true), 0);

    cr_assert_eq(ledger_reserve(&member, device, 300, LEDGER_NO_LIMIT), 0);
    ledger_settle(&member, device, 300, 300);
    ledger_tell_left(&member);
    ledger_tell_left(&member);
    cr_assert_eq(read_with(&cursor, true), 1, "it left more than once");
    cr_assert_eq(told[0].kind, LEDGER_LEFT);
    cr_assert_eq(told[0].bytes, 300);
    cr_assert_eq(told[0].limit, before);
    cr_assert_eq(told[0].current, 300);
    cr_assert(told[0].on_device && memcmp(told[0].uuid, uuid, 16) == 0);
    ledger_detach(&member);
    cr_assert_eq(read_with(&cursor, true), 0);
    cr_assert_eq(cursor.lost + cursor.damaged, 0);
}

Test(ledger_events, who_is_killed_died_once)
{
    struct ledger_cursor cursor = {0};
    struct ledger_told unburied;
    int ready[2];
    char byte;
    pid_t pid;

    read_with(&cursor, true);
    cr_assert(pipe(ready) == 0);
    if ((pid = fork()) == 0) {
        static struct ledger ledger;
        unsigned own;

        if (ledger_attach(&ledger, state_dir, "a"))
            _exit(1);
        own = (unsigned)ledger_add_device(&ledger, uuid, 1000);
        if (ledger_reserve(&ledger, own, 70, 1000))
            _exit(1);
        ledger_settle(&ledger, own, 60, 60); /* killed before the rest was settled */
        if (write(ready[1], "", 1) == 1)
            for (;;)
                pause();
        _exit(1);
    }
    cr_assert(read(ready[0], &byte, 1) == 1);
    cr_assert_eq(ledger_read_dead(state_dir, "a", told, LEDGER_RING), 0, "it is alive");
    cr_assert(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
    /* Before anybody buries it, who looks sees the same. */
    cr_assert_eq(ledger_read_dead(state_dir, "a", told, LEDGER_RING), 1);
    unburied = told[0];
    cr_assert(unburied.kind == LEDGER_DIED && unburied.pid == (uint32_t)pid && unburied.bytes == 70 && unburied.on_device &&
              memcmp(unburied.uuid, uuid, 16) == 0);
    cr_assert_eq(ledger_members(&member), 1);
    cr_assert_eq(ledger_members(&member), 1);
    cr_assert_eq(ledger_read_dead(state_dir, "a", told, LEDGER_RING), 0);
    cr_assert_eq(read_with(&cursor, true), 2);
    cr_assert_eq(told[0].kind, LEDGER_JOINED);
    cr_assert_eq(told[1].kind, LEDGER_DIED);
    cr_assert_eq(told[1].pid, (uint32_t)pid);
    cr_assert_eq(told[1].bytes, 70);
    cr_assert_eq(told[1].limit, told[0].limit);
    cr_assert_eq(told[1].limit, unburied.limit);
}

Test(ledger_events, a_change_says_who_and_what)
{
    const struct ledger_change change = {
        .vram = true, .limit = 500, .compute = true, .share = 3000, .weighted = true, .weight = 70};
    struct ledger_cursor cursor = {0};
    struct ledger_view view;

    cr_assert_eq(ledger_reserve(&member, device, 300, LEDGER_NO_LIMIT), 0);
    read_with(&cursor, true);
    cr_assert_eq(ledger_change(state_dir, "a", uuid, &change, &view), 1);
    cr_assert_eq(read_with(&cursor, true), 3);
    cr_assert(told[0].kind == LEDGER_SET_VRAM && told[0].bytes == 1000 && told[0].limit == 500 && told[0].current == 300);
    cr_assert(told[1].kind == LEDGER_SET_COMPUTE && told[1].bytes == SHARE_WHOLE && told[1].limit == 3000);
    cr_assert(told[2].kind == LEDGER_SET_WEIGHT && told[2].bytes == 0 && told[2].limit == 70);
    for (unsigned i = 0; i < 3; i++)
        cr_assert(told[i].uid == getuid() && told[i].pid == (uint32_t)getpid() && told[i].on_device);
}

Test(ledger_events, checkpoints)
{
    uint64_t cap[LEDGER_DEVICES];
    struct ledger_cursor cursor = {0};
    struct ledger_refusal refusal;
    struct ledger_peer self;

    memset(cap, 0xff, sizeof(cap));
    cr_assert_eq(ledger_reserve(&member, device, 300, LEDGER_NO_LIMIT), 0);
    ledger_settle(&member, device, 300, 300);
    cr_assert_eq(ledger_find(&member, (uint32_t)getpid(), &self), 0);
    read_with(&cursor, true);
    ledger_suspend(&member, &self);
    ledger_suspend(&member, &self);
    cr_assert_eq(ledger_resume(&member, &self, cap, &refusal), 1);
    ledger_suspend(&member, &self);
    ledger_resume_anyway(&member, &self);
    ledger_resume_anyway(&member, &self);
    cr_assert_eq(read_with(&cursor, true), 4);
    for (unsigned i = 0; i < 4; i++) {
        cr_assert_eq(told[i].kind, i % 2 ? LEDGER_RESTORED : LEDGER_CHECKPOINTED);
        cr_assert_eq(told[i].bytes, 300);
        cr_assert_eq(told[i].current, i % 2 ? 300 : 0);
    }
}

/* 100,000 of one kind in a few tenths of a second: every one is counted, in a handful of events. */
Test(ledger_events, a_storm_is_few_events)
{
    struct ledger_cursor cursor = {0};
    uint64_t begun = clock_now(), sum = 0, periods;
    int count;

    read_with(&cursor, true);
    for (unsigned i = 0; i < 100000; i++)
        ledger_tell_storm(&member, LEDGER_REFUSED, device, 77, 1000, QUOTA_POOL);
    periods = (clock_now() - begun) / LEDGER_STORM_NS + 1;
    ledger_tell_storm(&member, LEDGER_OOM, device, 0, 1000, 0);
    count = read_with(&cursor, true);
    cr_assert(count >= 2 && (uint64_t)count <= periods + 1, "%d events in %llu periods", count, (unsigned long long)periods);
    for (int i = 0; i < count; i++) {
        if (told[i].kind == LEDGER_REFUSED) {
            sum += told[i].count;
            cr_assert(told[i].bytes == 77 && told[i].limit == 1000 && told[i].family == QUOTA_POOL && told[i].on_device);
        }
    }
    cr_assert_eq(sum, 100000);
    cr_assert_eq(told[count - 1].kind, LEDGER_OOM);
}

/* Its count may still grow: who reads on waits for it, who wants all that there is has it. */
Test(ledger_events, a_storm_is_awaited)
{
    struct ledger_cursor patient = {0}, other = {0};

    cr_assert_eq(read_with(&patient, false), 1);
    ledger_tell_storm(&member, LEDGER_REFUSED, device, 77, 1000, 0);
    cr_assert_eq(read_with(&patient, false), 0);
    cr_assert_eq(read_with(&other, true), 2);
    ledger_tell_storm(&member, LEDGER_REFUSED, device, 77, 1000, 0);
    while (read_with(&patient, false) == 0)
        usleep(1000);
    cr_assert_eq(told[0].count, 2);
}

/* Whatever number of processes is refused, what seldom happens stays; and what was overwritten is missed. */
Test(ledger_events, storms_push_nothing_else_out)
{
    struct ledger_cursor early = {0}, late = {0};

    cr_assert_eq(read_with(&early, true), 1);
    for (unsigned i = 0; i < 3 * LANE; i++)
        ledger_tell(&member, LEDGER_REFUSED, (int)device, i, 1000, 0);
    cr_assert_eq(read_with(&late, true), 1 + LANE);
    cr_assert_eq(told[0].kind, LEDGER_JOINED);
    cr_assert_eq(told[LANE].bytes, 3 * LANE - 1);
    cr_assert_eq(late.lost, 0);
    cr_assert_eq(read_with(&early, true), LANE);
    cr_assert_eq(early.lost, 2 * LANE);
}

/* A list that is too short loses nothing. */
Test(ledger_events, in_small_pieces)
{
    struct ledger_cursor cursor = {0};
    unsigned seen = 0;
    int count;

    for (unsigned i = 0; i < 100; i++)
        ledger_tell(&member, i % 2 ? LEDGER_REFUSED : LEDGER_SET_VRAM, (int)device, i, 0, 0);
    while ((count = ledger_read_events(state_dir, "a", &cursor, true, told, 7)) > 0)
        seen += (unsigned)count;
    cr_assert_eq(count, 0);
    cr_assert_eq(seen, 101);
    cr_assert_eq(cursor.lost + cursor.damaged, 0);
}

/* Somebody was killed while he wrote: those behind it are told, after a while or at once, and one is missed. */
Test(ledger_events, half_written)
{
    struct ledger_cursor patient = {0}, other = {0};
    uint64_t begun = clock_now();

    read_with(&patient, false);
    read_with(&other, false);
    ledger_tell(&member, LEDGER_SET_VRAM, (int)device, 1, 2, 3);
    entry_of(LEDGER_LANE_SELDOM, 1)->sequence = 0;
    ledger_tell(&member, LEDGER_SET_VRAM, (int)device, 4, 5, 6);
    cr_assert_eq(read_with(&other, true), 1);
    cr_assert(told[0].bytes == 4 && other.lost == 1);
    while (read_with(&patient, false) == 0)
        usleep(1000);
    cr_assert_geq(clock_now() - begun, UINT64_C(1000000000));
    cr_assert(told[0].bytes == 4 && patient.lost == 1 && patient.damaged == 0);
}

/* Every word of an entry: one changed bit, and it is nobody's. */
Test(ledger_events, scribbled)
{
    for (unsigned bit = 0; bit < 512; bit++) {
        struct ledger_cursor cursor = {0};
        uint64_t *word = (uint64_t *)entry_of(LEDGER_LANE_SELDOM, 0) + bit / 64;
        int expected = bit / 64 == 1 && bit % 64 < 32; /* the count alone has no check */

        *word ^= UINT64_C(1) << bit % 64;
        cr_assert_eq(read_with(&cursor, true), expected, "bit %u", bit);
        cr_assert_eq(cursor.lost + cursor.damaged, !expected, "bit %u", bit);
        *word ^= UINT64_C(1) << bit % 64;
        cursor = (struct ledger_cursor){0};
        cr_assert_eq(read_with(&cursor, true), 1);
    }
}

/* Good by its check, and absurd. */
Test(ledger_events, absurd)
{
    static const uint64_t kinds[] = {0, LEDGER_KINDS, 255};
    struct ledger_event_entry *entry = entry_of(LEDGER_LANE_SELDOM, 0), intact = *entry;

    for (unsigned i = 0; i < 6; i++) {
        struct ledger_cursor cursor = {0};

        *entry = intact;
        if (i < 3)
            entry->what = (entry->what & ~(UINT64_C(255) << 32)) | kinds[i] << 32;
        else if (i < 5)
            entry->time = i == 3 ? 0 : UINT64_MAX;
        else
            entry->what = (entry->what & UINT64_C(0xffffffffff)) | UINT64_C(31) << 40; /* a device that nobody knows */
        entry->counted = ledger_event_check(entry) << 32 | 1;
        cr_assert_eq(read_with(&cursor, true), i == 5, "%u", i);
        cr_assert_eq(cursor.damaged, i != 5, "%u", i);
        cr_assert(i != 5 || !told[0].on_device);
    }
    *entry = intact;
}

/* Tickets that jump, either way, and a ring that another one has taken the place of. */
Test(ledger_events, tickets_jump)
{
    static const uint64_t jumps[] = {0, 1, LANE, UINT64_C(1) << 40, UINT64_MAX - 5, UINT64_MAX};

    for (unsigned i = 0; i < 6; i++) {
        struct ledger_cursor cursor = {0}, fresh = {0};

        read_with(&cursor, true);
        __atomic_store_n(&member.file->event_next[LEDGER_LANE_SELDOM], jumps[i], __ATOMIC_SEQ_CST);
        for (unsigned n = 0; n < 10; n++)
            ledger_tell(&member, LEDGER_SET_VRAM, (int)device, n, 0, 0);
        cr_assert_geq(read_with(&cursor, true), 0);
        cr_assert_geq(read_with(&fresh, true), 0);
        cr_assert_leq(fresh.lost + fresh.damaged, LANE);
        cr_assert_eq(read_with(&cursor, true), 0);
    }
}

/* The next life of a tenant goes on in the same ring; a new file begins a new one. */
Test(ledger_events, another_life)
{
    struct ledger_cursor cursor = {0};

    cr_assert_eq(read_with(&cursor, true), 1);
    ledger_detach(&member);
    cr_assert_eq(ledger_attach(&member, state_dir, "a"), 0);
    cr_assert_eq(read_with(&cursor, true), 2);
    cr_assert_eq(told[1].kind, LEDGER_JOINED);
    ledger_detach(&member);
    cr_assert(unlinkat(state_dir, "a/ledger", 0) == 0);
    cr_assert_eq(read_with(&cursor, true), -ENOENT);
    cr_assert_eq(ledger_attach(&member, state_dir, "a"), 0);
    cr_assert_eq(read_with(&cursor, true), 1);
    cr_assert_eq(told[0].kind, LEDGER_JOINED);
    cr_assert_eq(cursor.lost + cursor.damaged, 0);
}
