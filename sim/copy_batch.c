/* SPDX-License-Identifier: Apache-2.0 */
/* Batches of copies. They need a real stream, as the documentation says, and cannot be captured. */
#include "copy.h"

static CUresult batch(const CUdeviceptr *dsts, const CUdeviceptr *srcs, const size_t *sizes, size_t count,
                      const CUmemcpyAttributes *attrs, const size_t *indices, size_t attr_count, size_t *fail, CUstream stream,
                      bool per_thread)
{
    struct sim_stream *s;
    CUresult r;
    SIM_GUARD();

    if (fail)
        *fail = SIZE_MAX;
    if (!dsts || !srcs || !sizes || !count || !attrs || !indices || !attr_count || attr_count > count || indices[0])
        return CUDA_ERROR_INVALID_VALUE;
    if (!stream || stream == CU_STREAM_LEGACY)
        return CUDA_ERROR_INVALID_VALUE;
    STREAM(s, stream, per_thread);
    r = sim_capture_forbid(s);
    /* All are checked before any is done. */
    for (int doing = 0; doing < 2; doing++)
        for (size_t i = 0; i < count && r == CUDA_SUCCESS; i++) {
            struct sim_copy c = sim_copy_linear(dsts[i], srcs[i], sizes[i]);

            r = !sizes[i] ? CUDA_ERROR_INVALID_VALUE
                : doing   ? sim_copy_submit(&c, SIM_END_ANY, SIM_END_ANY, stream, per_thread, true, NULL)
                          : sim_copy_check(&c, SIM_END_ANY, SIM_END_ANY);
            if (r != CUDA_SUCCESS && fail)
                *fail = i;
        }
    return r;
}

#define BATCH_FUNCTIONS(suffix, per_thread)                                                                                        \
    CUresult cuMemcpyBatchAsync##suffix(CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count,                         \
                                        CUmemcpyAttributes *attrs, size_t *attrsIdxs, size_t numAttrs, size_t *failIdx,            \
                                        CUstream hStream)                                                                          \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return batch(dsts, srcs, sizes, count, attrs, attrsIdxs, numAttrs, failIdx, hStream, per_thread);                          \
    }                                                                                                                              \
    CUresult cuMemcpyBatchAsync_v2##suffix(CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count,                      \
                                           CUmemcpyAttributes *attrs, size_t *attrsIdxs, size_t numAttrs, CUstream hStream)        \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return batch(dsts, srcs, sizes, count, attrs, attrsIdxs, numAttrs, NULL, hStream, per_thread);                             \
    }

BATCH_FUNCTIONS(, false)
BATCH_FUNCTIONS(_ptsz, true)
