/* SPDX-License-Identifier: Apache-2.0 */
/* Learning estimates. When all slots that a key may have are taken, one of them goes. */
#include "softslice/estimate.h"

#include <stdbool.h>

#define MUCH       UINT64_C(100000) /* ns that a segment has to be off by before its estimates are given up */
#define LEAST_PART 8                /* of a segment's average launch: what an unknown one is taken for at least */

size_t estimate_size(void)
{
    return sizeof(struct estimate_table);
}

/* Two threads that learn a new key at once may both enter it: the later slot is never read, and goes with the first. */
static void set(struct estimate_table *table, uint64_t key, uint64_t ns)
{
    uint64_t *line = table->slot[estimate_line(key)], word, victim = 0;
    unsigned home = estimate_home(key), into = ESTIMATE_SLOTS;

    for (unsigned i = 0; i < ESTIMATE_SLOTS; i++) {
        unsigned at = (home + i) % ESTIMATE_SLOTS;

        word = estimate_get(&line[at]);
        victim ^= word;
        if (estimate_is_of(word, key)) {
            into = at;
            break;
        }
        if (!word && into == ESTIMATE_SLOTS)
            into = at;
    }
    if (into == ESTIMATE_SLOTS) /* as good as any: their times are in it */
        into = (unsigned)((victim ^ victim >> 7 ^ key >> 20) % ESTIMATE_SLOTS);
    ns = ns < ESTIMATE_LEAST ? ESTIMATE_LEAST : ns > ESTIMATE_MOST ? ESTIMATE_MOST : ns;
    estimate_put(&line[into], (key & ~ESTIMATE_MOST) | ns);
}

static void forget(struct estimate_table *table, uint64_t key)
{
    uint64_t *line = table->slot[estimate_line(key)];

    for (unsigned i = 0; i < ESTIMATE_SLOTS; i++)
        if (estimate_is_of(estimate_get(&line[i]), key))
            estimate_put(&line[i], 0);
}

/* A quarter of the way from an estimate to what was measured. */
static uint64_t towards(uint64_t ns, uint64_t measured)
{
    return measured > ns ? ns + (measured - ns) / 4 : ns - (ns - measured) / 4;
}

static bool far_above(uint64_t measured, uint64_t expected)
{
    return measured / 2 > expected && measured - expected > MUCH;
}

/* Its time is known. A longer one holds at once, so that too much is never let through for long. */
static void learn_one(struct estimate_table *table, uint64_t key, uint64_t measured)
{
    uint64_t ns = estimate_of(table, key);

    set(table, key, ns == ESTIMATE_UNKNOWN || far_above(measured, ns) ? measured : towards(ns, measured));
}

/* Known ones took no longer than the segment; with gaps in it, how much of it the GPU had nothing to do nobody knows. Then their estimates may
 * be too long, by the same factor for all one can tell, but a little longer they do not get: a program that launches slowly would seem to
 * keep the GPU busy. */
static void learn_all(struct estimate_table *table, const struct estimate_segment *segment, uint64_t elapsed, bool gapless)
{
    bool give_up = far_above(elapsed, segment->sum);

    for (unsigned i = 0; i < ESTIMATE_KEYS; i++) {
        uint64_t key = segment->keys[i], ns = key ? estimate_of(table, key) : ESTIMATE_UNKNOWN;

        if (ns == ESTIMATE_UNKNOWN)
            continue;
        if (give_up)
            forget(table, key);
        else if (segment->were[i] != ESTIMATE_UNKNOWN) {
            uint64_t measured = (uint64_t)((double)segment->were[i] * (double)elapsed / (double)segment->sum);

            if (gapless || measured < ns)
                set(table, key, towards(ns, measured));
        }
    }
}

/* Unknown ones of several keys: an equal part for each, which the next segments correct. */
static void learn_unknown(struct estimate_table *table, const struct estimate_segment *segment, uint64_t part)
{
    for (unsigned i = 0; i < ESTIMATE_KEYS; i++)
        if (segment->keys[i] && estimate_of(table, segment->keys[i]) == ESTIMATE_UNKNOWN)
            set(table, segment->keys[i], part);
}

/* Of a segment with one launch. */
static uint64_t only_key(const struct estimate_segment *segment)
{
    uint64_t only = 0;

    for (unsigned i = 0; i < ESTIMATE_KEYS; i++)
        only = segment->keys[i] ? segment->keys[i] : only;
    return only;
}

/* What the known ones leave for an unknown one, which is as wrong as all their times together: too little would let it run on for long without a mark,
 * so at least a part of a launch's average is taken; and nothing is learned where they leave nothing. */
static void learn_rest(struct estimate_table *table, const struct estimate_segment *segment, uint64_t elapsed, uint64_t part)
{
    uint32_t launches = segment->launches > segment->unknown ? segment->launches : segment->unknown; /* threads lose each other's */
    uint64_t least = elapsed / launches / LEAST_PART;

    part = part > least ? part : least;
    if (segment->unknown_key)
        learn_one(table, segment->unknown_key, part);
    else
        learn_unknown(table, segment, part);
}

void estimate_learn(struct estimate_table *table, const struct estimate_segment *segment, uint64_t elapsed, bool gapless)
{
    uint64_t rest = elapsed > segment->sum ? elapsed - segment->sum : 0;

    if (segment->launches == 1)
        learn_one(table, only_key(segment), elapsed);
    else if (segment->unknown && rest)
        learn_rest(table, segment, elapsed, rest / segment->unknown);
    else if (segment->sum)
        learn_all(table, segment, elapsed, gapless);
}
