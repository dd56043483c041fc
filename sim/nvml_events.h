/* SPDX-License-Identifier: Apache-2.0 */
/* What happens to GPUs in NVML's eyes, as the file says that SOFTSIM_NVML_EVENTS names. */
#ifndef SIM_NVML_EVENTS_H
#define SIM_NVML_EVENTS_H

#include <stdbool.h>

#include "nvml_abi.h"
#include "shared.h"

/* SOFTSIM_BLOCK, and SOFTSIM_FAIL: nothing is done then. */
#define FAIL()                                                                                                                     \
    do {                                                                                                                           \
        sim_block(__func__);                                                                                                       \
        int fail_ = sim_fail_next(__func__);                                                                                       \
        if (fail_)                                                                                                                 \
            return (nvmlReturn_t)fail_;                                                                                            \
    } while (0)

/* nvml.c: the index of a device that can be asked. */
nvmlReturn_t sim_nvml_index(nvmlDevice_t device, unsigned int *index);

/* Whether the file has a line `lost INDEX`. */
bool sim_nvml_lost(unsigned int index);

#endif
