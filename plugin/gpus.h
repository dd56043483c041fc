/* SPDX-License-Identifier: Apache-2.0 */
/* The node's GPUs and their health, watched by a thread of its own: NVML's calls can take long, and the kubelet does not wait. */
#ifndef SOFTSLICE_PLUGIN_GPUS_H
#define SOFTSLICE_PLUGIN_GPUS_H

#include "plugin.h"

/* Look once, in the caller's thread. NULL, or why there is none to see. */
const char *gpus_look(struct gpus *gpus);

/* Begin to watch. An fd that can be read when something has changed, or -errno. */
int gpus_watch(const struct settings *settings);

/* Other settings; NVML is opened anew, and GPUs that are gone are forgotten. */
void gpus_change(const struct settings *settings);

/* What there is now; true where that has not been taken before. */
bool gpus_take(struct gpus *gpus);

#endif
