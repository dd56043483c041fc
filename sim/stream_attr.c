/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes of streams: kept, and without effect. */
#include "sim.h"

static bool known(CUstreamAttrID attr)
{
    switch (attr) {
    case CU_STREAM_ATTRIBUTE_ACCESS_POLICY_WINDOW:
    case CU_STREAM_ATTRIBUTE_SYNCHRONIZATION_POLICY:
    case CU_STREAM_ATTRIBUTE_PRIORITY:
    case CU_STREAM_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
    case CU_STREAM_ATTRIBUTE_MEM_SYNC_DOMAIN:
        return true;
    default:
        return false;
    }
}

static CUresult get(CUstream handle, bool per_thread, CUstreamAttrID attr, CUstreamAttrValue *value)
{
    struct sim_stream *s;
    SIM_GUARD();

    STREAM(s, handle, per_thread);
    if (!value || !known(attr))
        return CUDA_ERROR_INVALID_VALUE;
    *value = s->attributes[attr];
    if (attr == CU_STREAM_ATTRIBUTE_PRIORITY)
        value->priority = s->priority;
    return CUDA_SUCCESS;
}

static CUresult set(CUstream handle, bool per_thread, CUstreamAttrID attr, const CUstreamAttrValue *value)
{
    struct sim_stream *s;
    SIM_GUARD();

    STREAM(s, handle, per_thread);
    if (!value || !known(attr))
        return CUDA_ERROR_INVALID_VALUE;
    s->attributes[attr] = *value;
    if (attr == CU_STREAM_ATTRIBUTE_PRIORITY)
        s->priority = value->priority;
    return CUDA_SUCCESS;
}

static CUresult copy(CUstream to, CUstream from, bool per_thread)
{
    struct sim_stream *a, *b;
    SIM_GUARD();

    STREAM(a, to, per_thread);
    STREAM(b, from, per_thread);
    if (a->head.ctx != b->head.ctx)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned int i = 0; i < SIM_STREAM_ATTRIBUTES; i++)
        a->attributes[i] = b->attributes[i];
    return CUDA_SUCCESS;
}

#define ATTRIBUTE_FUNCTIONS(suffix, per_thread)                                                                                    \
    CUresult cuStreamGetAttribute##suffix(CUstream hStream, CUstreamAttrID attr, CUstreamAttrValue *value)                         \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return get(hStream, per_thread, attr, value);                                                                              \
    }                                                                                                                              \
    CUresult cuStreamSetAttribute##suffix(CUstream hStream, CUstreamAttrID attr, const CUstreamAttrValue *value)                   \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return set(hStream, per_thread, attr, value);                                                                              \
    }                                                                                                                              \
    CUresult cuStreamCopyAttributes##suffix(CUstream dst, CUstream src)                                                            \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return copy(dst, src, per_thread);                                                                                         \
    }

ATTRIBUTE_FUNCTIONS(, false)
ATTRIBUTE_FUNCTIONS(_ptsz, true)
