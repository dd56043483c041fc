/* SPDX-License-Identifier: Apache-2.0 */
/* What NVML's lists call processes. */
#ifndef SIM_NVML_PIDS_H
#define SIM_NVML_PIDS_H

#include "shared.h"

/* Take what SOFTSIM_NVML_PIDS says; NULL: nothing. */
void nvml_pids_begin(const char *setting);

/* Lock held: the id of the process in a row; 0: it is not listed, as it is of a PID namespace that the reader's does not show (assumed). */
unsigned int nvml_pids_of(const struct sim_machine *m, unsigned int row, const struct sim_process_id *reader);

#endif
