/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs with memory nodes: what a launch of one may take is reserved around it, and what it took is read from the driver. A process that
 * never made such a node pays one load for each launch. */
#ifndef SOFTSLICE_SHIM_GRAPHS_H
#define SOFTSLICE_SHIM_GRAPHS_H

#include <stdbool.h>
#include <stdint.h>

#include "graph_need.h"
#include "process.h"

extern uint32_t graphs_memory_nodes __attribute__((visibility("hidden")));

/* A memory node was made: by cuGraphAddMemAllocNode or cuGraphAddNode, or by a stream-ordered allocation that a capture turned into one.
 * Cheap, at any time. */
void graphs_note_memory_node(void);

/* Whether any was, so that graphs are worth looking at. */
static inline bool graphs_noted(void)
{
    return __atomic_load_n(&graphs_memory_nodes, __ATOMIC_RELAXED);
}

/* What a launch of a graph that is being instantiated takes. False: there is no more to do, for no graph of this process has memory. */
bool graphs_measure(struct graph_need *need, CUgraph graph);

/* The driver made `exec` of it, or updated it: remember what its launches take. False: none will ever fit, or there is no host memory to
 * remember it in: destroy it and answer CUDA_ERROR_OUT_OF_MEMORY. After an update, which cannot be undone, its launches will be refused.
 *
 * What only does not fit at the moment is not refused: an executable graph takes none of its memory before it is launched, and
 * programs instantiate while they still hold what they free before they launch. The launch asks again, in any case. */
bool graphs_remember(const struct graph_need *need, CUgraphExec exec);
void graphs_updated(CUgraphExec exec, CUgraph graph);

/* Before and after the driver is told to destroy it. */
struct graphs_ending {
    struct membership *membership;
    unsigned parts;
    struct record part[QUOTA_DEVICES];
};
void graphs_ending_begin(struct graphs_ending *ending, CUgraphExec exec);
void graphs_ending_end(struct graphs_ending *ending, CUresult result);

/* A launch or an upload; lives on the wrapper's stack. While it is open, calls that the driver makes to itself go straight through. */
struct graphs_launch {
    struct membership *membership; /* NULL: nothing to do */
    CUgraphExec exec;
    uint64_t stream; /* which stream, across threads and contexts */
    unsigned parts;
    unsigned attempt;
    bool asks; /* what it took is read afterwards */
    struct graphs_part {
        uint64_t generation; /* of the device's trims, when it was announced */
        struct quota_charge charge;
    } part[QUOTA_DEVICES];
};

/* Reserve what the launch may take on each device. CUDA_SUCCESS: call the driver, then graphs_launch_end(), whatever it said. Else
 * CUDA_ERROR_OUT_OF_MEMORY: over a budget. A stream that captures takes nothing. */
CUresult graphs_launch_begin(struct graphs_launch *launch, CUgraphExec exec, CUstream stream, bool per_thread);

/* The same for an upload within an instantiation. Before graphs_launch_end() the caller fills in `exec`, if there is one to remember. */
CUresult graphs_upload_begin(struct graphs_launch *launch, const struct graph_need *need, CUstream stream, bool per_thread);

/* Whether the driver's CUDA_ERROR_OUT_OF_MEMORY is worth asking again. */
bool graphs_launch_again(struct graphs_launch *launch, CUresult result);
void graphs_launch_end(struct graphs_launch *launch, CUresult result);

/* Around a trim of a device's graph memory. `asked` by the program: it cannot be put off. Else false: graphs are being launched that count on
 * what they hold, so leave it. After it the meter is read; whether something came back. */
struct graphs_trim {
    unsigned device;
    uint64_t before;
};
bool graphs_trim_begin(struct graphs_trim *trim, struct membership *membership, unsigned device, bool asked);
bool graphs_trim_end(const struct graphs_trim *trim, struct membership *membership);

#endif
