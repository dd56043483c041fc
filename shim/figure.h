/* SPDX-License-Identifier: Apache-2.0 */
/* The driver's own figure for this process, from NVML: what the host's nvidia-smi shows. */
#ifndef SOFTSLICE_SHIM_FIGURE_H
#define SOFTSLICE_SHIM_FIGURE_H

#include <stdbool.h>
#include <stdint.h>

#define FIGURE_PROCESSES 256 /* on one device; with more of them the figure is unknown */

/* Bytes that the driver says this process has on the device; where it is listed more than once (MPS, instances of a GPU), the least of them.
 * False where that is unknown: no NVML, the process is not in its lists or cannot be told from others (PID namespaces), or "not available". Loads
 * NVML, so only when a context is made or exists. */
bool figure_of_process(const uint8_t uuid[16], uint64_t *bytes);

/* NVML may know this process by another number than it knows itself: that of another PID namespace. Who is in the lists before the first context
 * of the process on a device is made, and after it: if there is one newcomer, of a size that can be ours, that is us. */
struct figure_seen {
    bool known;
    unsigned count;
    unsigned pid[FIGURE_PROCESSES];
};
void figure_look(const uint8_t uuid[16], struct figure_seen *seen);

/* `least` is what this process is known to have on the device. */
void figure_learn(const uint8_t uuid[16], const struct figure_seen *seen, uint64_t least);

/* A figure turned out not to be this process's: whether it was one by a learned number. From here on it is unknown, until it is learned again. */
bool figure_forget(void);

/* Whether the driver still shows processes of this PID namespace on the device, dying ones among them (assumed: a driver lists a process until it
 * has released its memory). None where that is unknown. A ledger_witness. */
void figure_shows(const uint8_t uuid[16], const uint32_t *pids, bool *shown, unsigned count);

#endif
