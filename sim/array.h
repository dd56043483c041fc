/* SPDX-License-Identifier: Apache-2.0 */
/* CUDA arrays: here, rows of elements without padding in device memory that the program never sees the address of. */
#ifndef SIM_ARRAY_H
#define SIM_ARRAY_H

#include "sim.h"

struct sim_array {
    struct sim_object_head head;
    CUDA_ARRAY3D_DESCRIPTOR desc;
    uint64_t pitch, slice, size;
    struct sim_mem *mem; /* NULL: deferred mapping */
    uint64_t base;
    bool level; /* of a mipmap, which owns the memory */
};

#endif
