/* SPDX-License-Identifier: Apache-2.0 */
/* The members of a tenant one by one: how many there are, who holds how much, and what each keeps on the host. */
#include <errno.h>

#include "ledger_internal.h"
#include "ledger_sys.h"

unsigned ledger_members(struct ledger *ledger)
{
    int saved = errno, live = 0;

    if (!ledger->file)
        return 0;
    live = ledger_bury(ledger);
    if (live < 0) {
        uint32_t used = ledger_used(ledger);

        live = 0;
        for (uint32_t i = 0; i < used; i++)
            live += ledger_load(&ledger_slot_at(ledger, i)->state) == LEDGER_SLOT_TAKEN;
    }
    errno = saved;
    return (unsigned)live;
}

void ledger_spill(struct ledger *ledger, unsigned device, int64_t delta)
{
    struct ledger_extra *extra = ledger_usable(ledger, device) ? ledger_extra(ledger, device, ledger->slot) : NULL;
    uint64_t size = delta < 0 ? -(uint64_t)delta : (uint64_t)delta, before, after;

    if (!extra)
        return;
    before = ledger_load(&extra->spilled);
    do {
        if (delta < 0)
            after = before > size ? before - size : 0;
        else if (__builtin_add_overflow(before, size, &after))
            after = UINT64_MAX;
    } while (!__atomic_compare_exchange_n(&extra->spilled, &before, after, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
}

uint64_t ledger_spilled(const struct ledger *ledger, unsigned device, unsigned slot)
{
    const struct ledger_extra *extra = ledger_extra(ledger, device, slot);

    return extra && ledger_load(&ledger_slot_at(ledger, slot)->state) == LEDGER_SLOT_TAKEN ? ledger_load(&extra->spilled) : 0;
}

uint32_t ledger_own_slot(const struct ledger *ledger)
{
    return ledger->slot;
}

unsigned ledger_members_list(struct ledger *ledger, unsigned device, struct ledger_member *list, unsigned size)
{
    unsigned count = 0;
    uint32_t used;

    if (!ledger_usable(ledger, device))
        return 0;
    ledger_look(ledger);
    used = ledger_used(ledger);
    for (uint32_t i = 0; i < used; i++) {
        const struct ledger_slot *slot = ledger_slot_at(ledger, i);
        const struct ledger_slot_more *more = ledger_slot_more(ledger, i);
        const struct ledger_hold *hold = &ledger_holds(ledger, device)[i];
        uint64_t state = ledger_load(&slot->state), committed = ledger_load(&hold->committed);

        if (!state)
            continue;
        if (count < size)
            list[count] = (struct ledger_member){.slot = i,
                                                 .since = ledger_load(&slot->since),
                                                 .pid = __atomic_load_n(&slot->pid, __ATOMIC_SEQ_CST),
                                                 .pid_namespace = more ? ledger_load(&more->pid_namespace) : 0,
                                                 .committed = ledger_committed_bytes(committed),
                                                 .tentative = ledger_load(&hold->tentative),
                                                 .spilled = ledger_spilled(ledger, device, i),
                                                 .suspended = committed & LEDGER_SUSPENDED,
                                                 .dead = state == LEDGER_SLOT_DEAD};
        count++;
    }
    return count;
}
