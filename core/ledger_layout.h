/* SPDX-License-Identifier: Apache-2.0 */
/* What a ledger file looks like: a public contract between libraries of different versions that meet in one tenant.
 *
 * Another major version is refused. A newer minor version may append members to the header (before its check), to devices and slots
 * (growing their strides) and sections to the file; it is read as far as known. All numbers are in the machine's byte order; every
 * member outside `struct ledger_header` up to its check is read and written with atomic accesses of its own width.
 *
 * Minor version 1 added to 0: struct ledger_slot_more, struct ledger_extra, LEDGER_SLOT_DEAD and the states in a hold's committed bytes. An
 * older library takes a dead slot for one to be buried, and suspended bytes for more than any limit: it refuses, and never grants too much.
 * In a file of version 0 nobody has the newer parts: the dead are taken off at once, nothing is suspended, spilled bytes are not told.
 *
 * Minor version 2 added struct ledger_compute, the busy words and the mark of who knows of them. In an older file there is no compute share: each
 * process keeps to its own. An older library neither resets what they say when it begins a tenant anew nor marks its slot.
 *
 * `replaced` of a device is a word that older libraries leave as it is, 0 in a new file: who cannot tell what was replaced keeps to its own limit.
 *
 * Minor version 3 added the ring of events and `told` in a slot. In an older file nothing is told, and what an older library does in this one is not told
 * either, but for the deaths of its members. */
#ifndef SOFTSLICE_CORE_LEDGER_LAYOUT_H
#define SOFTSLICE_CORE_LEDGER_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "softslice/ledger.h"
#include "softslice/share.h"

#define LEDGER_MAGIC UINT64_C(0x52454744454c5353) /* "SSLEDGER" */
#define LEDGER_MAJOR 1
#define LEDGER_MINOR 3

/* Locks are on bytes far behind the file's end, so that they never collide with a lock on its content. The first is held while a
 * process attaches, slot i's owner holds the byte LEDGER_LOCK_SLOTS + i for as long as it lives. Who buries a slot has a read lock on
 * it, so that two who do it at once do not take each other for a live owner. */
#define LEDGER_LOCK_ATTACH UINT64_C(0x4000000000000000)
#define LEDGER_LOCK_SLOTS  UINT64_C(0x4000000100000000)

#define LEDGER_HEADER_SIZE   4096
#define LEDGER_CONSTANT_SIZE 128
#define LEDGER_SLOTS_CAP     4096                 /* what a reader accepts from another minor version */
#define LEDGER_FILE_CAP      (UINT64_C(64) << 20) /* the same for the file's size */
#define LEDGER_RING_CAP      65536                /* the same for the entries of its ring of events */
#define LEDGER_BYTES_CAP     (UINT64_C(1) << 47)  /* limits and single charges are below it: 128 TiB */

#define LEDGER_RING     1024 /* entries that a named tenant's file is made with */
#define LEDGER_RING_OWN 64   /* the same of a process-own tenant */

/* Half of the ring is for what can come in storms (refusals, physical out-of-memory), half for all else, so that none of that is pushed out by them. */
enum { LEDGER_LANE_SELDOM, LEDGER_LANE_OFTEN, LEDGER_LANES };

/* The constant part is written before the file is published and never after; `check` is over all of it in front of `check`. */
struct ledger_header {
    uint64_t magic;
    uint16_t major, minor;
    uint32_t constant_size; /* offset behind `check` */
    uint64_t file_size;
    uint32_t slots, devices;
    uint32_t device_offset, device_stride;
    uint32_t slot_offset, slot_stride;
    uint32_t hold_offset, hold_stride;
    uint64_t lock_attach, lock_slots;
    uint32_t extra_offset, extra_stride;     /* 0, 0: no extras, and no struct ledger_slot_more */
    uint32_t compute_offset, compute_stride; /* 0, 0: no struct ledger_compute and no busy words */
    uint32_t busy_offset, busy_stride;
    uint32_t event_offset, event_stride; /* 0, 0: no ring of events */
    uint32_t event_count;                /* entries, an even number: half of them for each lane */
    uint32_t event_origin;               /* by chance: tells this file from one that had its name and inode before */
    uint32_t reserved[2];
    uint64_t check;
    uint64_t asked;                    /* grows by one with each ledger_ask() */
    uint64_t event_next[LEDGER_LANES]; /* the next ticket of each lane; grows only, also from life to life of the tenant */
    uint64_t reserved_mutable[5];
    uint32_t slots_used; /* slots above were never taken in this life of the tenant; grows only, reset by a first live member */
    uint32_t reserved_used[15];
};

