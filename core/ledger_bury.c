/* SPDX-License-Identifier: Apache-2.0 */
/* The dead of a ledger. Whose lock is gone is found; what it held stays in the total until the driver shows that process no more on the
 * device, for 2 s at most, and is taken off where nobody can tell. */
#include <errno.h>
#include <string.h>

#include "ledger_internal.h"
#include "ledger_sys.h"
#include "softslice/clock.h"

#define LOOK_INTERVAL UINT64_C(100000000) /* ns */
#define DEAD_AT_ONCE  64                  /* that the witness is asked about; others wait their turn */

static ledger_witness *witness;

void ledger_set_witness(ledger_witness *function)
{
    __atomic_store_n(&witness, function, __ATOMIC_SEQ_CST);
}

/* ---- one slot, under a read lock on it: nobody can take it meanwhile. Killed at any instruction, each can be done again from its start, and
 * others can be at the same: the state goes last. Only the count of events may then be one short. */

static bool holds_on(const struct ledger *ledger, uint32_t device, uint32_t slot)
{
    const struct ledger_hold *hold = &ledger_holds(ledger, device)[slot];

    return ledger_load(&hold->tentative) || ledger_load(&hold->committed);
}

static void clear_hold(struct ledger *ledger, uint32_t index, uint32_t slot)
{
    struct ledger_hold *hold = &ledger_holds(ledger, index)[slot];
    struct ledger_device *device = ledger_device_at(ledger, index);
    uint64_t held;

    if (!holds_on(ledger, index, slot))
        return;
    ledger_store(&device->last_burial, clock_now());
    held = __atomic_exchange_n(&hold->tentative, 0, __ATOMIC_SEQ_CST);
    held |= __atomic_exchange_n(&hold->committed, 0, __ATOMIC_SEQ_CST);
    if (held)
        __atomic_fetch_add(&device->events[LEDGER_EVENT_BURIED], 1, __ATOMIC_SEQ_CST);
}

/* Whoever it was about to restore stays suspended. */
static void end_all_restoring(struct ledger *ledger, uint32_t slot)
{
    uint32_t used = ledger_used(ledger);

    for (uint32_t i = 0; i < ledger->devices && ledger_load(&ledger_device_at(ledger, i)->key); i++) {
        for (uint32_t j = 0; j < used; j++) {
            uint64_t *word = &ledger_holds(ledger, i)[j].committed;

            if (ledger_restorer(ledger_load(word)) == slot + 1)
                ledger_end_restoring(word, slot);
        }
    }
}

void ledger_clear_slot(struct ledger *ledger, uint32_t slot)
{
    for (uint32_t i = 0; i < ledger->devices; i++)
        clear_hold(ledger, i, slot);
    ledger_store(&ledger_slot_at(ledger, slot)->state, 0);
}

/* Whether this process's witness can tell of a slot's: the driver knows processes by their number in a PID namespace. */
static bool can_tell(const struct ledger *ledger, const struct ledger_slot_more *more)
{
    return __atomic_load_n(&witness, __ATOMIC_SEQ_CST) && ledger->pid_namespace && more &&
           ledger_load(&more->pid_namespace) == ledger->pid_namespace;
}

static bool is_over(const struct ledger_slot_more *more, uint64_t now)
{
    uint64_t died = more ? ledger_load(&more->died) : 0;

    /* One in the future is of an earlier boot: the ledger is on a disk. */
    return died > now || now - died >= LEDGER_DEAD_NS;
}

bool ledger_find_dead(struct ledger *ledger, uint32_t slot)
{
    struct ledger_slot_more *more = ledger_slot_more(ledger, slot);
    uint64_t state = ledger_load(&ledger_slot_at(ledger, slot)->state), now = clock_now();
    bool holds = false;

    if (state == LEDGER_SLOT_DEAD) {
        if (is_over(more, now))
            ledger_clear_slot(ledger, slot);
        return false;
    }
    ledger_tell_end(ledger, slot, LEDGER_DIED);
    end_all_restoring(ledger, slot);
    ledger_clear_busy(ledger, slot);
    for (uint32_t i = 0; i < ledger->devices; i++) {
        struct ledger_hold *hold = &ledger_holds(ledger, i)[slot];

        /* What is checkpointed is not on the GPU. */
        if (ledger_load(&hold->committed) & LEDGER_SUSPENDED)
            ledger_store(&hold->committed, 0);
        if (!holds_on(ledger, i, slot))
            continue;
        ledger_store(&ledger_device_at(ledger, i)->last_burial, now);
        holds = true;
    }
    if (!holds || !can_tell(ledger, more)) {
        ledger_clear_slot(ledger, slot);
        return false;
    }
    ledger_store(&more->died, now);
    ledger_store(&ledger_slot_at(ledger, slot)->state, LEDGER_SLOT_DEAD);
    return true;
}

/* ---- what the witness says */

struct verdict {
    uint32_t slot, pid;
    uint64_t died;
    uint32_t gone; /* a bit for each device */
};

struct burial {
    struct ledger *ledger;
    bool found; /* a dead member about whom the witness can be asked */
    unsigned count;
    struct verdict verdict[DEAD_AT_ONCE];
};

_Static_assert(LEDGER_DEVICES <= 32, "a bit for each device");

