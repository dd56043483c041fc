/* SPDX-License-Identifier: Apache-2.0 */
/* Tells a program's call from one that the driver makes to itself while it works on a call of ours: those go straight through. */
#ifndef SOFTSLICE_SHIM_GUARD_H
#define SOFTSLICE_SHIM_GUARD_H

#include <stdbool.h>

#include "resolve.h"

extern __thread unsigned guard_depth __attribute__((visibility("hidden"), tls_model("initial-exec")));

static inline void guard_enter(void)
{
    guard_depth++;
}

static inline void guard_leave(void)
{
    guard_depth--;
}

/* Whether a wrapper of dimension `arm` has anything to say on this call. */
static inline bool guard_acts(unsigned arm)
{
    return guard_depth == 0 && resolve_armed(arm);
}

#endif
