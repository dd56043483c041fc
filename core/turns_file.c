/* SPDX-License-Identifier: Apache-2.0 */
/* The own file of turns: made whole and published by link like the ledger's. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "ledger_internal.h"
#include "ledger_sys.h"
#include "new_file.h"
#include "lock.h"
#include "softslice/log.h"
#include "turns_internal.h"

#define ATTEMPTS 64

static int fail(struct turns *turns, int code, const char *what, const char *name)
{
    log_format(turns->error, sizeof(turns->error), "turns: cannot %s %s: %s", what, name, ledger_reason(code));
    return code;
}

/* ---- headers and files */

static void init_header(struct turns_header *header, uint64_t flags)
{
    *header = (struct turns_header){.magic = TURNS_MAGIC,
                                    .major = TURNS_MAJOR,
                                    .minor = TURNS_MINOR,
                                    .devices = TURNS_FILE_DEVICES,
                                    .file_size = TURNS_FILE_SIZE,
                                    .device_offset = TURNS_HEADER_SIZE,
                                    .device_stride = sizeof(struct turns_device),
                                    .slot_offset = TURNS_VIEW_SIZE,
                                    .slots = TURNS_FILE_SLOTS,
                                    .id = sys_random(),
                                    .flags = flags};
    header->check = ledger_checksum(header, offsetof(struct turns_header, check));
}

static bool header_is_good(const struct turns_header *header, uint64_t size)
{
    return header->magic == TURNS_MAGIC && header->major == TURNS_MAJOR &&
           header->check == ledger_checksum(header, offsetof(struct turns_header, check)) &&
           header->devices == TURNS_FILE_DEVICES && header->file_size >= TURNS_FILE_SIZE && header->file_size == size &&
           header->device_offset == TURNS_HEADER_SIZE && header->device_stride == sizeof(struct turns_device) &&
           header->slot_offset == TURNS_VIEW_SIZE && header->slots == TURNS_FILE_SLOTS;
}

int turns_read_header(int fd, struct turns_header *header, struct stat *status)
{
    int result = sys_fstat(fd, status);

    if (result < 0)
        return result;
    if (!S_ISREG(status->st_mode) || status->st_size < TURNS_FILE_SIZE || status->st_size > 1 << 20 ||
        sys_pread(fd, header, sizeof(*header), 0) != (ssize_t)sizeof(*header) || !header_is_good(header, (uint64_t)status->st_size))
        return -EPROTO;
    return 0;
}

static int create(int folder, unsigned mode, uint64_t flags, char temporary[NEW_FILE_TEMPORARY])
{
    struct turns_header header;

    init_header(&header, flags);
    return new_file_create(folder, TURNS_TEMPORARY, mode, TURNS_FILE_SIZE, &header, sizeof(header), temporary);
}

bool turns_is_named(int folder, int fd, const char *name)
{
    struct stat named, opened;

    return sys_fstat(fd, &opened) == 0 && sys_lstatat(folder, name, &named) == 0 && named.st_ino == opened.st_ino &&
           named.st_dev == opened.st_dev;
}

int turns_is_alive(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)TURNS_LOCK_ALIVE, .l_len = 1};
    int result = (int)sys_result(syscall(SYS_fcntl, fd, F_OFD_GETLK, &lock));

    return result < 0 ? result : lock.l_type != F_UNLCK;
}

static int open_folder(struct turns *turns, int dirfd, struct stat *status)
{
    struct ledger scratch_error;
    struct stat state;
    int result = sys_fstat(dirfd, &state), fd;

    if (result < 0)
        return fail(turns, result, "look at", "the state directory");
    fd = ledger_folder_open(&scratch_error, dirfd, TURNS_FOLDER, ledger_dir_trust(&state), false);
    if (fd < 0) {
        log_format(turns->error, sizeof(turns->error), "turns: %s", scratch_error.error);
        return fd;
    }
    result = sys_fstat(fd, status);
    if (result < 0) {
        sys_close(fd);
        return fail(turns, result, "look at", "the folder of turns");
    }
    return fd;
}

