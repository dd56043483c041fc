/* SPDX-License-Identifier: Apache-2.0 */
/* Which streams work is launched in. A stream that is not found a place in the table shares its context's flow of all such. */
#include "../core/lock.h"
#include "gate.h"
#include "relaxed.h"

__thread struct flow_thread flow_thread;

/* Both locks held. */
static void begin(struct pace *pace, struct flow *flow, uint64_t key, int priority, unsigned device, unsigned lane)
{
    flow->device = (uint16_t)device;
    flow->lane = (uint16_t)lane;
    flow->priority = priority;
    flow->budget = flow->left = pace_budget(pace);
    flow->epoch = 0;
    flow->marks = 0;
    flow->active = flow->stalled = false;
    flow->begun = flow->done = flow->ahead = flow->newer = flow->unknown = 0;
    flow->gone = 0;
    flow->wary = flow->guessed = flow->hasty = 0;
    __atomic_store_n(&flow->by, NULL, __ATOMIC_RELAXED);
    flow->segment = (struct estimate_segment){.sum = 0};
    __atomic_store_n(&flow->key, key, __ATOMIC_RELEASE);
}

/* Where a stream that has no flow gets one. */
static struct flow *place_for(struct paces *paces, uint64_t key, unsigned lane)
{
    for (unsigned i = 0, at = flow_home(key); i < PACE_PROBES; i++, at = (at + 1) % PACE_FLOWS)
        if (!__atomic_load_n(&paces->flow[at].key, __ATOMIC_RELAXED))
            return &paces->flow[at];
    return &paces->flow[PACE_FLOWS + lane];
}

/* Another thread may come with the same stream at once. */
static struct flow *enter(struct paces *paces, uint64_t key, CUcontext context, int priority, unsigned device, unsigned lane)
{
    struct pace *pace = &paces->pace[device];

    lock_take(&paces->flow_lock);
    struct flow *flow = flow_find(paces, key);
    if (!flow) {
        flow = place_for(paces, key, lane);
        lock_take(&pace->lock);
        if (!__atomic_load_n(&flow->key, __ATOMIC_RELAXED))
            begin(pace, flow, flow < &paces->flow[PACE_FLOWS] ? key : (uint64_t)(uintptr_t)context | 4, priority, device, lane);
        lock_give(&pace->lock);
    }
    lock_give(&paces->flow_lock);
    return flow;
}

struct flow *flow_of(struct membership *m, struct paces *paces, CUstream stream, bool per_thread)
{
    uint64_t key = flow_key(stream, per_thread);
    struct flow *flow = flow_find(paces, key);
    CUcontext context = NULL, home, base = NULL, popped;
    CUgreenCtx green = NULL;
    CUdevice handle;
    int priority = 0;

    if (flow)
        return flow;
    if (flow_special(stream) || called.cuStreamGetCtx(stream, &context) != CUDA_SUCCESS)
        called.cuCtxGetCurrent(&context);
    home = context;
    if (called.cuStreamGetCtx_v2(flow_special(stream) ? CU_STREAM_LEGACY : stream, &base, &green) == CUDA_SUCCESS && green && base)
        home = base;
    if (!home || called.cuCtxPushCurrent_v2(home) != CUDA_SUCCESS)
        return NULL;
    CUresult result = called.cuCtxGetDevice(&handle);
    called.cuCtxPopCurrent_v2(&popped);
    int device = result == CUDA_SUCCESS ? process_device(m, handle) : PROCESS_NO_DEVICE;
    struct lane *lane = device == PROCESS_NO_DEVICE ? NULL : lane_of(paces, context, home, device);
    if (!lane)
        return NULL;
    if (!flow_special(stream))
        called.cuStreamGetPriority(stream, &priority);
    flow = enter(paces, key, context, priority, (unsigned)device, (unsigned)(lane - paces->lane));
    __atomic_fetch_or(&paces->devices, UINT32_C(1) << device, __ATOMIC_SEQ_CST);
    return flow;
}

/* Its marks that are on their way find another life here, and count for the device alone. */
static void drop(struct paces *paces, struct flow *flow, uint64_t key)
{
    lock_take(&paces->flow_lock);
    struct pace *pace = &paces->pace[flow->device];
    if (__atomic_load_n(&flow->key, __ATOMIC_RELAXED) != key) {
        lock_give(&paces->flow_lock);
        return; /* somebody else did */
    }
    lock_take(&pace->lock);
    pace->strays += flow->marks;
    flow->marks = 0;
    __atomic_store_n(&flow->life, flow->life + 1, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < pace->actives; i++)
        if (pace->active[i] == flow - paces->flow)
            pace->active[i--] = pace->active[--pace->actives];
    __atomic_store_n(&flow->key, 0, __ATOMIC_RELEASE);
    lock_give(&pace->lock);
    lock_give(&paces->flow_lock);
}

void flow_forget(struct paces *paces, uint64_t key)
{
    struct flow *flow = key ? flow_find(paces, key) : NULL;

    if (flow)
        drop(paces, flow, key);
}

void flow_forget_lane(struct paces *paces, unsigned lane)
{
    for (unsigned i = 0; i < PACE_FLOWS + PACE_LANES; i++) {
        uint64_t key = __atomic_load_n(&paces->flow[i].key, __ATOMIC_ACQUIRE);

        if (key && paces->flow[i].lane == lane)
            drop(paces, &paces->flow[i], key);
    }
}
