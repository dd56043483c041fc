/* SPDX-License-Identifier: Apache-2.0 */
/* What shim/charge.c does for shim/waited.c, which knows when the program waited. */
#ifndef SOFTSLICE_SHIM_CHARGE_H
#define SOFTSLICE_SHIM_CHARGE_H

#include "pace.h"

#define PACE_LATE_MOST                                                                                                             \
    UINT64_C(100000000) /* ns: what is later than that by estimate has been given up: nothing that was launched since ended it */

/* The flow's next launch is marked. Lock held. */
void pace_mark_next(struct flow *flow);

/* All before it is done. Lock held. */
void pace_forget_tail(struct pace *pace, struct flow *flow);

/* The GPU had work in (from, until], `work` of it by estimate, 0 where that is not known. Returns the ns of it that were other tenants'. */
uint64_t pace_charge(struct membership *membership, struct paces *paces, int device, uint64_t from, uint64_t until, uint64_t work,
                     uint64_t now);

/* The same for what was done before the device became idle, when another thread may have work on it again. `claiming` was raised for it. */
void pace_charge_past(struct membership *membership, struct paces *paces, int device, uint64_t from, uint64_t until, uint64_t now);

/* Whether the device's work is done by now, as far as marks and estimates tell; then the process is idle on it. Else when it may be. `sure`: see
 * pace_look(). */
uint64_t pace_settle(struct membership *membership, struct paces *paces, int device, uint64_t now, bool sure);

#endif
