/* SPDX-License-Identifier: Apache-2.0 */
/* Asks for native limits. */
#include "native.h"

#include <stdlib.h>
#include <time.h>

#include "guard.h"
#include "softslice/native.h"

#define LOOK_EVERY_NS UINT64_C(1000000000)

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void native_enter(struct membership *m, unsigned device)
{
    const struct config_device *id = &m->quota.device[device].id;
    const char *text = getenv(NATIVE_MPS_VARIABLE);

    m->native[device].mps =
        text && native_mps_serves(getenv(NATIVE_MPS_PIPES)) ? native_mps_bytes(text, id->ordinal, id->uuid) : NATIVE_NONE;
    m->quota.device[device].native = m->native[device].mps;
    /* Once and here: later it is our own thread that asks, and a descriptor that it opens could be in the way of the program's. */
    if (!m->cgroup[0] && !native_cgroup(m->cgroup, sizeof(m->cgroup)))
        m->cgroup[0] = '\0';
}

void native_look(struct membership *m, unsigned device, nvmlDevice_t handle)
{
    struct membership_native *native = &m->native[device];
    uint64_t now = now_ns(), looked = __atomic_load_n(&native->looked, __ATOMIC_RELAXED);
    nvmlGetMemoryLimits_v1_t limits = {.hardLimit = NATIVE_NONE};

    if ((looked && now - looked < LOOK_EVERY_NS) ||
        !__atomic_compare_exchange_n(&native->looked, &looked, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED) || !m->cgroup[0])
        return;
    limits.nameSpace = m->cgroup;
    /* No limit is NOT_FOUND, NOT_SUPPORTED or all ones, by the backend. */
    guard_enter();
    if (called.nvmlDeviceGetMemoryLimits_v1(handle, &limits) != NVML_SUCCESS)
        limits.hardLimit = NATIVE_NONE;
    guard_leave();
    __atomic_store_n(&m->quota.device[device].native, limits.hardLimit < native->mps ? limits.hardLimit : native->mps,
                     __ATOMIC_RELAXED);
}
