/* SPDX-License-Identifier: Apache-2.0 */
/* What follows from where a tenant's bytes are: each reason is a sentence that stands by itself, the most telling first. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "explain.h"

#define NOTABLE (UINT64_C(1) << 20) /* less is not worth a sentence */

static void say(struct verdict *verdict, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(struct verdict *verdict, const char *format, ...)
{
    va_list args;

    if (verdict->count == EXPLAIN_REASONS)
        return;
    va_start(args, format);
    vsnprintf(verdict->reason[verdict->count++], EXPLAIN_REASON, format, args);
    va_end(args);
}

/* What is looked at: a device of a tenant. */
struct look {
    const struct explained *explained;
    unsigned device;
    const struct ledger_device_state *state;
    const struct observe_gpu *gpu; /* NULL: unknown */
    uint64_t left;                 /* under the limit */
    uint64_t physical;             /* free bytes of the GPU, UINT64_MAX: unknown */
    uint64_t wanted;               /* the largest refusal of late, 0: none is known */
    const struct explained_member *wanter;
    uint64_t refusals; /* of late, the largest included, and of how many processes */
    unsigned refused;
    struct verdict *verdict;
};

static const char *sized(uint64_t bytes)
{
    static char text[8][EXPLAIN_SIZE];
    static unsigned next;

    next = (next + 1) % 8;
    return explain_size(bytes, text[next]);
}

static const char *named(const struct explained_member *member)
{
    static char text[4][EXPLAIN_NAME];
    static unsigned next;

    next = (next + 1) % 4;
    return explain_name(member, text[next]);
}

static uint64_t held(const struct look *look, const struct explained_member *member)
{
    uint64_t bytes = member->suspended ? 0 : member->device[look->device].committed;

    explain_sum(&bytes, member->device[look->device].tentative);
    return bytes;
}

static const struct explain_device *told(const struct look *look, const struct explained_member *member)
{
    return explain_answer_of(look->explained, member, look->device);
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* ---- what was wanted, and what there is */

static void find_refusal(struct look *look)
{
    for (unsigned i = 0; i < look->explained->members; i++) {
        const struct explain_device *device = told(look, &look->explained->member[i]);

        if (!device || !device->refused)
            continue;
        explain_sum(&look->refusals, device->refusals);
        look->refused++;
        if (device->refused > look->wanted) {
            look->wanted = device->refused;
            look->wanter = &look->explained->member[i];
        }
    }
}

/* What a member says holds for itself, where that is less than what holds for the tenant. */
static uint64_t limit_of(const struct look *look, const struct explained_member *member)
{
    const struct explain_device *device = told(look, member);
    uint64_t whole = look->gpu && look->gpu->total < look->state->limit ? look->gpu->total : look->state->limit;

    return device && device->limit && device->limit < whole ? device->limit : look->state->limit;
}

static void judge_refusal(struct look *look)
{
    uint64_t limit = look->wanter ? limit_of(look, look->wanter) : look->state->limit, left = less(limit, look->state->current);

    if (!look->wanted) {
        if (!look->state->events[LEDGER_EVENT_REFUSED] && !look->state->events[LEDGER_EVENT_OOM])
            say(look->verdict, "nothing was refused here so far");
    } else if (look->wanted > limit) {
        say(look->verdict, "%s asked for %s at once, more than the limit of %s: nothing that is freed makes room for that",
            named(look->wanter), sized(look->wanted), sized(limit));
    } else if (look->wanted > left) {
        say(look->verdict, "%s asked for %s and was refused: %s are free under the limit of %s", named(look->wanter),
            sized(look->wanted), sized(left), sized(limit));
    } else if (look->wanted > look->physical && limit == LEDGER_NO_LIMIT) {
        say(look->verdict, "%s asked for %s, which is not free on the GPU", named(look->wanter), sized(look->wanted));
    } else if (look->wanted > look->physical) {
        say(look->verdict, "%s asked for %s, which is free under the limit of %s but not on the GPU", named(look->wanter),
            sized(look->wanted), sized(limit));
    } else {
        say(look->verdict, "%s was refused %s; that would fit now", named(look->wanter), sized(look->wanted));
    }
    if (look->refusals > 1)
        say(look->verdict, "that was the largest of %llu refusals in the last ten minutes%s", (unsigned long long)look->refusals,
            look->refused > 1 ? ", of several processes" : "");
}

static void judge_limit(struct look *look)
{
    const struct ledger_device_state *state = look->state;

    if (state->limit == LEDGER_NO_LIMIT)
        say(look->verdict, "no VRAM limit is set for the tenant on this GPU");
    else if (state->context_bytes && state->limit < state->context_bytes)
        say(look->verdict, "the limit of %s is below what one context takes here (%s): no process can begin", sized(state->limit),
            sized(state->context_bytes));
    else if (state->current > state->limit)
        say(look->verdict,
            "%s are in use, more than the limit of %s: it was lowered, or the driver took more by itself; nothing new is granted "
            "until "
            "it is less",
            sized(state->current), sized(state->limit));
    else if (state->context_bytes && look->left < state->context_bytes)
        say(look->verdict, "%s are free under the limit, and a further process takes about %s for its context", sized(look->left),
            sized(state->context_bytes));
}

static void judge_gpu(struct look *look)
{
    bool limited = look->state->limit != LEDGER_NO_LIMIT;
    uint64_t known = look->state->current, outside;
    char others[160] = "", rest[80] = "";

    /* Without a limit the GPU is full for what was refused, if for anything. */
    if (!look->gpu || !look->gpu->total || look->physical >= (limited ? look->left : look->wanted))
        return;
    explain_sum(&known, look->explained->others[look->device]);
    outside = less(look->gpu->used, known);
    if (look->explained->others[look->device] >= NOTABLE)
        snprintf(others, sizeof(others), "; other tenants hold %s", sized(look->explained->others[look->device]));
    if (outside >= NOTABLE)
        snprintf(rest, sizeof(rest), "; %s are nobody's that softslice sees here", sized(outside));
    if (limited)
        say(look->verdict, "the GPU itself is full: %s are free under the limit, but only %s of its %s%s%s", sized(look->left),
            sized(look->physical), sized(look->gpu->total), others, rest);
    else
        say(look->verdict, "the GPU itself is full: only %s of its %s are free%s%s", sized(look->physical), sized(look->gpu->total),
            others, rest);
}

/* ---- what could be given back */

static void judge_caches(struct look *look, const struct explained_member *member)
{
    const struct explain_device *device = told(look, member);
    uint64_t pools = device ? explain_cached(device, EXPLAIN_POOL) : 0, graphs = device ? explain_cached(device, EXPLAIN_GRAPH) : 0;

    if (!device)
        return;
    if (pools >= NOTABLE)
        say(look->verdict,
            "%s are cached by memory pools of %s: cuMemPoolTrimTo (torch.cuda.empty_cache()) gives "
            "them back, as softslice does before it refuses that process",
            sized(pools), named(member));
    if (graphs >= NOTABLE)
        say(look->verdict, "%s are kept for graphs of %s: cuDeviceGraphMemTrim gives them back", sized(graphs), named(member));
    if (device->orphaned >= NOTABLE)
        say(look->verdict, "%s are held by destroyed memory pools of %s, until their last block is freed", sized(device->orphaned),
            named(member));
    if (device->kind[EXPLAIN_ASLEEP].all.bytes >= NOTABLE)
        say(look->verdict, "%s are kept for the waking up of %s (keep_asleep): freeing the addresses gives them back",
            sized(device->kind[EXPLAIN_ASLEEP].all.bytes), named(member));
    if (device->kind[EXPLAIN_ROUNDING].all.bytes >= 16 * NOTABLE)
        say(look->verdict,
            "%s of %s are the unused rest of granules of %s that small allocations share: fewer, larger ones take less",
            sized(device->kind[EXPLAIN_ROUNDING].all.bytes), named(member), sized(device->granule));
}

static void judge_member(struct look *look, const struct explained_member *member)
{
    const struct explain_device *device = told(look, member);
    uint64_t bytes = member->device[look->device].committed, sum = device ? explain_charged(device) : 0;

    judge_caches(look, member);
    if (member->dead && bytes >= NOTABLE)
        say(look->verdict, "%s are of %s, which has died: they go as soon as the driver has released them, in 2 seconds at most",
            sized(bytes), named(member));
    if (member->suspended && bytes >= NOTABLE)
        say(look->verdict, "%s of %s are checkpointed: in no total now, and needed again when it is restored", sized(bytes),
            named(member));
    if (member->device[look->device].spilled >= NOTABLE)
        say(look->verdict, "%s of %s are on the host in place of the GPU (spill = host)",
            sized(member->device[look->device].spilled), named(member));
    if (limit_of(look, member) < look->state->limit)
        say(look->verdict, "%s is held to %s, less than the tenant's limit: its own settings, the admin's or MPS's", named(member),
            sized(limit_of(look, member)));
    if (device && device->flags & EXPLAIN_MOVING && device->committed != sum)
        say(look->verdict, "%s was allocating while it was asked: what it told is off by %s", named(member),
            sized(device->committed > sum ? device->committed - sum : sum - device->committed));
}

/* ---- who has most */

static void judge_shares(struct look *look)
{
    const struct explained_member *most = NULL;
    uint64_t driver = 0, plain = 0;
    unsigned holders = 0;

    for (unsigned i = 0; i < look->explained->members; i++) {
        const struct explained_member *member = &look->explained->member[i];
        const struct explain_device *device = told(look, member);

        holders += held(look, member) > 0;
        if (!most || held(look, member) > held(look, most))
            most = member;
        if (!device || member->suspended)
            continue;
        explain_sum(&driver, device->kind[EXPLAIN_CONTEXT].all.bytes);
        explain_sum(&driver, device->kind[EXPLAIN_MODULE].all.bytes);
        explain_sum(&driver, device->kind[EXPLAIN_DRIVER].all.bytes);
        explain_sum(&plain, device->kind[EXPLAIN_PLAIN].all.bytes);
        explain_sum(&plain, device->kind[EXPLAIN_VMM].all.bytes);
    }
    if (holders > 1)
        say(look->verdict, "%s holds %s, most of the tenant's %u processes%s", named(most), sized(held(look, most)), holders,
            look->wanter && look->wanter != most ? ", and is not the one that was refused" : "");
    if (driver >= NOTABLE &&
        driver / 2 >= (look->state->current - driver < look->state->current ? look->state->current - driver : 0))
        say(look->verdict, "contexts, modules and what else the driver keeps take %s of the %s in use", sized(driver),
            sized(look->state->current));
    if (plain >= NOTABLE && plain / 2 >= look->state->current / 4)
        say(look->verdict,
            "%s are blocks that the programs allocated themselves. A framework's own cache is among them, and only it can tell: "
            "torch.cuda.memory_summary(), torch.cuda.empty_cache()",
            sized(plain));
}

static void judge_silence(struct look *look)
{
    for (unsigned i = 0; i < look->explained->members; i++) {
        const struct explained_member *member = &look->explained->member[i];

        if (!member->answer && !member->dead && member->device[look->device].committed >= NOTABLE)
            say(look->verdict, "what the %s of %s are for is not known: %s", sized(member->device[look->device].committed),
                named(member), member->why);
    }
}

void explain_judge(const struct explained *explained, unsigned device, struct verdict *verdict)
{
    struct look look = {.explained = explained,
                        .device = device,
                        .state = &explained->tenant->view.device[device],
                        .gpu = observe_find_gpu(&explained->seen, explained->tenant->view.device[device].uuid),
                        .physical = UINT64_MAX,
                        .verdict = verdict};

    verdict->count = 0;
    look.left = less(look.state->limit, look.state->current);
    if (look.gpu && look.gpu->total)
        look.physical = less(look.gpu->total, look.gpu->used);
    find_refusal(&look);
    judge_refusal(&look);
    judge_limit(&look);
    judge_gpu(&look);
    judge_shares(&look);
    for (unsigned i = 0; i < explained->members; i++)
        judge_member(&look, &explained->member[i]);
    judge_silence(&look);
    if (explained->not_asked)
        say(verdict, "the tenant's processes could not be asked: %s. What is told is the ledger's", explained->not_asked);
}
