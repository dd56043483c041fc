/* SPDX-License-Identifier: Apache-2.0 */
/* A hash of device pointers and handles in shards: open addressing, linear probing, a small lock for each shard.
 *
 * Deletion shifts later entries back instead of leaving tombstones, so a table that allocates and frees for days stays as fast as
 * a new one. Each shard grows alone: with a million records one growth moves a few thousand, far below a millisecond.
 *
 * Tables that are larger than the caches cost a trip to memory for each new record and each one taken. The first is spared: a large
 * shard keeps its newest record beside its lock, and moves it into the table at the next put, when its slot has long arrived. */
#include "softslice/records.h"

#include <errno.h>
#include <sys/mman.h>

#include "lock.h"

#define SHARDS      256
#define FIRST_SLOTS 128  /* one page */
#define LARGE_SLOTS 1024 /* from here on the newest record waits: some 100,000 records in all */
#define BATCH       64   /* records handed to a callback for one hold of the lock */
#define WINDOW      128  /* homes that a visit looks at for one hold of the lock */
#define REST_NS     20000

_Static_assert(sizeof(struct record) == 32, "two records in a cache line");
_Static_assert(WINDOW <= FIRST_SLOTS, "a window lies in the smallest table");

struct shard {
    uint32_t lock;
    uint32_t count;       /* the newest included */
    uint32_t moves;       /* changes whenever a record may have got another slot */
    uint32_t changes;     /* records that came or went by records_add() and records_subtract() */
    struct record *table; /* key 0: a free slot; at least one is free */
    uint64_t mask;        /* slots - 1 */
    struct record newest; /* not in the table yet; key 0: none. Stands before one of the same key in the table */
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct shard) == 64, "a shard and its newest record in one cache line");

struct records {
    struct shard shard[SHARDS];
};

size_t records_size(void)
{
    return sizeof(struct records);
}

/* Device pointers are multiples of 512 or of 2 MiB below 2^49 and often consecutive: the low half of the product alone would leave
 * the low bits zero, the high half alone would not spread short keys; folded, all of the key reaches the bits that are used. */
