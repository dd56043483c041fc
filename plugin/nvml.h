/* SPDX-License-Identifier: Apache-2.0 */
/* The part of NVML that the plugin asks, found when it runs: a node may have no driver yet. One thread at a time. */
#ifndef SOFTSLICE_PLUGIN_NVML_H
#define SOFTSLICE_PLUGIN_NVML_H

#include "plugin.h"

#define NVML_SUCCESS             0
#define NVML_ERROR_UNINITIALIZED 1
#define NVML_ERROR_NOT_SUPPORTED 3
#define NVML_ERROR_TIMEOUT       10
#define NVML_ERROR_GPU_IS_LOST   15

/* What was read of a device. */
struct nvml_gpu {
    struct gpu is;
    void *handle; /* of it, or of the GPU that it is an instance of: events come for that */
};

/* Load and initialise it. NULL, or why it cannot be. */
const char *nvml_open(void);
void nvml_close(void);

/* All GPUs, those in MIG mode as their instances. One that answers with an error is in it, unhealthy, if its UUID is known. How many, or -1 with *why:
 * then NVML is to be opened again. */
int nvml_read(struct nvml_gpu gpu[PLUGIN_GPUS], const char **why);

/* Wait for the XID of a device that nvml_watch() was called for, at most timeout_ms. 1 with *xid, and the UUIDs told apart by the caller through `handle` and
 * `instance` (-1: the whole GPU); 0: nothing; -1: there is something wrong, with *why. */
struct nvml_event {
    void *handle;
    int instance;
    unsigned long long xid;
};
int nvml_wait(struct nvml_event *event, int timeout_ms, const char **why);

/* Have its XIDs told by nvml_wait(). NULL, or why not. */
const char *nvml_watch(void *handle);

#endif
