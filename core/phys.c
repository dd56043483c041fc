/* SPDX-License-Identifier: Apache-2.0 */
/* Entries in an array, found by handle, by mapped address and by attachment through three hashes; an entry is free when nothing is left of it. */
#include "softslice/phys.h"

#include <errno.h>
#include <sys/mman.h>

#include "lock.h"
#include "softslice/records.h"

#define FIRST_ENTRIES 64
#define UNMAP_AT_ONCE 64 /* under one lock: others wait for it */
#define VISIT_AT_ONCE 256

struct entry {
    uint64_t handle; /* of a free one: the next free one */
    uint64_t bytes, address, object;
    uint64_t shared;      /* phys_share() */
    uint32_t refs, holds; /* references; mappings and attachments */
    uint32_t flight;      /* calls that have begun about it */
    uint16_t device;
    uint16_t used;
};

struct phys {
    uint32_t lock;
    uint32_t room, live;   /* entries there are, and in use */
    uint32_t high;         /* entries behind this were never used */
    uint32_t free;         /* the first free one below */
    uint32_t attached;     /* attachments there are */
    uint64_t objects;      /* numbers given out */
    struct entry *entries; /* 1 to room; MADV_DONTFORK */
    /* three struct records follow: key -> entry in `context`, for attachments in `bytes` */
} __attribute__((aligned(64)));

size_t phys_size(void)
{
    return sizeof(struct phys) + 3 * records_size();
}

static struct records *table_at(struct phys *p, unsigned which)
{
    return (struct records *)((char *)(p + 1) + which * records_size());
}

static struct records *handles(struct phys *p)
{
    return table_at(p, 0);
}

static struct records *mappings(struct phys *p)
{
    return table_at(p, 1);
}

static struct records *attachments(struct phys *p)
{
    return table_at(p, 2);
}

static struct entry *at(struct phys *p, uint64_t number)
{
    return &p->entries[number - 1];
}