/* A device is claimed by one compare-and-swap on `key`, which follows from its UUID, so that whoever wants the same UUID completes
 * what a killed claimer left. It counts as complete when `complete` is LEDGER_COMPLETE. The first key of 0 ends the table. */
struct ledger_device {
    uint64_t key;
    uint64_t uuid[2]; /* the 16 bytes as they are */
    uint64_t complete;
    uint64_t limit; /* 0: nobody set one; else see ledger_limit_encode() */
    uint64_t context_bytes;
    uint64_t last_burial; /* clock_now() */
    uint64_t replaced;    /* what `limit` was before it was replaced first in this life of the tenant: good while that says so */
    uint64_t peak;
    uint64_t reserved_peak[7];
    uint64_t events[8]; /* enum ledger_event */
    uint64_t reserved[8];
};

#define LEDGER_COMPLETE UINT64_C(0x59444145525f5353)

/* Liveness is the lock alone; a state other than 0 says that the slot must be buried when the lock is gone. A burial has two stages, both
 * under a read lock, and several processes may be at it: from TAKEN to DEAD, with all that it holds still counted, and to 0 once that is off. */
struct ledger_slot {
    uint64_t state;
    uint32_t pid; /* in the owner's PID namespace: for people */
    uint32_t uid;
    uint64_t since; /* CLOCK_REALTIME ns */
    uint64_t told;  /* the `since` of the owner whose end was told, or will not be */
};

#define LEDGER_SLOT_TAKEN UINT64_C(0x4e454b41545f5353)
#define LEDGER_SLOT_DEAD  UINT64_C(0x444145445f5f5353)

/* Follows a slot. Good, like the slot's extras, where `tag` is its `since`: an older library takes slots without writing these. */
struct ledger_slot_more {
    uint64_t tag;
    uint64_t pid_namespace; /* the inode of /proc/self/ns/pid, 0 where it could not be learned */
    uint64_t died;          /* clock_now() at which it was found dead */
    uint64_t mark;          /* see ledger_mark() */
};

/* An older library gives a slot a new `since` and leaves `mark` as it is, so a mark is good where it is that of its `since`: then its owner keeps
 * its busy words, and the low bits say what it has armed (LEDGER_ARMS_*). */
#define LEDGER_MARK_BITS  UINT64_C(15)
#define LEDGER_MARK_KNOWN UINT64_C(8) /* set in every mark */

static inline uint64_t ledger_mark(uint64_t since, uint64_t arms);

/* What a slot holds on a device: hold_offset + (device * slots + slot) * hold_stride. */
struct ledger_hold {
    uint64_t tentative;
    uint64_t committed; /* with one of the states below in its upper bits */
};

/* Where bit 63 is set, bits 0-47 are what a checkpointed process had on the GPU: in no total. Bits 48-62 are the slot, plus 1, of a member
 * that is about to restore it and looks whether it fits again: then, while that member lives, it counts as tentative bytes do. */
#define LEDGER_SUSPENDED       (UINT64_C(1) << 63)
#define LEDGER_SUSPENDED_BYTES ((UINT64_C(1) << 48) - 1)
#define LEDGER_RESTORER_SHIFT  48

static inline uint32_t ledger_restorer(uint64_t committed)
{
    return committed & LEDGER_SUSPENDED ? (uint32_t)(committed >> LEDGER_RESTORER_SHIFT & 0x7fff) : 0;
}

/* What a process has in its hold, counted or not. */
static inline uint64_t ledger_committed_bytes(uint64_t committed)
{
    return committed & LEDGER_SUSPENDED ? committed & LEDGER_SUSPENDED_BYTES : committed;
}

/* What is settled: in the total whatever becomes of anybody's tentative bytes. */
static inline uint64_t ledger_settled_bytes(uint64_t committed)
{
    return committed & LEDGER_SUSPENDED ? 0 : committed;
}

