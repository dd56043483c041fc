/* SPDX-License-Identifier: Apache-2.0 */
/* Tells when memory is on its way back to the driver: gone there while the ledger still counts it (or, of a small allocation that was tried
 * without a charge, there and not counted). Around each driver call that may give back what is charged, and the refund behind it:
 *
 *     returns_begin(); ... real.cuMemFree_v2(pointer); ... refund; returns_end();
 *
 * Who compares the driver's figure with the ledger (shim/gap.c) then knows that the two do not fit together. Costs two plain stores: each
 * thread has a counter of its own, which is odd in between. Threads beyond PROCESS_RETURNS share one, and may then be seen as done too early. */
#ifndef SOFTSLICE_SHIM_RETURNS_H
#define SOFTSLICE_SHIM_RETURNS_H

#include "process.h"

extern __thread unsigned returns_slot __attribute__((visibility("hidden"), tls_model("initial-exec")));

/* This thread's counter, 1 + its index. */
unsigned returns_new_slot(void);

static inline uint32_t *returns_counter(void)
{
    unsigned slot = returns_slot ? returns_slot : returns_new_slot();
    return &process_returns()[slot - 1].count;
}

static inline void returns_begin(void)
{
    uint32_t *count = returns_counter();

    __atomic_store_n(count, __atomic_load_n(count, __ATOMIC_RELAXED) | 1, __ATOMIC_RELAXED);
    /* What the driver does next must not be seen before this. x86-64 keeps stores in order by itself. */
#if defined(__x86_64__)
    __atomic_signal_fence(__ATOMIC_RELEASE);
#else
    __atomic_thread_fence(__ATOMIC_RELEASE);
#endif
}

static inline void returns_end(void)
{
    uint32_t *count = returns_counter();

    __atomic_store_n(count, (__atomic_load_n(count, __ATOMIC_RELAXED) | 1) + 1, __ATOMIC_RELEASE);
}

/* Whether memory is on its way back; *seen is another number if that was so at any time since. */
bool returns_busy(uint64_t *seen);

#endif
