/* SPDX-License-Identifier: Apache-2.0 */
/* What a member of a tenant says of its own bytes when somebody asks (`softslice explain`): by what they are for and by size. The ledger has their sum
 * alone; only the process that holds them knows more.
 *
 * Who asks changes one word of the ledger (ledger_ask()); it wakes each member that has a context (before Linux 5.16 they look once a second), which
 * answers with a small file in the tenant's folder, which it takes away some seconds later (ledger_answer()). */
#ifndef SOFTSLICE_EXPLAIN_H
#define SOFTSLICE_EXPLAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "softslice/ledger.h"

/* What bytes are for. Up to EXPLAIN_CHARGED they are in the ledger's total; a newer version may add kinds behind the last. */
enum explain_kind {
    EXPLAIN_PLAIN,   /* cuMemAlloc, cuMemAllocPitch */
    EXPLAIN_MANAGED, /* cuMemAllocManaged */
    EXPLAIN_POOL,    /* what memory pools have reserved; counted by pools */
    EXPLAIN_GRAPH,   /* what the device's graph memory has reserved */
    EXPLAIN_VMM,     /* cuMemCreate */
    EXPLAIN_ASLEEP,  /* kept for virtual memory that was released for a while (keep_asleep) */
    EXPLAIN_ARRAY,   /* arrays and mipmapped arrays */
    EXPLAIN_CONTEXT, /* contexts; no bytes where the driver's figure tells what they take: then these are in EXPLAIN_DRIVER */
    EXPLAIN_MODULE,  /* modules, libraries and the like, likewise */
    EXPLAIN_DRIVER, /* the gap: what the driver's figure for the process shows beyond all else. Contexts, modules, heaps, workspaces */
    EXPLAIN_ROUNDING, /* the rest of granules that small allocations and arrays share; counted by granules */
    EXPLAIN_CHARGED,
    EXPLAIN_SPILLED = EXPLAIN_CHARGED, /* on the host: in no total */
    EXPLAIN_IMPORTED,                  /* another process's, open here: its maker's charge */
    EXPLAIN_KINDS
};

/* Sizes: up to 64 KiB, 2 MiB, 64 MiB, 1 GiB, and above. */
#define EXPLAIN_CLASSES 5

struct explain_sum {
    uint64_t count, bytes;
};

struct explain_sums {
    struct explain_sum all, size[EXPLAIN_CLASSES];
};

#define EXPLAIN_SUSPENDED    1  /* it is checkpointed: nothing of it is on the GPU */
#define EXPLAIN_FIGURE       2  /* the driver's figure can be read: EXPLAIN_DRIVER is a measurement */
#define EXPLAIN_POOLS_ASKED  4  /* `pools_used` is known */
#define EXPLAIN_GRAPHS_ASKED 8  /* `graphs_used` is */
#define EXPLAIN_MOVING       16 /* bytes came or went while they were added up */

/* A device of a member, as it is in its file. */
struct explain_device {
    uint8_t uuid[16];
    uint64_t flags;
    uint64_t committed, tentative; /* of this member in the ledger, after the others were added up */
    uint64_t granule;
    uint64_t pools_used, graphs_used; /* of what is reserved for EXPLAIN_POOL and EXPLAIN_GRAPH, handed out; the rest is cached */
    uint64_t blocks;                  /* allocations from pools */
    uint64_t orphaned;                /* in EXPLAIN_POOL: of pools that were destroyed and whose blocks live on */
    uint64_t refused, refused_ago;    /* bytes of the largest refusal of late, and how many ns that is ago; 0, 0: none */
    uint64_t limit;                   /* what holds for this very member */
    uint64_t refusals;                /* of late; 0 where there were some: not known */
    uint64_t reserved[7];
    struct explain_sums kind[EXPLAIN_KINDS];
};

struct explain {
    uint64_t request;    /* that it answers */
    uint64_t tag;        /* its slot's `since` */
    uint64_t when, took; /* clock_now() when it began, and for how many ns it added up */
    uint32_t pid;        /* in its own PID namespace */
    uint32_t devices;
    struct explain_device device[LEDGER_DEVICES];
};

#define EXPLAIN_LATELY UINT64_C(600000000000) /* ns for which a refusal is told */

/* Add an item of `bytes` to a device's kind. */
void explain_add(struct explain_device *device, enum explain_kind kind, uint64_t bytes);

/* The largest size of a class, UINT64_MAX for the last. */
uint64_t explain_class_most(unsigned size_class);

/* What a kind is called, in JSON too. */
const char *explain_kind_name(enum explain_kind kind);

/* The sum of all kinds that are charged; saturates. */
uint64_t explain_charged(const struct explain_device *device);

/* As a file: its bytes, at most EXPLAIN_FILE_MOST. Devices are taken as they are, so only those of interest should be there. */
#define EXPLAIN_FILE_MOST (UINT64_C(128) << 10)
size_t explain_pack(const struct explain *explain, void *file, size_t size);

/* What others wrote. 0, or -EPROTO: damaged, or of another major version. */
int explain_parse(const void *file, size_t size, struct explain *explain);

/* The answer of the member in `slot` of tenant `name`, who took it at `since`. 0, -EAGAIN (it has not answered `request` or a later one), -EPROTO, or
 * another -errno as ledger_read(). Follows no symbolic link, waits for nobody. */
int explain_read(int dirfd, const char *name, uint32_t slot, uint64_t since, uint64_t request, struct explain *explain);

#endif
