/* SPDX-License-Identifier: Apache-2.0 */
/* A ledger's file: created whole and published by link, validated before anything in it is believed. */
#include <errno.h>
#include <string.h>

#include "ledger_internal.h"
#include "ledger_sys.h"
#include "softslice/log.h"

void ledger_header_init(struct ledger_header *header, uint32_t slots)
{
    memset(header, 0, sizeof(*header));
    header->magic = LEDGER_MAGIC;
    header->major = LEDGER_MAJOR;
    header->minor = LEDGER_MINOR;
    header->constant_size = LEDGER_CONSTANT_SIZE;
    header->slots = slots;
    header->devices = LEDGER_DEVICES;
    header->device_offset = LEDGER_HEADER_SIZE;
    header->device_stride = sizeof(struct ledger_device);
    header->slot_offset = header->device_offset + LEDGER_DEVICES * header->device_stride;
    header->slot_stride = sizeof(struct ledger_slot) + sizeof(struct ledger_slot_more);
    header->hold_offset = (header->slot_offset + slots * header->slot_stride + 63) & ~63U;
    header->hold_stride = sizeof(struct ledger_hold);
    header->extra_offset = header->hold_offset + LEDGER_DEVICES * slots * header->hold_stride;
    header->extra_stride = sizeof(struct ledger_extra);
    header->compute_offset = (header->extra_offset + LEDGER_DEVICES * slots * header->extra_stride + 63) & ~63U;
    header->compute_stride = sizeof(struct ledger_compute);
    header->busy_offset = header->compute_offset + LEDGER_DEVICES * header->compute_stride;
    header->busy_stride = sizeof(uint64_t);
    header->event_offset = (header->busy_offset + LEDGER_DEVICES * slots * header->busy_stride + 63) & ~63U;
    header->event_stride = sizeof(struct ledger_event_entry);
    header->event_count = slots > 1 ? LEDGER_RING : LEDGER_RING_OWN;
    header->event_origin = (uint32_t)sys_random();
    header->file_size = (header->event_offset + header->event_count * header->event_stride + 4095) & ~4095U;
    header->lock_attach = LEDGER_LOCK_ATTACH;
    header->lock_slots = LEDGER_LOCK_SLOTS;
    header->check = ledger_checksum(header, LEDGER_CONSTANT_SIZE - 8);
}

void ledger_take_header(struct ledger *ledger, const struct ledger_header *header)
{
    ledger->slots = header->slots;
    ledger->devices = header->devices < LEDGER_DEVICES ? header->devices : LEDGER_DEVICES;
    ledger->device_offset = header->device_offset;
    ledger->device_stride = header->device_stride;
    ledger->slot_offset = header->slot_offset;
    ledger->slot_stride = header->slot_stride;
    ledger->hold_offset = header->hold_offset;
    ledger->extra_offset = header->extra_offset;
    ledger->extra_stride = header->extra_stride;
    ledger->compute_offset = header->compute_offset;
    ledger->compute_stride = header->compute_stride;
    ledger->busy_offset = header->busy_offset;
    ledger->busy_stride = header->busy_stride;
    ledger->event_offset = header->event_offset;
    ledger->event_stride = header->event_stride;
    ledger->event_lane = header->event_count / LEDGER_LANES;
}

static bool section_fits(uint64_t offset, uint64_t count, uint64_t stride, uint64_t least, uint64_t begin, uint64_t end)
{
    return offset % 8 == 0 && stride % 8 == 0 && stride >= least && stride <= LEDGER_HEADER_SIZE && offset >= begin &&
           offset <= end && count * stride <= end - offset;
}

/* Behind the holds; each part was added by a minor version, to those before it. */
static bool later_sections_fit(const struct ledger_header *header, uint64_t size)
{
    uint64_t cells = (uint64_t)header->devices * header->slots;

    if (!header->extra_offset)
        return !header->compute_offset && !header->event_offset;
    if (header->slot_stride < sizeof(struct ledger_slot) + sizeof(struct ledger_slot_more) ||
        !section_fits(header->extra_offset, cells, header->extra_stride, sizeof(struct ledger_extra), 0,
                      header->compute_offset ? header->compute_offset : size))
        return false;
    if (!header->compute_offset)
        return !header->event_offset;
    if (!section_fits(header->compute_offset, header->devices, header->compute_stride, sizeof(struct ledger_compute), 0,
                      header->busy_offset) ||
        !section_fits(header->busy_offset, cells, header->busy_stride, sizeof(uint64_t), 0,
                      header->event_offset ? header->event_offset : size))
        return false;
    return !header->event_offset ||
           (header->event_count && header->event_count % LEDGER_LANES == 0 && header->event_count <= LEDGER_RING_CAP &&
            section_fits(header->event_offset, header->event_count, header->event_stride, sizeof(struct ledger_event_entry), 0,
                         size));
}

