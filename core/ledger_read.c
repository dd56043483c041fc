/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at a ledger without joining it: for files of other users, which may change or shrink at any time, so they are read, never
 * mapped, and nothing in them is believed before it is checked. */
#include <errno.h>
#include <string.h>

#include "ledger_internal.h"
#include "ledger_sys.h"
#include "softslice/clock.h"
#include "softslice/log.h"

int ledger_read_bytes(int fd, void *buffer, size_t size, uint64_t offset)
{
    ssize_t got = sys_pread(fd, buffer, size, offset);

    return got == (ssize_t)size ? 0 : got < 0 ? (int)got : -EPROTO;
}

/* A slot as it was read. */
struct seen {
    struct ledger_slot slot;
    struct ledger_slot_more more; /* zeros where it has none */
};

/* What is read of several slots at once: of as many as there is room for, with a program's smallest stack in mind. */
#define BATCH 16
#define HOLDS (2 * LEDGER_DEVICES)
struct batch {
    struct seen seen[BATCH];
    struct ledger_hold hold[HOLDS]; /* hold_at() */
    struct ledger_extra extra[HOLDS];
};

static unsigned batch_size(const struct ledger_view *view)
{
    unsigned fit = view->devices ? HOLDS / view->devices : BATCH;

    return fit < BATCH ? fit : BATCH;
}

/* Where in a batch is what slot `row` of it holds on a device of the view. */
static unsigned hold_at(const struct ledger_view *view, unsigned device, unsigned row)
{
    return device * batch_size(view) + row;
}

/* Read `count` rows of `size` bytes that lie `stride` apart, at once where that is their distance in `rows` too. */
static int read_rows(int fd, uint64_t offset, uint32_t stride, void *rows, size_t size, size_t distance, unsigned count)
{
    int result = 0;

    if (stride == distance && size == distance)
        return ledger_read_bytes(fd, rows, count * size, offset);
    for (unsigned i = 0; i < count && result == 0; i++)
        result = ledger_read_bytes(fd, (char *)rows + i * distance, size, offset + (uint64_t)i * stride);
    return result;
}

static int read_slots(int fd, const struct ledger_header *header, uint32_t first, unsigned count, struct batch *batch)
{
    size_t size = header->extra_offset ? sizeof(struct seen) : sizeof(struct ledger_slot);
    int result;

    memset(batch->seen, 0, sizeof(batch->seen));
    result = read_rows(fd, header->slot_offset + (uint64_t)first * header->slot_stride, header->slot_stride, batch->seen, size,
                       sizeof(struct seen), count);
    for (unsigned i = 0; i < count; i++) {
        if (batch->seen[i].more.tag != batch->seen[i].slot.since)
            memset(&batch->seen[i].more, 0, sizeof(batch->seen[i].more));
    }
    return result;
}

/* Whether what a slot holds counts: 1 for a live member, 2 for one whose bytes the driver may not have released, 0 no, -errno. */
static int slot_counts(int fd, uint32_t index, const struct seen *seen)
{
    uint64_t at, end, now;

    if (!seen->slot.state)
        return 0;
    if (seen->slot.state == LEDGER_SLOT_DEAD) {
        now = clock_now();
        return seen->more.died && now >= seen->more.died && now - seen->more.died < LEDGER_DEAD_NS ? 2 : 0;
    }
    return sys_locked(fd, LEDGER_LOCK_SLOTS + index, 1, &at, &end);
}

static unsigned arms_of(const struct ledger_header *header, const struct seen *seen)
{
    uint64_t arms = header->compute_offset && seen->more.tag ? ledger_mark_arms(seen->more.mark, seen->slot.since) : 0;

    return arms ? arms & (LEDGER_ARMS_VRAM | LEDGER_ARMS_COMPUTE) : LEDGER_ARMS_VRAM;
}

static uint32_t slots_used(const struct ledger_header *header)
{
    return header->slots_used < header->slots ? header->slots_used : header->slots;
}

static void add(uint64_t *sum, uint64_t bytes)
{
    if (__builtin_add_overflow(*sum, bytes, sum))
        *sum = UINT64_MAX;
}

/* Where a device of the view stands in the file's table. */
struct places {
    unsigned at[LEDGER_DEVICES];
};

/* What the slots of a batch hold, on all devices of the view. */
static int read_holds(int fd, const struct ledger_header *header, const struct ledger_view *view, const struct places *places,
                      uint32_t first, unsigned count, struct batch *batch)
{
    int result = 0;

    for (unsigned i = 0; i < view->devices && result == 0; i++) {
        uint64_t row = (uint64_t)places->at[i] * header->slots + first;
        struct ledger_extra *extra = &batch->extra[hold_at(view, i, 0)];

        result = ledger_read_bytes(fd, &batch->hold[hold_at(view, i, 0)], count * sizeof(struct ledger_hold),
                                   header->hold_offset + row * sizeof(struct ledger_hold));
        if (!header->extra_offset)
            memset(extra, 0, count * sizeof(*extra));
        else if (result == 0)
            result = read_rows(fd, header->extra_offset + row * header->extra_stride, header->extra_stride, extra,
                               sizeof(struct ledger_extra), sizeof(struct ledger_extra), count);
    }
    return result;
}

