/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of cli/observe*.c say to each other. */
#ifndef SOFTSLICE_CLI_OBSERVE_INTERNAL_H
#define SOFTSLICE_CLI_OBSERVE_INTERNAL_H

#include "observe.h"

#define OBSERVE_COMPLAINTS 64

/* Note what could not be read; the first OBSERVE_COMPLAINTS are kept. */
void observe_complain(struct observe *seen, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- observe_labels.c */

struct observe_labels {
    char pod[OBSERVE_LABEL], namespace[OBSERVE_LABEL], container[OBSERVE_LABEL];
};

/* What labels.ini in a state directory says, if it belongs to root or to `owner`, whose directory it is; "" for the rest. False with *what where there
 * is something that cannot be believed: then all are "". */
bool observe_labels_read(int directory, uid_t owner, struct observe_labels *labels, char what[128]);

/* ---- observe_admin.c */

/* Lower what the tenant's view says to the limits of the admin's file of its state directory, where `softslice cdi` has made one. */
void observe_admin_limits(const struct observe *seen, struct observe_tenant *tenant);

/* ---- observe_gpu.c */

/* The GPUs that NVML shows; none where it cannot be asked. 0 or -ENOMEM. */
int observe_gpus_read(struct observe *seen);

/* Room for one more GPU, all zeros, its name unknown. NULL: out of memory, or there are OBSERVE_GPUS. */
struct observe_gpu *observe_gpu_add(struct observe *seen, const uint8_t uuid[16]);

/* ---- observe_pids.c */

/* Find the members' numbers in this process's PID namespace, and their commands. */
void observe_pids_find(struct observe *seen);

#endif