const char *ledger_header_fault(const struct ledger_header *header, const void *constant, uint64_t size)
{
    uint64_t check;

    if (header->magic != LEDGER_MAGIC)
        return "not a ledger, or scribbled over";
    if (header->major != LEDGER_MAJOR)
        return "of another major version: end the tenant's processes and remove it, or use one softslice version";
    if (header->constant_size < LEDGER_CONSTANT_SIZE || header->constant_size > LEDGER_HEADER_SIZE || header->constant_size % 8)
        return "scribbled over (header)";
    memcpy(&check, (const char *)constant + header->constant_size - 8, 8);
    if (check != ledger_checksum(constant, header->constant_size - 8))
        return "scribbled over (header)";
    if (header->file_size != size)
        return "truncated";
    if (!header->slots || header->slots > LEDGER_SLOTS_CAP || !header->devices || header->devices > LEDGER_SLOTS_CAP ||
        header->hold_stride != sizeof(struct ledger_hold) ||
        !section_fits(header->device_offset, header->devices, header->device_stride, sizeof(struct ledger_device),
                      sizeof(struct ledger_header), header->slot_offset) ||
        !section_fits(header->slot_offset, header->slots, header->slot_stride, sizeof(struct ledger_slot), 0,
                      header->hold_offset) ||
        !section_fits(header->hold_offset, (uint64_t)header->devices * header->slots, header->hold_stride,
                      sizeof(struct ledger_hold), 0, header->extra_offset ? header->extra_offset : size) ||
        !later_sections_fit(header, size))
        return "scribbled over (sections)";
    if (header->lock_attach != LEDGER_LOCK_ATTACH || header->lock_slots != LEDGER_LOCK_SLOTS)
        return "scribbled over (locks)";
    return NULL;
}

const char *ledger_tables_fault(const struct ledger *ledger)
{
    uint32_t used = __atomic_load_n(&ledger->file->slots_used, __ATOMIC_SEQ_CST);

    for (uint32_t i = 0; i < ledger->devices; i++) {
        const struct ledger_device *device = ledger_device_at(ledger, i);
        const struct ledger_compute *compute = ledger_compute(ledger, i);
        uint64_t uuid[2] = {ledger_load(&device->uuid[0]), ledger_load(&device->uuid[1])};
        uint64_t key = ledger_load(&device->key), complete = ledger_load(&device->complete), limit = ledger_load(&device->limit);

        if (!ledger_limit_valid(limit))
            return "scribbled over (limit)";
        if (!key ? uuid[0] || uuid[1] || complete || limit : complete && (complete != LEDGER_COMPLETE || key != ledger_key(uuid)))
            return "scribbled over (devices)";
        if (compute && (!ledger_limit_valid(ledger_load(&compute->share)) || !ledger_limit_valid(ledger_load(&compute->weight))))
            return "scribbled over (share)";
    }
    if (used > ledger->slots)
        return "scribbled over (slots)";
    for (uint32_t i = used; i < ledger->slots; i++) {
        if (ledger_load(&ledger_slot_at(ledger, i)->state))
            return "scribbled over (slots)";
    }
    return NULL;
}

int ledger_file_create(int folder, uint32_t slots, unsigned mode, char temporary[NEW_FILE_TEMPORARY])
{
    struct ledger_header header;

    ledger_header_init(&header, slots);
    return new_file_create(folder, LEDGER_TEMPORARY, mode, header.file_size, &header, sizeof(header), temporary);
}

int ledger_file_publish(int folder, int fd, const char *temporary)
{
    return new_file_publish(folder, fd, temporary, LEDGER_NAME);
}
