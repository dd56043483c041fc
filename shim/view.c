/* SPDX-License-Identifier: Apache-2.0 */
/* Finds the budget that goes with an NVML device. */
#include "view.h"

#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arm.h"
#include "native.h"
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

/* The state directory and in it the tenant, for a process that is no member; -1 where it has no tenant's name or no such directory. */
static int open_state(const struct config *config, char path[PATH_MAX])
{
    struct ledger scratch;

    return config->tenant_named ? ledger_state_dir(&scratch, config->state_dir, path, PATH_MAX) : -1;
}

/* The device as the ledger of a named tenant has it, for a process that is no member. False where the tenant has no live member: its limit is
 * then the last life's, and the next member's to set, though the bytes of the recently dead may still count. */
static bool read_ledger(const struct config *config, const uint8_t uuid[16], struct ledger_device_state *state)
{
    struct ledger_view view;
    char path[PATH_MAX];
    int directory = open_state(config, path);

    if (directory < 0)
        return false;
    int result = ledger_read(directory, config->tenant, &view);
    ledger_state_dir_close(directory, path);
    for (unsigned i = 0; result >= 0 && i < view.devices; i++) {
        if (memcmp(view.device[i].uuid, uuid, sizeof(view.device[i].uuid)) == 0) {
            *state = view.device[i];
            return view.members;
        }
    }
    return false;
}

/* The number by which limits may name a device, -1 unknown: CUDA's is not known here, but HAMi means NVML's, and its plugin gives no others. */
static int ordinal_of(const struct config *config, nvmlDevice_t device)
{
    unsigned index;

    for (unsigned i = 0; i < config->vram.count; i++) {
        if (config->vram.rule[i].device.kind == UNITS_DEVICE_ORDINAL && config->vram.rule[i].source != CONFIG_HAMI)
            return -1;
    }
    return called.nvmlDeviceGetIndex(device, &index) == NVML_SUCCESS && index < QUOTA_DEVICES ? (int)index : -1;
}

/* A program that never starts CUDA has joined nothing: its sources and the tenant's ledger tell. A limit that is given by CUDA's ordinal counts once a
 * member has written it into the ledger. UINT64_MAX: no limit is known. */
static uint64_t limit_from_outside(const struct config *config, nvmlDevice_t of, const uint8_t uuid[16], uint64_t physical,
                                   struct ledger_device_state *state)
{
    struct config_device device = {.ordinal = ordinal_of(config, of), .physical = physical};

    *state = (struct ledger_device_state){.limit = LEDGER_NO_LIMIT};
    memcpy(device.uuid, uuid, sizeof(device.uuid));
    uint64_t limit = config_vram_admin(config, &device, NULL);
    return smaller(limit, read_ledger(config, uuid, state) ? state->limit : config_vram_own(config, &device, NULL));
}

/* Where the view is from. */
enum place { NOWHERE, MEMBER, OUTSIDE };

static enum place find_place(nvmlDevice_t device, uint8_t uuid[16], struct membership **m, unsigned *index)
{
    CUresult why;

    if (arm_config()->error[0] || !uuid_of(device, uuid))
        return NOWHERE;
    *m = process_membership(&why);
    /* It could not join: CUDA does not start, or runs without limits, and either way NVML stays real. */
    if (!*m && (why == CUDA_ERROR_OPERATING_SYSTEM || why == CUDA_SUCCESS))
        return NOWHERE;
    int found = *m ? process_device_of_uuid(*m, uuid) : PROCESS_NO_DEVICE;
    if (found == PROCESS_NO_DEVICE)
        return OUTSIDE;
    native_look(*m, (unsigned)found, device);
    *index = (unsigned)found;
    return MEMBER;
}

bool view_of_nvml(nvmlDevice_t device, uint64_t physical, uint64_t physical_free, uint64_t *total, uint64_t *free_bytes)
{
    struct ledger_device_state state;
    struct membership *m;
    uint64_t limit;
    uint8_t uuid[16];
    unsigned index;

    switch (find_place(device, uuid, &m, &index)) {
    case MEMBER:
        quota_info(&m->quota, index, physical_free, total, free_bytes);
        break;
    case OUTSIDE:
        limit = limit_from_outside(arm_config(), device, uuid, physical, &state);
        if (limit == UINT64_MAX)
            return false;
        *total = limit;
        *free_bytes = smaller(limit > state.current ? limit - state.current : 0, physical_free);
        break;
    default:
        return false;
    }
    /* The driver tells less than the card where it keeps a limit itself. */
    *total = smaller(*total, physical);
    *free_bytes = smaller(*free_bytes, *total);
    return true;
}

static int list_from_outside(nvmlDevice_t device, const uint8_t uuid[16], struct ledger_member *list, unsigned size)
{
    const struct config *config = arm_config();
    struct ledger_device_state state;
    char path[PATH_MAX];

    if (limit_from_outside(config, device, uuid, UINT64_MAX, &state) == UINT64_MAX)
        return -1;
    int directory = open_state(config, path);
    if (directory < 0)
        return 0;
    int count = ledger_read_members(directory, config->tenant, uuid, list, size);
    ledger_state_dir_close(directory, path);
    return count < 0 ? 0 : count;
}

int view_processes(nvmlDevice_t device, struct view_process *list, unsigned size)
{
    size_t bytes = LEDGER_SLOTS * sizeof(struct ledger_member);
    struct ledger_member *members;
    struct membership *m;
    uint8_t uuid[16];
    unsigned index;
    int count = -1, told = 0;

    enum place place = find_place(device, uuid, &m, &index);
    if (place == NOWHERE)
        return -1;
    members = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (members == MAP_FAILED)
        return -1;
    if (place == MEMBER)
        count = (int)ledger_members_list(&m->quota.ledger, (unsigned)m->quota.device[index].index, members, LEDGER_SLOTS);
    else
        count = list_from_outside(device, uuid, members, LEDGER_SLOTS);
    if (count > LEDGER_SLOTS)
        count = LEDGER_SLOTS;
    for (int i = 0; i < count && (unsigned)told < size; i++) {
        uint64_t held = members[i].suspended ? 0 : members[i].committed;

        if (__builtin_add_overflow(held, members[i].tentative, &held))
            held = UINT64_MAX;
        /* The dead too: their memory counts until the driver has released it, and till then it lists them. */
        if (held)
            list[told++] = (struct view_process){members[i].pid, held};
    }
    munmap(members, bytes);
    return count < 0 ? -1 : told;
}
