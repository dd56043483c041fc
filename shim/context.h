/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts: what they cost, whose allocations they own, and what ends with them. */
#ifndef SOFTSLICE_SHIM_CONTEXT_H
#define SOFTSLICE_SHIM_CONTEXT_H

#include <stdbool.h>

#include "figure.h"
#include "process.h"

/* The current context's owner number and quota device. False where there is none, or it is on a device that we do not know. A context
 * that was created on a road that we do not see is charged here, at first sight: it exists, so it is never refused. */
bool context_current(struct membership *membership, uint64_t *owner, int *device);

/* What an allocation asks after it was entered under `owner`, which it found current after it had read `before` from context_endings():
 * whether that context ended meanwhile, so that nobody will come to refund what it owned. */
uint64_t context_endings(void);
bool context_ended(uint64_t owner, uint64_t before);

/* Whether this process has a context on a quota device that it knows of. */
bool context_on(int device);

/* A context's creation: reserve what the last one on this device took (or a default) before the driver's call. */
struct creation {
    struct membership *membership; /* NULL: nothing to charge */
    int device;
    unsigned attempt;
    uint64_t before; /* the gap */
    struct quota_charge charge;
    struct figure_seen seen; /* before the first one on this device */
};

/* CUDA_SUCCESS: call the driver, then creation_end(). Else the answer for the program. */
CUresult creation_begin(struct creation *creation, CUdevice device);

/* The same for a primary context, which is charged by the call that makes it active. */
CUresult creation_begin_primary(struct creation *creation, CUdevice device);

bool creation_again(struct creation *creation, CUresult result);

/* True up to what the driver took. False: that is over the budget (all given back); destroy `context`, call creation_undone() and answer
 * OUT_OF_MEMORY. */
bool creation_end(struct creation *creation, CUresult result, CUcontext context);
bool creation_end_primary(struct creation *creation, CUresult result, CUcontext context);
void creation_undone(struct creation *creation);

/* A context's end. It stays in its table until the driver has ended it, so that whoever does not find it there knows that it is gone. Its
 * allocations' charges die with it; VMM handles' do not. */
struct ending {
    struct membership *membership;
    struct record context;
};
void ending_begin(struct ending *ending, CUcontext context);
void ending_end(struct ending *ending, CUresult result);

/* Before and after a release or a reset of a primary context: which one is charged, and its charge dropped if the driver says that it is
 * inactive; a reset frees its allocations in any case. */
uint64_t context_primary_ending(CUdevice device);
void context_primary_ended(CUdevice device, uint64_t context, CUresult result, bool reset);

#endif
