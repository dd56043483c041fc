/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that reads the gap, where the driver's figure can be read, and answers who asks where this process's bytes are. It reads once a second;
 * where no limit is in force and nothing changes, ever less often, down to once a minute. It exists from the first context until some seconds after
 * the last. It asks NVML, and the driver only about pools; all signals are blocked in it but those of its own faults, and it holds no lock while it
 * asks. */
#ifndef SOFTSLICE_SHIM_WATCH_H
#define SOFTSLICE_SHIM_WATCH_H

#include "process.h"

/* A context on a quota device was charged: have the thread, and if it was by the driver's figure (`known`), have it read that. Where no thread can be
 * made there is none, and calls alone read. */
void watch_start(int device, bool known);

/* Read soon. False where there is no thread to do it. */
bool watch_poke(void);

#endif
