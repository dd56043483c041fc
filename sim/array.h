/* SPDX-License-Identifier: Apache-2.0 */
/* CUDA arrays: here, rows of elements without padding in device memory that the program never sees the address of. */
#ifndef SIM_ARRAY_H
#define SIM_ARRAY_H

#include "sim.h"

/* Places for memory from tile pools: of a sparse array its tiles, of one with deferred mapping a single one for all of it. The bytes of
 * such an array are its own, mapped or not. */
struct sim_tiles {
    uint64_t count, bytes;  /* bytes of each */
    struct sim_phys **tile; /* NULL: not mapped */
};

struct sim_array {
    struct sim_object_head head;
    CUDA_ARRAY3D_DESCRIPTOR desc;
    uint64_t pitch, slice, size;
    struct sim_mem *mem;
    struct sim_tiles tiles;
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
    struct sim_tiles tiles;
    struct sim_array *level[SIM_MAX_LEVELS];
};

#define SIM_UNMAPPED (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING)

/* Bytes of an element; 0: a format without a model. */
unsigned int sim_array_element(const CUDA_ARRAY3D_DESCRIPTOR *desc);
/* Places for an array of `levels` levels, all empty (array_map.c). */
CUresult sim_tiles_init(struct sim_tiles *tiles, const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned int levels, uint64_t size);
void sim_tiles_free(struct sim_tiles *tiles);
/* The side of a level, and its depth or layers. */
CUDA_ARRAY3D_DESCRIPTOR sim_level_desc(const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned int level);

/* A mipmap without memory, and its memory from now on. */
CUresult sim_mipmap_new(struct sim_ctx *ctx, const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned int levels, struct sim_mipmap **out);
void sim_mipmap_attach(struct sim_mipmap *mipmap, struct sim_mem *mem);
void sim_mipmap_free(struct sim_mipmap *mipmap);

#endif
