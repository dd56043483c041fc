/* SPDX-License-Identifier: Apache-2.0 */
/* MIG instances in NVML's eyes: SOFTSIM_NVML_MIG=INDEX:COUNT,... GPUs in MIG mode, each with so many instances of equal size. CUDA does not know them. */
#ifndef SIM_NVML_MIG_H
#define SIM_NVML_MIG_H

#include <stdbool.h>

#include "nvml_abi.h"

/* Whether the handle is an instance's: of which GPU, and which of it. */
bool sim_nvml_instance(nvmlDevice_t device, unsigned int *gpu, unsigned int *number);

/* How many a GPU has; 0: it is not in MIG mode. */
unsigned int sim_nvml_instances(unsigned int gpu);

/* "GPU-..." becomes an instance's UUID. */
void sim_nvml_mig_uuid(char text[48], unsigned int number);

#endif