/* What is in the total. */
static inline uint64_t ledger_counted_bytes(uint64_t committed)
{
    if (__builtin_expect(!(committed & LEDGER_SUSPENDED), 1))
        return committed;
    return ledger_restorer(committed) ? committed & LEDGER_SUSPENDED_BYTES : 0;
}

/* What else: extra_offset + (device * slots + slot) * extra_stride. */
struct ledger_extra {
    uint64_t spilled; /* bytes on the host instead of the GPU */
    uint64_t reserved;
};

/* Of a device: compute_offset + device * compute_stride. The shares and weights are written as limits are, see ledger_limit_encode(). */
struct ledger_compute {
    uint64_t share;  /* hundredths of a percent; 0: nobody set one */
    uint64_t weight; /* 0: nobody set one */
    uint64_t reserved[6];
    struct share_account account;
};

/* Of a slot on a device: busy_offset + (device * slots + slot) * busy_stride. One word: 0 while its owner has no work there, else clock_now() when
 * it last said that it has. */

/* One entry of the ring: event_offset + (lane * (event_count / 2) + ticket % (event_count / 2)) * event_stride.
 *
 * Who has something to tell takes the lane's next ticket, sets `sequence` to 0, writes the other words, and last `sequence`, to the ticket plus 1. A
 * writer that is killed half-way loses this entry alone; one that was overtaken by a whole round may mix its words with another's: then the check
 * in `counted` is wrong, and the entry is nobody's. Readers take an entry for whole where `sequence` is what they expect and the check is good. */
struct ledger_event_entry {
    uint64_t sequence;
    uint64_t
        counted;   /* bits 0-31: how many of these at once, which its writer alone may raise later; 32-63: ledger_event_check() */
    uint64_t time; /* CLOCK_REALTIME ns */
    uint64_t bytes, limit, current; /* by kind: enum ledger_kind */
    uint64_t who;                   /* bits 0-31: pid, in its own PID namespace; 32-63: the inode of that, 0 unknown */
    uint64_t what; /* bits 0-31: uid; 32-39: enum ledger_kind; 40-47: device, or LEDGER_RING_NOWHERE; 48-55: bits 8-15 of that
                                     * device's key, which another device in its place has not; 56-63: enum quota_family of what was refused */
};

#define LEDGER_RING_NOWHERE 255

