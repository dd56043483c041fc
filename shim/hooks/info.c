/* SPDX-License-Identifier: Apache-2.0 */
/* What a program is told about memory: its budget is the whole card. NVML tells the same (hooks/nvml.c). */
#include "../context.h"
#include "../guard.h"

static size_t clamp32(uint64_t bytes)
{
    return bytes > UINT32_MAX ? UINT32_MAX : (size_t)bytes;
}

/* What to tell in the current context, whose driver's figure for free memory is `physical_free`. False: what the driver said. */
static bool budget(uint64_t physical_free, uint64_t *total, uint64_t *free_bytes)
{
    struct membership *m = guard_acts(RESOLVE_VRAM) ? process_membership(NULL) : NULL;
    uint64_t owner;
    int device;

    if (!m || !context_current(m, &owner, &device))
        return false;
    quota_info(&m->quota, (unsigned)device, physical_free, total, free_bytes);
    return true;
}

/* Each output may be NULL. The first ABI has 32 bits: what does not fit is told as all that fits. */
#define GET_INFO(symbol, type, fit)                                                                                                \
    CUresult symbol(type *free_bytes, type *total)                                                                                 \
    {                                                                                                                              \
        CUresult result = real.symbol(free_bytes, total);                                                                          \
        uint64_t told_total, told_free;                                                                                            \
                                                                                                                                   \
        if (result != CUDA_SUCCESS || !budget(free_bytes ? *free_bytes : 0, &told_total, &told_free))                              \
            return result;                                                                                                         \
        if (free_bytes)                                                                                                            \
            *free_bytes = (type)fit(told_free);                                                                                    \
        /* The driver tells less than the card where it keeps a limit itself. */                                                   \
        if (total && fit(told_total) < *total)                                                                                     \
            *total = (type)fit(told_total);                                                                                        \
        return result;                                                                                                             \
    }

GET_INFO(cuMemGetInfo_v2, size_t, )
GET_INFO(cuMemGetInfo, unsigned int, clamp32)

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
