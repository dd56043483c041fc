/* SPDX-License-Identifier: Apache-2.0 */
/* How a process joins a tenant and leaves it. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "ledger_internal.h"
#include "ledger_sys.h"
#include "softslice/clock.h"
#include "softslice/log.h"

#define ATTACH_PATIENCE UINT64_C(5000000000) /* ns that another process may keep the attach lock */
#define ATTACH_ATTEMPTS 64                   /* of what a concurrent creation, removal or fork makes one repeat */
#define ATTACH_AGAIN    1                    /* such a thing happened */
#define FULL_SLEEP      (LEDGER_DEAD_NS / 32)

/* What one attach works with. Descriptors are those of the task that it runs in. */
struct attach {
    struct ledger *ledger; /* the caller's: receives the error, and the rest at the very end */
    int dirfd, pid;
    enum ledger_trust trust; /* of the state directory */
    const char *tenant;      /* NULL: this process alone */
    char name[64];           /* of the folder */
    bool watch_forks;        /* /proc/self/pagemap works */
    bool full;               /* but for the dead: they make room soon */
    int folder, fd;
    char temporary[NEW_FILE_TEMPORARY]; /* ledger_file_create() */
    bool created;
    struct ledger made; /* filled here, so that the caller's stays "not attached" until all is done */
};

/* ---- a page that tells whether this process was forked while it was looked at
 *
 * A fork by another thread between mmap() and madvise(MADV_DONTFORK) would leave the mapping, and with it the slot's lock, in the
 * child. A private page that nobody writes to is shared with every such child for as long as that lives and has not called exec, and
 * the kernel says so in /proc/self/pagemap. The lock is taken only when it says that there is none. */

/* 1 the page is ours alone, 0 it is shared, -errno it cannot be told. */
static int page_is_exclusive(const void *page)
{
    int fd = sys_openat(AT_FDCWD, "/proc/self/pagemap", O_RDONLY, 0);
    uint64_t entry;
    ssize_t size;

    if (fd < 0)
        return fd;
    size = sys_pread(fd, &entry, sizeof(entry), (uintptr_t)page / (uint64_t)sysconf(_SC_PAGESIZE) * sizeof(entry));
    sys_close(fd);
    if (size != (ssize_t)sizeof(entry))
        return -EIO;
    return (entry >> 63) && (entry >> 56 & 1);
}

static volatile char *watch_page(void)
{
    volatile char *page = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED)
        return NULL;
    *page = 1;
    return page;
}

/* Map the file that attach->fd is, so that no other process shares the mapping. */
static int map_alone(struct attach *attach)
{
    struct ledger *made = &attach->made;
    volatile char *page = attach->watch_forks ? watch_page() : NULL;
    int result = 0;
    void *file;

    if (page && page_is_exclusive((const void *)page) < 0)
        attach->watch_forks = false;
    file = mmap(NULL, made->size, PROT_READ | PROT_WRITE, MAP_SHARED, attach->fd, 0);
    if (file == MAP_FAILED) {
        result = ledger_fail(attach->ledger, -errno, "cannot map the ledger of tenant %s: %s", attach->name, ledger_reason(-errno));
    } else {
        made->file = file;
        madvise(file, made->size, MADV_DONTFORK);
        if (page && attach->watch_forks && page_is_exclusive((const void *)page) == 0)
            result = ATTACH_AGAIN;
    }
    if (page)
        munmap((void *)page, 1);
    return result;
}

/* ---- the file */

static int damaged(struct attach *attach, const char *what)
{
    return ledger_fail(attach->ledger, -EPROTO, "ledger %s is damaged: %s", attach->made.path[0] ? attach->made.path : attach->name,
                       what);
}

static int cannot(struct attach *attach, const char *what, int code)
{
    return ledger_fail(attach->ledger, code, "cannot %s the ledger of tenant %s: %s", what, attach->name, ledger_reason(code));
}

