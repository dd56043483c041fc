/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that looks after work that nobody waits for: it sees marks that are reached while the program is elsewhere, so that idle time is not
 * charged, and lets the turn go. It ticks while this process has work on a GPU, and sleeps without limit soon after. */
#ifndef SOFTSLICE_SHIM_PACER_H
#define SOFTSLICE_SHIM_PACER_H

#include "pace.h"

#define PACER_TICK_NS  UINT64_C(5000000)  /* between two looks while there is work: see ASKED_NS, too */
#define PACER_ALONE_NS UINT64_C(16000000) /* where nobody else waits for the GPU: a tick takes some 20 to 45 us of a core */

/* There is work. */
void pacer_wake(struct membership *membership, struct paces *paces);

/* A launch takes so long that no other one may ask until the turn is over. */
void pacer_look(struct paces *paces, uint64_t now);

#endif
