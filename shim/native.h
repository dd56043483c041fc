/* SPDX-License-Identifier: Apache-2.0 */
/* The limits that MPS and the driver keep beside ours: found here, and entered where the smaller one counts (quota_device.native). */
#ifndef SOFTSLICE_SHIM_NATIVE_H
#define SOFTSLICE_SHIM_NATIVE_H

#include "nvml_abi.h"
#include "process.h"

/* At the join: MPS's, which the environment tells, and which control group this process is in. */
void native_enter(struct membership *membership, unsigned device);

/* Later, where NVML is at hand: the driver's limit for that control group (r615), asked again at most once a second, for it may
 * change. `handle` is NVML's of that device. */
void native_look(struct membership *membership, unsigned device, nvmlDevice_t handle);

#endif
