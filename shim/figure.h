/* SPDX-License-Identifier: Apache-2.0 */
/* The driver's own figure for this process, from NVML: what the host's nvidia-smi shows. */
#ifndef SOFTSLICE_SHIM_FIGURE_H
#define SOFTSLICE_SHIM_FIGURE_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes that the driver says this process has on the device. False where that is unknown: no NVML, the process is not in its list (other PID
 * namespace), or "not available". Loads NVML, so only once a context exists. */
bool figure_of_process(const uint8_t uuid[16], uint64_t *bytes);

#endif
