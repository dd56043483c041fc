/* SPDX-License-Identifier: Apache-2.0 */
/* The files of other tenants' turns: found, mapped for reading, and those of the dead collected. */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "ledger_internal.h"
#include "ledger_sys.h"
#include "softslice/log.h"
#include "turns_internal.h"

#define STAT_INTERVAL UINT64_C(5000000)    /* ns between looks at the folder's time: a newcomer's patience is 20 ms */
#define SCAN_INTERVAL UINT64_C(1000000000) /* between scans of it without a reason */

struct scan {
    struct turns_room *room;
    int folder;
};

static bool is_turns_name(const char *name)
{
    size_t length = strlen(name), suffix = strlen(TURNS_SUFFIX);

    return name[0] != '.' && length > suffix && length < TURNS_NAME_MAX && strcmp(name + length - suffix, TURNS_SUFFIX) == 0;
}

/* Remove the file of a tenant that ended. Whoever joins has the lock before it looks whether the file still has its name. */
static void collect(int folder, const char *name, const struct stat *status)
{
    int fd = sys_openat(folder, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    struct stat opened;

    if (fd < 0)
        return;
    if (sys_fstat(fd, &opened) == 0 && opened.st_ino == status->st_ino && opened.st_dev == status->st_dev &&
        sys_lock(fd, TURNS_LOCK_ALIVE, 1) == 0 && turns_is_named(folder, fd, name))
        sys_unlinkat(folder, name, 0);
    sys_close(fd);
}

/* Which of a peer's devices are ours. Looked up again at each scan: it may have added some. */
static void match_devices(struct turns_room *room, struct turns_peer *peer, int fd)
{
    uint8_t entry[TURNS_DEVICES];

    memset(entry, TURNS_NO_DEVICE, sizeof(entry));
    for (unsigned i = 0; i < TURNS_FILE_DEVICES; i++) {
        struct turns_device device;

        if (sys_pread(fd, &device, offsetof(struct turns_device, hold), TURNS_HEADER_SIZE + i * sizeof(device)) !=
                (ssize_t)offsetof(struct turns_device, hold) ||
            !device.key)
            break;
        for (unsigned own = 0; device.complete == device.key && own < TURNS_DEVICES; own++) {
            if (room->mine[own].entry && memcmp(room->mine[own].uuid, device.uuid, 16) == 0)
                entry[own] = (uint8_t)i;
        }
    }
    memcpy(peer->entry, entry, sizeof(entry));
}

static void map_peer(struct turns_room *room, int fd, const char *name, const struct stat *status,
                     const struct turns_header *header)
{
    for (unsigned i = 0; i < TURNS_PEERS; i++) {
        struct turns_peer *peer = &room->peer[i];

        if (peer->present)
            continue;
        /* In the place of what was there: a thread may still wait on a word of that. */
        if (mmap(turns_window(room, i), TURNS_VIEW_SIZE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
            return;
        madvise(turns_window(room, i), TURNS_WINDOW, MADV_DONTFORK);
        memset(peer, 0, sizeof(*peer));
        log_format(peer->name, sizeof(peer->name), "%s", name);
        peer->name[strlen(peer->name) - strlen(TURNS_SUFFIX)] = '\0';
        peer->file_device = status->st_dev;
        peer->file_inode = status->st_ino;
        peer->id = header->id;
        peer->foreign = status->st_uid != geteuid() || status->st_mode & (S_IWGRP | S_IWOTH);
        match_devices(room, peer, fd);
        peer->present = peer->here = true;
        __atomic_store_n(&room->peers, room->peers + 1, __ATOMIC_RELAXED);
        return;
    }
}

static void look_at(struct scan *scan, const char *name)
{
    struct turns_room *room = scan->room;
    int fd = sys_openat(scan->folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0), alive;
    struct turns_header header;
    struct stat status;

    if (fd < 0)
        return;
    if (turns_read_header(fd, &header, &status) < 0) {
        sys_close(fd);
        return;
    }
    alive = turns_is_alive(fd);
    if (alive == 0 && !(header.flags & TURNS_FLAG_KEEP) && status.st_uid == geteuid()) {
        collect(scan->folder, name, &status);
        sys_close(fd);
        return;
    }
    for (unsigned i = 0; i <= TURNS_PEERS; i++) {
        struct turns_peer *peer = &room->peer[i];

        if (i == TURNS_PEERS) {
            map_peer(room, fd, name, &status, &header);
            break;
        }
        if (!peer->present || peer->file_inode != status.st_ino || peer->file_device != status.st_dev)
            continue;
        peer->here = true;
        peer->dead = alive == 0;
        match_devices(room, peer, fd);
        for (unsigned device = 0; device < room->devices; device++) {
            uint64_t hold = 0;

            if (alive == 0 && peer->entry[device] != TURNS_NO_DEVICE &&
                sys_pread(fd, &hold, 8,
                          TURNS_HEADER_SIZE + peer->entry[device] * sizeof(struct turns_device) +
                              offsetof(struct turns_device, hold)) == 8)
                peer->track[device].dead = hold & TURNS_VALUE_MASK;
            else
                peer->track[device].dead = 0;
        }
        break;
    }
    sys_close(fd);
}

static int scan_work(void *argument)
{
    struct scan *scan = argument;
    struct turns_room *room = scan->room;
    char entries[4096] __attribute__((aligned(8)));
    ssize_t size;

    scan->folder = sys_openat(AT_FDCWD, room->folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (scan->folder < 0)
        return scan->folder;
    for (unsigned i = 0; i < TURNS_PEERS; i++)
        room->peer[i].here = false;
    while ((size = sys_getdents(scan->folder, entries, sizeof(entries))) > 0) {
        for (ssize_t at = 0; at < size;) {
            struct dirent64 *entry = (struct dirent64 *)(entries + at);

            at += entry->d_reclen;
            if (is_turns_name(entry->d_name) && strcmp(entry->d_name, room->name) != 0)
                look_at(scan, entry->d_name);
        }
    }
    sys_close(scan->folder);
    for (unsigned i = 0; size == 0 && i < TURNS_PEERS; i++) {
        struct turns_peer *peer = &room->peer[i];

        if (!peer->present || peer->here)
            continue;
        peer->present = false;
        __atomic_store_n(&room->peers, room->peers - 1, __ATOMIC_RELAXED);
        mmap(turns_window(room, i), TURNS_WINDOW, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        madvise(turns_window(room, i), TURNS_WINDOW, MADV_DONTFORK);
    }
    return 0;
}

void turns_scan(struct turns_room *room, uint64_t now, bool all)
{
    struct scan scan = {.room = room};
    struct stat status = {0};
    int saved = errno;
    bool changed;

    if (!room->folder[0] || (!all && now - room->last_stat < STAT_INTERVAL))
        return;
    room->last_stat = now;
    if (sys_lstatat(AT_FDCWD, room->folder, &status) < 0) {
        errno = saved;
        return;
    }
    changed = status.st_mtim.tv_sec != room->changed.tv_sec || status.st_mtim.tv_nsec != room->changed.tv_nsec;
    if (all || now - room->last_scan >= SCAN_INTERVAL || changed || room->scan_again) {
        /* The folder's time is that of the last tick: what comes right after the scan may have the same. */
        room->scan_again = changed;
        room->changed = status.st_mtim;
        room->last_scan = now;
        ledger_apart(scan_work, &scan);
    }
    errno = saved;
}
