/* SPDX-License-Identifier: Apache-2.0 */
/* The policy between configuration, ledger and gate. */
#include "softslice/compute.h"

static uint32_t min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t share_of_ledger(const struct quota *quota, unsigned device)
{
    return ledger_share(&quota->ledger, (unsigned)quota->device[device].index);
}

void compute_enter(struct quota *quota, struct quota_device *device, const struct config *config)
{
    uint32_t own = config_compute_own(config, &device->id, NULL);
    uint32_t weight = config->weight_set ? config->weight : 0;
    uint32_t first;
    bool replaced;

    device->share_own = SHARE_WHOLE;
    device->share_admin = config_compute_admin(config, &device->id, NULL);
    quota->weight = weight;
    quota->weight_admin = config->admin_weight;
    if (!config_arms_compute(config))
        return;
    ledger_arm(&quota->ledger, LEDGER_ARMS_COMPUTE);
    ledger_enter_compute(&quota->ledger, (unsigned)device->index, own, weight);
    if (quota->ledger.first_to_share && ledger_has_compute(&quota->ledger))
        return;
    /* A joiner that was started with less than the first member is bound by its own. Who set the ledger's share is bound by that, and so by its
     * replacement; whoever set it before the first member came to it will know when that has. */
    first = ledger_first_share(&quota->ledger, (unsigned)device->index, &replaced);
    if (own < (first ? first : ledger_share(&quota->ledger, (unsigned)device->index))) {
        device->share_own = own;
    } else if (!first) {
        device->share_own = own;
        device->share_open = true;
    }
}

/* What binds this process alone. */
static uint32_t own_share(const struct quota *quota, unsigned device)
{
    const struct quota_device *d = &quota->device[device];
    bool replaced;
    uint32_t first;

    if (__builtin_expect(!d->share_open, 1))
        return d->share_own;
    first = ledger_first_share(&quota->ledger, (unsigned)d->index, &replaced);
    return (first ? d->share_own < first : !replaced) ? d->share_own : SHARE_WHOLE;
}

/* Whether HAMi's monitor has lifted HAMi's limit. What `softslice set` wrote since is not HAMi's. */
static bool yields(const struct quota *quota, const struct quota_device *d)
{
    bool replaced;

    if (__builtin_expect(!__atomic_load_n(&d->share_yields, __ATOMIC_RELAXED), 1))
        return false;
    ledger_first_share(&quota->ledger, (unsigned)d->index, &replaced);
    return !replaced;
}

/* As if nothing were lifted. */
static uint32_t asked_share(const struct quota *quota, unsigned device)
{
    const struct quota_device *d = &quota->device[device];

    return min(min(own_share(quota, device), d->share_admin), share_of_ledger(quota, device));
}

uint32_t compute_share(const struct quota *quota, unsigned device)
{
    const struct quota_device *d = &quota->device[device];

    if (yields(quota, d))
        return d->share_admin;
    return asked_share(quota, device);
}

static uint32_t tenant_share(const struct quota *quota, unsigned device)
{
    const struct quota_device *d = &quota->device[device];

    /* In a file that has none, all that is known of the tenant's is one's own. */
    if (!ledger_has_compute(&quota->ledger))
        return asked_share(quota, device);
    return min(d->share_admin, share_of_ledger(quota, device));
}

uint32_t compute_tenant_share(const struct quota *quota, unsigned device)
{
    const struct quota_device *d = &quota->device[device];

    return yields(quota, d) ? d->share_admin : tenant_share(quota, device);
}

uint32_t compute_weight(const struct quota *quota, unsigned device)
{
    uint32_t weight = ledger_weight(&quota->ledger, (unsigned)quota->device[device].index);

    if (!weight)
        weight = quota->weight;
    if (!weight)
        weight = share_weight(tenant_share(quota, device));
    return quota->weight_admin ? min(weight, quota->weight_admin) : weight;
}
