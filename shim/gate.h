/* SPDX-License-Identifier: Apache-2.0 */
/* The gate in front of each launch: open, it costs a look-up and a subtraction. What happens when it is not is shim/pace.h. */
#ifndef SOFTSLICE_SHIM_GATE_H
#define SOFTSLICE_SHIM_GATE_H

#include "guard.h"
#include "pace.h"
#include "softslice/clock.h"

/* A launch between its two ends; lives on the wrapper's stack. */
struct gate_launch {
    struct flow *flow; /* NULL: not ours to count */
    uint64_t key, expected;
    uint32_t life; /* of the flow */
    int device; /* where it was counted as launched before it was, since it comes back when its work is done; else PROCESS_NO_DEVICE */
    uint64_t since; /* and from when on */
    bool asked;     /* it went through gate_ask() */
    bool mark;
};

/* This process's paces once a launch has asked; in a forked child what it points to reads as zeros. */
extern struct paces *gate_paces __attribute__((visibility("hidden")));

/* Wait until the launch may go. */
void gate_ask(struct gate_launch *launch, CUstream stream, bool per_thread);

/* After a launch that asked; and after one that failed. */
void gate_launched(struct gate_launch *launch, CUstream stream, bool per_thread);
void gate_failed(const struct gate_launch *launch);

/* Whether a launch is ours to count. Where one has been, compute is armed, for good. */
static inline bool gate_acts(void)
{
    return guard_depth == 0 &&
           (__builtin_expect(__atomic_load_n(&gate_paces, __ATOMIC_RELAXED) != NULL, 1) || resolve_armed(RESOLVE_COMPUTE));
}

/* NULL: a launch has to ask, or is not ours to count. */
static inline struct paces *gate_ready(void)
{
    struct paces *paces = __atomic_load_n(&gate_paces, __ATOMIC_ACQUIRE);

    return __builtin_expect(guard_depth == 0, 1) ? paces : NULL;
}

/* Where a launch of `key` (softslice/estimate.h) in an open gate counts, and what is *expected of it. NULL: it has to ask, or is not ours to count. */
static inline struct flow *gate_open(CUstream stream, bool per_thread, uint64_t key, uint64_t *expected)
{
    struct paces *paces = gate_ready();

    if (!paces)
        return NULL;
    struct flow *flow = flow_find(paces, flow_key(stream, per_thread));
    *expected = estimate_of(pace_estimates(paces), key);
    if (__builtin_expect(flow &&
                             __atomic_load_n(&flow->epoch, __ATOMIC_ACQUIRE) == __atomic_load_n(&paces->epoch, __ATOMIC_RELAXED) &&
                             !flow_wants_mark(flow, *expected),
                         1))
        return flow;
    return NULL;
}

/* It went through. */
static inline void gate_passed(struct flow *flow, uint64_t key, uint64_t expected)
{
    flow_come(flow);
    estimate_add(&flow->segment, key, expected);
    flow_take(flow, expected);
}

/* Where a launch counts; 0: the driver has to be asked, since a special stream is each context's own. What is launched in a second context of the device
 * that was made unseen may count for the first one's stream until a launch of it asks, which one of a kernel without estimate does. */
static inline uint64_t gate_where(const struct paces *paces, CUstream stream, bool per_thread)
{
    uint64_t context;

    if (!flow_special(stream))
        return (uint64_t)(uintptr_t)stream;
    context = __atomic_load_n(&paces->context, __ATOMIC_RELAXED);
    return context ? flow_key_in((CUcontext)(uintptr_t)context, stream, per_thread) : 0;
}

/* Whether a launch is counted and may go: where the gate is open, and its flow and its estimate are found at once, which nearly all are. It is counted
 * before it is made, so that the wrapper has nothing left to do after it. One that the driver then refuses is thought to run for as long as it was expected
 * to, less than PACE_MARK_NS; so much may also be missed where another thread's mark or wait in the same stream comes between the two. */
