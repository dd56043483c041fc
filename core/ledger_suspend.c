/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpointed members: what they had on the GPU stays in their slot and leaves the total, until it is to be on the GPU again.
 *
 * All of it is in the one word of committed bytes, so that whoever sums sees each byte once or not at all, and one who is killed half-way
 * through leaves nothing that another could not tell. */
#include <errno.h>

#include "ledger_internal.h"

static bool exchange(uint64_t *word, uint64_t *before, uint64_t after)
{
    return __atomic_compare_exchange_n(word, before, after, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

bool ledger_begin_restoring(uint64_t *committed, uint32_t slot)
{
    uint64_t before = ledger_load(committed);

    do {
        if (!(before & LEDGER_SUSPENDED) || ledger_restorer(before))
            return false;
    } while (!exchange(committed, &before, before | (uint64_t)(slot + 1) << LEDGER_RESTORER_SHIFT));
    return true;
}

void ledger_end_restoring(uint64_t *committed, uint32_t slot)
{
    uint64_t before = ledger_load(committed);

    while (ledger_restorer(before) == slot + 1 &&
           !exchange(committed, &before, (before & LEDGER_SUSPENDED_BYTES) | LEDGER_SUSPENDED))
        ;
}

/* What it was at, if `slot` was at it; else 0. */
static uint64_t finish_restoring(uint64_t *committed, uint32_t slot)
{
    uint64_t before = ledger_load(committed);

    do {
        if (ledger_restorer(before) != slot + 1)
            return 0;
    } while (!exchange(committed, &before, before & LEDGER_SUSPENDED_BYTES));
    return before;
}

int ledger_find(const struct ledger *ledger, uint32_t pid, struct ledger_peer *peer)
{
    uint32_t used = ledger->file && ledger->pid_namespace ? ledger_used(ledger) : 0;

    for (uint32_t i = 0; i < used; i++) {
        const struct ledger_slot *slot = ledger_slot_at(ledger, i);
        const struct ledger_slot_more *more = ledger_slot_more(ledger, i);

        if (ledger_load(&slot->state) != LEDGER_SLOT_TAKEN || __atomic_load_n(&slot->pid, __ATOMIC_SEQ_CST) != pid || !more ||
            ledger_load(&more->pid_namespace) != ledger->pid_namespace)
            continue;
        *peer = (struct ledger_peer){.slot = i, .since = ledger_load(&slot->since)};
        return 0;
    }
    return -ENOENT;
}

static bool is_there(const struct ledger *ledger, const struct ledger_peer *peer)
{
    const struct ledger_slot *slot = ledger_slot_at(ledger, peer->slot);

    return ledger_load(&slot->state) == LEDGER_SLOT_TAKEN && ledger_load(&slot->since) == peer->since;
}

static uint64_t *committed_of(const struct ledger *ledger, unsigned device, const struct ledger_peer *peer)
{
    return &ledger_holds(ledger, device)[peer->slot].committed;
}

void ledger_suspend(struct ledger *ledger, const struct ledger_peer *peer)
{
    for (uint32_t i = 0; i < ledger->devices; i++) {
        uint64_t *word = committed_of(ledger, i, peer), before = ledger_load(word);

        while (is_there(ledger, peer) && before && before <= LEDGER_SUSPENDED_BYTES) {
            if (!exchange(word, &before, before | LEDGER_SUSPENDED))
                continue;
            ledger_tell_member(ledger, peer->slot, LEDGER_CHECKPOINTED, (int)i, before);
            break;
        }
    }
}

bool ledger_is_suspended(const struct ledger *ledger, unsigned device)
{
    return ledger_usable(ledger, device) && ledger_load(&ledger_holds(ledger, device)[ledger->slot].committed) & LEDGER_SUSPENDED;
}

static bool finish(struct ledger *ledger, uint32_t device, const struct ledger_peer *peer)
{
    uint64_t word = finish_restoring(committed_of(ledger, device, peer), ledger->slot);

    if (word)
        ledger_tell_member(ledger, peer->slot, LEDGER_RESTORED, (int)device, ledger_committed_bytes(word));
    return word;
}

int ledger_resume(struct ledger *ledger, const struct ledger_peer *peer, const uint64_t cap[LEDGER_DEVICES],
                  struct ledger_refusal *refusal)
{
    uint32_t device;
    int result = 0, resumed = 0;

    for (device = 0; device < ledger->devices && result == 0; device++) {
        uint64_t *word = committed_of(ledger, device, peer), before = ledger_load(word);

        if (!is_there(ledger, peer) || !(before & LEDGER_SUSPENDED))
            continue;
        result = ledger_reserve_suspended(ledger, device, word, cap[device]);
        if (result)
            *refusal = (struct ledger_refusal){.device = device, .bytes = ledger_committed_bytes(before)};
    }
    for (device = 0; device < ledger->devices; device++) {
        if (result)
            ledger_end_restoring(committed_of(ledger, device, peer), ledger->slot);
        else
            resumed += finish(ledger, device, peer);
    }
    return result ? result : resumed;
}

void ledger_resume_anyway(struct ledger *ledger, const struct ledger_peer *peer)
{
    for (uint32_t i = 0; i < ledger->devices; i++) {
        uint64_t *word = committed_of(ledger, i, peer), before = ledger_load(word);

        while (is_there(ledger, peer) && before & LEDGER_SUSPENDED) {
            if (!exchange(word, &before, before & LEDGER_SUSPENDED_BYTES))
                continue;
            ledger_tell_member(ledger, peer->slot, LEDGER_RESTORED, (int)i, ledger_committed_bytes(before));
            break;
        }
    }
}
