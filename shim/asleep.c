/* SPDX-License-Identifier: Apache-2.0 */
/* One sum for each device is what is kept; records by address say how much of it goes when the addresses do. */
#include "asleep.h"

#include "arm.h"

bool asleep_wanted(void)
{
    return arm_config()->keep_asleep == CONFIG_KEEP_ASLEEP_ON;
}

/* Take up to `bytes` off the sum of a device. */
static uint64_t take_off(int device, uint64_t bytes)
{
    uint64_t *sum = process_asleep_bytes(device), before = __atomic_load_n(sum, __ATOMIC_RELAXED), taken;

    do
        taken = before < bytes ? before : bytes;
    while (taken && !__atomic_compare_exchange_n(sum, &before, before - taken, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    return taken;
}

static void add(int device, uint64_t bytes)
{
    __atomic_fetch_add(process_asleep_bytes(device), bytes, __ATOMIC_SEQ_CST);
}

bool asleep_keep(int device, uint64_t address, uint64_t bytes)
{
    struct record record = {.key = address, .bytes = bytes, .device = (uint16_t)device}, old;

    if (records_take(process_asleep(), address, &old))
        record.bytes += old.bytes;
    if (records_put(process_asleep(), &record, &old) < 0)
        return false;
    add(device, bytes);
    return true;
}

/* What a creation has taken off the sum, until it is done. */
static uint64_t *waking_bytes(int device)
{
    return process_asleep_bytes(device) + 1;
}

uint64_t asleep_use(int device, uint64_t bytes)
{
    __atomic_fetch_add(waking_bytes(device), bytes, __ATOMIC_SEQ_CST); /* first: who looks at both misses neither */
    uint64_t taken = take_off(device, bytes);
    __atomic_fetch_sub(waking_bytes(device), bytes - taken, __ATOMIC_SEQ_CST);
    return taken;
}

void asleep_used(int device, uint64_t bytes)
{
    __atomic_fetch_sub(waking_bytes(device), bytes, __ATOMIC_SEQ_CST);
}

void asleep_return(int device, uint64_t bytes)
{
    add(device, bytes);
    asleep_used(device, bytes);
}

uint64_t asleep_bytes(int device, uint64_t *waking)
{
    uint64_t asleep = __atomic_load_n(process_asleep_bytes(device), __ATOMIC_SEQ_CST);

    *waking = __atomic_load_n(waking_bytes(device), __ATOMIC_SEQ_CST);
    return asleep;
}

void asleep_woken(uint64_t address, uint64_t size)
{
    struct record record, old;

    if (!records_take(process_asleep(), address, &record) || record.bytes <= size)
        return;
    record.bytes -= size;
    records_put(process_asleep(), &record, &old);
}

void asleep_forget(struct membership *m, uint64_t address, uint64_t size)
{
    uint64_t step = UINT64_MAX;
    struct record record;

    for (unsigned i = 0; i < m->quota.devices; i++)
        if (m->quota.device[i].granule < step)
            step = m->quota.device[i].granule;
    for (uint64_t done = 0; done < size; done += step) {
        if (!records_take(process_asleep(), address + done, &record))
            continue;
        record.bytes = take_off(record.device, record.bytes);
        quota_refund(&m->quota, &record);
    }
}