static void ask_about_device(struct burial *burial, uint32_t device)
{
    struct ledger *ledger = burial->ledger;
    struct ledger_device *entry = ledger_device_at(ledger, device);
    uint64_t words[2] = {ledger_load(&entry->uuid[0]), ledger_load(&entry->uuid[1])};
    uint32_t pid[DEAD_AT_ONCE];
    unsigned index[DEAD_AT_ONCE], count = 0;
    bool shown[DEAD_AT_ONCE] = {false};
    uint8_t uuid[16];

    for (unsigned i = 0; i < burial->count; i++) {
        if (!holds_on(ledger, device, burial->verdict[i].slot))
            continue;
        pid[count] = burial->verdict[i].pid;
        index[count++] = i;
    }
    if (!count)
        return;
    memcpy(uuid, words, sizeof(uuid));
    __atomic_load_n(&witness, __ATOMIC_SEQ_CST)(uuid, pid, shown, count);
    for (unsigned i = 0; i < count; i++) {
        struct ledger_peer peer;

        /* A number is given again, and kept by exec(), only after the driver has let go of the one before: then it shows the next one. */
        if (!shown[i] || ledger_find(ledger, pid[i], &peer) == 0)
            burial->verdict[index[i]].gone |= UINT32_C(1) << device;
    }
}

/* Ask the witness about the dead who still count, with no lock held and outside of ledger_apart(). Whether one is gone from a device. */
static bool ask(struct burial *burial)
{
    struct ledger *ledger = burial->ledger;
    uint32_t used = ledger_used(ledger), gone = 0;

    burial->count = 0;
    for (uint32_t i = 0; i < used && burial->count < DEAD_AT_ONCE; i++) {
        const struct ledger_slot *slot = ledger_slot_at(ledger, i);
        const struct ledger_slot_more *more = ledger_slot_more(ledger, i);

        if (ledger_load(&slot->state) == LEDGER_SLOT_DEAD && can_tell(ledger, more))
            burial->verdict[burial->count++] =
                (struct verdict){.slot = i, .pid = __atomic_load_n(&slot->pid, __ATOMIC_SEQ_CST), .died = ledger_load(&more->died)};
    }
    for (uint32_t i = 0; burial->count && i < ledger->devices; i++)
        ask_about_device(burial, i);
    for (unsigned i = 0; i < burial->count; i++)
        gone |= burial->verdict[i].gone;
    return gone;
}

/* Take off what the witness saw gone, if it is still the one that it was asked about. */
static void apply(struct burial *burial, uint32_t slot)
{
    struct ledger *ledger = burial->ledger;
    const struct ledger_slot_more *more = ledger_slot_more(ledger, slot);
    bool holds = false;

    for (unsigned i = 0; i < burial->count; i++) {
        const struct verdict *verdict = &burial->verdict[i];

        if (verdict->slot != slot || !more || verdict->died != ledger_load(&more->died))
            continue;
        for (uint32_t device = 0; device < ledger->devices; device++) {
            if (verdict->gone >> device & 1)
                clear_hold(ledger, device, slot);
            holds = holds || holds_on(ledger, device, slot);
        }
        if (!holds)
            ledger_clear_slot(ledger, slot);
        return;
    }
}

/* ---- all of them */

static int bury_work(void *argument)
{
    struct burial *burial = argument;
    struct ledger *ledger = burial->ledger;
    int fd = sys_openat(AT_FDCWD, ledger->path, O_RDWR | O_NOFOLLOW | O_NONBLOCK, 0), live = 1;
    uint32_t used = ledger_used(ledger);
    struct stat status;

    if (fd < 0)
        return fd;
    /* The program may have changed its root, or somebody removed the file: then who lives cannot be told. */
    if (sys_fstat(fd, &status) < 0 || status.st_dev != ledger->file_device || status.st_ino != ledger->file_inode)
        live = -ESTALE;
    burial->found = false;
    for (uint32_t i = 0; live > 0 && i < used; i++) {
        struct ledger_slot *slot = ledger_slot_at(ledger, i);
        int result;

        if (i == ledger->slot || !ledger_load(&slot->state))
            continue;
        result = sys_lock_as(fd, F_RDLCK, LEDGER_LOCK_SLOTS + i, 1);
        if (result == -EAGAIN) {
            live++;
        } else if (result < 0) {
            live = result;
        } else {
            if (ledger_load(&slot->state) == LEDGER_SLOT_DEAD)
                apply(burial, i);
            if (ledger_load(&slot->state) && ledger_find_dead(ledger, i))
                burial->found = true;
            sys_unlock(fd, LEDGER_LOCK_SLOTS + i);
        }
    }
    sys_close(fd);
    return live;
}

static bool has_others(const struct ledger *ledger)
{
    uint32_t used = ledger_used(ledger);

    for (uint32_t i = 0; i < used; i++) {
        if (i != ledger->slot && ledger_load(&ledger_slot_at(ledger, i)->state))
            return true;
    }
    return false;
}

bool ledger_has_others(struct ledger *ledger)
{
    if (!has_others(ledger))
        return false;
    ledger_look(ledger); /* an earlier life of the tenant may not be buried yet */
    return has_others(ledger);
}

bool ledger_has_dead(const struct ledger *ledger)
{
    uint32_t used = ledger_used(ledger);

    for (uint32_t i = 0; i < used; i++) {
        if (ledger_load(&ledger_slot_at(ledger, i)->state) == LEDGER_SLOT_DEAD)
            return true;
    }
    return false;
}

int ledger_bury(struct ledger *ledger)
{
    struct burial burial = {.ledger = ledger};
    int live;

    if (!has_others(ledger))
        return 1;
    if (!ledger->path[0])
        return -ENOENT;
    ask(&burial);
    live = ledger_apart(bury_work, &burial);
    if (live > 0 && burial.found && ask(&burial))
        live = ledger_apart(bury_work, &burial);
    return live;
}

void ledger_look(struct ledger *ledger)
{
    uint64_t now = sys_now(CLOCK_MONOTONIC_COARSE), last = ledger_load(&ledger->last_look);
    int saved = errno;

    if (now - last >= LOOK_INTERVAL &&
        __atomic_compare_exchange_n(&ledger->last_look, &last, now, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ledger_bury(ledger);
    errno = saved;
}
