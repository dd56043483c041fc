/* SPDX-License-Identifier: Apache-2.0 */
/* Charges around an allocation from a memory pool. */
#include "draw.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "context.h"
#include "graphs.h"
#include "real.h"
#include "relaxed.h"
#include "returns.h"
#include "take.h"

#define HOLD_ATTEMPTS 10000

bool draw_captures(CUstream stream)
{
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;

    /* The legacy stream cannot capture, and the question would fail while another one does. */
    return stream && stream != CU_STREAM_LEGACY && called.cuStreamIsCapturing(stream, &status) == CUDA_SUCCESS &&
           status != CU_STREAM_CAPTURE_STATUS_NONE;
}

static bool device_of_context(struct membership *m, CUcontext context, unsigned *device)
{
    struct record record;
    CUcontext popped;
    CUdevice handle;

    if (records_find(process_contexts(), (uint64_t)(uintptr_t)context, &record)) {
        *device = record.device;
        return true;
    }
    if (called.cuCtxPushCurrent_v2(context) != CUDA_SUCCESS)
        return false;
    bool known = called.cuCtxGetDevice(&handle) == CUDA_SUCCESS;
    called.cuCtxPopCurrent_v2(&popped);
    int index = known ? process_device(m, handle) : PROCESS_NO_DEVICE;
    *device = (unsigned)index;
    return index != PROCESS_NO_DEVICE;
}

/* The device of a stream: its context's. False where the driver is about to say what is wrong with it. */
static bool device_of_stream(struct membership *m, CUstream stream, unsigned *device)
{
    CUcontext context;
    uint64_t owner;
    int index;

    if (m->quota.devices == 1) {
        *device = 0;
        return true;
    }
    if (stream && stream != CU_STREAM_LEGACY && stream != CU_STREAM_PER_THREAD)
        return called.cuStreamGetCtx(stream, &context) == CUDA_SUCCESS && device_of_context(m, context, device);
    bool known = context_current(m, &owner, &index);
    *device = known ? (unsigned)index : 0;
    return known;
}

/* The quota device of a pool that we have not seen made: true if it is the default or current pool of one. */
static bool locate(struct membership *m, CUmemoryPool pool, unsigned *device)
{
    CUstreamCaptureMode mode = relaxed_enter();
    bool found = false;

    for (unsigned i = 0; i < m->quota.devices && !found; i++) {
        CUmemoryPool of_device;

        found = (called.cuDeviceGetDefaultMemPool(&of_device, m->device[i]) == CUDA_SUCCESS && of_device == pool) ||
                (called.cuDeviceGetMemPool(&of_device, m->device[i]) == CUDA_SUCCESS && of_device == pool);
        *device = i;
    }
    relaxed_leave(mode);
    return found;
}

/* The meter of the pool that the driver will use. CUDA_SUCCESS without one: nothing to charge, or the driver's to refuse. CUDA_ERROR_NOT_READY: the
 * current pool is just being changed. */
