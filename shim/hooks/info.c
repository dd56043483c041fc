/* SPDX-License-Identifier: Apache-2.0 */
/* What a program is told about memory: its budget is the whole card. NVML tells the same (hooks/nvml.c). */
#include "../context.h"
#include "../guard.h"

static size_t clamp32(uint64_t bytes)
{
    return bytes > UINT32_MAX ? UINT32_MAX : (size_t)bytes;
}

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
    CUresult result = real.cuMemGetInfo_v2(free_bytes, total);
    uint64_t owner, told_total, told_free;
    int device;

    if (result != CUDA_SUCCESS || !guard_acts(RESOLVE_VRAM))
        return result;
    struct membership *m = process_membership(NULL);
    if (!m || !context_current(m, &owner, &device))
        return result;
    quota_info(&m->quota, (unsigned)device, free_bytes ? *free_bytes : 0, &told_total, &told_free);
    if (free_bytes)
        *free_bytes = told_free;
    if (total)
        *total = told_total;
    return result;
}

/* The first ABI has 32 bits: what does not fit is told as all that fits. */
CUresult cuMemGetInfo(unsigned int *free_bytes, unsigned int *total)
{
    CUresult result = real.cuMemGetInfo(free_bytes, total);
    uint64_t owner, told_total, told_free;
    int device;

    if (result != CUDA_SUCCESS || !guard_acts(RESOLVE_VRAM))
        return result;
    struct membership *m = process_membership(NULL);
    if (!m || !context_current(m, &owner, &device))
        return result;
    quota_info(&m->quota, (unsigned)device, free_bytes ? *free_bytes : 0, &told_total, &told_free);
    if (free_bytes)
        *free_bytes = (unsigned int)clamp32(told_free);
    if (total)
        *total = (unsigned int)clamp32(told_total);
    return result;
}

/* The limit of a device that the process has joined with, else (not initialised, unknown) what the driver said. */
static uint64_t limit_of(CUdevice dev, uint64_t physical)
{
    struct membership *m = process_membership(NULL);
    int device = m ? process_device(m, dev) : PROCESS_NO_DEVICE;

    if (device == PROCESS_NO_DEVICE)
        return physical;
    uint64_t limit = quota_limit(&m->quota, (unsigned)device);
    return limit < physical ? limit : physical;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev)
{
    CUresult result = real.cuDeviceTotalMem_v2(bytes, dev);

    if (result == CUDA_SUCCESS && bytes && guard_acts(RESOLVE_VRAM))
        *bytes = limit_of(dev, *bytes);
    return result;
}

CUresult cuDeviceTotalMem(unsigned int *bytes, CUdevice dev)
{
    CUresult result = real.cuDeviceTotalMem(bytes, dev);
    size_t physical;

    if (result == CUDA_SUCCESS && bytes && guard_acts(RESOLVE_VRAM) && real.cuDeviceTotalMem_v2(&physical, dev) == CUDA_SUCCESS)
        *bytes = (unsigned int)clamp32(limit_of(dev, physical));
    return result;
}
