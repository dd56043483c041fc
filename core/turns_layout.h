/* SPDX-License-Identifier: Apache-2.0 */
/* The files of turns: <state directory>/turns/<tenant>.turns, one for each tenant, written by its processes alone and read by everybody's. A
 * public contract like the ledger's: a newer minor version only appends, another major version is nobody's peer.
 *
 * Byte order and word size are the machine's. A file is a header, a table of devices, and a table of processes that only the tenant itself
 * reads. What changes after creation is words of 64 bits that are each written at once and each carry a check of their own, so that
 * no order of writes and no killed writer can leave anything half-done, and a torn or scribbled word is seen to be one. */
#ifndef SOFTSLICE_CORE_TURNS_LAYOUT_H
#define SOFTSLICE_CORE_TURNS_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#define TURNS_MAGIC        UINT64_C(0x31536e7275545353) /* "SSTurnS1" */
#define TURNS_MAJOR        1
#define TURNS_MINOR        0
#define TURNS_HEADER_SIZE  256
#define TURNS_FILE_DEVICES 32
#define TURNS_FILE_SLOTS   64
#define TURNS_VIEW_SIZE    12288 /* header and devices: what peers map */
#define TURNS_FILE_SIZE    28672

/* Locks of open file descriptions, on bytes beyond any file. Each process of the tenant has a read lock on the first for as long as it lives: who can lock
 * it for writing knows that there is none. A process's slot is the byte of its number from the second on, locked for writing. */
#define TURNS_LOCK_ALIVE UINT64_C(0x4000000000000000)
#define TURNS_LOCK_SLOTS UINT64_C(0x4000000000001000)

/* Made for a container by somebody outside: not to be collected. */
#define TURNS_FLAG_KEEP UINT64_C(1)

struct turns_header {
    uint64_t magic;
    uint16_t major, minor;
    uint32_t devices;
    uint64_t file_size;
    uint32_t device_offset, device_stride;
    uint32_t slot_offset, slots;
    uint64_t id; /* random: of two equal ranks the lower id is the better one */
    uint64_t flags;
    uint64_t reserved[8];
    uint64_t check; /* ledger_checksum() of all before */
    uint64_t reserved_mutable[16];
};

/* A device is claimed by one compare-and-swap on `key`, which follows from its UUID. The first key of 0 ends the table. */
struct turns_device {
    uint64_t key;
    uint64_t uuid[2];
    uint64_t complete; /* equals `key` */
    uint64_t reserved_line[4];
    /* Words as turns_word() makes them; 0 is 0. */
    uint64_t hold;      /* a moment, and in its lowest two bits enum turns_hold: claiming or held since then, or free since then */
    uint64_t want;      /* a moment: has work, and said so then, with the bits below; 0: none. Said again at least every 50 ms */
    uint64_t since;     /* a moment: waits since then */
    uint64_t rank;      /* GPU time used, divided by weight: see turns_rank_of(). Wraps; the lowest is next */
    uint64_t turn_used; /* signed: GPU time of this turn that is not in `rank` yet */
    uint64_t settings;  /* turns_settings_word() */
    uint32_t wake;      /* futex: changes whenever the turn becomes free */
    uint32_t over;  /* turns_over_moment() of when the tenant last had work of a turn that it has lost on the GPU; 0: it has none */
    uint64_t taken; /* plain counters from here on */
    uint64_t lost;
    uint64_t used; /* ns */
    uint64_t reserved[14];
};

/* In the lowest bits of `want`. Holds, has to go, and waits for what it has on the GPU: said again every millisecond or so. */
#define TURNS_DRAINING 1

/* Needs other devices too, for which it has to wait longer: nobody needs to let go, or to come after it, until it says so. Both bits: holds, and waits for
 * those. */
#define TURNS_PATIENT 2

/* The host's monotonic ns in units of 2^20, never 0. */
static inline uint32_t turns_over_moment(uint64_t ns)
{
    return (uint32_t)(ns >> 20) | (uint32_t) !(uint32_t)(ns >> 20);
}

enum turns_hold { TURNS_FREE, TURNS_CLAIMING, TURNS_HELD, TURNS_HELD_AGAIN };

/* A process on a device: slot_offset + (device * slots + slot) * 8. A moment, renewed like `want`, and in its lowest two bits enum turns_slot. */
enum turns_slot { TURNS_SLOT_NONE, TURNS_SLOT_WANTS, TURNS_SLOT_USES };

