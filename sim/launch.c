/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel launches by all roads: checks of the arguments, and GPU time for as long as the function's name says. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define MAX_THREADS 1024

bool sim_launch_blocks(void)
{
    const char *text = getenv("CUDA_LAUNCH_BLOCKING");

    return text && strcmp(text, "1") == 0;
}

CUresult sim_kernel_check(const CUDA_KERNEL_NODE_PARAMS *k)
{
    if (!k->gridDimX || !k->gridDimY || !k->gridDimZ || !k->blockDimX || !k->blockDimY || !k->blockDimZ)
        return CUDA_ERROR_INVALID_VALUE;
    if (k->gridDimY > 65535 || k->gridDimZ > 65535 || k->blockDimX > MAX_THREADS || k->blockDimY > MAX_THREADS ||
        k->blockDimZ > 64 || (uint64_t)k->blockDimX * k->blockDimY * k->blockDimZ > MAX_THREADS)
        return CUDA_ERROR_INVALID_VALUE;
    if (k->kernelParams && k->extra)
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

/* Lock held. */
static CUresult submit(CUstream handle, bool per_thread, CUDA_KERNEL_NODE_PARAMS *k)
{
    struct sim_ctx *ctx;
    struct sim_stream *s;
    struct sim_function *f;
    struct sim_op op = {.type = SIM_OP_KERNEL};
    CUresult r;

    for (;;) {
        uint64_t wait;

        CONTEXT(ctx);
        f = sim_function_of(k->func);
        if (!f)
            return CUDA_ERROR_INVALID_HANDLE;
        r = sim_kernel_check(k);
        if (r != CUDA_SUCCESS)
            return r;
        STREAM(s, handle, per_thread);
        wait = s->capture ? 0 : sim_engine_wait(s->head.ctx->dev);
        if (!wait)
            break;
        /* The lock is dropped meanwhile, so all has to be looked up anew. */
        sim_engine_sleep(s->head.ctx->dev, wait);
    }
    /* A captured launch loads its function when the graph is instantiated (assumed). */
    r = s->capture ? CUDA_SUCCESS : sim_function_load(f, s->head.ctx);
    if (r != CUDA_SUCCESS)
        return r;
    op.ns = f->ns;
    if (f->pair && !s->capture)
        op.gate = f->pair + ++f->launches * SIM_GATE_GPUS;
    r = sim_stream_submit(s, &op, k);
    if (r == CUDA_SUCCESS && !s->capture && !s->first)
        sim_engine_launched(s->head.ctx->dev, s->mark);
    if (r == CUDA_SUCCESS && !s->capture && sim_launch_blocks())
        sim_stream_wait(s);
    return r;
}

static CUresult launch(CUstream handle, bool per_thread, CUDA_KERNEL_NODE_PARAMS k)
{
    sim_spend(SIM_COST_LAUNCH, 1);
    SIM_GUARD();
    return submit(handle, per_thread, &k);
}

static CUresult launch_ex(const CUlaunchConfig *config, bool per_thread, CUfunction f, void **params, void **extra)
{
    if (!config)
        return CUDA_ERROR_INVALID_VALUE;
    return launch(config->hStream, per_thread,
                  (CUDA_KERNEL_NODE_PARAMS){.func = f,
                                            .gridDimX = config->gridDimX,
                                            .gridDimY = config->gridDimY,
                                            .gridDimZ = config->gridDimZ,
                                            .blockDimX = config->blockDimX,
                                            .blockDimY = config->blockDimY,
                                            .blockDimZ = config->blockDimZ,
                                            .sharedMemBytes = config->sharedMemBytes,
                                            .kernelParams = params,
                                            .extra = extra});
}

#define PLAIN(f, params_, extra_)                                                                                                  \
    (CUDA_KERNEL_NODE_PARAMS)                                                                                                      \
    {                                                                                                                              \
        .func = (f), .gridDimX = gridDimX, .gridDimY = gridDimY, .gridDimZ = gridDimZ, .blockDimX = blockDimX,                     \
        .blockDimY = blockDimY, .blockDimZ = blockDimZ, .sharedMemBytes = sharedMemBytes, .kernelParams = (params_),               \
        .extra = (extra_)                                                                                                          \
    }

#define LAUNCH_FUNCTIONS(suffix, per_thread)                                                                                       \
    CUresult cuLaunchKernel##suffix(CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ,             \
                                    unsigned int blockDimX, unsigned int blockDimY, unsigned int blockDimZ,                        \
                                    unsigned int sharedMemBytes, CUstream hStream, void **kernelParams, void **extra)              \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return launch(hStream, per_thread, PLAIN(f, kernelParams, extra));                                                         \
    }                                                                                                                              \
    CUresult cuLaunchKernelEx##suffix(const CUlaunchConfig *config, CUfunction f, void **kernelParams, void **extra)               \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return launch_ex(config, per_thread, f, kernelParams, extra);                                                              \
    }                                                                                                                              \
    CUresult cuLaunchCooperativeKernel##suffix(CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ,  \
                                               unsigned int blockDimX, unsigned int blockDimY, unsigned int blockDimZ,             \
                                               unsigned int sharedMemBytes, CUstream hStream, void **kernelParams)                 \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return launch(hStream, per_thread, PLAIN(f, kernelParams, NULL));                                                          \
    }

