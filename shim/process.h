/* SPDX-License-Identifier: Apache-2.0 */
/* What this process is to softslice: its place in the tenant's ledger, its devices, what it holds. All of it lies in one mapping that a
 * forked child finds zeroed (MADV_WIPEONFORK): a child has no slot, no records and no lock held until it attaches by itself. */
#ifndef SOFTSLICE_SHIM_PROCESS_H
#define SOFTSLICE_SHIM_PROCESS_H

#include <limits.h>
#include <stdbool.h>

#include "cuda_abi.h"
#include "softslice/hami.h"
#include "softslice/phys.h"
#include "softslice/quota.h"
#include "softslice/records.h"
#include "softslice/slabs.h"
#include "thread.h"

#define PROCESS_NO_DEVICE (-1)

struct meters;

struct membership_native {
    uint64_t mps;    /* MPS's limit, UINT64_MAX if none */
    uint64_t looked; /* atomic: CLOCK_MONOTONIC ns of the last native_look() */
};

/* A process's membership: built by one thread, published by one compare-and-swap, the same from then on. */
struct membership {
    struct quota quota;
    CUdevice device[QUOTA_DEVICES]; /* the driver's handle of quota.device[i] */
    struct membership_native native[QUOTA_DEVICES];
    char cgroup[PATH_MAX]; /* this process's control group, "" where there is none */
};

/* Join the tenant with every device that the driver shows, once; later calls and other threads find it done. CUDA_SUCCESS;
 * CUDA_ERROR_OPERATING_SYSTEM where limits cannot be kept (told once) and on_error is closed; else the driver's own refusal
 * to tell its devices (not initialised, no device), of which nothing is said. */
CUresult process_attach(void);

/* The membership, joining if need be; NULL where there is none (see process_attach()), *why (may be NULL) saying why. */
struct membership *process_membership(CUresult *why);

/* The quota device of a driver's handle or UUID, or PROCESS_NO_DEVICE. */
int process_device(const struct membership *membership, CUdevice device);
int process_device_of_uuid(const struct membership *membership, const uint8_t uuid[16]);

/* What this process was charged for. NULL where not even memory for that was to be had. */
struct records *process_allocations(void); /* device pointers; record.context is the owner number of a context */
struct records *process_handles(void); /* CUarray, CUmipmappedArray, CUmodule, ...: likewise, apart because their values may meet */
struct records *process_contexts(void); /* CUcontext; record.context is its owner number */
struct records *process_imports(void);  /* what others made and we have open: shim/imports.h */
struct records *process_buckets(void);  /* sums for shim/bucket.h; the key is an owner number */

/* What executable graphs with memory nodes take when they are launched: no charges (shim/graphs.c). */
struct records *process_graphs(void);

/* The granules that its small allocations are in. */
struct slabs *process_slabs(void);

/* Its physical allocations, NULL as above. */
struct phys *process_phys(void);

/* What shim/asleep.h keeps: by address, and two sums of a device. */
struct records *process_asleep(void);
uint64_t *process_asleep_bytes(int device);

/* The meters of shim/meter.h. NULL as above. */
struct meters *process_meters(void);

/* A number that no other context of this process ever had: addresses of contexts are used again. */
uint64_t process_new_owner(void);

/* What the driver holds for this process on a device beside what it was told to: the business of shim/gap.c. */
struct process_gap {
    uint64_t bytes;   /* charged for it, written under the lock */
    uint64_t version; /* odd while the ledger and `bytes` are on their way from one state to the next */
    uint64_t tickets; /* readings begun */
    uint64_t applied; /* the newest one that was applied */
    uint64_t growing; /* reserved for what the driver is about to take by itself */
    uint64_t imports; /* bytes mapped here that are another process's charge: perhaps in the driver's figure */
    uint64_t managed; /* charged bytes of managed memory: perhaps not in it */
    uint64_t glanced; /* when somebody who was to be refused looked, CLOCK_MONOTONIC ns */
    uint32_t lock, told;
    uint32_t rough;   /* the newest reading could only tell the least that it is */
    uint32_t known;   /* there was a figure when it was last asked for */
    uint32_t watched; /* there was one when a context was charged: it is read now and then */
} __attribute__((aligned(64)));
struct process_gap *process_gap(int device);

/* The number by which NVML knows this process: 0 is its own. The business of shim/figure.c. */
uint32_t *process_listed_pid(void);

/* The thread that reads the gap: shim/watch.c. */
struct thread *process_watch(void);

/* The business of shim/hami.c: what was told last. */
struct process_hami {
    struct hami_told told;
    uint64_t when;               /* clock_now(), 0: never */
    uint64_t looked;             /* when it was added up last, 0: never */
    uint64_t busy[HAMI_DEVICES]; /* the tenant's account then */
    uint32_t failed;
};
struct process_hami *process_hami(void);

/* One counter for a thread, odd while a call of it gives memory back: shim/returns.h. */
#define PROCESS_RETURNS 256
struct process_returns {
    uint32_t count;
} __attribute__((aligned(64)));
struct process_returns *process_returns(void);

/* The primary context of quota device `device` while it is charged: the CUcontext, else 0. */
uint64_t *process_primary(int device);

#endif
