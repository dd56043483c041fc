/* SPDX-License-Identifier: Apache-2.0 */
/* The driver's own figure for this process, from NVML: what the host's nvidia-smi shows. */
#ifndef SOFTSLICE_SHIM_FIGURE_H
#define SOFTSLICE_SHIM_FIGURE_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes that the driver says this process has on the device. False where that is unknown: no NVML, the process is not in its list (other PID
 * namespace), or "not available". Loads NVML, so only once a context exists. */
bool figure_of_process(const uint8_t uuid[16], uint64_t *bytes);

/* Whether the driver still shows processes of this PID namespace on the device, dying ones among them (assumed: a driver lists a process until it
 * has released its memory). None where that is unknown. A ledger_witness. */
void figure_shows(const uint8_t uuid[16], const uint32_t *pids, bool *shown, unsigned count);

#endif
