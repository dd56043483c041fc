/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes of functions and kernels, and occupancy as for a kernel of 32 registers. */
#include <string.h>

#include "sim.h"

static CUresult get(int *pi, CUfunction_attribute attrib, const struct sim_function *f)
{
    if (!pi || (unsigned int)attrib >= CU_FUNC_ATTRIBUTE_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    if (!f)
        return CUDA_ERROR_INVALID_HANDLE;
    *pi = f->attributes[attrib];
    return CUDA_SUCCESS;
}

static CUresult set(struct sim_function *f, CUfunction_attribute attrib, int value)
{
    if ((unsigned int)attrib >= CU_FUNC_ATTRIBUTE_MAX || attrib < CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)
        return CUDA_ERROR_INVALID_VALUE;
    if (!f)
        return CUDA_ERROR_INVALID_HANDLE;
    f->attributes[attrib] = value;
    return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int *pi, CUfunction_attribute attrib, CUfunction hfunc)
{
    ENTER();
    SIM_GUARD();
    return get(pi, attrib, sim_function_of(hfunc));
}

CUresult cuFuncSetAttribute(CUfunction hfunc, CUfunction_attribute attrib, int value)
{
    ENTER();
    SIM_GUARD();
    return set(sim_function_of(hfunc), attrib, value);
}

CUresult cuKernelGetAttribute(int *pi, CUfunction_attribute attrib, CUkernel kernel, CUdevice dev)
{
    ENTER();
    SIM_GUARD();
    if (!sim_device_valid(dev))
        return CUDA_ERROR_INVALID_DEVICE;
    return get(pi, attrib, sim_handle_find(kernel, SIM_KERNEL));
}

CUresult cuKernelSetAttribute(CUfunction_attribute attrib, int val, CUkernel kernel, CUdevice dev)
{
    ENTER();
    SIM_GUARD();
    if (!sim_device_valid(dev))
        return CUDA_ERROR_INVALID_DEVICE;
    return set(sim_handle_find(kernel, SIM_KERNEL), attrib, val);
}

CUresult cuKernelSetCacheConfig(CUkernel kernel, CUfunc_cache config, CUdevice dev)
{
    ENTER();
    SIM_GUARD();
    (void)config;
    if (!sim_device_valid(dev))
        return CUDA_ERROR_INVALID_DEVICE;
    return sim_handle_find(kernel, SIM_KERNEL) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuFuncSetCacheConfig(CUfunction hfunc, CUfunc_cache config)
{
    ENTER();
    SIM_GUARD();
    (void)config;
    return sim_function_of(hfunc) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuFuncSetSharedMemConfig(CUfunction hfunc, CUsharedconfig config)
{
    ENTER();
    SIM_GUARD();
    (void)config;
    return sim_function_of(hfunc) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuFuncGetModule(CUmodule *hmod, CUfunction hfunc)
{
    struct sim_function *f;

    ENTER();
    SIM_GUARD();
    f = sim_handle_find(hfunc, SIM_FUNCTION);
    if (!hmod)
        return CUDA_ERROR_INVALID_VALUE;
    if (!f)
        return CUDA_ERROR_INVALID_HANDLE;
    *hmod = (CUmodule)f->module;
    return CUDA_SUCCESS;
}

static CUresult name_of(const char **name, const struct sim_function *f)
{
    if (!name)
        return CUDA_ERROR_INVALID_VALUE;
    if (!f)
        return CUDA_ERROR_INVALID_HANDLE;
    *name = f->name;
    return CUDA_SUCCESS;
}

CUresult cuFuncGetName(const char **name, CUfunction hfunc)
{
    ENTER();
    SIM_GUARD();
    return name_of(name, sim_function_of(hfunc));
}

CUresult cuKernelGetName(const char **name, CUkernel hfunc)
{
    ENTER();
    SIM_GUARD();
    return name_of(name, sim_handle_find(hfunc, SIM_KERNEL));
}

CUresult cuFuncIsLoaded(CUfunctionLoadingState *state, CUfunction function)
{
    struct sim_function *f;

    ENTER();
    SIM_GUARD();
    if (!state)
        return CUDA_ERROR_INVALID_VALUE;
    f = sim_handle_find(function, SIM_FUNCTION);
    if (!f)
        return CUDA_ERROR_INVALID_HANDLE;
    *state = f->loaded ? CU_FUNCTION_LOADING_STATE_LOADED : CU_FUNCTION_LOADING_STATE_UNLOADED;
    return CUDA_SUCCESS;
}

CUresult cuFuncLoad(CUfunction function)
{
    struct sim_function *f;

    ENTER();
    SIM_GUARD();
    f = sim_handle_find(function, SIM_FUNCTION);
    if (!f)
        return CUDA_ERROR_INVALID_HANDLE;
    return sim_function_load(f, f->head.ctx);
}

static CUresult active_blocks(int *blocks, CUfunction func, int size)
{
    SIM_GUARD();

    if (!blocks || size <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_function_of(func))
        return CUDA_ERROR_INVALID_HANDLE;
    *blocks = size > 1024 ? 0 : 2048 / size > 32 ? 32 : 2048 / size;
    return CUDA_SUCCESS;
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *numBlocks, CUfunction func, int blockSize, size_t dynamicSMemSize)
{
    ENTER();
    (void)dynamicSMemSize;
    return active_blocks(numBlocks, func, blockSize);
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *numBlocks, CUfunction func, int blockSize,
                                                              size_t dynamicSMemSize, unsigned int flags)
{
    ENTER();
    (void)dynamicSMemSize;
    if (flags & ~1u)
        return CUDA_ERROR_INVALID_VALUE;
    return active_blocks(numBlocks, func, blockSize);
}

static CUresult potential_block(int *grid, int *block, CUfunction func, int limit)
{
    SIM_GUARD();

    if (!grid || !block)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_function_of(func))
        return CUDA_ERROR_INVALID_HANDLE;
    *block = limit > 0 && limit < 1024 ? limit : 1024;
    *grid = 108 * (2048 / *block);
    return CUDA_SUCCESS;
}

CUresult cuOccupancyMaxPotentialBlockSize(int *minGridSize, int *blockSize, CUfunction func,
                                          CUoccupancyB2DSize blockSizeToDynamicSMemSize, size_t dynamicSMemSize, int blockSizeLimit)
{
    ENTER();
    (void)blockSizeToDynamicSMemSize;
    (void)dynamicSMemSize;
    return potential_block(minGridSize, blockSize, func, blockSizeLimit);
}

CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int *minGridSize, int *blockSize, CUfunction func,
                                                   CUoccupancyB2DSize blockSizeToDynamicSMemSize, size_t dynamicSMemSize,
                                                   int blockSizeLimit, unsigned int flags)
{
    ENTER();
    (void)blockSizeToDynamicSMemSize;
    (void)dynamicSMemSize;
    if (flags & ~1u)
        return CUDA_ERROR_INVALID_VALUE;
    return potential_block(minGridSize, blockSize, func, blockSizeLimit);
}
