/* SPDX-License-Identifier: Apache-2.0 */
/* The dead of a ledger: whose lock is gone is found, and what it held is taken off the total. */
#include <errno.h>

#include "ledger_internal.h"
#include "ledger_sys.h"

#define LOOK_INTERVAL UINT64_C(100000000) /* ns */

/* Killed at any instruction, this can be done again from the start: the state goes last. Only the count of events may then be one
 * short. */
void ledger_bury_slot(struct ledger *ledger, uint32_t slot)
{
    for (uint32_t i = 0; i < ledger->devices; i++) {
        struct ledger_hold *hold = &ledger_holds(ledger, i)[slot];
        struct ledger_device *device = ledger_device_at(ledger, i);
        uint64_t held;

        if (!ledger_load(&hold->tentative) && !ledger_load(&hold->committed))
            continue;
        ledger_store(&device->last_burial, sys_now(CLOCK_MONOTONIC));
        held = __atomic_exchange_n(&hold->tentative, 0, __ATOMIC_SEQ_CST);
        held |= __atomic_exchange_n(&hold->committed, 0, __ATOMIC_SEQ_CST);
        if (held)
            __atomic_fetch_add(&device->events[LEDGER_EVENT_BURIED], 1, __ATOMIC_SEQ_CST);
    }
    ledger_store(&ledger_slot_at(ledger, slot)->state, 0);
}

static int bury_work(void *argument)
{
    struct ledger *ledger = argument;
    int fd = sys_openat(AT_FDCWD, ledger->path, O_RDWR | O_NOFOLLOW | O_NONBLOCK, 0), live = 1;
    uint32_t used = ledger_used(ledger);
    struct stat status;

    if (fd < 0)
        return fd;
    /* The program may have changed its root, or somebody removed the file: then who lives cannot be told. */
    if (sys_fstat(fd, &status) < 0 || status.st_dev != ledger->file_device || status.st_ino != ledger->file_inode)
        live = -ESTALE;
    for (uint32_t i = 0; live > 0 && i < used; i++) {
        struct ledger_slot *slot = ledger_slot_at(ledger, i);
        int result;

        if (i == ledger->slot || !ledger_load(&slot->state))
            continue;
        result = sys_lock(fd, LEDGER_LOCK_SLOTS + i, 1);
        if (result == -EAGAIN) {
            live++;
        } else if (result < 0) {
            live = result;
        } else {
            if (ledger_load(&slot->state))
                ledger_bury_slot(ledger, i);
            sys_unlock(fd, LEDGER_LOCK_SLOTS + i);
        }
    }
    sys_close(fd);
    return live;
}

int ledger_bury(struct ledger *ledger)
{
    uint32_t used = ledger_used(ledger);

    for (uint32_t i = 0; i < used; i++) {
        if (i != ledger->slot && ledger_load(&ledger_slot_at(ledger, i)->state))
            return ledger->path[0] ? ledger_apart(bury_work, ledger) : -ENOENT;
    }
    return 1;
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
