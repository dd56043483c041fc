/* SPDX-License-Identifier: Apache-2.0 */
/* Finds the budget that goes with an NVML device. */
#include "view.h"

#include <string.h>

#include "arm.h"
#include "process.h"
#include "real.h"

static bool uuid_of(nvmlDevice_t device, uint8_t uuid[16])
{
    struct units_device id;
    char text[96];

    if (called.nvmlDeviceGetUUID(device, text, sizeof(text)) != NVML_SUCCESS || units_parse_device(text, strnlen(text, sizeof(text)), &id))
        return false;
    memcpy(uuid, id.uuid, sizeof(id.uuid));
    return id.kind == UNITS_DEVICE_UUID;
}

bool view_of_nvml(nvmlDevice_t device, uint64_t physical, uint64_t physical_free, uint64_t *total, uint64_t *free_bytes)
{
    const struct config *config = arm_config();
    uint8_t uuid[16];

    if (config->error[0] || !uuid_of(device, uuid))
        return false;
    struct membership *m = process_membership(NULL);
    int index = m ? process_device_of_uuid(m, uuid) : PROCESS_NO_DEVICE;
    if (index != PROCESS_NO_DEVICE) {
        quota_info(&m->quota, (unsigned)index, physical_free, total, free_bytes);
        return true;
    }
    return false;
}
