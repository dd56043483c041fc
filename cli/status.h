/* SPDX-License-Identifier: Apache-2.0 */
/* The table of `softslice status`. */
#ifndef SOFTSLICE_CLI_STATUS_H
#define SOFTSLICE_CLI_STATUS_H

#include "observe.h"

/* Print it. `before` (may be NULL) is the earlier look that shares of time are told from. */
void status_table(const struct observe *before, const struct observe *seen);

#endif
