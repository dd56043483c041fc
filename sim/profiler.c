/* SPDX-License-Identifier: Apache-2.0 */
/* The profiler's switch, which switches nothing here. */
#include "sim.h"
/* Unlike cuda.h, this header leaves the visibility to the command line. */
#pragma GCC visibility push(default)
#include <cudaProfiler.h>
#pragma GCC visibility pop

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
