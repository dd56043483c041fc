/* SPDX-License-Identifier: Apache-2.0 */
/* How deep this thread is in calls of ours. */
#include "guard.h"

__thread unsigned guard_depth;
