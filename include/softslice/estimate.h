/* SPDX-License-Identifier: Apache-2.0 */
/* How long a launch keeps the GPU busy, learned from the marks behind launches like it. No locks: any thread may look up and learn at any
 * time. An estimate decides when to look, and what is charged for the work behind the last mark until something shows more. */
#ifndef SOFTSLICE_ESTIMATE_H
#define SOFTSLICE_ESTIMATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ESTIMATE_UNKNOWN UINT64_MAX
#define ESTIMATE_LEAST   UINT64_C(1000) /* ns: nothing counts for less, so a mark has a bounded number of launches before it */
#define ESTIMATE_KEYS    8              /* that a segment remembers */
#define ESTIMATE_LINES   512
#define ESTIMATE_SLOTS   8
#define ESTIMATE_MOST                                                                                                              \
    UINT64_C(0xffffffff) /* ns; what takes longer counts for that. The rest of a slot is the upper half of the key */
#define ESTIMATE_KEY (UINT64_C(1) << 63) /* in every key: neither it nor its upper half is 0 */

/* A word for each estimate, so that no reader sees half of one; a key has the slots of one cache line to choose from. Zero-filled memory is an empty one. */
struct estimate_table {
    uint64_t slot[ESTIMATE_LINES][ESTIMATE_SLOTS];
};

/* Bytes that a table takes, to be placed at a multiple of 64. */
size_t estimate_size(void);

/* What was launched between two marks on a stream. Zero-filled is an empty one. Threads that launch into one at the same moment may lose
 * each other's launches from it: the estimates get worse, nothing else does. */
struct estimate_segment {
    uint64_t sum;                 /* of the known estimates */
    uint32_t launches;            /* all of them */
    uint32_t unknown;             /* those without estimate */
    uint64_t unknown_key;         /* of all of them; 0: they differ */
    uint64_t keys[ESTIMATE_KEYS]; /* the last one of each remainder; 0: none */
    uint64_t were[ESTIMATE_KEYS]; /* their estimates when it was closed */
};

/* Learn from a segment that took `elapsed` ns on the GPU. One launch sets its key's estimate, and moves it from then on; unknown ones get what
 * the known ones left. A segment of known ones moves them all if it is `gapless`: all of it waited when its first launch began. Else it can
 * only shorten them. Either by what they were when it was closed: several segments of the same launches may be on their way. One that took more
 * than twice as long, and 100 us, makes them unknown. */
void estimate_learn(struct estimate_table *table, const struct estimate_segment *segment, uint64_t elapsed, bool gapless);

/* A well-mixed key. What a launch takes depends on its arguments too, which cannot be known; where that makes a difference, the
 * estimates of its key are given up again and again, and each such launch gets a mark. */
static inline uint64_t estimate_key(const void *function, uint32_t grid_x, uint32_t grid_y, uint32_t grid_z, uint32_t block_x,
                                    uint32_t block_y, uint32_t block_z)
{
    uint64_t a = (uint64_t)(uintptr_t)function + grid_x * UINT64_C(0x1d81f5ce7f4a7c15);
    /* What CUDA allows does not overlap: 11, 11, 7, 16 and 16 bits. */
    uint64_t b = block_x ^ (uint64_t)block_y << 11 ^ (uint64_t)block_z << 22 ^ (uint64_t)grid_y << 29 ^ (uint64_t)grid_z << 45;
    __extension__ unsigned __int128 product =
        (unsigned __int128)(a ^ UINT64_C(0xa0761d6478bd642f)) * (b ^ UINT64_C(0xe7037ed1a0b428db));

    return ((uint64_t)product ^ (uint64_t)(product >> 64)) | ESTIMATE_KEY;
}

/* The key of a graph, or of anything else that is launched as one. */
static inline uint64_t estimate_key_of(const void *object)
{
    return estimate_key(object, 0, 0, 0, 0, 0, 0);
}

static inline uint64_t estimate_get(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static inline void estimate_put(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
}

/* The lowest bits tell the line and the first slot of it that is looked at. */
static inline unsigned estimate_line(uint64_t key)
{
    return key / ESTIMATE_SLOTS % ESTIMATE_LINES;
}

static inline unsigned estimate_home(uint64_t key)
{
    return key % ESTIMATE_SLOTS;
}

/* Whether a slot is the key's. */
static inline bool estimate_is_of(uint64_t word, uint64_t key)
{
    return (word ^ key) <= ESTIMATE_MOST;
}

/* What a launch of `key` takes, in ns, if that is found at once, as most are. Hot. */
static inline bool estimate_at_once(const struct estimate_table *table, uint64_t key, uint64_t *ns)
{
    uint64_t word = estimate_get(&((const uint64_t *)table)[key % (ESTIMATE_LINES * ESTIMATE_SLOTS)]);

    *ns = word & ESTIMATE_MOST;
    return estimate_is_of(word, key);
}

/* The same in all cases; ESTIMATE_UNKNOWN if none was measured yet, or lately too different ones. */
static inline uint64_t estimate_of(const struct estimate_table *table, uint64_t key)
{
    const uint64_t *line = table->slot[estimate_line(key)];

    for (unsigned i = 0, at = estimate_home(key); i < ESTIMATE_SLOTS; i++, at = (at + 1) % ESTIMATE_SLOTS) {
        uint64_t word = estimate_get(&line[at]);

        if (estimate_is_of(word, key))
            return word & ESTIMATE_MOST;
    }
    return ESTIMATE_UNKNOWN;
}

/* A launch of `key`, for which estimate_of() said `ns`, was added. Hot: plain loads and stores. */
static inline void estimate_add(struct estimate_segment *segment, uint64_t key, uint64_t ns)
{
    __atomic_store_n(&segment->launches, __atomic_load_n(&segment->launches, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
    estimate_put(&segment->keys[key % ESTIMATE_KEYS], key);
    if (__builtin_expect(ns != ESTIMATE_UNKNOWN, 1)) {
        estimate_put(&segment->sum, estimate_get(&segment->sum) + ns);
    } else {
        uint32_t before = __atomic_load_n(&segment->unknown, __ATOMIC_RELAXED);

        estimate_put(&segment->unknown_key, !before || estimate_get(&segment->unknown_key) == key ? key : 0);
        __atomic_store_n(&segment->unknown, before + 1, __ATOMIC_RELAXED);
    }
}

static inline void estimate_clear(struct estimate_segment *segment)
{
    estimate_put(&segment->sum, 0);
    __atomic_store_n(&segment->launches, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&segment->unknown, 0, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < ESTIMATE_KEYS; i++)
        estimate_put(&segment->keys[i], 0);
}

/* A mark was recorded: *closed is what lies before it, to be kept with it, and `segment` is empty again. */
static inline void estimate_close(const struct estimate_table *table, struct estimate_segment *segment,
                                  struct estimate_segment *closed)
{
    closed->sum = estimate_get(&segment->sum);
    closed->launches = __atomic_load_n(&segment->launches, __ATOMIC_RELAXED);
    closed->unknown = __atomic_load_n(&segment->unknown, __ATOMIC_RELAXED);
    closed->unknown_key = estimate_get(&segment->unknown_key);
    for (unsigned i = 0; i < ESTIMATE_KEYS; i++) {
        closed->keys[i] = estimate_get(&segment->keys[i]);
        closed->were[i] = closed->keys[i] ? estimate_of(table, closed->keys[i]) : ESTIMATE_UNKNOWN;
    }
    estimate_clear(segment);
}

#endif
