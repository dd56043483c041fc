/* SPDX-License-Identifier: Apache-2.0 */
/* The gate in front of each launch: open, it costs a look-up and a subtraction. What happens when it is not is shim/pace.h. */
#ifndef SOFTSLICE_SHIM_GATE_H
#define SOFTSLICE_SHIM_GATE_H

#include "guard.h"
#include "pace.h"

/* A launch between its two ends; lives on the wrapper's stack. */
struct gate_launch {
    struct flow *flow; /* NULL: not ours to count */
    uint64_t key, expected;
    bool asked; /* it went through gate_ask() */
    bool mark;
};

/* This process's paces once a launch has asked; in a forked child what it points to reads as zeros. */
extern struct paces *gate_paces __attribute__((visibility("hidden")));

/* Wait until the launch may go. */
void gate_ask(struct gate_launch *launch, CUstream stream, bool per_thread);

/* After a launch that asked. */
void gate_launched(struct gate_launch *launch, CUstream stream, bool per_thread);

/* Whether a launch is ours to count. Where one has been, compute is armed, for good. */
static inline bool gate_acts(void)
{
    return guard_depth == 0 &&
           (__builtin_expect(__atomic_load_n(&gate_paces, __ATOMIC_RELAXED) != NULL, 1) || resolve_armed(RESOLVE_COMPUTE));
}

/* Around a launch of `key` (softslice/estimate.h). */
static inline void gate_begin(struct gate_launch *launch, CUstream stream, bool per_thread, uint64_t key)
{
    struct paces *paces = __atomic_load_n(&gate_paces, __ATOMIC_ACQUIRE);

    launch->key = key;
    launch->asked = false;
    if (__builtin_expect(paces != NULL, 1)) {
        struct flow *flow = flow_find(paces, flow_key(stream, per_thread));

        launch->flow = flow;
        launch->expected = estimate_of(pace_estimates(paces), key);
        if (__builtin_expect(
                flow && __atomic_load_n(&flow->epoch, __ATOMIC_ACQUIRE) == __atomic_load_n(&paces->epoch, __ATOMIC_RELAXED) &&
                    !flow_wants_mark(flow, launch->expected),
                1))
            return;
    }
    gate_ask(launch, stream, per_thread);
}

static inline void gate_end(struct gate_launch *launch, CUstream stream, bool per_thread, CUresult result)
{
    if (__builtin_expect(!launch->flow || result != CUDA_SUCCESS, 0))
        return;
    estimate_add(&launch->flow->segment, launch->key, launch->expected);
    if (__builtin_expect(!launch->asked, 1))
        flow_take(launch->flow, launch->expected);
    else
        gate_launched(launch, stream, per_thread);
}

/* A wrapper of a launch: `key_` and `stream_` are expressions of its parameters. */
#define GATE_LAUNCH(symbol, parameters, arguments, stream_, per_thread_, key_)                                                     \
    CUresult symbol parameters                                                                                                     \
    {                                                                                                                              \
        struct gate_launch launch;                                                                                                 \
        CUresult result;                                                                                                           \
                                                                                                                                   \
        if (!gate_acts())                                                                                                          \
            return real.symbol arguments;                                                                                          \
        gate_begin(&launch, stream_, per_thread_, key_);                                                                           \
        result = real.symbol arguments;                                                                                            \
        gate_end(&launch, stream_, per_thread_, result);                                                                           \
        return result;                                                                                                             \
    }

/* After a successful synchronisation with a stream, with the current context, or with something whose work is not known. */
void gate_synchronised_stream(CUstream stream, bool per_thread);
void gate_synchronised_context(CUcontext context); /* NULL: the current one */
void gate_synchronised(void);

/* A stream is about to be destroyed. */
void gate_stream_ending(CUstream stream);

#endif