static inline uint64_t mix(uint64_t key)
{
    __extension__ unsigned __int128 product = (unsigned __int128)key * UINT64_C(0x9e3779b97f4a7c15);

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline struct shard *shard_of(struct records *records, uint64_t hash)
{
    return &records->shard[hash % SHARDS];
}

static inline uint64_t home_of(uint64_t hash, uint64_t mask)
{
    return (hash / SHARDS) & mask;
}

/* Lock the shard of `hash` while its slot is on the way from memory, and the line behind it, where a search or a deletion often ends.
 * What is read before the lock is a hint: an address that has become wrong meanwhile is not followed, and a prefetch cannot fault. */
static struct shard *enter(struct records *records, uint64_t hash)
{
    struct shard *shard = shard_of(records, hash);
    const struct record *table = __atomic_load_n(&shard->table, __ATOMIC_RELAXED);
    uint64_t mask = __atomic_load_n(&shard->mask, __ATOMIC_RELAXED);
    const char *home = (const char *)((uintptr_t)table + home_of(hash, mask) * sizeof(struct record));

    __builtin_prefetch(home, 1);
    __builtin_prefetch(home + 64, 1);
    lock_take(&shard->lock);
    return shard;
}

/* The slot of `key`, or the free one where the probe ended. The shard has a table. */
static struct record *probe(const struct shard *shard, uint64_t hash, uint64_t key)
{
    uint64_t i = home_of(hash, shard->mask);

    while (shard->table[i].key != key && shard->table[i].key != 0)
        i = (i + 1) & shard->mask;
    return &shard->table[i];
}

/* Private to this process even if it forks: the child's struct records is wiped, so it would only keep a copy that nobody can
 * reach. Populated at once, which takes a fraction of the time of one fault for each page. */
static struct record *map_table(uint64_t slots)
{
    int saved = errno;
    struct record *table =
        mmap(NULL, slots * sizeof(*table), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (table == MAP_FAILED)
        table = NULL;
    else
        madvise(table, slots * sizeof(*table), MADV_DONTFORK);
    errno = saved;
    return table;
}

static void unmap_table(struct record *table, uint64_t slots)
{
    int saved = errno;

    munmap(table, slots * sizeof(*table));
    errno = saved;
}

static void set_table(struct shard *shard, struct record *table, uint64_t mask)
{
    __atomic_store_n(&shard->mask, mask, __ATOMIC_RELAXED);
    __atomic_store_n(&shard->table, table, __ATOMIC_RELAXED);
    shard->moves++;
}

/* Make room for one more. Returns false only if there is none left: a table that cannot grow is filled to the last slot but one. */
static bool make_room(struct shard *shard)
{
    uint64_t slots = shard->table ? shard->mask + 1 : 0;
    struct record *old = shard->table, *table;

    if ((shard->count + 1) * UINT64_C(8) <= slots * 5)
        return true;
    table = map_table(slots ? slots * 2 : FIRST_SLOTS);
    if (!table)
        return shard->count + 1 < slots;
    set_table(shard, table, (slots ? slots * 2 : FIRST_SLOTS) - 1);
    for (uint64_t i = 0; i < slots; i++)
        if (old[i].key)
            *probe(shard, mix(old[i].key), old[i].key) = old[i];
    if (old)
        unmap_table(old, slots);
    return true;
}

/* Empty a slot and close the gap: the next record that may stand there moves in, and leaves a gap of its own. */
static void remove_slot(struct shard *shard, struct record *slot)
{
    struct record *table = shard->table;
    uint64_t mask = shard->mask, hole = (uint64_t)(slot - table);

    for (uint64_t i = (hole + 1) & mask; table[i].key; i = (i + 1) & mask) {
        uint64_t home = home_of(mix(table[i].key), mask);

        if (((i - home) & mask) >= ((i - hole) & mask)) {
            table[hole] = table[i];
            hole = i;
            shard->moves++;
        }
    }
    table[hole].key = 0;
}

static void remove_record(struct shard *shard, struct record *record)
{
    if (record == &shard->newest)
        record->key = 0;
    else
        remove_slot(shard, record);
    shard->count--;
}

/* Store a record for which there is room. 1 with the one that had its key in *old, else 0. */
static int store(struct shard *shard, uint64_t hash, const struct record *record, struct record *old)
{
    struct record *slot = probe(shard, hash, record->key);
    int replaced = slot->key != 0;

    if (replaced)
        *old = *slot;
    *slot = *record;
    return replaced;
}

/* Keep `record`, which is counted, as the newest of a large shard; what the one before it replaces is handed back. */
static int store_later(struct shard *shard, const struct record *record, struct record *old)
{
    struct record last = shard->newest;
    int replaced = last.key != 0;

    shard->newest = *record;
    if (last.key == record->key)
        *old = last;
    else if (replaced)
        replaced = store(shard, mix(last.key), &last, old);
    return replaced;
}

int records_put(struct records *records, const struct record *record, struct record *old)
{
    uint64_t hash = mix(record->key);
    struct shard *shard = enter(records, hash);
    int result = -ENOMEM;

    if (make_room(shard)) {
        result = shard->mask + 1 >= LARGE_SLOTS ? store_later(shard, record, old) : store(shard, hash, record, old);
        shard->count += result == 0;
    }
    lock_give(&shard->lock);
    return result;
}

/* `context` 0: of whatever context. */
static inline bool get(struct records *records, uint64_t key, uint64_t context, struct record *out, bool take)
{
    uint64_t hash = mix(key);
    struct shard *shard = enter(records, hash);
    struct record *slot = NULL;
    bool found;

    if (key && shard->newest.key == key)
        slot = &shard->newest;
    else if (key && shard->table)
        slot = probe(shard, hash, key);
    found = slot && slot->key && (!context || slot->context == context);
    if (found) {
        *out = *slot;
        if (take)
            remove_record(shard, slot);
    }
    lock_give(&shard->lock);
    return found;
}

bool records_take(struct records *records, uint64_t key, struct record *out)
{
    return get(records, key, 0, out, true);
}

bool records_take_of(struct records *records, uint64_t key, uint64_t context, struct record *out)
{
    return get(records, key, context, out, true);
}

bool records_find(struct records *records, uint64_t key, struct record *out)
{
    return get(records, key, 0, out, false);
}

/* The record of `key`, which is not 0, in a locked shard, or NULL. */
static struct record *find(struct shard *shard, uint64_t hash, uint64_t key)
{
    struct record *slot = shard->newest.key == key ? &shard->newest : shard->table ? probe(shard, hash, key) : NULL;

    return slot && slot->key ? slot : NULL;
}

int records_enter(struct records *records, const struct record *record, struct record *known)
{
    uint64_t hash = mix(record->key);
    struct shard *shard = enter(records, hash);
    struct record *slot = find(shard, hash, record->key);
    int result = -ENOMEM;

    if (slot) {
        *known = *slot;
        result = 1;
    } else if (make_room(shard)) {
        result = store(shard, hash, record, known);
        shard->count++;
    }
    lock_give(&shard->lock);
    return result;
}

int records_add(struct records *records, const struct record *part)
{
    uint64_t hash = mix(part->key);
    struct shard *shard = enter(records, hash);
    struct record *slot = find(shard, hash, part->key), old;
    int result = 1;

    if (slot) {
        result = !slot->small;
        slot->bytes += part->bytes;
        slot->small |= part->small;
    } else if (part->bytes) {
        if (make_room(shard)) {
            store(shard, hash, part, &old);
            shard->count++;
            shard->changes++;
        } else {
            result = -ENOMEM;
        }
    }
    lock_give(&shard->lock);
    return result;
}

void records_subtract(struct records *records, uint64_t key, uint64_t bytes,
                      void (*last)(void *argument, const struct record *record), void *argument)
{
    uint64_t hash = mix(key);
    struct shard *shard = enter(records, hash);
    struct record *slot = find(shard, hash, key);

    if (slot && slot->bytes > bytes) {
        slot->bytes -= bytes;
    } else if (slot) {
        if (slot->small)
            last(argument, slot);
        remove_record(shard, slot);
        shard->changes++;
    }
    lock_give(&shard->lock);
}

bool records_shift(struct records *records, const struct record *part, int64_t change, uint64_t most, uint64_t *before)
{
    return records_shift_from(records, part, change, 0, most, before);
}

bool records_shift_from(struct records *records, const struct record *part, int64_t change, uint64_t least, uint64_t most,
                        uint64_t *before)
{
    uint64_t hash = mix(part->key), after;
    struct shard *shard = enter(records, hash);
    struct record *slot = find(shard, hash, part->key), new = *part, old;
    bool done = true;

    *before = slot ? slot->bytes : 0;
    if (change < 0)
        after = *before > 0 - (uint64_t)change ? *before + (uint64_t)change : 0;
    else if (__builtin_add_overflow(*before, (uint64_t)change, &after))
        after = UINT64_MAX;
    if (change > 0 && (after > most || *before < least)) {
        done = false;
    } else if (slot && after) {
        slot->bytes = after;
    } else if (slot) {
        remove_record(shard, slot);
    } else if (after && (done = make_room(shard))) {
        new.bytes = after;
        store(shard, hash, &new, &old);
        shard->count++;
    }
    lock_give(&shard->lock);
    return done;
}

static bool search_shard(const struct shard *shard, bool (*match)(void *argument, const struct record *record), void *argument)
{
    if (shard->newest.key && match(argument, &shard->newest))
        return true;
    if (shard->count)
        for (uint64_t i = 0; i <= shard->mask; i++)
            if (shard->table[i].key && match(argument, &shard->table[i]))
                return true;
    return false;
}

bool records_search(struct records *records, bool (*match)(void *argument, const struct record *record), void *argument,
                    uint32_t *from, uint64_t *changes)
{
    uint32_t first = __atomic_load_n(from, __ATOMIC_RELAXED);

    *changes = 0;
    for (uint32_t i = first; i != first + SHARDS; i++) {
        struct shard *shard = &records->shard[i % SHARDS];

        lock_take(&shard->lock);
        bool found = search_shard(shard, match, argument);
        *changes += shard->changes;
        lock_give(&shard->lock);
        if (found) {
            __atomic_store_n(from, i % SHARDS, __ATOMIC_RELAXED);
            return true;
        }
    }
    return false;
}

/* Take out up to BATCH records of `context` (0: of all) from slot *at on. Fewer than BATCH: the rest of the table holds none. */
static unsigned take_batch(struct shard *shard, uint64_t context, uint64_t *at, struct record batch[BATCH])
{
    unsigned n = 0;

    if (shard->newest.key && (!context || shard->newest.context == context)) {
        batch[n++] = shard->newest;
        remove_record(shard, &shard->newest);
    }
    while (n < BATCH && shard->table && *at <= shard->mask) {
        struct record *slot = &shard->table[*at];

        if (slot->key && (!context || slot->context == context)) {
            batch[n++] = *slot;
            remove_record(shard, slot); /* may bring another record to this slot, so it is looked at again */
        } else {
            ++*at;
        }
    }
    return n;
}

static void drop(struct shard *shard, uint64_t context, void (*each)(void *argument, const struct record *record), void *argument)
{
    struct record batch[BATCH];
    uint64_t at = 0;
    uint32_t moves = 0;
    unsigned n;

    do {
        lock_take(&shard->lock);
        if (shard->moves != moves) /* somebody moved records while the lock was free: one may stand before `at` now */
            at = 0;
        n = take_batch(shard, context, &at, batch);
        moves = shard->moves;
        if (shard->count == 0 && shard->mask >= FIRST_SLOTS) {
            unmap_table(shard->table, shard->mask + 1);
            set_table(shard, NULL, 0);
        }
        lock_give(&shard->lock);
        for (unsigned i = 0; i < n; i++)
            each(argument, &batch[i]);
    } while (n == BATCH);
}

void records_drop_context(struct records *records, uint64_t context, void (*each)(void *argument, const struct record *record),
                          void *argument)
{
    for (unsigned i = 0; context && i < SHARDS; i++)
        drop(&records->shard[i], context, each, argument);
}

void records_drop_all(struct records *records, void (*each)(void *argument, const struct record *record), void *argument)
{
    for (unsigned i = 0; i < SHARDS; i++)
        drop(&records->shard[i], 0, each, argument);
}

static struct record *any_on(struct shard *shard, unsigned device)
{
    if (shard->newest.key && shard->newest.device == device)
        return &shard->newest;
    for (uint64_t i = 0; shard->table && i <= shard->mask; i++)
        if (shard->table[i].key && shard->table[i].device == device)
            return &shard->table[i];
    return NULL;
}

bool records_on_device(struct records *records, unsigned device)
{
    bool found = false;

    for (unsigned i = 0; i < SHARDS && !found; i++) {
        lock_take(&records->shard[i].lock);
        found = any_on(&records->shard[i], device);
        lock_give(&records->shard[i].lock);
    }
    return found;
}

static bool holds(const struct shard *shard, uint64_t context)
{
    if (shard->newest.key && shard->newest.context == context)
        return true;
    for (uint64_t i = 0; shard->table && i <= shard->mask; i++)
        if (shard->table[i].key && shard->table[i].context == context)
            return true;
    return false;
}

bool records_of_context(struct records *records, uint64_t context)
{
    bool found = false;

    for (unsigned i = 0; i < SHARDS && !found; i++) {
        lock_take(&records->shard[i].lock);
        found = holds(&records->shard[i], context);
        lock_give(&records->shard[i].lock);
    }
    return found;
}

/* Visit the records of a locked shard whose hash, below the width `mask`, is in the window from `at` on. By the hash, not by the slot: records
 * change their slots, and the slots their number, between two windows. */
static void visit_window(const struct shard *shard, uint64_t mask, uint64_t at,
                         void (*visit)(void *argument, const struct record *record), void *argument)
{
    const struct record *newest = &shard->newest;

    if (newest->key && home_of(mix(newest->key), mask & ~(uint64_t)(WINDOW - 1)) == at)
        visit(argument, newest);
    if (!shard->count || !shard->table)
        return;
    for (uint64_t first = at & shard->mask; first <= shard->mask; first += mask + 1) {
        for (uint64_t n = 0; n <= shard->mask; n++) {
            const struct record *slot = &shard->table[(first + n) & shard->mask];
            uint64_t hash;

            if (!slot->key && n >= WINDOW)
                break;
            if (!slot->key)
                continue;
            hash = mix(slot->key);
            if (home_of(hash, mask & ~(uint64_t)(WINDOW - 1)) == at &&
                home_of(hash, shard->mask & ~(uint64_t)(WINDOW - 1)) == first)
                visit(argument, slot);
        }
    }
}

/* From shard to shard: one that is locked again as soon as it is free keeps out those who wait for it. And with rests: who works on until the scheduler puts
 * it aside has one locked then. */
void records_visit(struct records *records, void (*visit)(void *argument, const struct record *record), void *argument)
{
    uint64_t mask[SHARDS], most = 0;
    int saved = errno;

    for (unsigned i = 0; i < SHARDS; i++) {
        mask[i] = __atomic_load_n(&records->shard[i].mask, __ATOMIC_RELAXED) | (WINDOW - 1);
        most = mask[i] > most ? mask[i] : most;
    }
    for (uint64_t at = 0; at <= most; at += WINDOW) {
        for (unsigned i = 0; i < SHARDS; i++) {
            struct shard *shard = &records->shard[i];

            if (at > mask[i])
                continue;
            lock_take(&shard->lock);
            visit_window(shard, mask[i], at, visit, argument);
            lock_give(&shard->lock);
        }
        if (at + WINDOW <= most)
            compat_sleep(REST_NS);
    }
    errno = saved;
}

size_t records_count(struct records *records)
{
    size_t count = 0;

    for (unsigned i = 0; i < SHARDS; i++) {
        lock_take(&records->shard[i].lock);
        count += records->shard[i].count;
        lock_give(&records->shard[i].lock);
    }
    return count;
}
