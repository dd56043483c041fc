/* SPDX-License-Identifier: Apache-2.0 */
/* Writes HAMi's cache file. Everybody in the container can write it, cut it or put something else in its place at any time: it is never mapped here, only
 * read and written through the kernel, in a task with descriptors of its own. A process that is killed half-way leaves what the next one repairs. */
#include "softslice/hami.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "ledger_internal.h"
#include "ledger_sys.h"
#include "new_file.h"

#define TEMPORARY ".softslice-"

struct work {
    const char *path;
    const struct hami_told *told; /* NULL: this process leaves */
    uint32_t slot;
    bool holds;
};

/* A semaphore that nobody has, as glibc lays it out between processes: for HAMi's own library, should it follow. */
static void begin_semaphore(uint8_t bytes[32])
{
    static const uint32_t one = 1, shared = 128;

    memset(bytes, 0, 32);
    memcpy(bytes, &one, sizeof(one));
    memcpy(bytes + 8, &shared, sizeof(shared));
}

static void take_devices(struct hami_head *head, const struct hami_told *told)
{
    for (uint32_t i = 0; i < told->devices && i < HAMI_DEVICES; i++) {
        if (!told->device[i].uuid[0])
            continue;
        memcpy(head->uuid[i], told->device[i].uuid, HAMI_UUID);
        head->limit[i] = told->device[i].limit;
        head->share[i] = told->device[i].share;
    }
    if (head->devices > HAMI_DEVICES)
        head->devices = 0;
    if (head->devices < told->devices)
        head->devices = told->devices < HAMI_DEVICES ? told->devices : HAMI_DEVICES;
}

void hami_begin(const struct hami_told *told, struct hami_head *head, struct hami_tail *tail)
{
    *head = (struct hami_head){.magic = HAMI_MAGIC, .major = HAMI_MAJOR, .minor = HAMI_MINOR};
    begin_semaphore(head->locked);
    take_devices(head, told);
    /* Until a monitor says otherwise, the limit of compute holds. */
    *tail = (struct hami_tail){.share_holds = 1, .recent_kernel = 2, .priority = told->priority != 0};
    begin_semaphore(tail->locked_too);
}

static int put(int fd, const void *data, size_t size, uint64_t at)
{
    ssize_t written = sys_pwrite(fd, data, size, at);

    return written == (ssize_t)size ? 0 : written < 0 ? (int)written : -EIO;
}

/* ---- the file */

static int create(const struct work *work)
{
    char folder_path[PATH_MAX], temporary[NEW_FILE_TEMPORARY] = "";
    const char *name = strrchr(work->path, '/') + 1;
    size_t length = (size_t)(name - work->path);
    struct hami_head head;
    struct hami_tail tail;
    int folder, fd, result = -ENOENT;

    if (length >= sizeof(folder_path))
        return -ENAMETOOLONG;
    memcpy(folder_path, work->path, length);
    folder_path[length] = '\0';
    folder = sys_openat(AT_FDCWD, folder_path, O_RDONLY | O_DIRECTORY, 0);
    if (folder < 0)
        return folder;
    hami_begin(work->told, &head, &tail);
    /* Where a file without a name cannot be given one, the second attempt begins with another name. */
    for (unsigned attempt = 0; attempt < 2 && result == -ENOENT; attempt++) {
        if (attempt)
            memcpy(temporary, ".", 2);
        fd = new_file_create(folder, TEMPORARY, 0666, HAMI_SIZE, &head, sizeof(head), temporary);
        result = fd;
        if (fd < 0)
            break;
        result = put(fd, &tail, sizeof(tail), HAMI_TAIL_AT);
        if (result == 0)
            result = new_file_publish(folder, fd, temporary, name);
        else if (*temporary)
            sys_unlinkat(folder, temporary, 0);
        sys_close(fd);
    }
    sys_close(folder);
    return result == -EEXIST ? 0 : result;
}