/* Add what a member holds. A slot's tentative is read with its committed, so a charge that is just being settled may be seen twice or not at all:
 * a snapshot is for people. */
static void add_member(const struct ledger_header *header, const struct batch *batch, unsigned row, uint32_t slot, bool dead,
                       struct ledger_view *view, struct ledger_seen *member)
{
    const struct seen *seen = &batch->seen[row];

    *member = (struct ledger_seen){.slot = slot,
                                   .since = seen->slot.since,
                                   .pid = seen->slot.pid,
                                   .pid_namespace = seen->more.pid_namespace,
                                   .arms = dead ? 0 : arms_of(header, seen),
                                   .dead = dead};
    view->members += !dead;
    view->arms |= member->arms;
    for (unsigned i = 0; i < view->devices; i++) {
        const struct ledger_hold *hold = &batch->hold[hold_at(view, i, row)];
        struct ledger_device_state *state = &view->device[i];

        member->device[i].committed = ledger_committed_bytes(hold->committed);
        member->device[i].tentative = hold->tentative;
        member->device[i].spilled = seen->more.tag && !dead ? batch->extra[hold_at(view, i, row)].spilled : 0;
        member->device[i].suspended = hold->committed & LEDGER_SUSPENDED;
        add(&state->tentative, hold->tentative);
        add(&state->current, hold->tentative);
        add(&state->current, ledger_counted_bytes(hold->committed));
        add(&state->spilled, member->device[i].spilled);
    }
}

static int read_members(int fd, const struct ledger_header *header, const struct places *places, struct ledger_view *view,
                        ledger_hear *hear, void *context)
{
    uint32_t used = slots_used(header);
    unsigned most = batch_size(view);
    struct ledger_seen member;
    struct batch batch;

    for (uint32_t first = 0; first < used; first += most) {
        unsigned count = used - first < most ? used - first : most;
        int counts[BATCH], any = 0, result = read_slots(fd, header, first, count, &batch);

        for (unsigned i = 0; i < count && result == 0; i++) {
            counts[i] = slot_counts(fd, first + i, &batch.seen[i]);
            any |= counts[i];
            result = counts[i] < 0 ? counts[i] : 0;
        }
        if (result == 0 && any)
            result = read_holds(fd, header, view, places, first, count, &batch);
        if (result < 0)
            return result;
        for (unsigned i = 0; i < count; i++) {
            if (!counts[i])
                continue;
            add_member(header, &batch, i, first + i, counts[i] == 2, view, &member);
            if (hear)
                hear(context, &member);
        }
    }
    return 0;
}

/* A good device's row. */
static void tell_device(const struct ledger_device *device, struct ledger_device_state *state)
{
    memset(state, 0, sizeof(*state));
    memcpy(state->uuid, device->uuid, sizeof(state->uuid));
    state->limit = ledger_limit_decode(device->limit);
    state->peak = device->peak;
    state->context_bytes = device->context_bytes;
    memcpy(state->events, device->events, sizeof(state->events));
}

/* A device that is there twice would be told twice. */
static bool is_known(const struct ledger_view *view, const uint64_t uuid[2])
{
    for (unsigned i = 0; i < view->devices; i++) {
        if (memcmp(view->device[i].uuid, uuid, sizeof(view->device[i].uuid)) == 0)
            return true;
    }
    return false;
}

static int read_devices(int fd, const struct ledger_header *header, struct places *places, struct ledger_view *view)
{
    enum { ROWS = 4 };
    struct ledger_device rows[ROWS], *device;

    for (unsigned i = 0; i < header->devices && view->devices < LEDGER_DEVICES; i++) {
        if (i % ROWS == 0) {
            unsigned count = header->devices - i < ROWS ? header->devices - i : ROWS;
            int result = read_rows(fd, header->device_offset + (uint64_t)i * header->device_stride, header->device_stride, rows,
                                   sizeof(*rows), sizeof(*rows), count);

            if (result < 0)
                return result;
        }
        device = &rows[i % ROWS];
        if (!device->key)
            break;
        if (device->complete != LEDGER_COMPLETE)
            continue;
        if (device->key != ledger_key(device->uuid) || !ledger_limit_valid(device->limit) || is_known(view, device->uuid))
            return -EPROTO;
        places->at[view->devices] = i;
        tell_device(device, &view->device[view->devices++]);
    }
    return 0;
}

static int read_compute(int fd, const struct ledger_header *header, const struct places *places, struct ledger_view *view)
{
    for (unsigned i = 0; i < view->devices && header->compute_offset; i++) {
        struct ledger_compute compute;
        int result = ledger_read_bytes(fd, &compute, sizeof(compute),
                                       header->compute_offset + (uint64_t)places->at[i] * header->compute_stride);

        if (result < 0)
            return result;
        ledger_tell_compute(&compute, view->arms & LEDGER_ARMS_COMPUTE, &view->device[i]);
    }
    return 0;
}

