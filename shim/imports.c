/* SPDX-License-Identifier: Apache-2.0 */
/* Two records for each that is open: under its key how often, under the odd number after it how large, with `small` set if the driver's figure
 * counts it. Pointers and handles are even. */
#include "imports.h"

#include "context.h"
#include "figure.h"
#include "gap.h"
#include "guard.h"
#include "relaxed.h"
#include "returns.h"

/* Whether the driver's figure for a process counts what it has opened: the same for all openings, so one that nothing disturbed tells. */
enum { UNKNOWN, COUNTED, NOT_COUNTED };
static uint32_t verdict;

static uint64_t size_key(uint64_t key)
{
    return key | 1;
}

static bool read_figure(struct opening *opening, uint64_t *figure, uint64_t *own)
{
    const struct quota_device *device = &opening->membership->quota.device[opening->device];

    *own = ledger_own(&opening->membership->quota.ledger, (unsigned)device->index);
    return figure_of_process(device->id.uuid, figure);
}

static void begin(struct opening *opening, const uint32_t *known)
{
    struct membership *m = process_membership(NULL);

    *opening = (struct opening){.endings = context_endings()};
    if (m && context_current(m, &opening->owner, &opening->device)) {
        opening->membership = m;
        opening->tried =
            __atomic_load_n(known, __ATOMIC_RELAXED) == UNKNOWN && read_figure(opening, &opening->figure, &opening->own);
    }
    guard_enter();
}

void opening_begin(struct opening *opening)
{
    /* Who reads the gap before it is noted would charge it, and the figure would then seem to have grown by that. */
    bool marked = process_membership(NULL);

    if (marked)
        returns_begin();
    begin(opening, &verdict);
    opening->marked = marked;
}

/* What the driver says of an opened pointer: its whole size, and where it is. */
static bool ask(const struct membership *m, uint64_t pointer, uint64_t *bytes, int *device)
{
    CUdeviceptr base;
    size_t size = 0;
    int ordinal;
    CUdevice handle;
    CUstreamCaptureMode mode = relaxed_enter();
    bool known = called.cuMemGetAddressRange_v2(&base, &size, pointer) == CUDA_SUCCESS;

    if (called.cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, pointer) == CUDA_SUCCESS &&
        called.cuDeviceGet(&handle, ordinal) == CUDA_SUCCESS && process_device(m, handle) != PROCESS_NO_DEVICE)
        *device = process_device(m, handle);
    relaxed_leave(mode);
    *bytes = size;
    return known && size;
}

static bool figure_counts(struct opening *opening, uint64_t bytes, int device)
{
    uint32_t now = __atomic_load_n(&verdict, __ATOMIC_RELAXED);
    uint64_t figure, own;

    if (now == UNKNOWN && opening->tried && device == opening->device && read_figure(opening, &figure, &own) &&
        own == opening->own) {
        now = figure > opening->figure && figure - opening->figure >= bytes ? COUNTED : NOT_COUNTED;
        __atomic_store_n(&verdict, now, __ATOMIC_RELAXED);
    }
    return now == COUNTED;
}

static void drop(void *argument, const struct record *record)
{
    (void)argument;
    if ((record->key & 1) && record->small)
        gap_note_import(record->device, -(int64_t)record->bytes);
}

static void enter(struct opening *opening, CUresult result, uint64_t key, uint64_t bytes)
{
    struct membership *m = opening->membership;
    struct record count = {.key = key, .context = opening->owner}, size = {.key = size_key(key), .context = opening->owner}, old;
    int device = opening->device;
    uint64_t before;

    if (!m || result != CUDA_SUCCESS || !key || (!bytes && !ask(m, key, &bytes, &device)))
        return;
    if (!records_shift(process_imports(), &count, 1, UINT64_MAX, &before) || before)
        return; /* for want of host memory it is not remembered, and like any unknown pointer the driver's alone */
    size.bytes = bytes;
    size.device = (uint16_t)device;
    size.small = figure_counts(opening, bytes, device);
    if (size.small)
        gap_note_import(device, (int64_t)bytes);
    int put = records_put(process_imports(), &size, &old);
    if (put < 0)
        drop(NULL, &size);
    else if (put == 1)
        drop(NULL, &old);
    if (context_ended(opening->owner, opening->endings))
        imports_drop(m, opening->owner);
}

void opening_end(struct opening *opening, CUresult result, uint64_t key, uint64_t bytes)
{
    guard_leave();
    enter(opening, result, key, bytes);
    if (opening->marked)
        returns_end();
}

/* Of physical allocations by handle. One that this process made itself and imported again is counted once: only several that were not counted
 * say that none is. */
#define SHARED_TRIALS 4
static uint32_t shared_verdict, shared_trials;

void sharing_begin(struct opening *opening)
{
    begin(opening, &shared_verdict);
}

bool sharing_end(struct opening *opening, CUresult result, int device, uint64_t bytes)
{
    uint64_t figure, own;

    guard_leave();
    if (result == CUDA_SUCCESS && opening->tried && device == opening->device &&
        __atomic_load_n(&shared_verdict, __ATOMIC_RELAXED) == UNKNOWN && read_figure(opening, &figure, &own) &&
        own == opening->own) {
        if (figure > opening->figure && figure - opening->figure >= (bytes ? bytes : 1))
            __atomic_store_n(&shared_verdict, COUNTED, __ATOMIC_RELAXED);
        else if (bytes && __atomic_add_fetch(&shared_trials, 1, __ATOMIC_RELAXED) == SHARED_TRIALS)
            __atomic_store_n(&shared_verdict, NOT_COUNTED, __ATOMIC_RELAXED);
    }
    return __atomic_load_n(&shared_verdict, __ATOMIC_RELAXED) == COUNTED;
}

void closing_begin(struct closing *closing, uint64_t key)
{
    struct membership *m = process_membership(NULL);
    uint64_t before = 0;

    *closing = (struct closing){.membership = m};
    if (m && key && records_find(process_imports(), key, &closing->count) &&
        records_shift(process_imports(), &closing->count, -1, UINT64_MAX, &before) && before) {
        closing->counted = true;
        closing->last = before == 1 && records_take(process_imports(), size_key(key), &closing->size);
    }
    guard_enter();
}

void closing_end(struct closing *closing, CUresult result)
{
    bool closed = result == CUDA_SUCCESS || result == CUDA_ERROR_DEINITIALIZED;
    struct record old;
    uint64_t before;

    guard_leave();
    if (!closing->counted)
        return;
    if (closed && closing->last) {
        drop(NULL, &closing->size);
    } else if (!closed) {
        records_shift(process_imports(), &closing->count, 1, UINT64_MAX, &before);
        if (closing->last && records_put(process_imports(), &closing->size, &old) == 1)
            drop(NULL, &old);
    }
}

void imports_drop(struct membership *m, uint64_t owner)
{
    records_drop_context(process_imports(), owner, drop, m);
}

struct sum {
    unsigned device;
    uint64_t bytes;
};

static bool add(void *argument, const struct record *record)
{
    struct sum *sum = argument;

    if ((record->key & 1) && record->device == sum->device)
        sum->bytes += record->bytes;
    return false;
}

uint64_t imports_bytes(unsigned device)
{
    struct sum sum = {.device = device};
    uint64_t changes = 0;

    records_search(process_imports(), add, &sum, &(uint32_t){0}, &changes);
    return sum.bytes;
}
