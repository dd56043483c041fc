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

#define SIM_MAX_LEVELS 32

struct sim_mipmap {
    struct sim_object_head head;
    CUDA_ARRAY3D_DESCRIPTOR desc;
    unsigned int levels;
    uint64_t size;
    struct sim_mem *mem;
    struct sim_array *level[SIM_MAX_LEVELS];
};

/* A mipmap without memory, and its memory from now on. */
CUresult sim_mipmap_new(struct sim_ctx *ctx, const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned int levels, struct sim_mipmap **out);
void sim_mipmap_attach(struct sim_mipmap *mipmap, struct sim_mem *mem);
void sim_mipmap_free(struct sim_mipmap *mipmap);

#endif
