/* SPDX-License-Identifier: Apache-2.0 */
/* What little the null driver remembers. */
#ifndef SOFTSLICE_BENCH_NULL_STATE_H
#define SOFTSLICE_BENCH_NULL_STATE_H

#include <stddef.h>
#include <stdint.h>

#define __CUDA_API_VERSION_INTERNAL 1
#include <cuda.h>

#define NULL_HIDDEN    __attribute__((visibility("hidden")))
#define NULL_MEMORY    (UINT64_C(16) << 40) /* a million blocks of 2 MiB must fit */
#define NULL_ALIGNMENT (UINT64_C(2) << 20)
#define NULL_SMALL     (UINT64_C(1) << 20) /* what is not larger shares */
#define NULL_UNIT      UINT64_C(512)
#define NULL_PRIMARY   ((CUcontext)(uintptr_t)0x10000)
#define NULL_POOL      (UINT64_C(1) << 30) /* what its memory pool has reserved */
#define NULL_CHUNK     65536               /* addresses that a thread takes at a time */

/* Twins that differ in where they lie in a cache line differ by a nanosecond. */
#define ENTRY(base, symbol, since)                                                                                                 \
    extern __typeof__(symbol) symbol __attribute__((aligned(64)));                                                                 \
    extern __typeof__(symbol) unhooked_##symbol __attribute__((aligned(64)));
#include "entries.def"

extern __thread CUcontext null_context NULL_HIDDEN __attribute__((tls_model("initial-exec")));
extern __thread CUcontext null_below NULL_HIDDEN __attribute__((tls_model("initial-exec")));
extern __thread CUstreamCaptureMode null_mode NULL_HIDDEN __attribute__((tls_model("initial-exec")));
extern __thread uint64_t null_small NULL_HIDDEN __attribute__((tls_model("initial-exec")));
extern __thread uint64_t null_next NULL_HIDDEN __attribute__((tls_model("initial-exec")));

uint64_t null_new_chunk(void) NULL_HIDDEN;
CUcontext null_new_context(void) NULL_HIDDEN;
void null_retain(int change) NULL_HIDDEN;
int null_primaries(void) NULL_HIDDEN;
struct null_event;
struct null_event *null_new_event(void) NULL_HIDDEN;
void null_free_event(struct null_event *event) NULL_HIDDEN;
CUresult null_record(struct null_event *event) NULL_HIDDEN;
float null_between(const struct null_event *begin, const struct null_event *end) NULL_HIDDEN; /* ms */
void *null_find(const char *base, int version) NULL_HIDDEN;

/* A multiple of 2 MiB below 2^49 that was not handed out in the last 260 million calls: no block that lives has it. */
static inline CUdeviceptr null_address(void)
{
    if (null_next % NULL_CHUNK == 0)
        null_next = null_new_chunk();
    return (null_next++ % (UINT64_C(1) << 28) + 1) * NULL_ALIGNMENT;
}

/* The same for a block that shares 2 MiB with others: the thread's blocks stand one behind the other, and none where one was freed. */
static inline CUdeviceptr null_small_address(size_t bytes)
{
    CUdeviceptr address = null_small;

    bytes = (bytes + NULL_UNIT - 1) & -NULL_UNIT;
    if (address % NULL_ALIGNMENT == 0 || address % NULL_ALIGNMENT + bytes > NULL_ALIGNMENT)
        address = null_address();
    null_small = address + bytes;
    return address;
}

#endif
