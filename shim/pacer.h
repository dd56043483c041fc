/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that looks after work that nobody waits for: it sees marks that are reached while the program is elsewhere, so that idle time is not
 * charged, and lets the turn go. It ticks while this process has work on a GPU, and sleeps without limit soon after. */
#ifndef SOFTSLICE_SHIM_PACER_H
#define SOFTSLICE_SHIM_PACER_H

#include "pace.h"

/* There is work. */
void pacer_wake(struct membership *membership, struct paces *paces);

#endif