static bool make_name(char name[TURNS_NAME_MAX], const char *tenant)
{
    if (!*tenant || *tenant == '.' || strchr(tenant, '/') || strlen(tenant) >= 64)
        return false;
    log_format(name, TURNS_NAME_MAX, "%s" TURNS_SUFFIX, tenant);
    return true;
}

/* ---- joining */

struct join {
    struct turns *turns;
    struct turns_room *room;
    int dirfd, folder, fd;
    char temporary[NEW_FILE_TEMPORARY];
};

static int open_own(struct join *join, bool *created)
{
    struct turns_room *room = join->room;
    struct turns_header header;
    struct stat status, folder;
    unsigned mode;
    int result;

    *created = false;
    result = sys_fstat(join->folder, &folder);
    if (result < 0)
        return result;
    join->fd = sys_openat(join->folder, room->name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    if (join->fd == -ENOENT) {
        mode = ledger_dir_trust(&folder) != LEDGER_SHARED ? 0600 : strncmp(room->name, LEDGER_OWN_PREFIX, 5) == 0 ? 0644 : 0666;
        join->fd = create(join->folder, mode, 0, join->temporary);
        *created = join->fd >= 0;
    }
    if (join->fd < 0)
        return join->fd;
    result = turns_read_header(join->fd, &header, &status);
    if (result == 0 && status.st_uid != geteuid() && ledger_dir_trust(&folder) == LEDGER_PRIVATE &&
        ledger_dir_trust(&status) == LEDGER_FOREIGN)
        result = -EACCES;
    if (result == 0)
        result = sys_fallocate(join->fd, (uint64_t)status.st_size);
    if (result == -EOPNOTSUPP || result == -ENOSYS)
        result = 0;
    room->own_inode = status.st_ino;
    room->id = header.id;
    return result;
}

/* The first process of a life: nothing of the one before is held, wanted or used. */
static void begin_life(struct turns_room *room)
{
    struct turns_device *device = (struct turns_device *)(room->own + TURNS_HEADER_SIZE);

    for (unsigned i = 0; i < TURNS_FILE_DEVICES; i++) {
        __atomic_store_n(&device[i].hold, 0, __ATOMIC_SEQ_CST);
        __atomic_store_n(&device[i].want, 0, __ATOMIC_SEQ_CST);
        __atomic_store_n(&device[i].since, 0, __ATOMIC_SEQ_CST);
        __atomic_store_n(&device[i].turn_used, 0, __ATOMIC_SEQ_CST);
    }
    memset(room->own + TURNS_VIEW_SIZE, 0, TURNS_FILE_SIZE - TURNS_VIEW_SIZE);
    for (unsigned i = 0; i < TURNS_FILE_DEVICES; i++) {
        if (device[i].key && device[i].complete != device[i].key) {
            __atomic_store_n(&device[i].complete, 0, __ATOMIC_SEQ_CST);
            __atomic_store_n(&device[i].key, 0, __ATOMIC_SEQ_CST);
        }
    }
}

/* Map it, lock it, and see that it is still the one. The lock lives as long as the mapping. 1: again from the beginning. */
static int hold_own(struct join *join, bool created)
{
    struct turns_room *room = join->room;
    bool first = sys_lock(join->fd, TURNS_LOCK_ALIVE, 1) == 0;
    int result = 0;

    if (!first)
        result = sys_lock_as(join->fd, F_RDLCK, TURNS_LOCK_ALIVE, 1);
    if (result == -EAGAIN)
        return 1;
    if (result < 0)
        return result;
    result = created ? new_file_publish(join->folder, join->fd, join->temporary, room->name) : 0;
    if (result == -ENOENT && !join->temporary[0]) {
        /* Where a file without a name cannot be given one, the next attempt begins with a temporary one. */
        join->temporary[0] = '.';
        join->temporary[1] = '\0';
        return 1;
    }
    if (result < 0 && result != -EEXIST)
        return result;
    if (result == -EEXIST || !turns_is_named(join->folder, join->fd, room->name))
        return 1;
    room->own = mmap(NULL, TURNS_FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, join->fd, 0);
    if (room->own == MAP_FAILED) {
        room->own = NULL;
        return -errno;
    }
    madvise(room->own, TURNS_FILE_SIZE, MADV_DONTFORK);
    if (first) {
        begin_life(room);
        result = sys_lock_as(join->fd, F_RDLCK, TURNS_LOCK_ALIVE, 1);
    }
    /* The last slot is shared by all that find no other. */
    for (room->slot = 0; room->slot < TURNS_FILE_SLOTS - 1; room->slot++) {
        if (sys_lock(join->fd, TURNS_LOCK_SLOTS + room->slot, 1) == 0)
            break;
    }
    return 0;
}

static int join_work(void *argument)
{
    struct join *join = argument;
    struct turns_room *room = join->room;
    struct stat status;
    bool created;
    int result = 1;

    if (room->own)
        munmap(room->own, TURNS_FILE_SIZE);
    room->own = NULL;
    join->temporary[0] = '\0';
    join->folder = open_folder(join->turns, join->dirfd, &status);
    if (join->folder < 0)
        return join->folder;
    for (unsigned attempt = 0; result == 1 && attempt < ATTEMPTS; attempt++) {
        if (attempt)
            sys_sleep(100000 + sys_random() % 400000);
        result = open_own(join, &created);
        if (result == 0)
            result = hold_own(join, created);
        if (result && created && join->temporary[0] && join->temporary[1])
            sys_unlinkat(join->folder, join->temporary, 0);
        if (join->fd >= 0)
            sys_close(join->fd);
    }
    if (result == 0) {
        char self[40];
        ssize_t length;

        log_format(self, sizeof(self), "/proc/self/fd/%d", join->folder);
        length = sys_readlinkat(AT_FDCWD, self, room->folder, sizeof(room->folder) - 1);
        room->folder[length > 0 && room->folder[0] == '/' ? length : 0] = '\0';
    }
    sys_close(join->folder);
    if (result == 1)
        result = -EAGAIN;
    return result < 0 ? fail(join->turns, result, "join with", room->name) : 0;
}

/* Find or add a device in the own file. */
static struct turns_device *add_device(struct turns_room *room, const uint8_t uuid[16], unsigned *index)
{
    uint64_t words[2], key;

    memcpy(words, uuid, sizeof(words));
    key = ledger_key(words);
    for (unsigned i = 0; i < TURNS_FILE_DEVICES; i++) {
        struct turns_device *device = (struct turns_device *)(room->own + TURNS_HEADER_SIZE) + i;
        uint64_t expected = 0;

        __atomic_compare_exchange_n(&device->key, &expected, key, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        if (expected && expected != key)
            continue;
        __atomic_store_n(&device->uuid[0], words[0], __ATOMIC_SEQ_CST);
        __atomic_store_n(&device->uuid[1], words[1], __ATOMIC_SEQ_CST);
        __atomic_store_n(&device->complete, key, __ATOMIC_SEQ_CST);
        *index = i;
        return device;
    }
    return NULL;
}

static uint64_t within(uint64_t value, uint64_t standard, uint64_t least, uint64_t most)
{
    if (!value)
        return standard;
    return value < least ? least : value > most ? most : value;
}

static int set_up(struct turns *turns, struct turns_room *room, const uint8_t (*uuid)[16], unsigned devices,
                  const struct turns_settings *settings)
{
    room->quantum = within(settings->quantum, TURNS_QUANTUM, 1000000, 1000000000);
    room->grace = within(settings->grace, TURNS_GRACE, 10000, room->quantum);
    room->minimum = within(settings->minimum, TURNS_MINIMUM, 10000, room->quantum);
    room->credit = within(settings->credit, TURNS_CREDIT, 1, 1000000000);
    for (unsigned i = 0; i < devices; i++) {
        struct turns_mine *mine = &room->mine[i];
        uint32_t weight = settings->weight[i] ? settings->weight[i] : TURNS_WEIGHT;
        unsigned index;

        memcpy(mine->uuid, uuid[i], 16);
        mine->entry = add_device(room, uuid[i], &index);
        if (!mine->entry) {
            log_format(turns->error, sizeof(turns->error), "turns: no room for another device in %s", room->name);
            return -ENOSPC;
        }
        mine->slots = (uint64_t *)(room->own + TURNS_VIEW_SIZE) + (size_t)index * TURNS_FILE_SLOTS;
        turns_store(&mine->entry->settings, TURNS_WORD_SETTINGS,
                    turns_settings_word(weight < TURNS_WEIGHT_MAX ? weight : TURNS_WEIGHT_MAX, settings->share[i], settings->mode,
                                        room->quantum));
    }
    room->devices = devices;
    return 0;
}

static void dissolve(struct turns_room *room)
{
    if (room->own)
        munmap(room->own, TURNS_FILE_SIZE);
    if (room->windows)
        munmap(room->windows, (size_t)TURNS_PEERS * TURNS_WINDOW);
    munmap(room, sizeof(*room));
}

int turns_join(struct turns *turns, int dirfd, const char *tenant, const uint8_t (*uuid)[16], unsigned devices,
               const struct turns_settings *settings, uint64_t now)
{
    struct join join = {.turns = turns, .dirfd = dirfd, .fd = -1};
    int saved = errno, result;
    struct turns_room *room;

    if (devices > TURNS_DEVICES || turns->room)
        return fail(turns, -EINVAL, "join with", tenant);
    room = mmap(NULL, sizeof(*room), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) {
        errno = saved;
        return fail(turns, -ENOMEM, "join with", tenant);
    }
    madvise(room, sizeof(*room), MADV_DONTFORK);
    room->windows = mmap(NULL, (size_t)TURNS_PEERS * TURNS_WINDOW, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room->windows == MAP_FAILED)
        room->windows = NULL;
    else
        madvise(room->windows, (size_t)TURNS_PEERS * TURNS_WINDOW, MADV_DONTFORK);
    room->pid = (int)syscall(SYS_getpid);
    join.room = room;
    if (!make_name(room->name, tenant))
        result = fail(turns, -EINVAL, "join with the name", tenant);
    else if (!room->windows)
        result = fail(turns, -ENOMEM, "join with", tenant);
    else
        result = ledger_apart(join_work, &join);
    if (result == 0)
        result = set_up(turns, room, uuid, devices, settings);
    if (result == 0) {
        turns_scan(room, now, true);
        __atomic_store_n(&turns->room, room, __ATOMIC_SEQ_CST);
    } else {
        dissolve(room);
    }
    errno = saved;
    return result;
}

void turns_leave(struct turns *turns, uint64_t now)
{
    int saved = errno;

    if (!turns->room)
        return;
    turns_release(turns, UINT64_MAX, now, 0);
    dissolve(turns->room);
    *turns = (struct turns){0};
    errno = saved;
}

struct prepare {
    struct turns *turns;
    int dirfd;
    unsigned mode;
    const char *name;
};

static int prepare_work(void *argument)
{
    struct prepare *prepare = argument;
    char temporary[NEW_FILE_TEMPORARY] = "";
    struct stat status;
    int folder = open_folder(prepare->turns, prepare->dirfd, &status), fd, result;

    if (folder < 0)
        return folder;
    for (unsigned attempt = 0;; attempt++) {
        fd = create(folder, prepare->mode, TURNS_FLAG_KEEP, temporary);
        result = fd < 0 ? fd : new_file_publish(folder, fd, temporary, prepare->name);
        if (fd >= 0)
            sys_close(fd);
        if (result != -ENOENT || attempt)
            break;
        temporary[0] = '.';
        temporary[1] = '\0';
    }
    sys_close(folder);
    return result == -EEXIST ? 0 : result;
}

int turns_prepare(int dirfd, const char *tenant, unsigned mode)
{
    char name[TURNS_NAME_MAX];
    struct turns turns = {0};
    struct prepare prepare = {&turns, dirfd, mode, name};
    int saved = errno, result;

    if (!make_name(name, tenant))
        return -EINVAL;
    result = ledger_apart(prepare_work, &prepare);
    errno = saved;
    return result;
}