static CUresult find_meter(struct draw *draw, struct membership *m, CUmemoryPool pool)
{
    unsigned device;

    if (!draw->current) {
        draw->meter = pool ? meter_find(pool) : NULL;
        if (draw->meter || !pool)
            return CUDA_SUCCESS;
        if (!locate(m, pool, &device)) {
            if (!device_of_stream(m, draw->stream, &device))
                return CUDA_SUCCESS;
            draw->guessed = true;
        }
        draw->meter = meter_of_pool(m, pool, device);
        return draw->meter ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (!device_of_stream(m, draw->stream, &device))
        return CUDA_SUCCESS;
    draw->meter = meter_current(device);
    if (draw->meter)
        return CUDA_SUCCESS;
    CUstreamCaptureMode mode = relaxed_enter();
    CUresult result = called.cuDeviceGetMemPool(&pool, m->device[device]);
    relaxed_leave(mode);
    if (result != CUDA_SUCCESS)
        return CUDA_SUCCESS;
    draw->meter = meter_of_found(pool, device, draw->changes);
    if (!draw->meter)
        return meters_unchanged(draw->changes) ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_NOT_READY;
    meter_set_current(draw->meter, draw->changes);
    return CUDA_SUCCESS;
}

/* The same, held. One that is on its way out is only then not the driver's to refuse when it is the current one, and another will be. */
static CUresult hold_meter(struct draw *draw, struct membership *m, CUmemoryPool pool)
{
    CUresult result = CUDA_SUCCESS;

    for (int attempt = 0; attempt < HOLD_ATTEMPTS; attempt++) {
        draw->changes = meters_changes();
        result = find_meter(draw, m, pool);
        if (result == CUDA_ERROR_NOT_READY) {
            syscall(SYS_sched_yield);
            continue;
        }
        if (result != CUDA_SUCCESS || !draw->meter)
            return result;
        if (draw->meter->kind != METER_POOL)
            break;
        if (meter_hold(draw->meter, &draw->order))
            return CUDA_SUCCESS;
        if (!draw->current)
            break;
        syscall(SYS_sched_yield);
    }
    draw->meter = NULL;
    return result == CUDA_ERROR_NOT_READY ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

/* What a pool may grow by for an allocation. */
static uint64_t growth(uint64_t bytes)
{
    uint64_t step = meters_step();

    return bytes > UINT64_MAX - (step - 1) ? UINT64_MAX : (bytes + (step - 1)) & ~(step - 1);
}

/* Reserve what the pool may grow by; where the budget has no room for that at first sight, the pool's own will do. */
static bool reserve(struct draw *draw, struct membership *m, uint64_t most)
{
    unsigned device = draw->meter->device;

    if (quota_try_reserve(&m->quota, &draw->charge, device, most, QUOTA_POOL))
        return true;
    draw->claimed = !draw->strict && meter_claim(draw->meter, draw->bytes);
    return draw->claimed || take_reserve(m, &draw->charge, device, most, QUOTA_POOL);
}

CUresult draw_begin(struct draw *draw, uint64_t bytes, CUmemoryPool pool, bool named, CUstream stream, bool per_thread)
{
    CUresult why;
    struct membership *m = process_membership(&why);

    draw->membership = NULL;
    draw->over = draw->claimed = draw->moved = false;
    draw->stream = draw_stream(stream, per_thread);
    if (!m) {
        if (why == CUDA_ERROR_OPERATING_SYSTEM)
            return why;
    } else if (draw_captures(draw->stream)) {
        graphs_note_memory_node();
    } else if (bytes) {
        draw->bytes = bytes;
        draw->current = !named;
        why = hold_meter(draw, m, pool);
        if (why != CUDA_SUCCESS)
            return why;
        if (draw->meter) {
            if (!__atomic_load_n(&draw->meter->tickets, __ATOMIC_RELAXED)) /* its pool may be older than our knowledge of it */
                meter_read(m, draw->meter);
            if (!reserve(draw, m, growth(bytes))) {
                meter_let_go(draw->meter);
                return CUDA_ERROR_OUT_OF_MEMORY;
            }
            draw->membership = m;
            if (draw->claimed) /* the pool may grow all the same, and nothing is charged for that until it is read */
                returns_begin();
        }
    }
    guard_enter();
    return CUDA_SUCCESS;
}

bool draw_again(struct draw *draw, CUresult result)
{
    return result == CUDA_ERROR_OUT_OF_MEMORY && draw->membership &&
           quota_retry_oom(&draw->membership->quota, draw->meter->device, &draw->attempt);
}

/* Whether a block is in memory of the host, which costs nothing. */
static bool on_host(CUdeviceptr pointer)
{
    CUstreamCaptureMode mode = relaxed_enter();
    unsigned type = CU_MEMORYTYPE_DEVICE;

    called.cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, pointer);
    relaxed_leave(mode);
    return type == CU_MEMORYTYPE_HOST;
}

/* The meter of the pool that a block is in, held. NULL where that pool is on its way out. */
static struct meter *meter_of_block(CUdeviceptr pointer, unsigned device, uint64_t *order)
{
    for (int attempt = 0; attempt < HOLD_ATTEMPTS; attempt++) {
        uint64_t changes = meters_changes();
        CUstreamCaptureMode mode = relaxed_enter();
        CUmemoryPool pool = NULL;

        called.cuPointerGetAttribute(&pool, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, pointer);
        relaxed_leave(mode);
        struct meter *meter = pool ? meter_of_found(pool, device, changes) : NULL;
        if (meter && meter_hold(meter, order))
            return meter;
        if (!pool || meters_unchanged(changes))
            break;
        syscall(SYS_sched_yield);
    }
    return NULL;
}

/* The pool that the block is really in, held, where that is not sure; no meter where it is on its way out. */
static void correct_meter(struct draw *draw, struct membership *m, CUdeviceptr pointer)
{
    struct meter *meter = draw->meter;
    uint64_t order;

    if (draw->guessed) {
        if (on_host(pointer))
            meter->kind = METER_FOREIGN;
        return;
    }
    /* Who destroys a pool waits for those that hold it: none is held while others are waited for. */
    meter_read(m, meter);
    if (draw->claimed)
        meter_unclaim(meter, draw->bytes);
    draw->claimed = false;
    meter_let_go(meter);
    draw->moved = true;
    draw->meter = meter_of_block(pointer, draw->charge.device, &order);
}

/* Whether more is charged on the meter's device than the limit. */
static bool over_limit(struct membership *m, unsigned device)
{
    unsigned index = (unsigned)m->quota.device[device].index;

    return ledger_reserve(&m->quota.ledger, index, 0, quota_limit(&m->quota, device)) != 0;
}

/* Enter the block under its address. False for want of host memory. */
static bool remember(struct draw *draw, struct membership *m, CUdeviceptr pointer)
{
    struct record old,
        record = {.key = pointer, .bytes = meter_number(draw->meter), .device = draw->meter->device, .family = QUOTA_POOL};

    meter_block(draw->meter);
    int put = records_put(process_allocations(), &record, &old);
    if (put < 0)
        take_refund(m, &record);
    else if (put == 1) /* freed on a road that we do not see, and handed out again */
        take_refund(m, &old);
    return put >= 0;
}

bool draw_end(struct draw *draw, CUresult result, CUdeviceptr pointer)
{
    struct membership *m = draw->membership;
    bool kept = true, unreserved = draw->claimed;

    guard_leave();
    if (!m)
        return true;
    if (result == CUDA_SUCCESS && pointer) {
        if (draw->guessed || (draw->current && !meters_unchanged(draw->changes)))
            correct_meter(draw, m, pointer);
        uint64_t grown = draw->meter ? meter_read(m, draw->meter) : METER_UNKNOWN;
        quota_cancel(&m->quota, &draw->charge);
        if (grown == METER_UNKNOWN) {
            draw->over = true; /* what cannot be charged cannot be had */
        } else if (grown > draw->charge.bytes) {
            if (!draw->moved && grown > growth(draw->bytes) && meter_alone(draw->meter, draw->order))
                meters_saw_growth(draw->bytes, grown); /* nobody else's doing: this driver takes larger chunks */
            draw->over = over_limit(m, draw->meter->device);
        }
        kept = !draw->over && remember(draw, m, pointer);
    } else {
        quota_cancel(&m->quota, &draw->charge);
    }
    if (unreserved)
        returns_end();
    if (draw->claimed)
        meter_unclaim(draw->meter, draw->bytes);
    if (draw->meter)
        meter_let_go(draw->meter);
    return kept;
}

bool draw_anew(struct draw *draw)
{
    struct membership *m = draw->membership;

    if (draw->over && !draw->strict) {
        draw->strict = true;
        return true;
    }
    if (draw->over)
        quota_refuse(&m->quota, draw->charge.device, draw->bytes, QUOTA_POOL);
    return false;
}

void draw_created(CUmemoryPool pool, const CUmemPoolProps *props)
{
    struct membership *m = process_membership(NULL);
    int index = PROCESS_NO_DEVICE;
    CUdevice handle;

    if (m && props->location.type == CU_MEM_LOCATION_TYPE_DEVICE && called.cuDeviceGet(&handle, props->location.id) == CUDA_SUCCESS)
        index = process_device(m, handle);
    if (m)
        meter_new(m, pool, index == PROCESS_NO_DEVICE ? 0 : (unsigned)index,
                  index == PROCESS_NO_DEVICE ? METER_FOREIGN : METER_POOL);
}

void draw_imported(CUmemoryPool pool)
{
    struct membership *m = process_membership(NULL);

    if (m)
        meter_new(m, pool, 0, METER_FOREIGN);
}

void draw_trimmed(CUmemoryPool pool)
{
    struct membership *m = process_membership(NULL);
    struct meter *meter = m ? meter_find(pool) : NULL;
    uint64_t order;

    if (meter && meter_hold(meter, &order)) {
        meter_read(m, meter);
        meter_let_go(meter);
    }
}

void draw_set_threshold(CUmemoryPool pool, uint64_t bytes)
{
    struct membership *m = process_membership(NULL);
    struct meter *meter = m ? meter_find(pool) : NULL;
    unsigned device;

    if (m && !meter && locate(m, pool, &device))
        meter = meter_of_pool(m, pool, device);
    if (meter)
        __atomic_store_n(&meter->threshold, bytes, __ATOMIC_RELAXED);
}

struct meter *draw_ending(CUmemoryPool pool)
{
    struct membership *m = process_membership(NULL);
    struct meter *meter;

    if (!m)
        return NULL;
    meter = meter_ending(pool);
    returns_begin();
    if (meter && meter->kind == METER_POOL && __atomic_load_n(&meter->blocks, __ATOMIC_RELAXED)) {
        CUstreamCaptureMode mode = relaxed_enter();

        real.cuMemPoolTrimTo(pool, 0);
        relaxed_leave(mode);
        meter_read(m, meter);
    }
    return meter;
}

void draw_ended(struct meter *meter, CUresult result)
{
    struct membership *m = process_membership(NULL);

    if (meter && m)
        meter_ended(m, meter, result == CUDA_SUCCESS || result == CUDA_ERROR_DEINITIALIZED);
    if (m)
        returns_end();
}