static int open_file(const char *path, struct stat *status)
{
    int fd = sys_openat(AT_FDCWD, path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0), result;

    if (fd < 0)
        return fd;
    result = sys_fstat(fd, status);
    if (result == 0 && S_ISREG(status->st_mode) && status->st_size <= INT_MAX)
        return fd;
    sys_close(fd);
    return result < 0 ? result : -EPROTO;
}

/* HAMi's library makes the file before it fills it, and may have been killed between the two. Complete it; the magic number comes last. */
static int complete(int fd, const struct work *work)
{
    struct hami_head head;
    struct hami_tail tail;
    int result = sys_fallocate(fd, HAMI_SIZE);

    if (result < 0 && result != -EOPNOTSUPP && result != -ENOSYS)
        return result;
    hami_begin(work->told, &head, &tail);
    result = put(fd, "", 1, HAMI_SIZE - 1);
    if (!result)
        result = put(fd, &tail, sizeof(tail), HAMI_TAIL_AT);
    if (!result)
        result = put(fd, (char *)&head + sizeof(head.magic), sizeof(head) - sizeof(head.magic), sizeof(head.magic));
    return result ? result : put(fd, &head.magic, sizeof(head.magic), 0);
}

/* Its descriptor, with *head as it is in the file, or -errno. */
static int open_cache(const struct work *work, struct hami_head *head)
{
    struct stat status;
    int fd = open_file(work->path, &status), result;

    if (fd == -ENOENT && work->told) {
        result = create(work);
        if (result < 0)
            return result;
        fd = open_file(work->path, &status);
    }
    if (fd < 0)
        return fd;
    memset(head, 0, sizeof(*head));
    sys_pread(fd, head, sizeof(*head), 0);
    result = 0;
    if (head->magic == 0 && (uint64_t)status.st_size <= HAMI_SIZE && work->told) {
        result = complete(fd, work);
        if (!result && sys_pread(fd, head, sizeof(*head), 0) != (ssize_t)sizeof(*head))
            result = -EIO;
    } else if ((uint64_t)status.st_size < HAMI_LEAST || head->magic != HAMI_MAGIC || head->major != HAMI_MAJOR) {
        result = -EPROTO;
    }
    if (!result)
        return fd;
    sys_close(fd);
    return result;
}

/* ---- slots */

static bool lives(const struct hami_told *told, uint32_t slot)
{
    return told->living[slot / 64] >> (slot % 64) & 1;
}

/* What is in a slot that none of ours has: nothing any more, unless it is of a living process that uses HAMi's own library. */
enum content { NOTHING, ENDED, THEIRS };

static enum content look(int fd, const struct hami_told *told, uint32_t slot)
{
    static const struct hami_slot empty;
    struct hami_slot found;

    if (sys_pread(fd, &found, sizeof(found), HAMI_SLOT_AT(slot)) != (ssize_t)sizeof(found))
        return ENDED;
    if (memcmp(&found, &empty, sizeof(found)) == 0)
        return NOTHING;
    if (found.author == HAMI_AUTHOR || found.pid <= 0 || (told && found.pid == told->own.pid) ||
        sys_result(syscall(SYS_kill, found.pid, 0)) == -ESRCH)
        return ENDED;
    return THEIRS;
}

/* Empty the slots of the dead, from the highest that anybody may take for used. How many there are then, or -errno. */
static int clear_dead(int fd, const struct hami_told *told, uint32_t used)
{
    static const struct hami_slot empty;
    uint32_t count = 0;
    int result = 0;

    for (uint32_t slot = used; slot-- > 0 && !result;) {
        enum content content = lives(told, slot) ? THEIRS : look(fd, told, slot);

        if (content == ENDED)
            result = put(fd, &empty, sizeof(empty), HAMI_SLOT_AT(slot));
        else if (content == THEIRS && !count)
            count = slot + 1;
    }
    return result ? result : (int)count;
}

/* One more than the highest slot that somebody lives in. */
static uint32_t highest(const struct hami_told *told)
{
    for (uint32_t slot = HAMI_SLOTS; slot-- > 0;) {
        if (lives(told, slot))
            return slot + 1;
    }
    return 0;
}

