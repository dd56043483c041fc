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

/* There will be something to look at that no launch may see: wake it where it would look later than `by`. */
#define PACER_SOON_NS  UINT64_C(4000000) /* after a launch of something long: otherwise it is about to look anyway */
#define PACER_BLIND_NS UINT64_C(1000000) /* after one that nobody will wait for */
void pacer_look(struct paces *paces, uint64_t by);

#endif
