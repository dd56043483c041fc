/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a ledger's ring of events from outside. As with all of a ledger that is not mapped, nothing in it is believed before it is checked. */
#include <errno.h>
#include <string.h>

#include "ledger_internal.h"
#include "ledger_sys.h"
#include "softslice/clock.h"

#define PATIENCE UINT64_C(1000000000)  /* ns that an event may take to be written */
#define GROWS    (2 * LEDGER_STORM_NS) /* that a count may be raised: its storm, and as long again for who is slow */
#define CHUNK    32                    /* entries that are read at once */

struct reader {
    int fd;
    const struct ledger_header *header;
    struct ledger_cursor *cursor;
    bool all;
    struct ledger_told *list;
    unsigned count, size;
    uint64_t now; /* CLOCK_REALTIME */
};

static uint64_t lane_size(const struct reader *reader)
{
    return reader->header->event_count / LEDGER_LANES;
}

/* The UUID of the device at `index`, if it still is the one that was meant. */
static int find_device(const struct reader *reader, unsigned index, uint64_t tag, struct ledger_told *told)
{
    const struct ledger_header *header = reader->header;
    struct ledger_device device;
    int result;

    if (index >= header->devices)
        return 0;
    result =
        ledger_read_bytes(reader->fd, &device, sizeof(device), header->device_offset + (uint64_t)index * header->device_stride);
    told->on_device = result == 0 && device.complete == LEDGER_COMPLETE && device.key == ledger_key(device.uuid) &&
                      (device.key >> 8 & 0xff) == tag;
    if (told->on_device)
        memcpy(told->uuid, device.uuid, sizeof(told->uuid));
    return result;
}

enum verdict { WHOLE, NOT_YET, OVERWRITTEN, SCRIBBLED };

/* What is in the place of a lane's ticket. */
static enum verdict judge(const struct reader *reader, const struct ledger_event_entry *entry, uint64_t ticket)
{
    uint64_t expected = ticket + 1, size = lane_size(reader);

    if (entry->sequence == expected)
        return ledger_event_check(entry) == entry->counted >> 32 ? WHOLE : SCRIBBLED;
    if (!entry->sequence)
        return NOT_YET;
    if (entry->sequence < expected)
        return (expected - entry->sequence) % size ? SCRIBBLED : NOT_YET;
    return (entry->sequence - expected) % size ? SCRIBBLED : OVERWRITTEN;
}

/* Whole by its check, so somebody meant it. 1, 0 for what is not to be told, -errno. */
static int tell(struct reader *reader, const struct ledger_event_entry *entry)
{
    unsigned kind = entry->what >> 32 & 0xff;
    struct ledger_told *told = &reader->list[reader->count];
    int result;

    if (!entry->time || entry->time > INT64_MAX || !kind || (kind >= LEDGER_KINDS && reader->header->minor <= LEDGER_MINOR)) {
        reader->cursor->damaged++;
        return 0;
    }
    if (kind >= LEDGER_KINDS)
        return 0; /* of a newer version */
    *told = (struct ledger_told){.kind = kind,
                                 .time = entry->time,
                                 .bytes = entry->bytes,
                                 .limit = entry->limit,
                                 .current = entry->current,
                                 .count = (uint32_t)entry->counted ? (uint32_t)entry->counted : 1,
                                 .pid = (uint32_t)entry->who,
                                 .pid_namespace = entry->who >> 32,
                                 .uid = (uint32_t)entry->what,
                                 .family = entry->what >> 56};
    result = find_device(reader, entry->what >> 40 & 0xff, entry->what >> 48 & 0xff, told);
    if (result == 0)
        reader->count++;
    return result < 0 ? result : 1;
}

static bool may_grow(const struct reader *reader, unsigned lane, const struct ledger_event_entry *entry)
{
    /* One from the future is of before the clock was set back. */
    return !reader->all && lane == LEDGER_LANE_OFTEN && reader->now >= entry->time && reader->now - entry->time < GROWS;
}

