/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs with memory nodes: what a launch of one takes at most. A process that never made such a node pays one load for each launch. */
#ifndef SOFTSLICE_SHIM_GRAPHS_H
#define SOFTSLICE_SHIM_GRAPHS_H

#include <stdbool.h>
#include <stdint.h>

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

#endif
