/* SPDX-License-Identifier: Apache-2.0 */
/* Allocations from memory pools. A pool takes memory from the GPU in chunks, before anybody needs all of it, and keeps it after: so not the
 * blocks are charged but what the driver holds for the pool, as its meter says. */
#ifndef SOFTSLICE_SHIM_DRAW_H
#define SOFTSLICE_SHIM_DRAW_H

#include "meter.h"

/* An allocation between asking and keeping; lives on the wrapper's stack, zeroed before the first draw_begin(). */
struct draw {
    struct membership *membership; /* NULL: nothing to charge, the driver answers by itself */
    struct meter *meter;           /* held */
    CUstream stream;               /* by the name that the functions without _ptsz know it by */
    uint64_t bytes, order, changes;
    unsigned attempt;
    bool current; /* the pool was not named */
    bool guessed; /* which device the pool is on */
    bool claimed; /* room of the meter, in place of a reservation */
    bool moved;   /* by draw_end(): the block is in another pool than was thought */
    bool over;    /* by draw_end(): the pool grew beyond the budget */
    bool strict;  /* once more, and only if the budget has room for what the pool may grow by */
    struct quota_charge charge;
};

/* The stream as the functions without _ptsz know it. */
static inline CUstream draw_stream(CUstream stream, bool per_thread)
{
    return per_thread && !stream ? CU_STREAM_PER_THREAD : stream;
}

/* Whether a stream (of draw_stream()) captures: what is done in it becomes a node of a graph, and nothing happens now. */
bool draw_captures(CUstream stream);

/* Ask for `bytes` of `pool`, or of the current pool of the stream's device where that is NULL and not `named`. CUDA_SUCCESS: call the driver
 * now, then draw_end(), whatever it said. Anything else is the answer for the program. Reserved is what the pool may grow by; where the
 * budget has no room for that but the pool has, it is tried without. */
CUresult draw_begin(struct draw *draw, uint64_t bytes, CUmemoryPool pool, bool named, CUstream stream, bool per_thread);

/* Whether the driver's CUDA_ERROR_OUT_OF_MEMORY is worth asking again: a member died a moment ago and its memory is on its way back. */
bool draw_again(struct draw *draw, CUresult result);

/* Charge what the pool has now. False: it grew beyond the budget, or the block could not be remembered: free it in the same stream, and then
 * draw_anew(). */
bool draw_end(struct draw *draw, CUresult result, CUdeviceptr pointer);

/* Whether to begin once more. If not, this was a refusal. */
bool draw_anew(struct draw *draw);

/* A pool was made, was imported, was trimmed, was given a release threshold. */
void draw_created(CUmemoryPool pool, const CUmemPoolProps *props);
void draw_imported(CUmemoryPool pool);
void draw_trimmed(CUmemoryPool pool);
void draw_set_threshold(CUmemoryPool pool, uint64_t bytes);

/* Around a pool's end: what it keeps unused goes first, for nobody can be asked about the rest until its last block is freed. */
struct meter *draw_ending(CUmemoryPool pool);
void draw_ended(struct meter *meter, CUresult result);

#endif
