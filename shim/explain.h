/* SPDX-License-Identifier: Apache-2.0 */
/* Says where this process's bytes are, when somebody asks: `softslice explain`. The work of shim/watch.c's thread, and of nobody who allocates. */
#ifndef SOFTSLICE_SHIM_EXPLAIN_H
#define SOFTSLICE_SHIM_EXPLAIN_H

#include "process.h"

/* Answer the newest question, if there is one. */
void explain_answer(struct membership *membership);

/* Take the answer away once it is some seconds old, or now. */
void explain_tidy(struct membership *membership, bool now);

#endif
