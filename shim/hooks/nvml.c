/* SPDX-License-Identifier: Apache-2.0 */
/* NVML's memory information tells the story that cuMemGetInfo tells: the budget is the whole card.
 *
 * NVML reaches its own exports through its PLT, so that what it asks itself would come to us: the guard stands around its calls. */
#include "../guard.h"
#include "../view.h"

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    uint64_t total, free_bytes;

    if (!guard_acts(RESOLVE_VRAM))
        return real.nvmlDeviceGetMemoryInfo(device, memory);
    guard_enter();
    nvmlReturn_t result = real.nvmlDeviceGetMemoryInfo(device, memory);
    bool limited = result == NVML_SUCCESS && memory && view_of_nvml(device, memory->total, memory->free, &total, &free_bytes);
    guard_leave();
    if (!limited)
        return result;
    memory->total = total;
    memory->free = free_bytes;
    memory->used = total - free_bytes;
    return result;
}

/* The second version tells what the driver keeps for itself apart; inside a budget that is nobody's concern, so it is 0 and total = free + used. */
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    uint64_t total, free_bytes;

    if (!guard_acts(RESOLVE_VRAM))
        return real.nvmlDeviceGetMemoryInfo_v2(device, memory);
    guard_enter();
    nvmlReturn_t result = real.nvmlDeviceGetMemoryInfo_v2(device, memory);
    bool limited = result == NVML_SUCCESS && memory && view_of_nvml(device, memory->total, memory->free, &total, &free_bytes);
    guard_leave();
    if (!limited)
        return result;
    memory->total = total;
    memory->reserved = 0;
    memory->free = free_bytes;
    memory->used = total - free_bytes;
    return result;
}