/* Learn the file's path from the folder's: the program's working directory and root may change later, its ledger's name not. */
static void learn_path(struct attach *attach)
{
    char self[40];
    ssize_t length;
    char *path = attach->made.path;

    log_format(self, sizeof(self), "/proc/self/fd/%d", attach->folder);
    length = sys_readlinkat(AT_FDCWD, self, path, sizeof(attach->made.path) - sizeof("/" LEDGER_NAME));
    if (length <= 0 || path[0] != '/' || (size_t)length >= sizeof(attach->made.path) - sizeof("/" LEDGER_NAME))
        path[0] = '\0';
    else
        memcpy(path + length, "/" LEDGER_NAME, sizeof("/" LEDGER_NAME));
}

static int open_file(struct attach *attach)
{
    struct stat status;
    struct stat folder;
    unsigned mode = 0600;
    int result;

    attach->created = false;
    attach->fd = attach->tenant ? sys_openat(attach->folder, LEDGER_NAME, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0) : -ENOENT;
    if (attach->fd == -ENOENT) {
        result = sys_fstat(attach->folder, &folder);
        if (result < 0)
            return cannot(attach, "look at", result);
        if (ledger_dir_trust(&folder) == LEDGER_SHARED)
            mode = 0666;
        else if (attach->trust == LEDGER_SHARED && !attach->tenant)
            mode = 0644;
        attach->fd = ledger_file_create(attach->folder, attach->tenant ? LEDGER_SLOTS : 1, mode, attach->temporary);
        /* The folder was collected between its making and this. */
        if (attach->fd == -ENOENT)
            return ATTACH_AGAIN;
        if (attach->fd < 0)
            return cannot(attach, "create", attach->fd);
        attach->created = true;
    }
    if (attach->fd < 0)
        return cannot(attach, "open", attach->fd);
    result = sys_fstat(attach->fd, &status);
    if (result < 0)
        return cannot(attach, "look at", result);
    if (!S_ISREG(status.st_mode))
        return damaged(attach, "not a regular file");
    if ((uint64_t)status.st_size < sizeof(struct ledger_header))
        return damaged(attach, "truncated");
    if ((uint64_t)status.st_size > LEDGER_FILE_CAP)
        return damaged(attach, "far too large");
    attach->made.size = (uint64_t)status.st_size;
    attach->made.file_device = status.st_dev;
    attach->made.file_inode = status.st_ino;
    return 0;
}

/* The constant part never changes once the file has a name, so it can be read before any lock. */
static int read_header(struct attach *attach)
{
    union {
        struct ledger_header header;
        char bytes[LEDGER_HEADER_SIZE];
    } part;
    struct ledger *made = &attach->made;
    const char *fault;
    ssize_t size;

    memset(&part, 0, sizeof(part));
    size = sys_pread(attach->fd, &part, sizeof(part), 0);
    if (size < (ssize_t)sizeof(struct ledger_header))
        return damaged(attach, "truncated");
    fault = ledger_header_fault(&part.header, &part, made->size);
    if (fault)
        return damaged(attach, fault);
    ledger_take_header(made, &part.header);
    return 0;
}

static int lock_attach(struct attach *attach)
{
    uint64_t deadline = sys_now(CLOCK_MONOTONIC) + ATTACH_PATIENCE, pause = 20000;
    int result;

    while ((result = sys_lock(attach->fd, LEDGER_LOCK_ATTACH, 1)) == -EAGAIN) {
        if (sys_now(CLOCK_MONOTONIC) >= deadline)
            return ledger_fail(attach->ledger, -EAGAIN,
                               "another process has been joining tenant %s for 5 s: is it stopped? (ledger %s)", attach->name,
                               attach->made.path);
        sys_sleep(pause + sys_random() % pause);
        pause = pause < 2000000 ? pause * 2 : pause;
    }
    return result < 0 ? cannot(attach, "lock", result) : 0;
}

