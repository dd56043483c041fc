/* SPDX-License-Identifier: Apache-2.0 */
/* The table of `softslice status`. */
#ifndef SOFTSLICE_CLI_STATUS_H
#define SOFTSLICE_CLI_STATUS_H

#include "observe.h"

/* Print it. `before` (may be NULL) is the earlier look that shares of time are told from; `containers` may have tenants that were not looked at. */
void status_table(const struct observe *before, const struct observe *seen, bool containers);

#endif