int ledger_open_regular(int folder, const char *name, int flags)
{
    int seen = sys_openat(folder, name, O_PATH | O_NOFOLLOW, 0), fd;
    struct stat status;
    char self[40];

    if (seen < 0)
        return seen;
    fd = sys_fstat(seen, &status);
    if (fd >= 0 && !S_ISREG(status.st_mode))
        fd = S_ISLNK(status.st_mode) ? -ELOOP : -EPROTO;
    if (fd >= 0) {
        log_format(self, sizeof(self), "/proc/self/fd/%d", seen);
        fd = sys_openat(AT_FDCWD, self, flags | O_NONBLOCK | O_NOCTTY, 0);
        if (fd < 0) /* no /proc */
            fd = sys_openat(folder, name, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    }
    sys_close(seen);
    return fd;
}

/* ledger_open() that says why. */
static int open_ledger(int dirfd, const char *name, int flags, struct ledger_header *header, const char **fault)
{
    union {
        struct ledger_header header;
        char bytes[LEDGER_HEADER_SIZE];
    } part;
    int folder = sys_openat(dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0), fd, result;
    struct stat status;

    *fault = NULL;
    if (folder < 0)
        return folder;
    fd = ledger_open_regular(folder, LEDGER_NAME, flags);
    sys_close(folder);
    if (fd == -EPROTO)
        *fault = "not a regular file";
    if (fd < 0)
        return fd;
    memset(&part, 0, sizeof(part));
    result = sys_fstat(fd, &status);
    if (result >= 0) {
        if (!S_ISREG(status.st_mode))
            *fault = "not a regular file";
        else if ((uint64_t)status.st_size > LEDGER_FILE_CAP)
            *fault = "larger than any ledger";
        else if (sys_pread(fd, &part, sizeof(part), 0) < (ssize_t)sizeof(struct ledger_header))
            *fault = "truncated";
        else
            *fault = ledger_header_fault(&part.header, &part, (uint64_t)status.st_size);
        result = *fault ? -EPROTO : 0;
    }
    if (result < 0) {
        sys_close(fd);
        return result;
    }
    *header = part.header;
    return fd;
}

int ledger_open(int dirfd, const char *name, int flags, struct ledger_header *header)
{
    const char *fault;

    return open_ledger(dirfd, name, flags, header, &fault);
}

const char *ledger_read_fault(int dirfd, const char *name)
{
    struct ledger_header header;
    const char *fault;
    int saved = errno, fd = open_ledger(dirfd, name, O_RDONLY, &header, &fault);

    if (fd >= 0)
        sys_close(fd);
    errno = saved;
    return fault ? fault : "scribbled over";
}

static int read_whole(int fd, const struct ledger_header *header, struct ledger_view *view, ledger_hear *hear, void *context)
{
    struct places places;
    int result = read_devices(fd, header, &places, view);

    if (result == 0)
        result = read_members(fd, header, &places, view, hear, context);
    return result < 0 ? result : read_compute(fd, header, &places, view);
}

int ledger_read_all(int fd, const struct ledger_header *header, struct ledger_view *view)
{
    return read_whole(fd, header, view, NULL, NULL);
}

int ledger_read_whole(int dirfd, const char *name, struct ledger_view *view, ledger_hear *hear, void *context)
{
    struct ledger_header header;
    int saved = errno, fd = ledger_open(dirfd, name, O_RDONLY, &header), result = fd;

    memset(view, 0, sizeof(*view));
    if (fd >= 0) {
        result = read_whole(fd, &header, view, hear, context);
        sys_close(fd);
    }
    errno = saved;
    return result;
}

int ledger_read(int dirfd, const char *name, struct ledger_view *view)
{
    return ledger_read_whole(dirfd, name, view, NULL, NULL);
}

/* A list of one device's members that is being filled. */
struct listing {
    const uint8_t *uuid;
    const struct ledger_view *view;
    struct ledger_member *list;
    unsigned size, count;
};

static int find_device(const struct ledger_view *view, const uint8_t uuid[16])
{
    for (unsigned i = 0; i < view->devices; i++) {
        if (memcmp(view->device[i].uuid, uuid, 16) == 0)
            return (int)i;
    }
    return -ENOENT;
}

static void list_member(void *context, const struct ledger_seen *member)
{
    struct listing *listing = context;
    int device = find_device(listing->view, listing->uuid);

    if (device < 0)
        return;
    if (listing->count < listing->size)
        listing->list[listing->count] = (struct ledger_member){.slot = member->slot,
                                                               .since = member->since,
                                                               .pid = member->pid,
                                                               .pid_namespace = member->pid_namespace,
                                                               .committed = member->device[device].committed,
                                                               .tentative = member->device[device].tentative,
                                                               .spilled = member->device[device].spilled,
                                                               .suspended = member->device[device].suspended,
                                                               .dead = member->dead};
    listing->count++;
}

int ledger_read_members(int dirfd, const char *name, const uint8_t uuid[16], struct ledger_member *list, unsigned size)
{
    struct ledger_view view;
    struct listing listing = {uuid, &view, list, size, 0};
    int result = ledger_read_whole(dirfd, name, &view, list_member, &listing);

    return result < 0 ? result : find_device(&view, uuid) < 0 ? -ENOENT : (int)listing.count;
}