/* Whether the name that others will use still leads to this file. */
static bool still_named(struct attach *attach)
{
    struct stat folder, named, file;

    return sys_fstat(attach->folder, &folder) == 0 && sys_lstatat(attach->dirfd, attach->name, &named) == 0 &&
           folder.st_ino == named.st_ino && folder.st_dev == named.st_dev && sys_lstatat(attach->folder, LEDGER_NAME, &file) == 0 &&
           file.st_ino == attach->made.file_inode && file.st_dev == attach->made.file_device;
}

/* ---- the slot */

static void clear_account(struct ledger_compute *compute)
{
    uint64_t *word = compute ? (uint64_t *)&compute->account : NULL;

    for (unsigned i = 0; word && i < sizeof(compute->account) / sizeof(*word); i++)
        ledger_store(&word[i], 0);
}

/* The first live member starts the tenant anew: limits are its to set. Peaks, events and sizes of contexts outlive the members, and so do
 * for a while the bytes of the dead; only a full table is emptied, from its end, so that being killed here leaves no hole in it. */
static void begin_tenant(struct ledger *made)
{
    uint32_t used = ledger_used(made), dead = 0;

    for (uint32_t i = 0; i < used; i++) {
        if (ledger_load(&ledger_slot_at(made, i)->state) == LEDGER_SLOT_DEAD)
            dead = i + 1;
        else
            ledger_clear_slot(made, i);
    }
    __atomic_store_n(&made->file->slots_used, dead, __ATOMIC_SEQ_CST);
    for (uint32_t i = 0; i < made->devices; i++) {
        ledger_store(&ledger_device_at(made, i)->limit, 0);
        ledger_store(&ledger_device_at(made, i)->replaced, 0);
    }
    if (dead || !ledger_load(&ledger_device_at(made, made->devices - 1)->key))
        return;
    for (uint32_t i = made->devices; i-- > 0;) {
        struct ledger_device *device = ledger_device_at(made, i);

        ledger_store(&device->complete, 0);
        ledger_store(&device->uuid[0], 0);
        ledger_store(&device->uuid[1], 0);
        ledger_store(&device->context_bytes, 0);
        ledger_store(&device->peak, 0);
        for (unsigned event = 0; event < LEDGER_EVENTS; event++)
            ledger_store(&device->events[event], 0);
        clear_account(ledger_compute(made, i));
        ledger_store(&device->key, 0);
    }
}

/* Write what an older library would not, before the state. */
static void take_more(struct ledger *made, uint64_t since)
{
    struct ledger_slot_more *more = (struct ledger_slot_more *)(ledger_slot_at(made, made->slot) + 1);

    if (!made->extra_offset)
        return;
    ledger_store(&more->pid_namespace, made->pid_namespace);
    ledger_store(&more->died, 0);
    ledger_store(&more->tag, since);
    if (made->compute_offset)
        ledger_store(&more->mark, ledger_mark(since, 0));
    for (uint32_t i = 0; i < made->devices; i++)
        ledger_store(&ledger_extra(made, i, made->slot)->spilled, 0);
    ledger_clear_busy(made, made->slot);
}

