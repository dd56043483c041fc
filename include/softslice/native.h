/* SPDX-License-Identifier: Apache-2.0 */
/* Limits on GPU memory that others than softslice keep, as far as they can be read without a driver: MPS's pinned memory limit, and which
 * control group the driver would limit. The smaller of those and ours counts. */
#ifndef SOFTSLICE_NATIVE_H
#define SOFTSLICE_NATIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NATIVE_NONE         UINT64_MAX
#define NATIVE_MPS_VARIABLE "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"
#define NATIVE_MPS_PIPES    "CUDA_MPS_PIPE_DIRECTORY"
#define NATIVE_CGROUP_ROOT  "/sys/fs/cgroup"

/* The bytes that `text`, a value of NATIVE_MPS_VARIABLE ("0=1G,GPU-8932f937=512MB"), gives the GPU of that CUDA ordinal and UUID; of several
 * the smallest. A UUID may be cut short, as in CUDA_VISIBLE_DEVICES. NATIVE_NONE where it names it not. What cannot be understood is
 * passed over: the variable is MPS's, and MPS says what it makes of it. */
uint64_t native_mps_bytes(const char *text, int ordinal, const uint8_t uuid[16]);

/* Whether a control daemon of MPS has its pipe in `directory` (NULL or "": /tmp/nvidia-mps): without one the variable limits nothing. */
bool native_mps_serves(const char *directory);

/* The folder of this process's control group in the unified hierarchy, "/sys/fs/cgroup/...". False where there is none. errno untouched. */
bool native_cgroup(char *path, size_t size);

#endif
