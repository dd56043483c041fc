/* SPDX-License-Identifier: Apache-2.0 */
/* What a launch of a graph takes at most, read from its nodes. */
#ifndef SOFTSLICE_SHIM_GRAPH_NEED_H
#define SOFTSLICE_SHIM_GRAPH_NEED_H

#include <stdbool.h>

#include "process.h"

struct graph_need {
    unsigned devices;
    struct {
        uint64_t bytes; /* whole granules */
        uint64_t left;  /* of them, what is still allocated after a launch */
        unsigned device;
    } on[QUOTA_DEVICES];
};

/* Read a graph that no other thread changes, with its child graphs. Memory is used again for a node that comes after the one which freed it,
 * whatever the order in which the rest runs. False: no node allocates memory of a device that we know, or the driver or the host's memory
 * does not let it be read. */
bool graph_need(const struct membership *membership, CUgraph graph, struct graph_need *need);

#endif
