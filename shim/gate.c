/* SPDX-License-Identifier: Apache-2.0 */
/* What a launch does that may not simply pass. */
#include "gate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pacer.h"
#include "relaxed.h"
#include "softslice/clock.h"

struct paces *gate_paces;

/* The launch becomes a node of a graph: nothing runs, nobody waits. An error is the program's to see: of the legacy stream while others capture. */
static bool captures(CUstream stream, bool per_thread)
{
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    CUresult result = per_thread ? called.cuStreamIsCapturing_ptsz(stream, &status) : called.cuStreamIsCapturing(stream, &status);

    return status != CU_STREAM_CAPTURE_STATUS_NONE || (result != CUDA_SUCCESS && result != CUDA_ERROR_NOT_FOUND);
}

/* Whether launches come back when their work is done, as the driver has it for who looks for an error. */
static bool launches_block(struct paces *paces)
{
    enum { BLOCK = 1, RETURN };
    uint32_t known = __atomic_load_n(&paces->blocking, __ATOMIC_RELAXED);

    if (!known) {
        const char *text = getenv("CUDA_LAUNCH_BLOCKING");

        known = text && *text && strcmp(text, "0") != 0 ? BLOCK : RETURN;
        __atomic_store_n(&paces->blocking, known, __ATOMIC_RELAXED);
    }
    return known == BLOCK;
}

/* What is expected of it counts until it comes back: one that takes longer may wait for another process's. */
static void begin_blocking(struct membership *m, struct paces *paces, struct gate_launch *launch)
{
    __atomic_store_n(&launch->flow->epoch, 0, __ATOMIC_RELAXED); /* none passes without asking: how long it takes is seen here */
    launch->since = clock_now();
    launch->device = pace_launched(m, paces, launch->flow, launch->life);
    if (launch->device != PROCESS_NO_DEVICE && launch->expected != ESTIMATE_UNKNOWN)
        pace_expect(paces, launch->flow, launch->life, (int64_t)launch->expected);
}

static void end_blocking(struct paces *paces, const struct gate_launch *launch)
{
    if (launch->device != PROCESS_NO_DEVICE && launch->expected != ESTIMATE_UNKNOWN)
        pace_expect(paces, launch->flow, launch->life, -(int64_t)launch->expected);
}

void gate_ask(struct gate_launch *launch, CUstream stream, bool per_thread)
{
    struct membership *m = process_membership(NULL);
    struct paces *paces = m && !thread_over() ? process_paces() : NULL;
    int saved = errno;

    launch->flow = NULL;
    launch->device = PROCESS_NO_DEVICE;
    launch->asked = true;
    if (!paces)
        return;
    __atomic_store_n(&gate_paces, paces, __ATOMIC_RELEASE);
    CUstreamCaptureMode mode = relaxed_enter();
    if (!captures(stream, per_thread))
        launch->flow = flow_of(m, paces, stream, per_thread);
    if (launch->flow) {
        if (!__atomic_load_n(&launch->flow->by, __ATOMIC_RELAXED)) /* another stream's place, perhaps the last one's */
            flow_thread.last = NULL;
        launch->expected = estimate_of(pace_estimates(paces), launch->key);
        launch->life = flow_life(launch->flow);
        pace_admit(m, paces, launch->flow, &(struct pace_request){stream, per_thread, launch->key, launch->expected, launch->life});
        if (!__atomic_load_n(&paces->pace[launch->flow->device].busy, __ATOMIC_RELAXED))
            mark_set_clock(paces, launch->flow, launch->life, stream, per_thread);
        launch->mark = pace_wants_mark(paces, launch->flow, launch->expected);
        /* The other streams' marks have to have room too. */
        if (launch->flow->stalled && launch->flow->marks >= 2 * PACE_AHEAD)
            launch->mark = false;
        if (launches_block(paces))
            begin_blocking(m, paces, launch);
    }
    relaxed_leave(mode);
    errno = saved;
}