/* With the attach lock held: bury the dead, then take the lowest free slot. */
static int take_slot(struct attach *attach)
{
    struct ledger *made = &attach->made;
    uint32_t used = ledger_used(made);
    struct ledger_slot *slot;
    bool alone = true, first_to_share = true;
    uint64_t since;
    int result;

    for (uint32_t i = 0; i < used; i++) {
        if (!ledger_load(&ledger_slot_at(made, i)->state))
            continue;
        result = sys_lock_as(attach->fd, F_RDLCK, LEDGER_LOCK_SLOTS + i, 1);
        if (result == 0) {
            ledger_find_dead(made, i);
            sys_unlock(attach->fd, LEDGER_LOCK_SLOTS + i);
        } else if (result == -EAGAIN) {
            alone = false;
            first_to_share = first_to_share && !ledger_knows_compute(made, i);
        } else {
            return cannot(attach, "lock", result);
        }
    }
    if (first_to_share)
        ledger_begin_compute(made);
    if (alone) {
        begin_tenant(made);
        ledger_sweep(attach->folder);
    }
    for (made->slot = 0; made->slot < made->slots; made->slot++) {
        slot = ledger_slot_at(made, made->slot);
        if (ledger_load(&slot->state))
            continue;
        result = sys_lock(attach->fd, LEDGER_LOCK_SLOTS + made->slot, 1);
        if (result == 0)
            break;
        if (result != -EAGAIN)
            return cannot(attach, "lock", result);
    }
    attach->full = made->slot == made->slots && ledger_has_dead(made);
    if (attach->full)
        return ATTACH_AGAIN;
    if (made->slot == made->slots)
        return ledger_fail(attach->ledger, -EUSERS, "tenant %s is full: all %u slots of its ledger are taken by live processes",
                           attach->name, made->slots);
    made->first = alone;
    made->first_to_share = first_to_share;
    ledger_clear_slot(made, made->slot);
    if (made->slot >= ledger_used(made))
        __atomic_store_n(&made->file->slots_used, made->slot + 1, __ATOMIC_SEQ_CST);
    slot = ledger_slot_at(made, made->slot);
    __atomic_store_n(&slot->pid, (uint32_t)attach->pid, __ATOMIC_SEQ_CST);
    __atomic_store_n(&slot->uid, (uint32_t)geteuid(), __ATOMIC_SEQ_CST);
    since = sys_now(CLOCK_REALTIME);
    made->answered = ledger_load(&made->file->asked);
    ledger_store(&slot->since, since);
    take_more(made, since);
    ledger_store(&slot->state, LEDGER_SLOT_TAKEN);
    ledger_tell_member(made, made->slot, LEDGER_JOINED, -1, 0);
    return 0;
}

/* ---- all of it */

static int publish(struct attach *attach)
{
    bool named = attach->temporary[0] != '\0';
    int result = ledger_file_publish(attach->folder, attach->fd, attach->temporary);

    if (result == 0 || result == -EEXIST)
        return result ? ATTACH_AGAIN : 0;
    if (named && result != -ENOENT)
        return cannot(attach, "publish", result);
    /* Where a file without a name cannot be given one, the next attempt begins with a temporary one. */
    attach->temporary[0] = '.';
    attach->temporary[1] = '\0';
    return ATTACH_AGAIN;
}

/* With the attach lock held. */
static int join_locked(struct attach *attach)
{
    const char *fault;
    int result = attach->created ? publish(attach) : 0;

    if (result)
        return result;
    if (!still_named(attach))
        return ATTACH_AGAIN;
    /* Somebody may have made holes into it or copied it without its zeros. */
    result = sys_fallocate(attach->fd, attach->made.size);
    if (result < 0 && result != -EOPNOTSUPP && result != -ENOSYS)
        return cannot(attach, "allocate space for", result);
    fault = ledger_tables_fault(&attach->made);
    return fault ? damaged(attach, fault) : take_slot(attach);
}

static int join(struct attach *attach)
{
    int result = open_file(attach);

    if (!result)
        result = read_header(attach);
    if (!result)
        result = map_alone(attach);
    if (!result)
        result = lock_attach(attach);
    if (result)
        return result;
    result = join_locked(attach);
    sys_unlock(attach->fd, LEDGER_LOCK_ATTACH);
    return result;
}

/* Undo an attempt that failed. */
static void abandon(struct attach *attach)
{
    if (attach->made.file)
        munmap(attach->made.file, attach->made.size);
    attach->made.file = NULL;
    if (attach->temporary[0] && attach->temporary[1])
        sys_unlinkat(attach->folder, attach->temporary, 0);
    if (!attach->tenant) {
        sys_unlinkat(attach->folder, LEDGER_NAME, 0);
        sys_unlinkat(attach->dirfd, attach->name, AT_REMOVEDIR);
    }
    if (attach->fd >= 0)
        sys_close(attach->fd);
    sys_close(attach->folder);
}