static inline __attribute__((always_inline)) bool gate_pass(struct paces *paces, uint64_t where, uint64_t key)
{
    struct flow *flow = &paces->flow[flow_home(where)];
    uint64_t expected;

    if (__builtin_expect(!estimate_at_once(pace_estimates(paces), key, &expected) ||
                             __atomic_load_n(&flow->key, __ATOMIC_RELAXED) != where || !where ||
                             __atomic_load_n(&flow->epoch, __ATOMIC_ACQUIRE) != __atomic_load_n(&paces->epoch, __ATOMIC_RELAXED) ||
                             flow_wants_mark(flow, expected),
                         0))
        return false;
    gate_passed(flow, key, expected);
    return true;
}

/* Around a launch. */
static inline void gate_begin(struct gate_launch *launch, CUstream stream, bool per_thread, uint64_t key)
{
    launch->key = key;
    launch->flow = gate_open(stream, per_thread, key, &launch->expected);
    launch->asked = !launch->flow;
    if (launch->asked)
        gate_ask(launch, stream, per_thread);
}

static inline void gate_end(struct gate_launch *launch, CUstream stream, bool per_thread, CUresult result)
{
    if (!launch->flow)
        return;
    if (result != CUDA_SUCCESS) {
        if (launch->asked)
            gate_failed(launch);
        return;
    }
    if (!launch->asked) {
        gate_passed(launch->flow, launch->key, launch->expected);
        return;
    }
    flow_come(launch->flow);
    estimate_add(&launch->flow->segment, launch->key, launch->expected);
    gate_launched(launch, stream, per_thread);
}

/* A wrapper of a launch: `key_` and `stream_` are expressions of its parameters, `call_` what launches it. The way through the open gate ends in a jump to
 * the driver. What calls something else before is apart, since it would have the parameters saved for that. */
#define GATE_LAUNCH_BY(call_, symbol, parameters, arguments, stream_, per_thread_, key_)                                           \
    static __attribute__((noinline)) CUresult symbol##_asking parameters                                                           \
    {                                                                                                                              \
        struct gate_launch launch;                                                                                                 \
        CUresult result;                                                                                                           \
                                                                                                                                   \
        if (!gate_acts())                                                                                                          \
            return call_ arguments;                                                                                                \
        gate_begin(&launch, stream_, per_thread_, key_);                                                                           \
        result = call_ arguments;                                                                                                  \
        gate_end(&launch, stream_, per_thread_, result);                                                                           \
        return result;                                                                                                             \
    }                                                                                                                              \
    static __attribute__((noinline)) CUresult symbol##_special parameters                                                          \
    {                                                                                                                              \
        if (__builtin_expect(!gate_pass(gate_paces, flow_key(stream_, per_thread_), key_), 0))                                     \
            return symbol##_asking arguments;                                                                                      \
        return call_ arguments;                                                                                                    \
    }                                                                                                                              \
    CUresult symbol parameters                                                                                                     \
    {                                                                                                                              \
        struct paces *paces = gate_ready();                                                                                        \
                                                                                                                                   \
        if (__builtin_expect(!paces, 0))                                                                                           \
            return symbol##_asking arguments;                                                                                      \
        uint64_t where = gate_where(paces, stream_, per_thread_);                                                                  \
        if (__builtin_expect(!where, 0))                                                                                           \
            return symbol##_special arguments;                                                                                     \
        if (__builtin_expect(!gate_pass(paces, where, key_), 0))                                                                   \
            return symbol##_asking arguments;                                                                                      \
        return call_ arguments;                                                                                                    \
    }

#define GATE_LAUNCH(symbol, parameters, arguments, stream_, per_thread_, key_)                                                     \
    GATE_LAUNCH_BY(real.symbol, symbol, parameters, arguments, stream_, per_thread_, key_)

/* After a successful synchronisation with a stream, with the current context, or with something whose work is not known. `entered`: what gate_enters() said
 * before it. */
static inline uint64_t gate_enters(void)
{
    return gate_ready() ? clock_now() : 0;
}
void gate_synchronised_stream(CUstream stream, bool per_thread, uint64_t entered);
void gate_synchronised_context(CUcontext context, uint64_t entered); /* NULL: the current one */
void gate_synchronised(uint64_t entered);

/* The driver said that work of this process, or of a stream, is not done. */
void gate_unfinished(void);
void gate_unfinished_stream(CUstream stream, bool per_thread);

/* A stream is about to be destroyed. */
void gate_stream_ending(CUstream stream);

/* A stream captures now, and others may join it: each stream's next launch asks whether it is one. */
void gate_capture_begun(void);

#endif