/* Whether to wait for an entry that is not whole: for PATIENCE, from when the first of those that had a ticket then was met. */
static bool wait_for(struct reader *reader, unsigned lane, uint64_t next)
{
    struct ledger_cursor *cursor = reader->cursor;
    uint64_t now = clock_now();

    if (reader->all)
        return false;
    if (cursor->next[lane] < cursor->awaited[lane])
        return now - cursor->waiting_since[lane] < PATIENCE;
    cursor->awaited[lane] = next;
    cursor->waiting_since[lane] = now;
    return true;
}

/* One entry: 1 to go on, 0 to leave it for the next call, -errno. */
static int take(struct reader *reader, unsigned lane, uint64_t next, const struct ledger_event_entry *entry)
{
    struct ledger_cursor *cursor = reader->cursor;
    int result;

    switch (judge(reader, entry, cursor->next[lane])) {
    case WHOLE:
        if (may_grow(reader, lane, entry))
            return 0;
        result = tell(reader, entry);
        if (result < 0)
            return result;
        break;
    case NOT_YET:
        if (wait_for(reader, lane, next))
            return 0;
        cursor->lost++;
        break;
    case OVERWRITTEN:
        cursor->lost++;
        break;
    case SCRIBBLED:
    default:
        cursor->damaged++;
    }
    cursor->next[lane]++;
    return 1;
}

/* Where a lane is read on. */
static void find_place(struct reader *reader, unsigned lane, uint64_t next)
{
    uint64_t size = lane_size(reader), oldest = next > size ? next - size : 0, *at = &reader->cursor->next[lane];

    if (!reader->cursor->began) {
        *at = oldest;
    } else if (*at > next) {
        reader->cursor->damaged++; /* tickets only grow */
        *at = next;
    } else if (*at < oldest) {
        reader->cursor->lost += oldest - *at;
        *at = oldest;
    }
}

static int read_lane(struct reader *reader, unsigned lane, uint64_t next)
{
    const struct ledger_header *header = reader->header;
    uint64_t size = lane_size(reader), *at = &reader->cursor->next[lane];
    struct ledger_event_entry entry[CHUNK];
    bool more = true;

    find_place(reader, lane, next);
    while (more && *at < next && reader->count < reader->size) {
        uint64_t index = *at % size, chunk = header->event_stride == sizeof(entry[0]) ? CHUNK : 1;

        chunk = chunk < size - index ? chunk : size - index;
        chunk = chunk < next - *at ? chunk : next - *at;
        int result;

        /* At most one round of the ring is read, whatever the writers do meanwhile: `next` is of before. */
        result = ledger_read_bytes(reader->fd, entry, chunk * sizeof(entry[0]),
                                   header->event_offset + (lane * size + index) * header->event_stride);
        for (uint64_t i = 0; result >= 0 && more && i < chunk && reader->count < reader->size; i++) {
            result = take(reader, lane, next, &entry[i]);
            more = result > 0;
        }
        if (result < 0)
            return result;
    }
    return 0;
}

static int read_ring(struct reader *reader)
{
    uint64_t next[LEDGER_LANES];
    struct stat status;
    int result = sys_fstat(reader->fd, &status);

    if (result < 0)
        return result;
    if (!reader->header->event_offset)
        return -EOPNOTSUPP;
    if (status.st_dev != reader->cursor->file_device || status.st_ino != reader->cursor->file_inode ||
        reader->header->event_origin != reader->cursor->file_origin) {
        uint64_t lost = reader->cursor->lost, damaged = reader->cursor->damaged;

        *reader->cursor = (struct ledger_cursor){.file_device = status.st_dev,
                                                 .file_origin = reader->header->event_origin,
                                                 .file_inode = status.st_ino,
                                                 .lost = lost,
                                                 .damaged = damaged};
    }
    reader->cursor->size = reader->header->event_count;
    result = ledger_read_bytes(reader->fd, next, sizeof(next), offsetof(struct ledger_header, event_next));
    for (unsigned lane = 0; result == 0 && lane < LEDGER_LANES; lane++)
        result = read_lane(reader, lane, next[lane]);
    reader->cursor->began = reader->cursor->began || result == 0;
    return result;
}

/* ---- the dead of whom nobody has told */

struct owner {
    struct ledger_slot slot;
    struct ledger_slot_more more;
};

