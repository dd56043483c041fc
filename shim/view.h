/* SPDX-License-Identifier: Apache-2.0 */
/* The tenant's budget as seen from an NVML device, also in a program that never starts CUDA (nvidia-smi, a monitoring agent). */
#ifndef SOFTSLICE_SHIM_VIEW_H
#define SOFTSLICE_SHIM_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "nvml_abi.h"
#include "softslice/ledger.h"

/* What to tell of `device`, whose own figures are `physical` and `physical_free`. False where no limit is known for it: tell those. */
bool view_of_nvml(nvmlDevice_t device, uint64_t physical, uint64_t physical_free, uint64_t *total, uint64_t *free_bytes);

/* A process of the tenant that holds something on a device. */
struct view_process {
    unsigned pid;
    uint64_t bytes;
};

/* The tenant's processes on `device`, at most `size` of them, and how many were written. -1 where view_of_nvml() is false. */
int view_processes(nvmlDevice_t device, struct view_process *list, unsigned size);

#endif
