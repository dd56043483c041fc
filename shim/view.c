/* SPDX-License-Identifier: Apache-2.0 */
/* Finds the budget that goes with an NVML device. */
#include "view.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "arm.h"
#include "process.h"
#include "real.h"

static bool uuid_of(nvmlDevice_t device, uint8_t uuid[16])
{
    struct units_device id;
    char text[96];

    if (called.nvmlDeviceGetUUID(device, text, sizeof(text)) != NVML_SUCCESS ||
        units_parse_device(text, strnlen(text, sizeof(text)), &id))
        return false;
    memcpy(uuid, id.uuid, sizeof(id.uuid));
    return id.kind == UNITS_DEVICE_UUID;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The device as the ledger of a named tenant has it, for a process that is no member. False where the tenant has no live member: its limit is
 * then the last life's, and the next member's to set. */
static bool read_ledger(const struct config *config, const uint8_t uuid[16], struct ledger_device_state *state)
{
    struct ledger_view view;
    char path[PATH_MAX];
    struct ledger scratch;

    if (!config->tenant_named)
        return false;
    int directory = ledger_state_dir(&scratch, config->state_dir, path, sizeof(path));
    if (directory < 0)
        return false;
    int result = ledger_read(directory, config->tenant, &view);
    ledger_state_dir_close(directory, path);
    if (result < 0 || !view.members)
        return false;
    for (unsigned i = 0; i < view.devices; i++) {
        if (memcmp(view.device[i].uuid, uuid, sizeof(view.device[i].uuid)) == 0) {
            *state = view.device[i];
            return true;
        }
    }
    return false;
}

/* A program that never starts CUDA has joined nothing: its sources and the tenant's ledger tell. The CUDA ordinal is not known here, so a
 * limit that is given by ordinal counts once a member has written it into the ledger. */
static bool view_from_outside(const struct config *config, const uint8_t uuid[16], uint64_t physical, uint64_t physical_free,
                              uint64_t *total, uint64_t *free_bytes)
{
    struct config_device device = {.ordinal = -1, .physical = physical};
    struct ledger_device_state state = {.limit = LEDGER_NO_LIMIT};

    memcpy(device.uuid, uuid, sizeof(device.uuid));
    uint64_t limit = config_vram_admin(config, &device, NULL);
    limit = smaller(limit, read_ledger(config, uuid, &state) ? state.limit : config_vram_own(config, &device, NULL));
    if (limit == UINT64_MAX)
        return false;
    *total = smaller(limit, physical);
    *free_bytes = smaller(*total > state.current ? *total - state.current : 0, physical_free);
    return true;
}

bool view_of_nvml(nvmlDevice_t device, uint64_t physical, uint64_t physical_free, uint64_t *total, uint64_t *free_bytes)
{
    const struct config *config = arm_config();
    uint8_t uuid[16];
    CUresult why;

    if (config->error[0] || !uuid_of(device, uuid))
        return false;
    struct membership *m = process_membership(&why);
    /* It could not join: CUDA does not start, or runs without limits, and either way NVML stays real. */
    if (!m && (why == CUDA_ERROR_OPERATING_SYSTEM || why == CUDA_SUCCESS))
        return false;
    int index = m ? process_device_of_uuid(m, uuid) : PROCESS_NO_DEVICE;
    if (index == PROCESS_NO_DEVICE)
        return view_from_outside(config, uuid, physical, physical_free, total, free_bytes);
    quota_info(&m->quota, (unsigned)index, physical_free, total, free_bytes);
    return true;
}