static void name_own(char *name)
{
    uint64_t random = sys_random();
    char *at = name + log_format(name, 64, LEDGER_OWN_PREFIX);

    for (unsigned i = 0; i < 16; i++)
        *at++ = "0123456789abcdef"[random >> (60 - 4 * i) & 15];
    *at = '\0';
}

static int attach_work(void *argument)
{
    struct attach *attach = argument;
    struct stat status;
    int result = sys_fstat(attach->dirfd, &status);

    if (result < 0)
        return ledger_fail(attach->ledger, result, "cannot look at the state directory: %s", ledger_reason(result));
    /* A task that was killed half-way may have left its mapping; its descriptors went with it. */
    if (attach->made.file)
        munmap(attach->made.file, attach->made.size);
    attach->made.file = NULL;
    attach->temporary[0] = '\0';
    clock_now(); /* learns of the time namespace while there are descriptors to be had */
    attach->trust = ledger_dir_trust(&status);
    attach->made.pid_namespace = compat_inode("/proc/self/ns/pid");
    ledger_collect(attach->dirfd);
    result = ATTACH_AGAIN;
    for (unsigned attempt = 0; result == ATTACH_AGAIN && attempt < ATTACH_ATTEMPTS; attempt++) {
        attach->watch_forks = attempt < ATTACH_ATTEMPTS / 2;
        if (attach->full)
            sys_sleep(FULL_SLEEP);
        attach->full = false;
        if (attach->tenant)
            log_format(attach->name, sizeof(attach->name), "%s", attach->tenant);
        else
            name_own(attach->name);
        attach->folder = ledger_folder_open(attach->ledger, attach->dirfd, attach->name, attach->trust, !attach->tenant);
        if (attach->folder < 0)
            return attach->folder;
        learn_path(attach);
        result = join(attach);
        if (result)
            abandon(attach);
    }
    if (result == ATTACH_AGAIN)
        return ledger_fail(attach->ledger, -EAGAIN, "tenant %s: its ledger keeps changing while it is joined", attach->name);
    if (result)
        return result;
    sys_close(attach->fd);
    sys_close(attach->folder);
    return 0;
}

/* Not on the stack, which may be a thread's smallest. */
static int attach_apart(struct ledger *ledger, int dirfd, const char *name)
{
    struct attach *attach = mmap(NULL, sizeof(*attach), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int result;

    if (attach == MAP_FAILED)
        return ledger_fail(ledger, -ENOMEM, "no memory to join tenant %s", name ? name : "of its own");
    attach->ledger = ledger;
    attach->dirfd = dirfd;
    attach->pid = getpid();
    attach->tenant = name;
    attach->fd = -1;
    result = ledger_apart(attach_work, attach);
    if (result == 0)
        *ledger = attach->made;
    munmap(attach, sizeof(*attach));
    return result;
}

int ledger_attach(struct ledger *ledger, int dirfd, const char *name)
{
    int saved = errno, result;

    if (name && (!*name || *name == '.' || strchr(name, '/') || strlen(name) >= sizeof(((struct attach *)NULL)->name) ||
                 ledger_name_is_own(name)))
        return ledger_fail(ledger, -EINVAL, "tenant name \"%s\" cannot be used (proc- and 16 digits name a process of its own)",
                           name);
    result = attach_apart(ledger, dirfd, name);
    errno = saved;
    return result;
}

void ledger_detach(struct ledger *ledger)
{
    int saved = errno;

    if (!ledger->file)
        return;
    ledger_tell_left(ledger);
    ledger_withdraw_answer(ledger, true);
    for (uint32_t i = 0; i < ledger->devices; i++) {
        struct ledger_hold *hold = &ledger_holds(ledger, i)[ledger->slot];

        ledger_store(&hold->tentative, 0);
        ledger_store(&hold->committed, 0);
    }
    ledger_clear_busy(ledger, ledger->slot);
    ledger_store(&ledger_slot_at(ledger, ledger->slot)->state, 0);
    munmap(ledger->file, ledger->size);
    *ledger = (struct ledger){0};
    errno = saved;
}
