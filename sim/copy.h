/* SPDX-License-Identifier: Apache-2.0 */
/* Copies and memsets as work in a stream: bytes move when the work is issued. */
#ifndef SIM_COPY_H
#define SIM_COPY_H

#include "sim.h"

/* What each end of a copy has to be; anything is right for ANY, whatever the program says it is. */
enum sim_end { SIM_END_ANY, SIM_END_DEVICE, SIM_END_HOST };

/* Check, submit and, unless `async`, wait. Lock held. */
CUresult sim_copy_submit(const struct sim_copy *copy, enum sim_end dst, enum sim_end src, CUstream stream, bool per_thread,
                         bool async, const void *params);
/* The effect of an op of type SIM_OP_COPY on memory. */
void sim_copy_run(struct sim_op *op);
/* GPU time that it takes. */
uint64_t sim_copy_ns(const struct sim_copy *copy);
/* INVALID_VALUE when an end is out of bounds or not what it must be. */
CUresult sim_copy_check(const struct sim_copy *copy, enum sim_end dst, enum sim_end src);

/* A CUDA_MEMCPY3D as bytes and strides (copy_shaped.c). */
CUresult sim_copy_shape(const CUDA_MEMCPY3D *c, struct sim_copy *out, enum sim_end *dst, enum sim_end *src);

static inline struct sim_copy sim_copy_linear(uint64_t dst, uint64_t src, uint64_t bytes)
{
    return (struct sim_copy){.dst = dst, .src = src, .width = bytes, .height = 1, .depth = 1};
}

#endif
