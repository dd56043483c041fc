/* SPDX-License-Identifier: Apache-2.0 */
/* The profiler's switch, which switches nothing here. */
#include "sim.h"
#include <cudaProfiler.h>

CUresult cuProfilerStart(void)
{
	struct sim_ctx *ctx;

	ENTER();
	SIM_GUARD();
	CONTEXT(ctx);
	return CUDA_SUCCESS;
}

CUresult cuProfilerStop(void)
{
	struct sim_ctx *ctx;

	ENTER();
	SIM_GUARD();
	CONTEXT(ctx);
	return CUDA_SUCCESS;
}
