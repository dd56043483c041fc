/* SPDX-License-Identifier: Apache-2.0 */
/* `softslice explain`: what was collected, and how it is told. */
#ifndef SOFTSLICE_CLI_EXPLAIN_H
#define SOFTSLICE_CLI_EXPLAIN_H

#include "observe.h"
#include "softslice/explain.h"

/* A member, and what it says of itself. */
struct explained_member {
    uint32_t slot, pid, host_pid; /* host_pid: in this PID namespace, 0 unknown */
    uint64_t since, pid_namespace;
    char command[16]; /* "" unknown */
    bool dead, suspended, stopped;
    int thread; /* whether it has the thread that answers: 1, 0, or -1 where that cannot be seen */
    struct {
        uint64_t committed, tentative, spilled; /* by the ledger */
    } device[LEDGER_DEVICES];                   /* as in the tenant's view */
    struct explain *answer;                     /* NULL: none */
    const char *why;                            /* there is none, in a few words */
};

struct explained {
    struct observe seen; /* the tenant alone, with its GPUs */
    const struct observe_tenant *tenant;
    const uint8_t *uuid;   /* this device alone, or NULL */
    const char *not_asked; /* why members could not be asked, or NULL */
    unsigned members;
    struct explained_member *member; /* by slot */
    uint64_t others[LEDGER_DEVICES]; /* bytes that other tenants of the state directory, or root, hold on each device of the view */
};

/* Ask, wait for answers and look. Where the request has a root, the tenants below it are the others, and its directory is one of those. 0, or -errno with
 * one line in `error`. */
int explain_collect(const struct observe_request *request, struct explained *explained, char error[OBSERVE_ERROR_MAX]);
void explain_free(struct explained *explained);

/* Whether a device of the view is to be told. */
bool explain_is_meant(const struct explained *explained, unsigned device);

/* What a member says of a device of the view, or NULL. */
const struct explain_device *explain_answer_of(const struct explained *explained, const struct explained_member *member,
                                               unsigned device);

/* Add what another member says of the same device. */
void explain_add_device(struct explain_device *sum, const struct explain_device *more);

/* Add `more` to *sum; saturates. */
void explain_sum(uint64_t *sum, uint64_t more);

/* What a device's pools (or its graph memory) have reserved and not handed out; 0 where that is not known. */
uint64_t explain_cached(const struct explain_device *device, enum explain_kind kind);

/* "pid 123 (python)". */
#define EXPLAIN_NAME 64
const char *explain_name(const struct explained_member *member, char name[EXPLAIN_NAME]);

/* "1.25 GiB". */
#define EXPLAIN_SIZE 32
const char *explain_size(uint64_t bytes, char text[EXPLAIN_SIZE]);

/* ---- explain_verdict.c: what follows, in plain words */

#define EXPLAIN_REASONS 24
#define EXPLAIN_REASON  400
struct verdict {
    unsigned count;
    char reason[EXPLAIN_REASONS][EXPLAIN_REASON];
};

void explain_judge(const struct explained *explained, unsigned device, struct verdict *verdict);

/* ---- how it is told */

void explain_print(const struct explained *explained);

/* As a document: docs/explain.schema.json. The caller puts it. NULL: out of memory. */
struct json_object *explain_json(const struct explained *explained);

#endif
