/* SPDX-License-Identifier: Apache-2.0 */
/* Changing a running tenant's limits from outside. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "ledger_internal.h"
#include "ledger_sys.h"
#include "softslice/clock.h"

#define PATIENCE UINT64_C(1000000000) /* ns that a process may be joining */
#define ATTEMPTS 16                   /* while somebody replaces the folder */

/* While it is held nobody begins the tenant anew, which would undo half of a change. */
static int lock(int fd)
{
    uint64_t end = clock_now() + PATIENCE;
    int result;

    while ((result = sys_lock(fd, LEDGER_LOCK_ATTACH, 1)) == -EAGAIN && clock_now() < end)
        sys_sleep(1000000);
    return result;
}

static unsigned needs(const struct ledger_change *change)
{
    return (change->vram ? LEDGER_ARMS_VRAM : 0) | (change->compute || change->weighted ? LEDGER_ARMS_COMPUTE : 0);
}

static bool is_meant(const struct ledger *ledger, uint32_t device, const uint8_t uuid[16])
{
    const struct ledger_device *entry = ledger_device_at(ledger, device);
    uint64_t words[2] = {ledger_load(&entry->uuid[0]), ledger_load(&entry->uuid[1])};

    return ledger_load(&entry->complete) == LEDGER_COMPLETE && (!uuid || memcmp(words, uuid, sizeof(words)) == 0);
}

static void tell(struct ledger *ledger, enum ledger_kind kind, uint32_t device, uint64_t before, uint64_t after)
{
    struct ledger_told told = {.kind = kind,
                               .bytes = before,
                               .limit = after,
                               .current = kind == LEDGER_SET_VRAM ? ledger_total(ledger, device) : 0,
                               .pid = (uint32_t)getpid(),
                               .pid_namespace = ledger->pid_namespace,
                               .uid = getuid()};

    ledger_tell_of(ledger, &told, (int)device);
}

static void change_limit(struct ledger *ledger, uint32_t device, uint64_t limit)
{
    uint64_t before = ledger_limit(ledger, device);

    ledger_set_limit(ledger, device, limit);
    tell(ledger, LEDGER_SET_VRAM, device, before, ledger_limit(ledger, device));
}

static void change_share(struct ledger *ledger, uint32_t device, uint32_t share)
{
    uint64_t before = ledger_share(ledger, device);

    ledger_set_share(ledger, device, share);
    tell(ledger, LEDGER_SET_COMPUTE, device, before, share);
}

static void change_weight(struct ledger *ledger, uint32_t device, uint32_t weight)
{
    uint64_t before = ledger_weight(ledger, device);

    ledger_set_weight(ledger, device, weight);
    tell(ledger, LEDGER_SET_WEIGHT, device, before, weight);
}

/* Each value is one word, so that a member sees the old one or the new one. */
static int apply(struct ledger *ledger, const uint8_t uuid[16], const struct ledger_change *change)
{
    int count = 0;

    for (uint32_t i = 0; i < ledger->devices; i++) {
        if (!is_meant(ledger, i, uuid))
            continue;
        if (change->vram)
            change_limit(ledger, i, change->limit);
        if (change->compute)
            change_share(ledger, i, change->share);
        if (change->weighted)
            change_weight(ledger, i, change->weight);
        count++;
    }
    return count ? count : -ENODEV;
}

/* With the attach lock held. Members of a tenant trust each other, and who changes its file with them: it is mapped. */
static int change_locked(int fd, const struct ledger_header *header, const uint8_t uuid[16], const struct ledger_change *change,
                         struct ledger_view *before)
{
    struct ledger ledger = {.size = header->file_size, .pid_namespace = compat_inode("/proc/self/ns/pid")};
    int result = ledger_read_all(fd, header, before);
    void *file;

    if (result < 0)
        return result;
    if (!before->members)
        return -ESRCH;
    if (!before->devices)
        return -ENODEV;
    if (needs(change) & ~before->arms)
        return -EOPNOTSUPP;
    file = mmap(NULL, ledger.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (file == MAP_FAILED)
        return -errno;
    ledger.file = file;
    ledger_take_header(&ledger, header);
    result = apply(&ledger, uuid, change);
    clock_wake((uint32_t *)(void *)&ledger.file->asked, true); /* who sleeps longer without a limit looks at the new one */
    munmap(file, ledger.size);
    return result;
}

/* Where everybody may join, everybody can write the file. One that has a second name may be somebody else's, put there for root to change. */
int ledger_may_change(int fd)
{
    struct stat status;
    int result = sys_fstat(fd, &status);

    if (result < 0)
        return result;
    if (geteuid() != 0 && status.st_uid != geteuid())
        return -EPERM;
    return geteuid() == 0 && status.st_nlink > 1 ? -EMLINK : 0;
}

/* Whether the name still leads to what was opened: changing a file that nobody joins any more would be told as success. */
static bool still_named(int dirfd, const char *name, int fd)
{
    struct ledger_header header;
    struct stat opened, named;
    int again = ledger_open(dirfd, name, O_RDONLY, &header);
    bool same = again >= 0 && sys_fstat(fd, &opened) == 0 && sys_fstat(again, &named) == 0 && opened.st_ino == named.st_ino &&
                opened.st_dev == named.st_dev;

    if (again >= 0)
        sys_close(again);
    return same;
}

static int change_named(int dirfd, const char *name, const uint8_t uuid[16], const struct ledger_change *change,
                        struct ledger_view *before)
{
    struct ledger_header header;
    int fd = ledger_open(dirfd, name, O_RDWR, &header), result;

    if (fd < 0)
        return fd;
    result = ledger_may_change(fd);
    if (result >= 0)
        result = lock(fd);
    if (result >= 0)
        result = still_named(dirfd, name, fd) ? change_locked(fd, &header, uuid, change, before) : -ESTALE;
    sys_close(fd);
    return result;
}

int ledger_change(int dirfd, const char *name, const uint8_t uuid[16], const struct ledger_change *change,
                  struct ledger_view *before)
{
    int saved = errno, result = -ESTALE;

    for (unsigned i = 0; i < ATTEMPTS && result == -ESTALE; i++) {
        memset(before, 0, sizeof(*before));
        result = change_named(dirfd, name, uuid, change, before);
    }
    errno = saved;
    return result;
}