static bool grow(struct phys *p)
{
    uint32_t room = p->room ? 2 * p->room : FIRST_ENTRIES;
    int saved = errno;
    struct entry *entries;

    if (p->room)
        entries = mremap(p->entries, p->room * sizeof(*entries), room * sizeof(*entries), MREMAP_MAYMOVE);
    else
        entries = mmap(NULL, room * sizeof(*entries), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (entries != MAP_FAILED) {
        madvise(entries, room * sizeof(*entries), MADV_DONTFORK);
        p->entries = entries;
        p->room = room;
    }
    errno = saved;
    return entries != MAP_FAILED;
}

/* 0: no host memory. */
static uint32_t take_entry(struct phys *p)
{
    uint32_t number = p->free;

    if (number)
        p->free = (uint32_t)at(p, number)->handle;
    else if (p->high < p->room || grow(p))
        number = ++p->high;
    p->live += number != 0;
    return number;
}

static void free_entry(struct phys *p, uint32_t number)
{
    *at(p, number) = (struct entry){.handle = p->free};
    p->free = number;
    p->live--;
}

/* The entry that stands under a handle, or 0. */
static uint32_t find(struct phys *p, uint64_t handle)
{
    struct record record;

    return handle && records_find(handles(p), handle, &record) ? (uint32_t)record.context : 0;
}

static void unlist(struct phys *p, uint32_t number)
{
    struct record record;

    if (find(p, at(p, number)->handle) == number)
        records_take(handles(p), at(p, number)->handle, &record);
}

/* In place of another one of the same key, which comes out first: *old, if there was one. -ENOMEM, 0, or 1 with *old. */
static int replace(struct records *table, const struct record *record, struct record *old)
{
    struct record none;
    bool replaced = records_take(table, record->key, old);

    if (records_put(table, record, &none) < 0) {
        if (replaced)
            records_put(table, old, &none); /* where it just was there is room */
        return -ENOMEM;
    }
    return replaced;
}

static bool list(struct phys *p, uint32_t number)
{
    struct record record = {.key = at(p, number)->handle, .context = number}, old;

    return replace(handles(p), &record, &old) >= 0;
}

static void drop_each(void *argument, const struct record *record);

/* A reference, a mapping or an attachment went, or a call about it is done. */
static void look(const struct phys_use *use, uint32_t number)
{
    struct phys *p = use->table;
    struct entry *entry = at(p, number);
    uint64_t object = entry->object;

    if (entry->refs || entry->holds)
        return;
    unlist(p, number); /* the driver is free to use the value again from here on */
    if (entry->flight)
        return;
    use->ended(
        use->argument,
        &(struct phys_end){.bytes = entry->bytes, .address = entry->address, .shared = entry->shared, .device = entry->device});
    free_entry(p, number);
    if (p->attached)
        records_drop_context(attachments(p), object, drop_each, &(struct phys_use){p, use->ended, use->argument});
}

int phys_create(const struct phys_use *use, uint64_t handle, unsigned device, uint64_t bytes)
{
    struct phys *p = use->table;
    int result = -ENOMEM;

    lock_take(&p->lock);
    uint32_t stale = find(p, handle), number = take_entry(p);
    if (number) {
        *at(p, number) = (struct entry){
            .handle = handle, .bytes = bytes, .object = ++p->objects, .refs = 1, .device = (uint16_t)device, .used = 1};
        if (list(p, number))
            result = 0;
        else
            free_entry(p, number);
    }
    if (result == 0 && stale && !at(p, stale)->holds && !at(p, stale)->flight) {
        at(p, stale)->refs = 0;
        look(use, stale);
    }
    lock_give(&p->lock);
    return result;
}

bool phys_retain(const struct phys_use *use, uint64_t handle)
{
    lock_take(&use->table->lock);
    uint32_t number = find(use->table, handle);
    if (number)
        at(use->table, number)->refs++;
    lock_give(&use->table->lock);
    return number;
}

struct phys_call phys_release_begin(const struct phys_use *use, uint64_t handle)
{
    struct phys *p = use->table;
    struct phys_call call = {0};

    lock_take(&p->lock);
    uint32_t number = find(p, handle);
    if (number && at(p, number)->refs) {
        at(p, number)->refs--;
        at(p, number)->flight++;
        look(use, number);
        call.entry = number;
    }
    lock_give(&p->lock);
    return call;
}

void phys_release_end(const struct phys_use *use, struct phys_call call, bool done)
{
    struct phys *p = use->table;

    if (!call.entry)
        return;
    lock_take(&p->lock);
    struct entry *entry = at(p, call.entry);
    entry->flight--;
    if (!done) {
        entry->refs++;
        if (!find(p, entry->handle))
            list(p, call.entry);
    }
    look(use, call.entry);
    lock_give(&p->lock);
}

/* The mapping or attachment counts from before the driver is asked, so that a release in another thread does not end the allocation. */
static struct phys_call hold_begin(const struct phys_use *use, uint64_t handle)
{
    struct phys *p = use->table;
    struct phys_call call = {0};

    lock_take(&p->lock);
    call.entry = find(p, handle);
    if (call.entry) {
        struct entry *entry = at(p, call.entry);

        entry->holds++;
        entry->flight++;
        call.foreign = !entry->bytes && !entry->shared && entry->device != PHYS_NO_DEVICE;
        call.device = entry->device;
    }
    lock_give(&p->lock);
    return call;
}

struct phys_call phys_map_begin(const struct phys_use *use, uint64_t handle)
{
    return hold_begin(use, handle);
}

struct phys_call phys_attach_begin(const struct phys_use *use, uint64_t handle)
{
    return hold_begin(use, handle);
}

static void drop_hold(const struct phys_use *use, uint64_t number)
{
    struct entry *entry = at(use->table, number);

    if (entry->used && entry->holds) {
        entry->holds--;
        look(use, (uint32_t)number);
    }
}

/* Enter the hold that a call has made, in place of one that ended on a road that we do not see. False, with the call still open, for want of
 * host memory. */
static bool hold_end(const struct phys_use *use, struct phys_call call, bool done, struct records *table,
                     const struct record *record, uint64_t (*entry_of)(const struct record *record))
{
    struct phys *p = use->table;
    struct record old;
    int put = 0;

    if (!call.entry)
        return true;
    lock_take(&p->lock);
    if (done)
        put = replace(table, record, &old);
    if (put >= 0) {
        struct entry *entry = at(p, call.entry);

        entry->flight--;
        entry->holds -= !done;
        if (done && table == mappings(p))
            entry->address = record->key;
        else if (done && put == 0)
            p->attached++;
        if (put == 1)
            drop_hold(use, entry_of(&old));
        look(use, call.entry);
    }
    lock_give(&p->lock);
    return put >= 0;
}

static uint64_t entry_of_mapping(const struct record *record)
{
    return record->context;
}

static uint64_t entry_of_attachment(const struct record *record)
{
    return record->bytes;
}

bool phys_map_end(const struct phys_use *use, struct phys_call call, bool done, uint64_t address, uint64_t size)
{
    struct record record = {.key = address, .context = call.entry, .bytes = size};

    return hold_end(use, call, done, mappings(use->table), &record, entry_of_mapping);
}

bool phys_attach_end(const struct phys_use *use, struct phys_call call, bool done, uint64_t owner, uint64_t key)
{
    struct record record = {.key = key, .context = owner, .bytes = call.entry};

    return hold_end(use, call, done, attachments(use->table), &record, entry_of_attachment);
}

bool phys_share(const struct phys_use *use, struct phys_call call, uint64_t bytes)
{
    lock_take(&use->table->lock);
    bool first = !at(use->table, call.entry)->shared;
    if (first)
        at(use->table, call.entry)->shared = bytes;
    lock_give(&use->table->lock);
    return first;
}

void phys_unmap(const struct phys_use *use, uint64_t address, uint64_t size)
{
    struct record record = {.bytes = 0};
    unsigned unmapped;
    uint64_t done = 0;

    do {
        lock_take(&use->table->lock);
        for (unmapped = 0; unmapped < UNMAP_AT_ONCE && done < size; unmapped++) {
            if (!records_take(mappings(use->table), address + done, &record))
                break;
            drop_hold(use, record.context);
            if (!record.bytes)
                break;
            done += record.bytes;
        }
        lock_give(&use->table->lock);
    } while (unmapped == UNMAP_AT_ONCE);
}

void phys_forget(const struct phys_use *use, uint64_t address, uint64_t size)
{
    struct phys *p = use->table;

    lock_take(&p->lock);
    for (uint32_t number = 1; number <= p->high; number++)
        if (at(p, number)->address - address < size)
            at(p, number)->address = 0;
    lock_give(&p->lock);
}

void phys_detach(const struct phys_use *use, uint64_t key)
{
    struct record record;

    lock_take(&use->table->lock);
    if (records_take(attachments(use->table), key, &record)) {
        use->table->attached--;
        drop_hold(use, record.bytes);
    }
    lock_give(&use->table->lock);
}

static void drop_each(void *argument, const struct record *record)
{
    const struct phys_use *use = argument;

    use->table->attached--;
    drop_hold(use, record->bytes);
}

void phys_drop_owner(const struct phys_use *use, uint64_t owner)
{
    struct phys_use copy = *use;

    lock_take(&use->table->lock);
    if (use->table->attached)
        records_drop_context(attachments(use->table), owner, drop_each, &copy);
    lock_give(&use->table->lock);
}

uint64_t phys_object(struct phys *p, uint64_t handle)
{
    lock_take(&p->lock);
    uint32_t number = find(p, handle);
    uint64_t object = number ? at(p, number)->object : 0;
    lock_give(&p->lock);
    return object;
}

/* Mixed so that small differences of one word do not meet those of another. */
uint64_t phys_key(uint64_t a, uint64_t b, uint64_t c)
{
    const uint64_t words[] = {a, b, c};
    uint64_t key = UINT64_C(0x9e3779b97f4a7c15);

    for (unsigned i = 0; i < 3; i++) {
        key = (key ^ words[i]) * UINT64_C(0xbf58476d1ce4e5b9);
        key ^= key >> 29;
    }
    return key ? key : 1;
}

void phys_visit(struct phys *p, void (*visit)(void *argument, unsigned device, uint64_t bytes), void *argument)
{
    uint32_t number = 1, high;

    do {
        lock_take(&p->lock);
        high = p->high;
        for (uint32_t end = number + VISIT_AT_ONCE; number <= high && number < end; number++)
            if (at(p, number)->used && at(p, number)->bytes)
                visit(argument, at(p, number)->device, at(p, number)->bytes);
        lock_give(&p->lock);
    } while (number <= high);
}

size_t phys_count(struct phys *p)
{
    return __atomic_load_n(&p->live, __ATOMIC_RELAXED);
}
