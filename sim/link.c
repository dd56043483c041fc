/* SPDX-License-Identifier: Apache-2.0 */
/* The linker: takes any input and gives back an image that cuModuleLoadData loads like any other. */
#include <unistd.h>

#include "sim.h"

struct sim_link {
    struct sim_object_head head;
    unsigned int inputs;
    char image[64];
};

static CUresult create(unsigned int count, const CUjit_option *options, void **values, CUlinkState *out)
{
    struct sim_link *l;
    struct sim_ctx *ctx;
    SIM_GUARD();

    CONTEXT(ctx);
    if (!out || (count && (!options || !values)))
        return CUDA_ERROR_INVALID_VALUE;
    l = sim_handle_new(sizeof(*l), SIM_LINK, ctx);
    if (!l)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *out = (CUlinkState)l;
    return CUDA_SUCCESS;
}

static CUresult add(CUlinkState state, const void *data, size_t size)
{
    struct sim_link *l;
    SIM_GUARD();

    l = sim_handle_find(state, SIM_LINK);
    if (!l)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!data || !size)
        return CUDA_ERROR_INVALID_VALUE;
    l->inputs++;
    return CUDA_SUCCESS;
}

CUresult cuLinkCreate(unsigned int numOptions, CUjit_option *options, void **optionValues, CUlinkState *stateOut)
{
    ENTER();
    return create(numOptions, options, optionValues, stateOut);
}

CUresult cuLinkCreate_v2(unsigned int numOptions, CUjit_option *options, void **optionValues, CUlinkState *stateOut)
{
    ENTER();
    return create(numOptions, options, optionValues, stateOut);
}

CUresult cuLinkAddData(CUlinkState state, CUjitInputType type, void *data, size_t size, const char *name, unsigned int numOptions,
                       CUjit_option *options, void **optionValues)
{
    ENTER();
    (void)type, (void)name, (void)numOptions, (void)options, (void)optionValues;
    return add(state, data, size);
}

CUresult cuLinkAddData_v2(CUlinkState state, CUjitInputType type, void *data, size_t size, const char *name,
                          unsigned int numOptions, CUjit_option *options, void **optionValues)
{
    ENTER();
    (void)type, (void)name, (void)numOptions, (void)options, (void)optionValues;
    return add(state, data, size);
}

static CUresult add_file(CUlinkState state, const char *path)
{
    if (!path)
        return CUDA_ERROR_INVALID_VALUE;
    return access(path, R_OK) < 0 ? CUDA_ERROR_FILE_NOT_FOUND : add(state, path, 1);
}

CUresult cuLinkAddFile(CUlinkState state, CUjitInputType type, const char *path, unsigned int numOptions, CUjit_option *options,
                       void **optionValues)
{
    ENTER();
    (void)type, (void)numOptions, (void)options, (void)optionValues;
    return add_file(state, path);
}

CUresult cuLinkAddFile_v2(CUlinkState state, CUjitInputType type, const char *path, unsigned int numOptions, CUjit_option *options,
                          void **optionValues)
{
    ENTER();
    (void)type, (void)numOptions, (void)options, (void)optionValues;
    return add_file(state, path);
}

/* The image belongs to the linker's state. */
CUresult cuLinkComplete(CUlinkState state, void **cubinOut, size_t *sizeOut)
{
    struct sim_link *l;

    ENTER();
    SIM_GUARD();
    l = sim_handle_find(state, SIM_LINK);
    if (!l)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!cubinOut || !sizeOut || !l->inputs)
        return CUDA_ERROR_INVALID_VALUE;
    *cubinOut = l->image;
    *sizeOut = sizeof(l->image);
    return CUDA_SUCCESS;
}

CUresult cuLinkDestroy(CUlinkState state)
{
    struct sim_link *l;

    ENTER();
    SIM_GUARD();
    l = sim_handle_find(state, SIM_LINK);
    if (!l)
        return CUDA_ERROR_INVALID_HANDLE;
    sim_handle_free(l);
    return CUDA_SUCCESS;
}
