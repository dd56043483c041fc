/* SPDX-License-Identifier: Apache-2.0 */
/* spill = host: a plain allocation that the budget has no room for becomes managed memory whose place is the host, which the GPU reads and
 * writes where it lies. It takes no HBM, so it is not charged but counted apart. */
#ifndef SOFTSLICE_SHIM_SPILL_H
#define SOFTSLICE_SHIM_SPILL_H

#include <stdbool.h>

#include "process.h"

bool spill_wanted(void);

/* Allocate `bytes`, for which the budget had no room, on the host. The answer for the program: CUDA_SUCCESS with *pointer set, or, with *pointer
 * as it was, CUDA_ERROR_OUT_OF_MEMORY where that cannot be had (then it is a refusal, and told) or the driver's error. */
CUresult spill_alloc(CUdeviceptr *pointer, uint64_t bytes);

/* Whether `pointer` points into such memory. */
bool spill_has(CUdeviceptr pointer);

/* Count a record of family QUOTA_SPILLED no longer. */
void spill_refund(struct membership *membership, const struct record *record);

#endif
