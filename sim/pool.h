/* SPDX-License-Identifier: Apache-2.0 */
/* Memory pools: HBM that is taken in chunks and kept for later. */
#ifndef SIM_POOL_H
#define SIM_POOL_H

#include "sim.h"

struct sim_pool {
    struct sim_object_head head;
    CUmemPoolProps props;
    int dev;         /* -1: host memory, which costs no HBM */
    bool fixed;      /* a default pool, which cannot be destroyed */
    bool destroyed;  /* lives on until its last allocation is freed */
    uint64_t object; /* by which processes that share it know it; 0: none */
    bool imported;   /* gives out only what it is told of */
    unsigned long blocks;
    uint64_t threshold;
    uint64_t reserved, reserved_high;
    uint64_t used, used_high;
    int reuse[3]; /* CU_MEMPOOL_ATTR_REUSE_* */
    CUmemAccess_flags access[SIM_MAX_GPUS];
};

struct sim_pool *sim_pool_new(const CUmemPoolProps *props, int dev);
/* NULL: no such pool, or a destroyed one. */
struct sim_pool *sim_pool_of(CUmemoryPool handle);
/* The pool that allocations on `dev` come from unless they name one. */
struct sim_pool *sim_pool_current(int dev);
/* Take `size` bytes from a pool. */
CUresult sim_pool_alloc(struct sim_pool *pool, uint64_t size, struct sim_mem **out);

#endif
