/* SPDX-License-Identifier: Apache-2.0 */
/* May these bytes be taken? The policy between the hooks and the ledger: which limit holds, rounding to what the GPU really takes, and the
 * one line that a first refusal says. Small allocations, which share granules, are told apart by softslice/slabs.h. No CUDA in here. */
#ifndef SOFTSLICE_QUOTA_H
#define SOFTSLICE_QUOTA_H

#include <stdbool.h>
#include <stdint.h>

#include "softslice/config.h"
#include "softslice/ledger.h"
#include "softslice/records.h"

#define QUOTA_DEVICES LEDGER_DEVICES
#define QUOTA_GRANULE (UINT64_C(2) << 20) /* what cuMemAlloc takes from HBM at a time, unless the driver says otherwise */

enum quota_family {
    QUOTA_LINEAR,   /* cuMemAlloc, cuMemAllocPitch */
    QUOTA_MANAGED,  /* cuMemAllocManaged */
    QUOTA_CONTEXT,  /* contexts and what the driver keeps in them */
    QUOTA_ARRAY,    /* CUDA arrays and mipmapped arrays */
    QUOTA_VMM,      /* cuMemCreate */
    QUOTA_POOL,     /* what memory pools have reserved */
    QUOTA_GRAPH,    /* what the device's graph memory has reserved */
    QUOTA_GROWTH,   /* what a call made the driver take that no argument tells: modules, limits, the rest of the gap */
    QUOTA_SPILLED,  /* on the host instead of the GPU: no HBM, counted apart */
    QUOTA_RESTORED, /* what a checkpointed process had */
    QUOTA_FAMILIES
};

/* The refusals of one span of time, atomic and for people: two at once may count as one. */
#define QUOTA_SPANS 10
struct quota_refusals {
    uint64_t span;     /* which; 0: none yet */
    uint64_t count;    /* how many */
    uint64_t most, at; /* bytes of the largest, and when that was (clock_now()) */
};

/* One device of this process. Filled by quota_add_device(). */
struct quota_device {
    struct config_device id;
    int index;         /* in the ledger */
    uint64_t own;      /* limit of this process's own sources, unless it is the ledger's: see ledger_own_binds() */
    uint64_t admin;    /* the admin's */
    uint64_t native;   /* atomic: MPS's or the driver's own limit, UINT64_MAX if none */
    uint64_t headroom; /* left free by what is not taken for the driver itself */
    uint64_t granule;  /* bytes, a power of two */
    /* Of GPU time, in hundredths of a percent, as own and admin are of bytes: softslice/compute.h */
    uint32_t share_own, share_admin;
    bool
        share_open; /* whether share_own binds this process alone is for the first member's share to say, which may have come later */
    uint32_t share_yields; /* atomic: HAMi's monitor says that the tenant's share, which HAMi set, does not hold now */
    uint32_t refusals;     /* atomic: refusals so far; the first is logged */
    struct quota_refusals lately[QUOTA_SPANS];
};

/* A process's quota. Zero-filled is "not set up"; lives in MADV_WIPEONFORK memory. */
struct quota {
    struct ledger ledger;
    char tenant[CONFIG_TENANT_MAX]; /* "" if not named */
    uint32_t weight, weight_admin;  /* compute weights, 0 where none was said */
    unsigned devices;
    struct quota_device device[QUOTA_DEVICES];
};

/* Enter a device; `granule` 0 means QUOTA_GRANULE. Returns its index or -errno (ledger.error says why). Call before publication. */
int quota_add_device(struct quota *quota, const struct config *config, const struct config_device *id, uint64_t granule);

/* The limit in force: min(admin, native, physical, ledger's, own). */
uint64_t quota_limit(const struct quota *quota, unsigned device);

/* What a program may be told: total = min(limit, physical), free = min(limit - headroom - current, physical_free), never negative. */
void quota_info(struct quota *quota, unsigned device, uint64_t physical_free, uint64_t *total, uint64_t *free_bytes);

/* A charge between reserve and settle; lives on the wrapper's stack. */
struct quota_charge {
    uint64_t bytes; /* reserved in the ledger, whole granules */
    uint16_t device;
    uint8_t family;
};

/* Ask for `bytes` on `device`, rounded up to whole granules. 0 with *charge filled, or what quota_refuse() says (over the limit, sums that
 * overflow included). Waits where only the dead are in the way. */
int quota_reserve(struct quota *quota, struct quota_charge *charge, unsigned device, uint64_t bytes, enum quota_family family);

/* The same in silence and without waiting: false, with nothing in *charge to give back, where there is no room now. */
bool quota_try_reserve(struct quota *quota, struct quota_charge *charge, unsigned device, uint64_t bytes, enum quota_family family);

/* After a refusal: whether `bytes` would fit but for dead members whose memory the driver has not released yet. Then sleeps up to 10 ms itself,
 * and says so for at most 6 s; *since is 0 at first. */
bool quota_await_dead(struct quota *quota, unsigned device, uint64_t bytes, enum quota_family family, uint64_t *since);

/* Refuse the `asked` bytes: counts the event and logs one line at the first: who asked for how much and what for, what is used. -ENOMEM. */
int quota_refuse(struct quota *quota, unsigned device, uint64_t asked, enum quota_family family);

/* The refusals of the last ten minutes (EXPLAIN_LATELY), but for a tenth of that: how many, the bytes of the largest as they were asked for, and how many ns
 * ago that was. All 0 where there was none. */
struct quota_refused {
    uint64_t count, most, ago;
};
struct quota_refused quota_refused(const struct quota *quota, unsigned device);

/* The driver succeeded: keep the charge, at `actual` bytes if that is not 0 (pitch, contexts), and fill `record`'s bytes, device,
 * family, small (0); the caller sets key and context and puts it into records. */
void quota_keep(struct quota *quota, const struct quota_charge *charge, uint64_t actual, struct record *record);

/* The driver failed: give the charge back. */
void quota_cancel(struct quota *quota, const struct quota_charge *charge);

/* The program freed: refund what the record says. */
void quota_refund(struct quota *quota, const struct record *record);

/* A checkpointed member (which may be this process itself) is to be restored: count it again, on all devices or on none. How many those are;
 * 0, nothing of it is suspended; or -ENOMEM with the refusal, which is not yet counted or told: its `device` is this quota's, or quota->devices
 * for one that this process does not know. Waits where only the dead are in the way. */
int quota_resume(struct quota *quota, const struct ledger_peer *peer, struct ledger_refusal *refusal);

/* The driver said CUDA_ERROR_OUT_OF_MEMORY although the budget had room: count it, and say whether to wait a little and ask again
 * because a member died less than 2 s ago (then sleeps up to 10 ms itself and returns true). */
bool quota_retry_oom(struct quota *quota, unsigned device, unsigned *attempt);

#endif
