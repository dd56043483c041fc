/* SPDX-License-Identifier: Apache-2.0 */
/* Names of results. Descriptions of rare results are their names in words; the real driver's differ. */
#include "sim.h"

struct result {
    CUresult value;
    const char *name, *text;
};

#define RESULT(name, text) {name, #name, text},
static const struct result results[] = {
#include "results.def"
};
#undef RESULT

static const struct result *find(CUresult value)
{
    for (size_t i = 0; i < SIM_ARRAY_SIZE(results); i++)
        if (results[i].value == value)
            return &results[i];
    return NULL;
}

CUresult cuGetErrorName(CUresult error, const char **pStr)
{
    const struct result *r = find(error);

    if (!pStr)
        return CUDA_ERROR_INVALID_VALUE;
    *pStr = r ? r->name : NULL;
    return r ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult error, const char **pStr)
{
    const struct result *r = find(error);

    if (!pStr)
        return CUDA_ERROR_INVALID_VALUE;
    *pStr = r ? r->text : NULL;
    return r ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