void gate_launched(struct gate_launch *launch, CUstream stream, bool per_thread)
{
    struct membership *m = process_membership(NULL);
    struct paces *paces = gate_paces;
    int saved = errno;

    if (!m)
        return;
    int device = launch->device != PROCESS_NO_DEVICE ? launch->device : pace_launched(m, paces, launch->flow, launch->life);
    if (device == PROCESS_NO_DEVICE) {
        errno = saved;
        return;
    }
    end_blocking(paces, launch);
    /* Else its stream was destroyed while it waited, and what the flow has left is another's. */
    if (flow_life(launch->flow) == launch->life &&
        (!launch->mark || !mark_record(paces, launch->flow, launch->life, stream, per_thread, false)))
        __atomic_sub_fetch(&launch->flow->left,
                           launch->expected == ESTIMATE_UNKNOWN ? (int64_t)PACE_MARK_NS : (int64_t)launch->expected,
                           __ATOMIC_RELAXED);
    pace_counted(paces, device);
    if (launch->device != PROCESS_NO_DEVICE)
        pace_returned(m, paces, launch->flow, launch->life, launch->since);
    if (launch->expected >= PACE_LONG && (launch->expected >= PACER_ALONE_NS || !pace_alone(m, paces)))
        pacer_look(paces, clock_now() + PACER_SOON_NS);
    errno = saved;
}

void gate_failed(const struct gate_launch *launch)
{
    if (launch->device == PROCESS_NO_DEVICE)
        return;
    end_blocking(gate_paces, launch);
    pace_counted(gate_paces, launch->device);
}

/* NULL where nothing was ever launched. */
static struct paces *present(struct membership **m)
{
    struct paces *paces = __atomic_load_n(&gate_paces, __ATOMIC_ACQUIRE);

    if (!paces || !__atomic_load_n(&paces->devices, __ATOMIC_RELAXED) || !guard_acts(RESOLVE_COMPUTE) || thread_over())
        return NULL;
    *m = process_membership(NULL);
    return *m ? paces : NULL;
}

/* The call waited, whatever was thought of the device. */
static void waited(struct membership *m, struct paces *paces, int device, uint64_t entered)
{
    uint64_t now = clock_now();

    if (entered && now > entered + PACE_WAITS)
        pace_unfinished(m, paces, device, entered, now);
}

void gate_synchronised_stream(CUstream stream, bool per_thread, uint64_t entered)
{
    struct membership *m;
    struct paces *paces = present(&m);
    int saved = errno;

    if (!paces)
        return;
    struct flow *flow = flow_find(paces, flow_key(stream, per_thread));
    if (flow) {
        waited(m, paces, flow->device, entered);
        pace_synchronised(m, paces, flow, NULL, entered);
    }
    errno = saved;
}

void gate_synchronised_context(CUcontext context, uint64_t entered)
{
    struct membership *m;
    struct paces *paces = present(&m);
    int saved = errno;

    if (!paces)
        return;
    if (!context)
        called.cuCtxGetCurrent(&context);
    struct lane *lane = lane_open(paces, context);
    if (lane)
        waited(m, paces, lane->device, entered);
    pace_synchronised(m, paces, NULL, context, entered);
    errno = saved;
}

void gate_synchronised(uint64_t entered)
{
    struct membership *m;
    struct paces *paces = present(&m);
    int saved = errno;

    if (!paces)
        return;
    waited(m, paces, pace_guessed(paces), entered);
    uint64_t now = clock_now();
    pace_look(m, paces, now, !entered || now > entered + PACE_WAITS);
    errno = saved;
}

void gate_unfinished(void)
{
    struct membership *m;
    struct paces *paces = present(&m);
    int saved = errno;

    if (paces)
        pace_unfinished(m, paces, pace_guessed(paces), 0, clock_now());
    errno = saved;
}

void gate_unfinished_stream(CUstream stream, bool per_thread)
{
    struct membership *m;
    struct paces *paces = present(&m);
    int saved = errno;

    if (!paces)
        return;
    struct flow *flow = flow_find(paces, flow_key(stream, per_thread));
    if (flow)
        pace_unfinished(m, paces, flow->device, 0, clock_now());
    errno = saved;
}

void gate_stream_ending(CUstream stream)
{
    struct membership *m;
    struct paces *paces = present(&m);

    if (!paces || flow_special(stream))
        return;
    int saved = errno;
    struct flow *flow = flow_find(paces, (uint64_t)(uintptr_t)stream);
    if (flow) {
        CUstreamCaptureMode mode = relaxed_enter();
        /* What it has left to do is not seen by any later mark of it. */
        if (__atomic_load_n(&flow->left, __ATOMIC_RELAXED) != flow->budget && !captures(stream, false))
            mark_record(paces, flow, flow_life(flow), stream, false, true);
        relaxed_leave(mode);
        flow_forget(paces, flow->key);
    }
    errno = saved;
}

void gate_capture_begun(void)
{
    struct membership *m;
    struct paces *paces = present(&m);

    if (paces)
        pace_new_epoch(paces);
}
