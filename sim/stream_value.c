/* SPDX-License-Identifier: Apache-2.0 */
/* Values in memory that streams write and wait for. Writes happen when the GPU gets there, so they signal what they should. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

struct write {
    unsigned char *to;
    uint64_t value;
    unsigned int bytes;
};

static void write_now(void *data)
{
    struct write *w = data;

    if (w->bytes == 4)
        __atomic_store_n((uint32_t *)(void *)w->to, (uint32_t)w->value, __ATOMIC_SEQ_CST);
    else
        __atomic_store_n((uint64_t *)(void *)w->to, w->value, __ATOMIC_SEQ_CST);
    free(w);
}

/* Leaves op->data NULL when the condition holds. Of a wait: copy.dst address, copy.width bytes, copy.src value, copy.value flags. */
static void wait_look(struct sim_op *op)
{
    unsigned char *at = sim_mem_bytes(op->copy.dst, op->copy.width);
    uint64_t now = 0, value = op->copy.src;
    bool holds, wide = op->copy.width == 8;

    if (!at) {
        op->data = NULL; /* the memory is gone, and with it what could be waited for */
        return;
    }
    now = wide ? __atomic_load_n((uint64_t *)(void *)at, __ATOMIC_SEQ_CST)
               : __atomic_load_n((uint32_t *)(void *)at, __ATOMIC_SEQ_CST);
    switch (op->copy.value & 3) {
    case CU_STREAM_WAIT_VALUE_GEQ:
        holds = wide ? (int64_t)(now - value) >= 0 : (int32_t)(uint32_t)(now - value) >= 0;
        break;
    case CU_STREAM_WAIT_VALUE_EQ:
        holds = now == value;
        break;
    case CU_STREAM_WAIT_VALUE_AND:
        holds = (now & value) != 0;
        break;
    default:
        holds = (wide ? ~(now | value) : (uint32_t) ~(now | value)) != 0;
        break;
    }
    op->data = holds ? NULL : op->stream;
}

static CUresult one(struct sim_stream *s, bool wait, uint64_t address, uint64_t value, unsigned int bytes, unsigned int flags)
{
    struct write *w;
    CUresult r;

    if (!address || address % bytes || !sim_mem_find(address))
        return CUDA_ERROR_INVALID_VALUE;
    if (wait)
        return sim_stream_submit(s,
                                 &(struct sim_op){.type = SIM_OP_WAIT_VALUE,
                                                  .run = wait_look,
                                                  .copy = {.dst = address, .width = bytes, .src = value, .value = flags}},
                                 NULL);
    /* As a node of a graph it is not modelled. */
    r = sim_capture_forbid(s);
    if (r != CUDA_SUCCESS)
        return r;
    w = malloc(sizeof(*w));
    if (!w)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *w = (struct write){.to = sim_mem_bytes(address, bytes), .value = value, .bytes = bytes};
    if (!w->to) {
        free(w);
        return CUDA_ERROR_INVALID_VALUE;
    }
    return sim_stream_submit(s, &(struct sim_op){.type = SIM_OP_HOST, .host = write_now, .data = w}, NULL);
}

static CUresult value(CUstream handle, bool per_thread, bool wait, uint64_t address, uint64_t number, unsigned int bytes,
                      unsigned int flags)
{
    struct sim_stream *s;
    SIM_GUARD();

    if (wait ? flags & ~(unsigned int)(CU_STREAM_WAIT_VALUE_FLUSH | 3) : flags & ~1u)
        return CUDA_ERROR_INVALID_VALUE;
    STREAM(s, handle, per_thread);
    return one(s, wait, address, number, bytes, flags);
}

static CUresult batch(CUstream handle, bool per_thread, unsigned int count, const CUstreamBatchMemOpParams *p, unsigned int flags)
{
    struct sim_stream *s;
    CUresult r = CUDA_SUCCESS;
    SIM_GUARD();

    if (!p || !count || count > 256 || flags)
        return CUDA_ERROR_INVALID_VALUE;
    STREAM(s, handle, per_thread);
    for (unsigned int i = 0; i < count && r == CUDA_SUCCESS; i++)
        switch (p[i].operation) {
        case CU_STREAM_MEM_OP_WAIT_VALUE_32:
            r = one(s, true, p[i].waitValue.address, p[i].waitValue.value, 4, p[i].waitValue.flags);
            break;
        case CU_STREAM_MEM_OP_WAIT_VALUE_64:
            r = one(s, true, p[i].waitValue.address, p[i].waitValue.value64, 8, p[i].waitValue.flags);
            break;
        case CU_STREAM_MEM_OP_WRITE_VALUE_32:
            r = one(s, false, p[i].writeValue.address, p[i].writeValue.value, 4, 0);
            break;
        case CU_STREAM_MEM_OP_WRITE_VALUE_64:
            r = one(s, false, p[i].writeValue.address, p[i].writeValue.value64, 8, 0);
            break;
        case CU_STREAM_MEM_OP_BARRIER:
        case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES:
            break;
        default:
            r = CUDA_ERROR_INVALID_VALUE;
        }
    return r;
}

#define VALUE_FUNCTIONS(suffix, per_thread)                                                                                        \
    CUresult cuStreamWriteValue32##suffix(CUstream stream, CUdeviceptr addr, cuuint32_t number, unsigned int flags)                \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return value(stream, per_thread, false, addr, number, 4, flags);                                                           \
    }                                                                                                                              \
    CUresult cuStreamWaitValue32##suffix(CUstream stream, CUdeviceptr addr, cuuint32_t number, unsigned int flags)                 \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return value(stream, per_thread, true, addr, number, 4, flags);                                                            \
    }                                                                                                                              \
    CUresult cuStreamWriteValue64##suffix(CUstream stream, CUdeviceptr addr, cuuint64_t number, unsigned int flags)                \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return value(stream, per_thread, false, addr, number, 8, flags);                                                           \
    }                                                                                                                              \
    CUresult cuStreamWaitValue64##suffix(CUstream stream, CUdeviceptr addr, cuuint64_t number, unsigned int flags)                 \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return value(stream, per_thread, true, addr, number, 8, flags);                                                            \
    }                                                                                                                              \
    CUresult cuStreamBatchMemOp##suffix(CUstream stream, unsigned int count, CUstreamBatchMemOpParams *paramArray,                 \
                                        unsigned int flags)                                                                        \
    {                                                                                                                              \
        ENTER();                                                                                                                   \
        return batch(stream, per_thread, count, paramArray, flags);                                                                \
    }

VALUE_FUNCTIONS(, false)
VALUE_FUNCTIONS(_ptsz, true)
VALUE_FUNCTIONS(_v2, false)
VALUE_FUNCTIONS(_v2_ptsz, true)
