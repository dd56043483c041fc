/* SPDX-License-Identifier: Apache-2.0 */
/* Marks: events of ours behind launches of the program's. They are recorded by the thread that launched, before it returns, so the program cannot
 * have destroyed the stream or begun a capture meanwhile without a race of its own. */
#include <errno.h>

#include "../core/compat.h"
#include "../core/lock.h"
#include "gate.h"
#include "relaxed.h"
#include "softslice/clock.h"

#define REFERENCE_NS  UINT64_C(250000000) /* a reference so old is replaced: the clocks of host and GPU drift apart */
#define SET_TRIES     8                   /* questions after an event of an idle stream, which takes some microseconds */
#define SET_NS        UINT64_C(100000)    /* a thread that was interrupted for longer meanwhile does not know when that was */
#define ENDING_NAP_NS 20000
#define ENDING_NS     UINT64_C(1000000000) /* a driver that hangs in a question is not to hang the program's call too */

static uint32_t lanes_used(const struct paces *paces)
{
    return __atomic_load_n(&paces->lanes, __ATOMIC_SEQ_CST);
}

/* With the lane's home current, or its very context: events are made, and asked for times, in it. */
struct inside {
    CUstreamCaptureMode mode;
    bool pushed;
};

static CUresult enter(struct inside *inside, uint64_t where)
{
    CUcontext context = (CUcontext)(uintptr_t)where, current = NULL;

    inside->mode = relaxed_enter();
    inside->pushed = false;
    called.cuCtxGetCurrent(&current);
    if (current == context)
        return CUDA_SUCCESS;
    CUresult result = called.cuCtxPushCurrent_v2(context);
    inside->pushed = result == CUDA_SUCCESS;
    if (!inside->pushed)
        relaxed_leave(inside->mode);
    return result;
}

static void leave(const struct inside *inside)
{
    CUcontext context;

    if (inside->pushed)
        called.cuCtxPopCurrent_v2(&context);
    relaxed_leave(inside->mode);
}

/* The lane's context is gone, and nobody is about it any more. */
static void end(struct membership *m, struct paces *paces, struct lane *lane)
{
    CUstreamCaptureMode mode = relaxed_enter();
    uint64_t now = clock_now();

    for (unsigned i = 0; i < PACE_MARKS; i++) {
        struct mark *mark = &lane->mark[i];

        if (__atomic_load_n(&mark->state, __ATOMIC_ACQUIRE) == MARK_PENDING) {
            mark->segment.launches = 0; /* when it was reached nobody saw */
            pace_reached(m, paces, lane->device, mark, now);
            __atomic_sub_fetch(&lane->pending, 1, __ATOMIC_SEQ_CST);
        }
        if (mark->event && lane->home && lane->home != lane->context && !mark->own)
            called.cuEventDestroy_v2(mark->event); /* the others ended with the context */
        mark->event = NULL;
        __atomic_store_n(&mark->state, MARK_FREE, __ATOMIC_RELEASE);
    }
    relaxed_leave(mode);
    flow_forget_lane(paces, (unsigned)(lane - paces->lane));
    lane->context = lane->home = 0;
    __atomic_store_n(&lane->state, LANE_FREE, __ATOMIC_RELEASE);
}

