/* SPDX-License-Identifier: Apache-2.0 */
/* The device nodes that open a MIG instance, as NVIDIA's MIG User Guide has them: each capability's file says the number of its
 * /dev/nvidia-caps/nvidia-capN. */
#ifndef SOFTSLICE_PLUGIN_MIG_H
#define SOFTSLICE_PLUGIN_MIG_H

#include "plugin.h"

#define MIG_CAPABILITIES "/proc/driver/nvidia/capabilities"

/* The numbers for the GPU instance and the compute instance; how many there are: 0 for what is no instance, or where the driver does not say. */
unsigned mig_capabilities(const char *directory, const struct gpu *gpu, int number[2]);

#endif