LAUNCH_FUNCTIONS(, false)
LAUNCH_FUNCTIONS(_ptsz, true)

CUresult cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS *launchParamsList, unsigned int numDevices, unsigned int flags)
{
    ENTER();
    sim_spend(SIM_COST_LAUNCH, numDevices);
    SIM_GUARD();
    if (!launchParamsList || !numDevices || (flags & ~3u))
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned int i = 0; i < numDevices; i++) {
        const CUDA_LAUNCH_PARAMS *p = &launchParamsList[i];
        CUresult r = submit(p->hStream, false,
                            &(CUDA_KERNEL_NODE_PARAMS){.func = p->function,
                                                       .gridDimX = p->gridDimX,
                                                       .gridDimY = p->gridDimY,
                                                       .gridDimZ = p->gridDimZ,
                                                       .blockDimX = p->blockDimX,
                                                       .blockDimY = p->blockDimY,
                                                       .blockDimZ = p->blockDimZ,
                                                       .sharedMemBytes = p->sharedMemBytes,
                                                       .kernelParams = p->kernelParams});

        if (r != CUDA_SUCCESS)
            return r;
    }
    return CUDA_SUCCESS;
}

CUresult cuFuncSetBlockShape(CUfunction hfunc, int x, int y, int z)
{
    struct sim_function *f;

    ENTER();
    SIM_GUARD();
    f = sim_function_of(hfunc);
    if (!f)
        return CUDA_ERROR_INVALID_HANDLE;
    if (x <= 0 || y <= 0 || z <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    f->block[0] = x;
    f->block[1] = y;
    f->block[2] = z;
    return CUDA_SUCCESS;
}

CUresult cuFuncSetSharedSize(CUfunction hfunc, unsigned int bytes)
{
    ENTER();
    SIM_GUARD();
    (void)bytes;
    return sim_function_of(hfunc) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuParamSetSize(CUfunction hfunc, unsigned int numbytes)
{
    ENTER();
    SIM_GUARD();
    (void)numbytes;
    return sim_function_of(hfunc) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuParamSeti(CUfunction hfunc, int offset, unsigned int value)
{
    ENTER();
    SIM_GUARD();
    (void)offset;
    (void)value;
    return sim_function_of(hfunc) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuParamSetf(CUfunction hfunc, int offset, float value)
{
    ENTER();
    SIM_GUARD();
    (void)offset;
    (void)value;
    return sim_function_of(hfunc) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuParamSetv(CUfunction hfunc, int offset, void *ptr, unsigned int numbytes)
{
    ENTER();
    SIM_GUARD();
    (void)offset;
    (void)numbytes;
    if (!ptr)
        return CUDA_ERROR_INVALID_VALUE;
    return sim_function_of(hfunc) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static CUresult launch_grid(CUfunction hfunc, int width, int height, CUstream stream)
{
    struct sim_function *f;

    sim_spend(SIM_COST_LAUNCH, 1);
    SIM_GUARD();
    f = sim_function_of(hfunc);
    if (!f)
        return CUDA_ERROR_INVALID_HANDLE;
    if (width <= 0 || height <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    return submit(stream, false,
                  &(CUDA_KERNEL_NODE_PARAMS){.func = hfunc,
                                             .gridDimX = (unsigned int)width,
                                             .gridDimY = (unsigned int)height,
                                             .gridDimZ = 1,
                                             .blockDimX = (unsigned int)f->block[0],
                                             .blockDimY = (unsigned int)f->block[1],
                                             .blockDimZ = (unsigned int)f->block[2]});
}

CUresult cuLaunch(CUfunction f)
{
    ENTER();
    return launch_grid(f, 1, 1, NULL);
}

CUresult cuLaunchGrid(CUfunction f, int grid_width, int grid_height)
{
    ENTER();
    return launch_grid(f, grid_width, grid_height, NULL);
}

CUresult cuLaunchGridAsync(CUfunction f, int grid_width, int grid_height, CUstream hStream)
{
    ENTER();
    return launch_grid(f, grid_width, grid_height, hStream);
}
