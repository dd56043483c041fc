/* SPDX-License-Identifier: Apache-2.0 */
/* placeholder until capture lands */
#include "sim.h"
CUresult sim_capture_unsafe(void) { return CUDA_SUCCESS; }
CUresult sim_capture_forbid(struct sim_stream *s) { (void)s; return CUDA_SUCCESS; }
CUresult sim_capture_legacy(struct sim_ctx *c) { (void)c; return CUDA_SUCCESS; }
CUresult sim_capture_add(struct sim_stream *s, const struct sim_op *op, const void *p) { (void)s; (void)op; (void)p; return CUDA_ERROR_NOT_SUPPORTED; }
void sim_pools_synchronised(void) {}
CUresult sim_pool_free(struct sim_mem *m) { (void)m; return CUDA_ERROR_INVALID_VALUE; }
CUresult sim_graph_mem_free(struct sim_mem *m) { (void)m; return CUDA_ERROR_INVALID_VALUE; }
void sim_arrays_free_context(struct sim_ctx *c) { (void)c; }
