/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at a ledger without joining it: for files of other users, which may change or shrink at any time, so they are read, never
 * mapped, and nothing in them is believed before it is checked. */
#include <errno.h>
#include <string.h>

#include "ledger_internal.h"
#include "ledger_sys.h"
#include "softslice/clock.h"

static int read_all(int fd, void *buffer, size_t size, uint64_t offset)
{
    ssize_t got = sys_pread(fd, buffer, size, offset);

    return got == (ssize_t)size ? 0 : got < 0 ? (int)got : -EPROTO;
}

/* A slot as it was read. */
struct seen {
    struct ledger_slot slot;
    struct ledger_slot_more more; /* zeros where it has none */
};

static int read_slot(int fd, const struct ledger_header *header, uint32_t index, struct seen *seen)
{
    size_t size = header->extra_offset ? sizeof(*seen) : sizeof(seen->slot);
    int result;

    memset(seen, 0, sizeof(*seen));
    result = read_all(fd, seen, size, header->slot_offset + (uint64_t)index * header->slot_stride);
    if (seen->more.tag != seen->slot.since)
        memset(&seen->more, 0, sizeof(seen->more));
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

static int read_hold(int fd, const struct ledger_header *header, unsigned device, uint32_t slot, struct ledger_hold *hold)
{
    return read_all(fd, hold, sizeof(*hold), header->hold_offset + ((uint64_t)device * header->slots + slot) * sizeof(*hold));
}

static int read_extra(int fd, const struct ledger_header *header, const struct seen *seen, unsigned device, uint32_t slot,
                      struct ledger_extra *extra)
{
    memset(extra, 0, sizeof(*extra));
    if (!header->extra_offset || !seen->more.tag)
        return 0;
    return read_all(fd, extra, sizeof(*extra),
                    header->extra_offset + ((uint64_t)device * header->slots + slot) * header->extra_stride);
}

static void add(uint64_t *sum, uint64_t bytes)
{
    if (__builtin_add_overflow(*sum, bytes, sum))
        *sum = UINT64_MAX;
}

/* Add what the members hold on a device. A slot's tentative is read with its committed, so a charge that is just being settled may be
 * seen twice or not at all: a snapshot is for people. */
static int sum_holds(int fd, const struct ledger_header *header, const uint64_t *counts, unsigned device,
                     struct ledger_device_state *state)
{
    uint32_t used = slots_used(header);

    for (uint32_t i = 0; i < used; i++) {
        struct ledger_hold hold;
        struct ledger_extra extra;
        struct seen seen;
        int result;

        if (!(counts[i / 64] >> i % 64 & 1))
            continue;
        result = read_hold(fd, header, device, i, &hold);
        if (result == 0)
            result = read_slot(fd, header, i, &seen);
        if (result == 0)
            result = read_extra(fd, header, &seen, device, i, &extra);
        if (result < 0)
            return result;
        add(&state->tentative, hold.tentative);
        add(&state->current, ledger_counted_bytes(hold.committed));
        add(&state->spilled, seen.slot.state == LEDGER_SLOT_TAKEN ? extra.spilled : 0);
    }
    add(&state->current, state->tentative);
    return 0;
}

/* The next device of the table from *index on: 1, 0 at its end, or -errno. */
static int read_device(int fd, const struct ledger_header *header, unsigned *index, struct ledger_device *device)
{
    for (; *index < header->devices; ++*index) {
        int result = read_all(fd, device, sizeof(*device), header->device_offset + (uint64_t)*index * header->device_stride);

        if (result < 0 || !device->key)
            return result;
        if (device->complete != LEDGER_COMPLETE)
            continue;
        return device->key != ledger_key(device->uuid) || !ledger_limit_valid(device->limit) ? -EPROTO : 1;
    }
    return 0;
}

static int read_devices(int fd, const struct ledger_header *header, const uint64_t *counts, struct ledger_view *view)
{
    struct ledger_compute compute;
    struct ledger_device device;
    int result = 0;

    for (unsigned i = 0; view->devices < LEDGER_DEVICES && (result = read_device(fd, header, &i, &device)) > 0; i++) {
        struct ledger_device_state *state = &view->device[view->devices];

        memset(state, 0, sizeof(*state));
        memcpy(state->uuid, device.uuid, sizeof(state->uuid));
        state->limit = ledger_limit_decode(device.limit);
        state->peak = device.peak;
        state->context_bytes = device.context_bytes;
        memcpy(state->events, device.events, sizeof(state->events));
        result = sum_holds(fd, header, counts, i, state);
        if (result == 0 && header->compute_offset) {
            result = read_all(fd, &compute, sizeof(compute), header->compute_offset + (uint64_t)i * header->compute_stride);
            if (result == 0)
                ledger_tell_compute(&compute, view->arms & LEDGER_ARMS_COMPUTE, state);
        }
        if (result < 0)
            break;
        view->devices++;
    }
    return result < 0 ? result : 0;
}

static int read_members(int fd, const struct ledger_header *header, uint64_t *counts, struct ledger_view *view)
{
    uint32_t used = slots_used(header);

    for (uint32_t i = 0; i < used; i++) {
        struct seen seen;
        int result = read_slot(fd, header, i, &seen);

        if (result == 0)
            result = slot_counts(fd, i, &seen);
        if (result < 0)
            return result;
        if (result)
            counts[i / 64] |= UINT64_C(1) << i % 64;
        view->members += result == 1;
        view->arms |= result == 1 ? arms_of(header, &seen) : 0;
    }
    return 0;
}

int ledger_open(int dirfd, const char *name, int flags, struct ledger_header *header)
{
    union {
        struct ledger_header header;
        char bytes[LEDGER_HEADER_SIZE];
    } part;
    int folder = sys_openat(dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0), fd, result;
    struct stat status;

    if (folder < 0)
        return folder;
    fd = sys_openat(folder, LEDGER_NAME, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    sys_close(folder);
    if (fd < 0)
        return fd;
    memset(&part, 0, sizeof(part));
    result = sys_fstat(fd, &status);
    if (result >= 0 && (!S_ISREG(status.st_mode) || (uint64_t)status.st_size > LEDGER_FILE_CAP ||
                        sys_pread(fd, &part, sizeof(part), 0) < (ssize_t)sizeof(struct ledger_header) ||
                        ledger_header_fault(&part.header, &part, (uint64_t)status.st_size)))
        result = -EPROTO;
    if (result < 0) {
        sys_close(fd);
        return result;
    }
    *header = part.header;
    return fd;
}

int ledger_read_all(int fd, const struct ledger_header *header, struct ledger_view *view)
{
    uint64_t counts[LEDGER_SLOTS_CAP / 64] = {0};
    int result = read_members(fd, header, counts, view);

    return result < 0 ? result : read_devices(fd, header, counts, view);
}

int ledger_read(int dirfd, const char *name, struct ledger_view *view)
{
    struct ledger_header header;
    int saved = errno, fd = ledger_open(dirfd, name, O_RDONLY, &header), result = fd;

    memset(view, 0, sizeof(*view));
    if (fd >= 0) {
        result = ledger_read_all(fd, &header, view);
        sys_close(fd);
    }
    errno = saved;
    return result;
}

/* The members of the device at `index`: their number, or -errno. */
static int list_members(int fd, const struct ledger_header *header, unsigned index, struct ledger_member *list, unsigned size)
{
    uint32_t used = slots_used(header);
    unsigned count = 0;

    for (uint32_t i = 0; i < used; i++) {
        struct ledger_extra extra;
        struct ledger_hold hold;
        struct seen seen;
        int counts, result = read_slot(fd, header, i, &seen);

        counts = result < 0 ? result : slot_counts(fd, i, &seen);
        if (counts <= 0) {
            if (counts < 0)
                return counts;
            continue;
        }
        result = read_hold(fd, header, index, i, &hold);
        if (result == 0)
            result = read_extra(fd, header, &seen, index, i, &extra);
        if (result < 0)
            return result;
        if (count < size)
            list[count] = (struct ledger_member){.slot = i,
                                                 .since = seen.slot.since,
                                                 .pid = seen.slot.pid,
                                                 .pid_namespace = seen.more.pid_namespace,
                                                 .committed = ledger_committed_bytes(hold.committed),
                                                 .tentative = hold.tentative,
                                                 .spilled = counts == 1 ? extra.spilled : 0,
                                                 .suspended = hold.committed & LEDGER_SUSPENDED,
                                                 .dead = counts == 2};
        count++;
    }
    return (int)count;
}

int ledger_read_members(int dirfd, const char *name, const uint8_t uuid[16], struct ledger_member *list, unsigned size)
{
    struct ledger_header header;
    struct ledger_device device;
    int saved = errno, fd = ledger_open(dirfd, name, O_RDONLY, &header), result = fd;

    if (fd >= 0) {
        unsigned index = 0;

        while ((result = read_device(fd, &header, &index, &device)) > 0 && memcmp(device.uuid, uuid, 16) != 0)
            index++;
        result = result > 0 ? list_members(fd, &header, index, list, size) : result < 0 ? result : -ENOENT;
        sys_close(fd);
    }
    errno = saved;
    return result;
}