static int read_owner(const struct reader *reader, uint32_t slot, struct owner *owner)
{
    const struct ledger_header *header = reader->header;

    memset(owner, 0, sizeof(*owner));
    return ledger_read_bytes(reader->fd, owner, header->extra_offset ? sizeof(*owner) : sizeof(owner->slot),
                             header->slot_offset + (uint64_t)slot * header->slot_stride);
}

/* 1 if the owner of a slot died untold, 0, or -errno. */
static int died(const struct reader *reader, uint32_t slot, struct owner *owner)
{
    uint64_t at, end, since;
    int result = read_owner(reader, slot, owner);

    if (result < 0 || owner->slot.state != LEDGER_SLOT_TAKEN || owner->slot.told == owner->slot.since)
        return result;
    since = owner->slot.since;
    result = sys_locked(reader->fd, LEDGER_LOCK_SLOTS + slot, 1, &at, &end);
    if (result)
        return result < 0 ? result : 0;
    /* It may have left, and another may have come, between the two. */
    result = read_owner(reader, slot, owner);
    return result < 0 ? result : owner->slot.state == LEDGER_SLOT_TAKEN && owner->slot.since == since && owner->slot.told != since;
}

static int tell_dead(struct reader *reader, uint32_t slot, const struct owner *owner)
{
    const struct ledger_header *header = reader->header;
    struct ledger_told told = {.kind = LEDGER_DIED,
                               .count = 1,
                               .limit = owner->slot.since,
                               .pid = owner->slot.pid,
                               .uid = owner->slot.uid,
                               .pid_namespace = owner->more.tag == owner->slot.since ? owner->more.pid_namespace : 0};
    unsigned before = reader->count;

    for (uint32_t i = 0; i < header->devices && i < LEDGER_DEVICES && reader->count < reader->size; i++) {
        uint64_t key;
        struct ledger_hold hold;
        int result = ledger_read_bytes(reader->fd, &key, sizeof(key), header->device_offset + (uint64_t)i * header->device_stride);

        if (result == 0 && !key)
            break;
        if (result == 0)
            result = ledger_read_bytes(reader->fd, &hold, sizeof(hold),
                                       header->hold_offset + ((uint64_t)i * header->slots + slot) * sizeof(hold));
        if (result < 0)
            return result;
        told.bytes = hold.tentative + ledger_committed_bytes(hold.committed);
        if (!told.bytes)
            continue;
        result = find_device(reader, i, key >> 8 & 0xff, &told);
        if (result < 0)
            return result;
        reader->list[reader->count++] = told;
    }
    if (reader->count == before && reader->count < reader->size)
        reader->list[reader->count++] = told;
    return 0;
}

static int read_dead(struct reader *reader)
{
    uint32_t used = reader->header->slots_used < reader->header->slots ? reader->header->slots_used : reader->header->slots;
    int result = 0;

    for (uint32_t i = 0; i < used && reader->count < reader->size && result >= 0; i++) {
        struct owner owner;

        result = died(reader, i, &owner);
        if (result > 0)
            result = tell_dead(reader, i, &owner);
    }
    return result < 0 ? result : 0;
}

/* ---- */

typedef int reading(struct reader *reader);

static int read_with(int dirfd, const char *name, reading *function, struct reader *reader)
{
    struct ledger_header header;
    int saved = errno, fd = ledger_open(dirfd, name, O_RDONLY, &header), result = fd;

    if (fd >= 0) {
        reader->fd = fd;
        reader->header = &header;
        reader->now = sys_now(CLOCK_REALTIME);
        result = function(reader);
        reader->header = NULL;
        sys_close(fd);
        result = result < 0 ? result : (int)reader->count;
    }
    errno = saved;
    return result;
}

int ledger_read_events(int dirfd, const char *name, struct ledger_cursor *cursor, bool all, struct ledger_told *list, unsigned size)
{
    struct reader reader = {.cursor = cursor, .all = all, .list = list, .size = size};

    return read_with(dirfd, name, read_ring, &reader);
}

int ledger_read_dead(int dirfd, const char *name, struct ledger_told *list, unsigned size)
{
    struct reader reader = {.list = list, .size = size};

    return read_with(dirfd, name, read_dead, &reader);
}
