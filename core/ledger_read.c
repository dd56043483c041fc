/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at a ledger without joining it: for files of other users, which may change or shrink at any time, so they are read, never
 * mapped, and nothing in them is believed before it is checked. */
#include <errno.h>
#include <string.h>

#include "ledger_internal.h"
#include "ledger_sys.h"

static int read_all(int fd, void *buffer, size_t size, uint64_t offset)
{
    ssize_t got = sys_pread(fd, buffer, size, offset);

    return got == (ssize_t)size ? 0 : got < 0 ? (int)got : -EPROTO;
}

/* Add what the live members hold on a device. A slot's tentative is read with its committed, so a charge that is just being settled
 * may be seen twice or not at all: a snapshot is for people. */
static int sum_holds(int fd, const struct ledger_header *header, const uint64_t *live, unsigned device,
                     struct ledger_device_state *state)
{
    struct ledger_hold part[64];
    uint64_t base = header->hold_offset + (uint64_t)device * header->slots * sizeof(part[0]);

    for (uint32_t at = 0; at < header->slots; at += 64) {
        uint32_t count = header->slots - at < 64 ? header->slots - at : 64;
        int result;

        if (!live[at / 64])
            continue;
        result = read_all(fd, part, count * sizeof(part[0]), base + at * sizeof(part[0]));
        if (result < 0)
            return result;
        for (uint32_t i = 0; i < count; i++) {
            if (!(live[at / 64] >> i & 1))
                continue;
            if (__builtin_add_overflow(state->tentative, part[i].tentative, &state->tentative))
                state->tentative = UINT64_MAX;
            if (__builtin_add_overflow(state->current, part[i].committed, &state->current))
                state->current = UINT64_MAX;
        }
    }
    if (__builtin_add_overflow(state->current, state->tentative, &state->current))
        state->current = UINT64_MAX;
    return 0;
}

static int read_devices(int fd, const struct ledger_header *header, const uint64_t *live, struct ledger_view *view)
{
    for (unsigned i = 0; i < header->devices && view->devices < LEDGER_DEVICES; i++) {
        struct ledger_device_state *state = &view->device[view->devices];
        struct ledger_device device;
        int result = read_all(fd, &device, sizeof(device), header->device_offset + (uint64_t)i * header->device_stride);

        if (result < 0)
            return result;
        if (!device.key)
            break;
        if (device.complete != LEDGER_COMPLETE)
            continue;
        if (device.key != ledger_key(device.uuid) || !ledger_limit_valid(device.limit))
            return -EPROTO;
        memset(state, 0, sizeof(*state));
        memcpy(state->uuid, device.uuid, sizeof(state->uuid));
        state->limit = ledger_limit_decode(device.limit);
        state->peak = device.peak;
        state->context_bytes = device.context_bytes;
        memcpy(state->events, device.events, sizeof(state->events));
        result = sum_holds(fd, header, live, i, state);
        if (result < 0)
            return result;
        view->devices++;
    }
    return 0;
}

static int read_members(int fd, const struct ledger_header *header, uint64_t *live, struct ledger_view *view)
{
    uint32_t used = header->slots_used < header->slots ? header->slots_used : header->slots;

    for (uint32_t i = 0; i < used; i++) {
        struct ledger_slot slot;
        uint64_t at, end;
        int result = read_all(fd, &slot, sizeof(slot), header->slot_offset + (uint64_t)i * header->slot_stride);

        if (result < 0)
            return result;
        if (!slot.state)
            continue;
        result = sys_locked(fd, LEDGER_LOCK_SLOTS + i, 1, &at, &end);
        if (result < 0)
            return result;
        if (result) {
            live[i / 64] |= UINT64_C(1) << i % 64;
            view->members++;
        }
    }
    return 0;
}

int ledger_read(int dirfd, const char *name, struct ledger_view *view)
{
    union {
        struct ledger_header header;
        char bytes[LEDGER_HEADER_SIZE];
    } part;
    uint64_t live[LEDGER_SLOTS_CAP / 64] = {0};
    int saved = errno, folder, fd, result;
    struct stat status;

    memset(view, 0, sizeof(*view));
    memset(&part, 0, sizeof(part));
    folder = sys_openat(dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
    if (folder < 0) {
        errno = saved;
        return folder;
    }
    fd = sys_openat(folder, LEDGER_NAME, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    sys_close(folder);
    result = fd < 0 ? fd : sys_fstat(fd, &status);
    if (result >= 0 && (!S_ISREG(status.st_mode) || (uint64_t)status.st_size > LEDGER_FILE_CAP ||
                        sys_pread(fd, &part, sizeof(part), 0) < (ssize_t)sizeof(struct ledger_header) ||
                        ledger_header_fault(&part.header, &part, (uint64_t)status.st_size)))
        result = -EPROTO;
    if (result >= 0)
        result = read_members(fd, &part.header, live, view);
    if (result >= 0)
        result = read_devices(fd, &part.header, live, view);
    if (fd >= 0)
        sys_close(fd);
    errno = saved;
    return result;
}
