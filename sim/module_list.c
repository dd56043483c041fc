/* SPDX-License-Identifier: Apache-2.0 */
/* What modules and libraries contain: the functions that were asked for so far, since no code is read. */
#include "sim.h"

static unsigned int list(enum sim_kind kind, const struct sim_ctx *ctx, const void *owner, void **out, unsigned int room)
{
    unsigned int found = 0;

    for (struct sim_function *f = sim_handle_first(kind, ctx); f; f = sim_handle_next(f))
        if ((void *)f->module == owner) {
            if (found < room)
                out[found] = f;
            found++;
        }
    return found;
}

CUresult cuModuleGetFunctionCount(unsigned int *count, CUmodule mod)
{
    struct sim_object_head *m;

    ENTER();
    SIM_GUARD();
    m = sim_handle_find(mod, SIM_MODULE);
    if (!count || !m)
        return CUDA_ERROR_INVALID_VALUE;
    *count = list(SIM_FUNCTION, m->ctx, m, NULL, 0);
    return CUDA_SUCCESS;
}

CUresult cuModuleEnumerateFunctions(CUfunction *functions, unsigned int numFunctions, CUmodule mod)
{
    struct sim_object_head *m;

    ENTER();
    SIM_GUARD();
    m = sim_handle_find(mod, SIM_MODULE);
    if (!functions || !numFunctions || !m)
        return CUDA_ERROR_INVALID_VALUE;
    list(SIM_FUNCTION, m->ctx, m, (void **)functions, numFunctions);
    return CUDA_SUCCESS;
}

CUresult cuLibraryGetKernelCount(unsigned int *count, CUlibrary lib)
{
    struct sim_object_head *l;

    ENTER();
    SIM_GUARD();
    l = sim_handle_find(lib, SIM_LIBRARY);
    if (!count || !l)
        return CUDA_ERROR_INVALID_VALUE;
    *count = list(SIM_KERNEL, NULL, l, NULL, 0);
    return CUDA_SUCCESS;
}

CUresult cuLibraryEnumerateKernels(CUkernel *kernels, unsigned int numKernels, CUlibrary lib)
{
    struct sim_object_head *l;

    ENTER();
    SIM_GUARD();
    l = sim_handle_find(lib, SIM_LIBRARY);
    if (!kernels || !numKernels || !l)
        return CUDA_ERROR_INVALID_VALUE;
    list(SIM_KERNEL, NULL, l, (void **)kernels, numKernels);
    return CUDA_SUCCESS;
}
