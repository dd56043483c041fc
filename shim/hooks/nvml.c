/* SPDX-License-Identifier: Apache-2.0 */
/* NVML's memory information tells the story that cuMemGetInfo tells: the budget is the whole card. */
#include <limits.h>

#include "../arm.h"
#include "../guard.h"
#include "../view.h"

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    nvmlReturn_t result = real.nvmlDeviceGetMemoryInfo(device, memory);
    uint64_t total, free_bytes;

    if (result != NVML_SUCCESS || !memory || !guard_acts(RESOLVE_VRAM) ||
        !view_of_nvml(device, memory->total, memory->free, &total, &free_bytes))
        return result;
    memory->total = total;
    memory->free = free_bytes;
    memory->used = total - free_bytes;
    return result;
}

/* The second version tells what the driver keeps for itself apart; inside a budget that is nobody's concern, so it is 0 and total = free + used. */
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    nvmlReturn_t result = real.nvmlDeviceGetMemoryInfo_v2(device, memory);
    uint64_t total, free_bytes;

    if (result != NVML_SUCCESS || !memory || !guard_acts(RESOLVE_VRAM) ||
        !view_of_nvml(device, memory->total, memory->free, &total, &free_bytes))
        return result;
    memory->total = total;
    memory->reserved = 0;
    memory->free = free_bytes;
    memory->used = total - free_bytes;
    return result;
}
