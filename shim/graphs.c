/* SPDX-License-Identifier: Apache-2.0 */
/* What graphs with memory nodes take. */
#include "graphs.h"

uint32_t graphs_memory_nodes;

void graphs_note_memory_node(void)
{
    if (!graphs_noted())
        __atomic_store_n(&graphs_memory_nodes, 1, __ATOMIC_RELAXED);
}
