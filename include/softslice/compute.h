/* SPDX-License-Identifier: Apache-2.0 */
/* Which share of GPU time and which weight hold now: the policy between configuration, ledger and gate. No CUDA in here.
 *
 * Each answer is a few loads, so it can be asked for at every tick, and what `softslice set` writes holds from the next one on. */
#ifndef SOFTSLICE_COMPUTE_H
#define SOFTSLICE_COMPUTE_H

#include "softslice/quota.h"

/* Fill the part of a quota's device that is about compute, and enter it in the ledger, where this process is marked as one that has armed it. For
 * quota_add_device(). */
void compute_enter(struct quota *quota, struct quota_device *device, const struct config *config);

/* The share in force for this process on a device of its quota, in hundredths of a percent: min(admin, ledger's, own); SHARE_WHOLE where nobody
 * limits it. */
uint32_t compute_share(const struct quota *quota, unsigned device);

/* The same for the tenant, without what binds this process alone: for what its processes have in common. */
uint32_t compute_tenant_share(const struct quota *quota, unsigned device);

/* The tenant's weight in force, 1 to 10000: min(admin, ledger's). Where nobody set one the tenant's share in percent stands for it, so 100 where it
 * has none. */
uint32_t compute_weight(const struct quota *quota, unsigned device);

#endif
