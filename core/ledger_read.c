/* SPDX-License-Identifier: Apache-2.0 */
/* Reads a ledger without being a member: never mapped, for a file that somebody truncates must not become a SIGBUS in the reader. */
#include <errno.h>
#include <string.h>

#include "ledger_internal.h"
#include "ledger_sys.h"

static int read_all(int fd, void *buffer, size_t size, uint64_t offset)
{
    ssize_t got = sys_pread(fd, buffer, size, offset);

    return got == (ssize_t)size ? 0 : got < 0 ? (int)got : -EPROTO;
}

static int open_ledger(int dirfd, const char *name)
{
    int folder = sys_openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0), fd;

    if (folder < 0)
        return folder;
    fd = sys_openat(folder, LEDGER_NAME, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    sys_close(folder);
    return fd;
}

static int read_header(int fd, struct ledger_header *header)
{
    char constant[LEDGER_HEADER_SIZE];
    struct stat status;
    int result = sys_fstat(fd, &status);

    if (result == 0 &&
        (!S_ISREG(status.st_mode) || status.st_size < LEDGER_HEADER_SIZE || (uint64_t)status.st_size > LEDGER_FILE_CAP))
        result = -EPROTO;
    if (result == 0)
        result = read_all(fd, constant, sizeof(constant), 0);
    if (result < 0)
        return result;
    memcpy(header, constant, sizeof(*header));
    return ledger_header_fault(header, constant, (uint64_t)status.st_size) ? -EPROTO : 0;
}

/* The entry of `uuid`: its index, -ENOENT, or another -errno. */
static int find_device(int fd, const struct ledger_header *header, const uint8_t uuid[16], struct ledger_device *device)
{
    for (uint32_t i = 0; i < header->devices; i++) {
        int result = read_all(fd, device, sizeof(*device), header->device_offset + (uint64_t)i * header->device_stride);

        if (result < 0)
            return result;
        if (!device->key)
            return -ENOENT;
        if (device->complete == LEDGER_COMPLETE && memcmp(device->uuid, uuid, 16) == 0)
            return (int)i;
    }
    return -ENOENT;
}

static uint64_t add(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

int ledger_read_device(int dirfd, const char *name, const uint8_t uuid[16], struct ledger_device_state *state)
{
    int fd = open_ledger(dirfd, name), index, result;
    struct ledger_header header;
    struct ledger_device device;

    if (fd < 0)
        return fd;
    result = read_header(fd, &header);
    index = result < 0 ? result : find_device(fd, &header, uuid, &device);
    if (index < 0) {
        sys_close(fd);
        return index;
    }
    *state = (struct ledger_device_state){
        .limit = ledger_limit_decode(device.limit), .peak = device.peak, .context_bytes = device.context_bytes};
    memcpy(state->uuid, uuid, 16);
    memcpy(state->events, device.events, sizeof(state->events));
    for (uint32_t i = 0; i < header.slots && i < header.slots_used; i++) {
        uint64_t hold_at = header.hold_offset + ((uint64_t)(unsigned)index * header.slots + i) * header.hold_stride, at, end;
        struct ledger_hold hold;

        if ((result = read_all(fd, &hold, sizeof(hold), hold_at)) < 0)
            break;
        /* What the dead left is nobody's, though it stands there until a member buries them. */
        if ((hold.tentative || hold.committed) && sys_locked(fd, LEDGER_LOCK_SLOTS + i, 1, &at, &end) == 1) {
            state->tentative = add(state->tentative, hold.tentative);
            state->current = add(state->current, add(hold.tentative, hold.committed));
        }
    }
    sys_close(fd);
    return result < 0 ? result : 0;
}
