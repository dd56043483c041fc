/* SPDX-License-Identifier: Apache-2.0 */
/* The tenant's budget as seen from an NVML device, also in a program that never starts CUDA (nvidia-smi, a monitoring agent). */
#ifndef SOFTSLICE_SHIM_VIEW_H
#define SOFTSLICE_SHIM_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "nvml_abi.h"

/* What to tell of `device`, whose own figures are `physical` and `physical_free`. False where no limit is known for it: tell those. */
bool view_of_nvml(nvmlDevice_t device, uint64_t physical, uint64_t physical_free, uint64_t *total, uint64_t *free_bytes);

#endif