#define TURNS_AT(type, member, offset)                                                                                             \
    _Static_assert(offsetof(struct turns_##type, member) == (offset), "layout of " #type "." #member)
TURNS_AT(header, magic, 0);
TURNS_AT(header, devices, 12);
TURNS_AT(header, file_size, 16);
TURNS_AT(header, device_offset, 24);
TURNS_AT(header, device_stride, 28);
TURNS_AT(header, slot_offset, 32);
TURNS_AT(header, slots, 36);
TURNS_AT(header, id, 40);
TURNS_AT(header, flags, 48);
TURNS_AT(header, check, 120);
TURNS_AT(device, key, 0);
TURNS_AT(device, uuid, 8);
TURNS_AT(device, complete, 24);
TURNS_AT(device, hold, 64);
TURNS_AT(device, want, 72);
TURNS_AT(device, since, 80);
TURNS_AT(device, rank, 88);
TURNS_AT(device, turn_used, 96);
TURNS_AT(device, settings, 104);
TURNS_AT(device, wake, 112);
TURNS_AT(device, over, 116);
TURNS_AT(device, taken, 120);
TURNS_AT(device, lost, 128);
TURNS_AT(device, used, 136);
_Static_assert(sizeof(struct turns_header) == TURNS_HEADER_SIZE, "size of the header");
_Static_assert(sizeof(struct turns_device) == 256, "size of a device");
_Static_assert(TURNS_HEADER_SIZE + TURNS_FILE_DEVICES * sizeof(struct turns_device) <= TURNS_VIEW_SIZE, "peers see all devices");
_Static_assert(TURNS_VIEW_SIZE + TURNS_FILE_DEVICES * TURNS_FILE_SLOTS * 8 == TURNS_FILE_SIZE, "size of a file");

/* Which word it is goes into its check, so that one copied over another does not pass. */
enum turns_word_kind {
    TURNS_WORD_HOLD = 1,
    TURNS_WORD_WANT,
    TURNS_WORD_SINCE,
    TURNS_WORD_RANK,
    TURNS_WORD_TURN_USED,
    TURNS_WORD_SETTINGS,
    TURNS_WORD_SLOT,
};

#define TURNS_VALUE_BITS 52
#define TURNS_VALUE_MASK ((UINT64_C(1) << TURNS_VALUE_BITS) - 1)

/* Bits 0-51 the value, 52-63 its check. */
static inline uint64_t turns_word(enum turns_word_kind kind, uint64_t value)
{
    value &= TURNS_VALUE_MASK;
    return value | ((value + (uint64_t)kind) * UINT64_C(0x91b7584a2265b1f5) >> 52 ^ 0x5a3) << TURNS_VALUE_BITS;
}

static inline int turns_word_good(enum turns_word_kind kind, uint64_t word)
{
    return !word || turns_word(kind, word) == word;
}

/* Moments: the host's monotonic ns in units of 1,024, 36 years of them. */
static inline uint64_t turns_moment(uint64_t ns, unsigned low)
{
    return (ns >> 10 << 2 | low) & TURNS_VALUE_MASK;
}

static inline uint64_t turns_moment_ns(uint64_t value)
{
    return (value & TURNS_VALUE_MASK) >> 2 << 10;
}

/* Ranks: weighted ns in units of 16, in arithmetic modulo 2^52. */
static inline uint64_t turns_rank_of(uint64_t ns, uint32_t weight)
{
    return (uint64_t)((unsigned __int128)ns * 100 / (weight ? weight : 1) >> 4) & TURNS_VALUE_MASK;
}

/* How far `a` is behind (above) `b`; a signed number of units. */
static inline int64_t turns_rank_minus(uint64_t a, uint64_t b)
{
    return (int64_t)((a - b) << (64 - TURNS_VALUE_BITS)) >> (64 - TURNS_VALUE_BITS);
}

/* GPU time that so many units of rank are worth to a tenant of this weight. */
static inline int64_t turns_rank_ns(int64_t units, uint32_t weight)
{
    return units > (INT64_MAX >> 32) ? INT64_MAX : units < -(INT64_MAX >> 32) ? INT64_MIN : units * 16 / 100 * (int64_t)weight;
}

/* Bits 0-13 weight, 14-27 share in hundredths of a percent, 28 mode, 29-42 the quantum in units of 100 us. */
static inline uint64_t turns_settings_word(uint32_t weight, uint32_t share, unsigned mode, uint64_t quantum)
{
    return (weight & 0x3fff) | (uint64_t)(share & 0x3fff) << 14 | (uint64_t)(mode & 1) << 28 | (quantum / 100000 & 0x3fff) << 29;
}

static inline uint32_t turns_settings_weight(uint64_t value)
{
    uint32_t weight = value & 0x3fff;

    return weight >= 1 && weight <= 10000 ? weight : 100;
}

static inline uint64_t turns_settings_quantum(uint64_t value)
{
    return (value >> 29 & 0x3fff) * 100000;
}

#endif