/* What its context ended under, since the driver kept them for too long, ends it when the last of them goes. */
static void end_if_last(struct paces *paces, struct lane *lane)
{
    struct membership *m = process_membership(NULL);
    uint32_t state = LANE_GONE;

    if (m && !__atomic_load_n(&lane->users, __ATOMIC_SEQ_CST) &&
        __atomic_compare_exchange_n(&lane->state, &state, LANE_ENDING, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        end(m, paces, lane);
}

static void lane_give(struct paces *paces, struct lane *lane)
{
    if (!__atomic_sub_fetch(&lane->users, 1, __ATOMIC_SEQ_CST) && __atomic_load_n(&lane->state, __ATOMIC_SEQ_CST) == LANE_GONE)
        end_if_last(paces, lane);
}

/* Whether the lane's context may be used: it does not end before lane_give(), unless that takes a second. The lane does not. */
static bool lane_take(struct paces *paces, struct lane *lane)
{
    __atomic_add_fetch(&lane->users, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&lane->state, __ATOMIC_SEQ_CST) == LANE_OPEN)
        return true;
    lane_give(paces, lane);
    return false;
}

/* One place is the reference's. */
bool mark_room(const struct lane *lane)
{
    return __atomic_load_n(&lane->pending, __ATOMIC_RELAXED) < PACE_MARKS - 1;
}

static struct mark *take_mark(struct lane *lane)
{
    for (unsigned i = 0; i < PACE_MARKS; i++) {
        uint32_t state = MARK_FREE;

        if (__atomic_compare_exchange_n(&lane->mark[i].state, &state, MARK_TAKEN, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            return &lane->mark[i];
    }
    return NULL;
}

static CUresult record(struct lane *lane, struct mark *mark, CUstream stream, bool per_thread, bool own)
{
    CUresult result = CUDA_SUCCESS;
    struct inside inside;

    if (enter(&inside, own ? lane->context : lane->home) != CUDA_SUCCESS)
        return CUDA_ERROR_NOT_READY;
    if (!mark->event) {
        result = called.cuEventCreate(&mark->event, CU_EVENT_DEFAULT);
        mark->own = own;
    }
    if (result == CUDA_SUCCESS)
        result = per_thread ? called.cuEventRecord_ptsz(mark->event, stream) : called.cuEventRecord(mark->event, stream);
    leave(&inside);
    return result;
}

/* Whether a green context's streams take events of the primary one is assumed, as documented of cuGreenCtxRecordEvent. Else they are made in it, which no
 * other thread than the one that launches could. */
static CUresult record_somehow(struct lane *lane, struct mark *mark, CUstream stream, bool per_thread)
{
    CUresult result = record(lane, mark, stream, per_thread, false);

    if (result != CUDA_ERROR_INVALID_HANDLE || lane->home == lane->context || mark->own)
        return result;
    called.cuEventDestroy_v2(mark->event);
    mark->event = NULL;
    return record(lane, mark, stream, per_thread, true);
}

bool mark_record(struct paces *paces, struct flow *flow, uint32_t life, CUstream stream, bool per_thread, bool late)
{
    struct lane *lane = &paces->lane[flow->lane];
    struct mark *mark;
    CUresult result;

    if (flow_life(flow) != life || !lane_take(paces, lane))
        return false;
    mark = take_mark(lane);
    uint64_t before = clock_now(); /* what it is reached after, however long the thread is interrupted for */
    result = mark ? record_somehow(lane, mark, stream, per_thread) : CUDA_ERROR_NOT_READY;
    if (mark && result != CUDA_SUCCESS)
        __atomic_store_n(&mark->state, MARK_FREE, __ATOMIC_RELEASE);
    if (result == CUDA_SUCCESS) {
        mark->flow = (uint32_t)(flow - paces->flow);
        mark->life = life;
        mark->recorded = before;
        if (flow_life(flow) == life)
            estimate_close(pace_estimates(paces), &flow->segment, &mark->segment);
        else
            mark->segment = (struct estimate_segment){.sum = 0};
        pace_marked(paces, lane->device, flow, mark, late);
        __atomic_add_fetch(&lane->pending, 1, __ATOMIC_SEQ_CST);
        __atomic_store_n(&mark->state, MARK_PENDING, __ATOMIC_RELEASE);
    }
    lane_give(paces, lane);
    return result == CUDA_SUCCESS;
}

/* When a mark was reached: its distance from the reference, held between when it was recorded and when that was seen. What is learned by that of the
 * reference's own moment is kept. */
static uint64_t time_of(struct lane *lane, const struct mark *mark, uint64_t now)
{
    const struct mark *reference = lane->reference >= 0 ? &lane->mark[lane->reference] : NULL;
    float ms;
    uint64_t at;

    if (!reference || called.cuEventElapsedTime(&ms, reference->event, mark->event) != CUDA_SUCCESS)
        return now;
    at = lane->reference_time + (uint64_t)(int64_t)((double)ms * 1e6);
    if ((int64_t)(at - now) > 0) {
        lane->reference_time -= at - now;
        at = now;
    } else if ((int64_t)(at - mark->recorded) < 0) {
        lane->reference_time += mark->recorded - at;
        at = mark->recorded;
    }
    return at;
}

/* `mark` is known to have been reached `at` that moment, from which others' are told. */
static void refer(struct lane *lane, struct mark *mark, uint64_t at)
{
    if (lane->reference >= 0)
        __atomic_store_n(&lane->mark[lane->reference].state, MARK_FREE, __ATOMIC_RELEASE);
    lane->reference = (int32_t)(mark - lane->mark);
    lane->reference_time = at;
    __atomic_store_n(&mark->state, MARK_REFERENCE, __ATOMIC_RELEASE);
}

/* A mark that is over. */
struct over {
    struct mark *mark;
    uint64_t at;
    bool seen; /* it was reached; else it never will be: the context is broken */
};

static void reached(struct membership *m, struct paces *paces, struct lane *lane, const struct over *over)
{
    struct mark *mark = over->mark;

    if (!over->seen)
        mark->segment.launches = 0; /* nothing is learned from it */
    pace_reached(m, paces, lane->device, mark, over->at);
    __atomic_sub_fetch(&lane->pending, 1, __ATOMIC_SEQ_CST);
    if (!over->seen || (lane->reference >= 0 && over->at - lane->reference_time < REFERENCE_NS)) {
        __atomic_store_n(&mark->state, MARK_FREE, __ATOMIC_RELEASE);
        return;
    }
    refer(lane, mark, over->at);
}

/* Its context ended unseen, as a primary one does with the last green one. Who looks at the lane is one of its users. */
static void lose(struct lane *lane)
{
    uint32_t state = LANE_OPEN;

    if (__atomic_compare_exchange_n(&lane->state, &state, LANE_ENDING, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
        lane->home = 0;
        __atomic_store_n(&lane->state, LANE_GONE, __ATOMIC_SEQ_CST);
    }
}

/* Those that are over, the oldest first; a stream reaches its own in order. */
static unsigned look(struct lane *lane, struct over *over)
{
    uint32_t blocked[PACE_MARKS];
    unsigned blocks = 0, tried = 0, count = 0;
    bool looked[PACE_MARKS] = {false};

    while (tried++ < PACE_MARKS) {
        struct mark *oldest = NULL;
        bool behind = false;

        for (unsigned i = 0; i < PACE_MARKS; i++) {
            struct mark *mark = &lane->mark[i];

            if (!looked[i] && __atomic_load_n(&mark->state, __ATOMIC_ACQUIRE) == MARK_PENDING &&
                (!oldest || (int64_t)(mark->recorded - oldest->recorded) < 0))
                oldest = mark;
        }
        if (!oldest)
            break;
        looked[oldest - lane->mark] = true;
        for (unsigned i = 0; i < blocks && !behind; i++)
            behind = blocked[i] == oldest->flow;
        if (behind)
            continue;
        CUresult result = called.cuEventQuery(oldest->event);
        uint64_t now = clock_now();
        bool seen = result == CUDA_SUCCESS;

        if (result == CUDA_ERROR_NOT_READY)
            blocked[blocks++] = oldest->flow;
        else
            over[count++] = (struct over){oldest, seen ? time_of(lane, oldest, now) : now, seen};
    }
    return count;
}

/* In the order in which they were reached, which is not that of several streams' launches: the time between two is divided by that. */
static void collect(struct membership *m, struct paces *paces, struct lane *lane)
{
    struct over over[PACE_MARKS];
    struct inside inside;

    CUresult result = enter(&inside, lane->home);
    if (result == CUDA_ERROR_INVALID_CONTEXT || result == CUDA_ERROR_CONTEXT_IS_DESTROYED)
        lose(lane);
    if (result != CUDA_SUCCESS)
        return;
    unsigned count = look(lane, over);
    for (unsigned i = 0; i < count; i++) {
        struct over *next = &over[i];

        for (unsigned j = i + 1; j < count; j++)
            if (over[j].at < next->at)
                next = &over[j];
        struct over swapped = *next;
        *next = over[i];
        reached(m, paces, lane, &swapped);
    }
    leave(&inside);
}

/* Whether it was reached, which an event in an idle stream is at once. */
static bool reached_soon(const struct lane *lane, const struct mark *mark)
{
    CUresult result = CUDA_ERROR_NOT_READY;
    struct inside inside;

    if (enter(&inside, lane->home) != CUDA_SUCCESS)
        return false;
    for (unsigned i = 0; i < SET_TRIES && result == CUDA_ERROR_NOT_READY; i++)
        result = called.cuEventQuery(mark->event);
    leave(&inside);
    return result == CUDA_SUCCESS;
}

static void set_clock(struct lane *lane, CUstream stream, bool per_thread)
{
    struct mark *mark = take_mark(lane);
    uint32_t nobody = 0;

    if (!mark)
        return;
    if (!mark->event) /* making one takes longer than a reading may */
        record_somehow(lane, mark, stream, per_thread);
    uint64_t before = clock_now();
    bool seen = record_somehow(lane, mark, stream, per_thread) == CUDA_SUCCESS && reached_soon(lane, mark);
    uint64_t now = clock_now();
    if (!seen || now - before > SET_NS ||
        !__atomic_compare_exchange_n(&lane->collecting, &nobody, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
        __atomic_store_n(&mark->state, MARK_FREE, __ATOMIC_RELEASE);
        return;
    }
    refer(lane, mark, now);
    __atomic_store_n(&lane->collecting, 0, __ATOMIC_RELEASE);
}

void mark_set_clock(struct paces *paces, struct flow *flow, uint32_t life, CUstream stream, bool per_thread)
{
    struct lane *lane = &paces->lane[flow->lane];
    uint64_t now = clock_now(), last = __atomic_load_n(&lane->set, __ATOMIC_RELAXED);

    if (flow_life(flow) != life || now < last + REFERENCE_NS || !lane_take(paces, lane))
        return;
    __atomic_store_n(&lane->set, now, __ATOMIC_RELAXED);
    set_clock(lane, stream, per_thread);
    lane_give(paces, lane);
}

void mark_collect(struct membership *m, struct paces *paces, int device)
{
    int saved = errno;

    for (unsigned i = 0; i < lanes_used(paces); i++) {
        struct lane *lane = &paces->lane[i];
        uint32_t nobody = 0;

        if (!__atomic_load_n(&lane->pending, __ATOMIC_SEQ_CST) || lane->device != device || !lane_take(paces, lane))
            continue;
        if (__atomic_compare_exchange_n(&lane->collecting, &nobody, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
            collect(m, paces, lane);
            __atomic_store_n(&lane->collecting, 0, __ATOMIC_RELEASE);
        }
        lane_give(paces, lane);
    }
    errno = saved;
}

/* The first context that was made here, as long as there was no other: the runtime's own ways to the primary one end in the same. */
static uint64_t only_context;
static uint32_t several_contexts; /* atomic */

void mark_context_made(CUcontext context)
{
    struct paces *paces = __atomic_load_n(&gate_paces, __ATOMIC_ACQUIRE);
    uint64_t first = 0, made = (uint64_t)(uintptr_t)context;

    if (context &&
        (__atomic_compare_exchange_n(&only_context, &first, made, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) || first == made))
        return;
    __atomic_store_n(&several_contexts, 1, __ATOMIC_SEQ_CST);
    if (paces)
        __atomic_store_n(&paces->context, 0, __ATOMIC_SEQ_CST);
}

/* Whether no context can be another device's. */
static bool only_device(void)
{
    struct membership *m = process_membership(NULL);

    return m && m->quota.devices == 1;
}

struct lane *lane_open(struct paces *paces, CUcontext context)
{
    uint64_t key = (uint64_t)(uintptr_t)context;

    for (unsigned i = 0; i < lanes_used(paces); i++)
        if (__atomic_load_n(&paces->lane[i].state, __ATOMIC_ACQUIRE) == LANE_OPEN && paces->lane[i].context == key)
            return &paces->lane[i];
    return NULL;
}

static struct lane *free_lane(struct paces *paces)
{
    for (unsigned i = 0; i < PACE_LANES; i++)
        if (__atomic_load_n(&paces->lane[i].state, __ATOMIC_ACQUIRE) == LANE_FREE)
            return &paces->lane[i];
    return NULL;
}

struct lane *lane_of(struct paces *paces, CUcontext context, CUcontext home, int device)
{
    uint64_t key = (uint64_t)(uintptr_t)context;
    struct lane *lane = lane_open(paces, context);
    bool only = only_device();

    if (lane)
        return lane;
    lock_take(&paces->flow_lock); /* several threads may come with a new context at once */
    lane = lane_open(paces, context);
    if (!lane && (lane = free_lane(paces))) {
        uint32_t used = (uint32_t)(lane - paces->lane) + 1;

        if (lanes_used(paces) < used)
            __atomic_store_n(&paces->lanes, used, __ATOMIC_SEQ_CST);
        lane->context = key;
        lane->home = (uint64_t)(uintptr_t)home;
        lane->device = (uint16_t)device;
        lane->reference = -1;
        __atomic_store_n(&lane->set, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&lane->state, LANE_OPEN, __ATOMIC_RELEASE);
        __atomic_store_n(&paces->context, lanes_used(paces) == 1 && only ? key : 0, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&several_contexts, __ATOMIC_SEQ_CST))
            __atomic_store_n(&paces->context, 0, __ATOMIC_SEQ_CST);
    }
    lock_give(&paces->flow_lock);
    return lane;
}

static struct paces *present(struct membership **m)
{
    struct paces *paces = __atomic_load_n(&gate_paces, __ATOMIC_ACQUIRE);

    *m = paces && !thread_over() ? process_membership(NULL) : NULL;
    return *m ? paces : NULL;
}

bool mark_contexts(void)
{
    struct paces *paces = __atomic_load_n(&gate_paces, __ATOMIC_ACQUIRE);

    return paces && __atomic_load_n(&paces->devices, __ATOMIC_RELAXED);
}

static bool ends_with(const struct lane *lane, CUcontext context)
{
    return lane->context == (uint64_t)(uintptr_t)context || lane->home == (uint64_t)(uintptr_t)context;
}

void mark_context_ending(CUcontext context)
{
    struct membership *m;
    struct paces *paces = present(&m);

    for (unsigned i = 0; paces && context && i < lanes_used(paces); i++) {
        struct lane *lane = &paces->lane[i];
        uint32_t state = LANE_OPEN;

        if (!ends_with(lane, context) ||
            !__atomic_compare_exchange_n(&lane->state, &state, LANE_ENDING, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
            continue;
        for (uint64_t until = clock_now() + ENDING_NS; __atomic_load_n(&lane->users, __ATOMIC_SEQ_CST) && clock_now() < until;)
            compat_sleep(ENDING_NAP_NS);
    }
}

void mark_context_ended(CUcontext context, bool gone)
{
    struct membership *m;
    struct paces *paces = present(&m);

    for (unsigned i = 0; paces && context && i < lanes_used(paces); i++) {
        struct lane *lane = &paces->lane[i];

        if (!ends_with(lane, context) || __atomic_load_n(&lane->state, __ATOMIC_ACQUIRE) != LANE_ENDING)
            continue;
        if (gone) {
            /* What it had launched is done. */
            pace_synchronised(m, paces, NULL, context, 0);
            flow_forget_lane(paces, i);
            if (lane->home == (uint64_t)(uintptr_t)context)
                lane->home = 0;
            __atomic_store_n(&lane->state, LANE_GONE, __ATOMIC_SEQ_CST);
            end_if_last(paces, lane);
        } else {
            __atomic_store_n(&lane->state, LANE_OPEN, __ATOMIC_RELEASE);
        }
    }
}