#define LEDGER_AT(type, member, offset)                                                                                            \
    _Static_assert(offsetof(struct ledger_##type, member) == (offset), "layout of " #type "." #member)

LEDGER_AT(header, magic, 0);
LEDGER_AT(header, major, 8);
LEDGER_AT(header, minor, 10);
LEDGER_AT(header, constant_size, 12);
LEDGER_AT(header, file_size, 16);
LEDGER_AT(header, slots, 24);
LEDGER_AT(header, devices, 28);
LEDGER_AT(header, device_offset, 32);
LEDGER_AT(header, device_stride, 36);
LEDGER_AT(header, slot_offset, 40);
LEDGER_AT(header, slot_stride, 44);
LEDGER_AT(header, hold_offset, 48);
LEDGER_AT(header, hold_stride, 52);
LEDGER_AT(header, lock_attach, 56);
LEDGER_AT(header, lock_slots, 64);
LEDGER_AT(header, extra_offset, 72);
LEDGER_AT(header, extra_stride, 76);
LEDGER_AT(header, compute_offset, 80);
LEDGER_AT(header, compute_stride, 84);
LEDGER_AT(header, busy_offset, 88);
LEDGER_AT(header, busy_stride, 92);
LEDGER_AT(header, event_offset, 96);
LEDGER_AT(header, event_stride, 100);
LEDGER_AT(header, event_count, 104);
LEDGER_AT(header, event_origin, 108);
LEDGER_AT(header, reserved, 112);
LEDGER_AT(header, check, LEDGER_CONSTANT_SIZE - 8);
LEDGER_AT(header, asked, 128);
LEDGER_AT(header, event_next, 136);
LEDGER_AT(header, reserved_mutable, 152);
LEDGER_AT(header, slots_used, 192);
LEDGER_AT(device, key, 0);
LEDGER_AT(device, uuid, 8);
LEDGER_AT(device, complete, 24);
LEDGER_AT(device, limit, 32);
LEDGER_AT(device, context_bytes, 40);
LEDGER_AT(device, last_burial, 48);
LEDGER_AT(device, replaced, 56);
LEDGER_AT(device, peak, 64);
LEDGER_AT(device, events, 128);
LEDGER_AT(slot, state, 0);
LEDGER_AT(slot, pid, 8);
LEDGER_AT(slot, uid, 12);
LEDGER_AT(slot, since, 16);
LEDGER_AT(slot, told, 24);
LEDGER_AT(slot_more, tag, 0);
LEDGER_AT(slot_more, pid_namespace, 8);
LEDGER_AT(slot_more, died, 16);
LEDGER_AT(slot_more, mark, 24);
LEDGER_AT(hold, tentative, 0);
LEDGER_AT(hold, committed, 8);
LEDGER_AT(extra, spilled, 0);
LEDGER_AT(extra, reserved, 8);
LEDGER_AT(event_entry, sequence, 0);
LEDGER_AT(event_entry, counted, 8);
LEDGER_AT(event_entry, time, 16);
LEDGER_AT(event_entry, bytes, 24);
LEDGER_AT(event_entry, limit, 32);
LEDGER_AT(event_entry, current, 40);
LEDGER_AT(event_entry, who, 48);
LEDGER_AT(event_entry, what, 56);
LEDGER_AT(compute, share, 0);
LEDGER_AT(compute, weight, 8);
LEDGER_AT(compute, account, 64);
_Static_assert(offsetof(struct share_account, due) == 0, "layout of share_account.due");
_Static_assert(offsetof(struct share_account, edge) == 8, "layout of share_account.edge");
_Static_assert(offsetof(struct share_account, busy) == 16, "layout of share_account.busy");
_Static_assert(offsetof(struct share_account, throttled) == 24, "layout of share_account.throttled");
_Static_assert(offsetof(struct share_account, forgiven) == 32, "layout of share_account.forgiven");
_Static_assert(offsetof(struct share_account, nr_periods) == 40, "layout of share_account.nr_periods");
_Static_assert(offsetof(struct share_account, nr_throttled) == 48, "layout of share_account.nr_throttled");
_Static_assert(offsetof(struct share_account, periods_until) == 56, "layout of share_account.periods_until");
_Static_assert(offsetof(struct share_account, waited_until) == 64, "layout of share_account.waited_until");
_Static_assert(offsetof(struct share_account, throttle_edge) == 72, "layout of share_account.throttle_edge");
_Static_assert(offsetof(struct share_account, repaired) == 80, "layout of share_account.repaired");
_Static_assert(offsetof(struct share_account, turns_taken) == 88, "layout of share_account.turns_taken");
_Static_assert(offsetof(struct share_account, turns_lost) == 96, "layout of share_account.turns_lost");
_Static_assert(offsetof(struct share_account, marks) == 104, "layout of share_account.marks");
_Static_assert(offsetof(struct share_account, awaited) == 192, "layout of share_account.awaited");
_Static_assert(offsetof(struct share_account, bell) == 200, "layout of share_account.bell");
_Static_assert(offsetof(struct share_account, reserved_counts) == 112, "layout of share_account.reserved_counts");
_Static_assert(offsetof(struct share_account, gaps) == 128, "layout of share_account.gaps");
_Static_assert(sizeof(struct ledger_header) == 256, "size of the header");
_Static_assert(sizeof(struct ledger_device) == 256, "size of a device");
_Static_assert(sizeof(struct ledger_slot) == 32, "size of a slot");
_Static_assert(sizeof(struct ledger_slot_more) == 32, "size of a slot's second part");
_Static_assert(sizeof(struct ledger_hold) == 16, "size of a hold");
_Static_assert(sizeof(struct ledger_extra) == 16, "size of an extra");
_Static_assert(sizeof(struct ledger_compute) == 320, "size of what a device has for compute");
_Static_assert(sizeof(struct ledger_event_entry) == 64, "size of an entry of the ring of events");
_Static_assert(LEDGER_EVENTS <= 8, "events of a device");

/* A bijection of 64-bit words: two different inputs never give one output. */
static inline uint64_t ledger_mix(uint64_t word)
{
    word = (word ^ (word >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    word = (word ^ (word >> 27)) * UINT64_C(0x94d049bb133111eb);
    return word ^ (word >> 31);
}

/* Over whole words; a change within a single word always changes the result. */
static inline uint64_t ledger_checksum(const void *data, size_t size)
{
    const uint64_t *words = data;
    uint64_t sum = LEDGER_MAGIC;

    for (size_t i = 0; i < size / 8; i++)
        sum = ledger_mix(sum ^ words[i]) + i;
    return sum;
}

/* Of an entry that has its sequence (or will have), but for its count. */
static inline uint64_t ledger_event_check(const struct ledger_event_entry *entry)
{
    uint64_t sum = ledger_checksum(&entry->time, sizeof(*entry) - offsetof(struct ledger_event_entry, time));

    return ledger_mix(sum ^ ledger_mix(entry->sequence)) >> 32;
}

static inline uint64_t ledger_key(const uint64_t uuid[2])
{
    return ledger_checksum(uuid, 16) | 1;
}

static inline uint64_t ledger_mark(uint64_t since, uint64_t arms)
{
    return (ledger_mix(since + 1) & ~LEDGER_MARK_BITS) | LEDGER_MARK_KNOWN | arms;
}

/* What the owner of a slot has armed; 0 where the mark is another owner's. */
static inline uint64_t ledger_mark_arms(uint64_t mark, uint64_t since)
{
    return ledger_mark(since, mark & LEDGER_MARK_BITS) == mark ? mark & LEDGER_MARK_BITS : 0;
}

/* A limit is one word, so that it changes at once, and checks itself, so that scribbling is found: bits 0-46 bytes, bit 47 "replaced
 * by ledger_set_limit()", bits 48-63 a check in which every change of one byte shows (a test tries them all). */
#define LEDGER_LIMIT_REPLACED (UINT64_C(1) << 47)
#define LEDGER_LIMIT_NONE     (LEDGER_BYTES_CAP - 1) /* no limit, said expressly */

static inline uint64_t ledger_limit_check(uint64_t value)
{
    return ((value * UINT64_C(0x91b7584a2265b1f5)) >> 48) ^ 0x5a3d;
}

static inline uint64_t ledger_limit_encode(uint64_t limit, uint64_t replaced)
{
    uint64_t value = limit == LEDGER_NO_LIMIT ? LEDGER_LIMIT_NONE : limit < LEDGER_LIMIT_NONE - 1 ? limit : LEDGER_LIMIT_NONE - 1;

    value |= replaced;
    return value | ledger_limit_check(value) << 48;
}

static inline int ledger_limit_valid(uint64_t word)
{
    return word == 0 || ledger_limit_check(word & ((UINT64_C(1) << 48) - 1)) == word >> 48;
}

/* A damaged word reads as 0 bytes: nothing more is granted. */
static inline uint64_t ledger_limit_decode(uint64_t word)
{
    uint64_t value = word & (LEDGER_LIMIT_REPLACED - 1);

    if (!word)
        return LEDGER_NO_LIMIT;
    if (!ledger_limit_valid(word))
        return 0;
    return value == LEDGER_LIMIT_NONE ? LEDGER_NO_LIMIT : value;
}

/* A share's or a weight's word has the value in bits 0-13, and in bits 14-27 what the first live member that knows of them entered, which outlives a
 * replacement; 0: it has entered none. */
#define LEDGER_PART_SHIFT 14
#define LEDGER_PART_MASK  ((UINT64_C(1) << LEDGER_PART_SHIFT) - 1)

static inline uint32_t ledger_part_first(uint64_t word)
{
    return ledger_limit_valid(word) ? (uint32_t)(word >> LEDGER_PART_SHIFT & LEDGER_PART_MASK) : 0;
}

/* A share or a weight of 1 to 10000 (both reach as far), or `unset` where nobody set one. A damaged word reads as 1, the least there is. */
static inline uint32_t ledger_part_decode(uint64_t word, uint32_t unset)
{
    uint64_t value = ledger_limit_decode(word) & LEDGER_PART_MASK;

    return !word ? unset : value >= 1 && value <= SHARE_WHOLE ? (uint32_t)value : 1;
}

#endif