static int put_slots(int fd, const struct hami_told *told, struct hami_tail *tail)
{
    uint32_t used = tail->slots_used > 0 && tail->slots_used <= HAMI_SLOTS ? (uint32_t)tail->slots_used : 0, most = highest(told);
    int result;

    /* HAMi's library gives its slots out by another rule. Its process goes on counting there; ours is not shown until that ends. */
    if (look(fd, told, told->slot) != THEIRS) {
        result = put(fd, &told->own, sizeof(told->own), HAMI_SLOT_AT(told->slot));
        if (result)
            return result;
    }
    result = clear_dead(fd, told, used > most ? used : most);
    if (result < 0)
        return result;
    tail->slots_used = result;
    return put(fd, &tail->slots_used, sizeof(tail->slots_used), HAMI_TAIL_AT + offsetof(struct hami_tail, slots_used));
}

/* The monitor counts recent_kernel down, and takes a container for idle at 0; below that it wants it to wait, which is its business with HAMi's library. */
static int put_activity(int fd, const struct hami_told *told, const struct hami_tail *tail)
{
    static const int32_t recent = 2;
    int64_t now = (int64_t)(sys_now(CLOCK_REALTIME) / UINT64_C(1000000000));
    int result = 0;

    if (told->active && tail->recent_kernel >= 0 && tail->recent_kernel != recent)
        result = put(fd, &recent, sizeof(recent), HAMI_TAIL_AT + offsetof(struct hami_tail, recent_kernel));
    if (!result && told->worked)
        result = put(fd, &now, sizeof(now), HAMI_TAIL_AT + offsetof(struct hami_tail, last_kernel));
    return result;
}

static int put_head(int fd, const struct hami_told *told, const struct hami_head *found)
{
    struct hami_head head = *found;
    size_t from = offsetof(struct hami_head, devices);

    if (told->begins)
        memset((char *)&head + from, 0, sizeof(head) - from);
    take_devices(&head, told);
    return memcmp(&head, found, sizeof(head)) ? put(fd, (char *)&head + from, sizeof(head) - from, from) : 0;
}

static int put_priority(int fd, const struct hami_told *told, const struct hami_tail *tail)
{
    int32_t priority = told->priority != 0;

    /* The monitor uses it as an index, whatever it is. */
    if (!told->begins && (tail->priority == 0 || tail->priority == 1))
        return 0;
    return put(fd, &priority, sizeof(priority), HAMI_TAIL_AT + offsetof(struct hami_tail, priority));
}

static int tell(int fd, struct work *work, const struct hami_head *head)
{
    struct hami_tail tail;
    int result;

    if (sys_pread(fd, &tail, sizeof(tail), HAMI_TAIL_AT) != (ssize_t)sizeof(tail))
        return -EPROTO;
    work->holds = tail.share_holds != 0;
    result = put_head(fd, work->told, head);
    if (!result)
        result = put_slots(fd, work->told, &tail);
    if (!result)
        result = put_priority(fd, work->told, &tail);
    return result ? result : put_activity(fd, work->told, &tail);
}

static int do_work(void *argument)
{
    static const struct hami_slot empty;
    struct work *work = argument;
    struct hami_head head;
    int fd = open_cache(work, &head), result = 0;

    if (fd < 0)
        return fd;
    if (work->told)
        result = tell(fd, work, &head);
    else if (look(fd, NULL, work->slot) == ENDED)
        put(fd, &empty, sizeof(empty), HAMI_SLOT_AT(work->slot));
    sys_close(fd);
    return result;
}

int hami_tell(const char *path, const struct hami_told *told, bool *holds)
{
    struct work work = {.path = path, .told = told, .slot = told->slot, .holds = *holds};
    int result = told->slot < HAMI_SLOTS ? ledger_apart(do_work, &work) : -ERANGE;

    if (result == 0)
        *holds = work.holds;
    return result;
}

void hami_leave(const char *path, uint32_t slot)
{
    struct work work = {.path = path, .slot = slot};

    if (slot < HAMI_SLOTS)
        ledger_apart(do_work, &work);
}
