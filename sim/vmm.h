/* SPDX-License-Identifier: Apache-2.0 */
/* Physical memory by handles, and multicast objects, which have the same handles. */
#ifndef SIM_VMM_H
#define SIM_VMM_H

#include "sim.h"

struct sim_team;

/* Freed when neither references nor mappings are left; what is bound to a multicast object counts as mapped. */
struct sim_phys {
    struct sim_object_head head;
    uint64_t size;
    int dev; /* -1: host memory, or multicast */
    CUmemAllocationProp prop;
    unsigned long refs, maps;
    uint64_t object;
    unsigned char *bytes;
    struct sim_team *team; /* of a multicast object */
};

/* NULL: no such handle, or one that was released. */
struct sim_phys *sim_phys_of(CUmemGenericAllocationHandle handle);
/* A reference or a mapping is gone. */
void sim_phys_put(struct sim_phys *phys);
/* Block until all devices have been added; false: the object is gone. Drops the lock. */
bool sim_team_wait(CUmemGenericAllocationHandle handle);
void sim_team_free(struct sim_team *team);

#endif
