/* SPDX-License-Identifier: Apache-2.0 */
/* The process's configuration, read at the first look-up and from then on the same: which dimensions are hooked at all. */
#ifndef SOFTSLICE_SHIM_ARM_H
#define SOFTSLICE_SHIM_ARM_H

#include "softslice/config.h"

/* The configuration. Read once; of several threads that read it at the same moment one is published and no other waits. Never NULL. A
 * configuration whose `error` is set has been reported. */
const struct config *arm_config(void);

/* Armed dimensions (enum resolve_arm). A bad configuration arms everything, so that cuInit can refuse, unless SOFTSLICE_ON_ERROR=open. */
unsigned arm_dimensions(void);

#endif
