/* SPDX-License-Identifier: Apache-2.0 */
/* The file in which a member says where its bytes are: written by it, read by whoever may. */
#include "softslice/explain.h"

#include <errno.h>
#include <string.h>

#include "ledger_internal.h"
#include "ledger_sys.h"

#define MAGIC UINT64_C(0x4e49414c50584553) /* "SEXPLAIN" */
#define MAJOR 1
#define MINOR 0

/* A newer minor version may lengthen devices and append behind them. All numbers are in the machine's byte order. */
struct head {
    uint64_t magic;
    uint16_t major, minor;
    uint32_t device_stride;
    uint64_t size; /* of the file */
    uint64_t request, tag, when, took;
    uint32_t pid, devices;
    uint64_t reserved[8];
    uint64_t check; /* over the file with this as 0 */
};

_Static_assert(sizeof(struct head) == 136, "size of the head");
_Static_assert(offsetof(struct explain_device, kind) == 168, "layout of explain_device.kind");
_Static_assert(sizeof(struct explain_sums) == 96, "size of a kind's sums");
_Static_assert(sizeof(struct head) + LEDGER_DEVICES * sizeof(struct explain_device) <= EXPLAIN_FILE_MOST, "a full file");

static const uint64_t most[EXPLAIN_CLASSES] = {UINT64_C(64) << 10, UINT64_C(2) << 20, UINT64_C(64) << 20, UINT64_C(1) << 30,
                                               UINT64_MAX};

uint64_t explain_class_most(unsigned size_class)
{
    return most[size_class];
}

const char *explain_kind_name(enum explain_kind kind)
{
    static const char *const names[EXPLAIN_KINDS] = {
        [EXPLAIN_PLAIN] = "plain",       [EXPLAIN_MANAGED] = "managed",   [EXPLAIN_POOL] = "pool",
        [EXPLAIN_GRAPH] = "graph",       [EXPLAIN_VMM] = "vmm",           [EXPLAIN_ASLEEP] = "asleep",
        [EXPLAIN_ARRAY] = "array",       [EXPLAIN_CONTEXT] = "context",   [EXPLAIN_MODULE] = "module",
        [EXPLAIN_DRIVER] = "driver",     [EXPLAIN_ROUNDING] = "rounding", [EXPLAIN_SPILLED] = "spilled",
        [EXPLAIN_IMPORTED] = "imported",
    };

    return names[kind];
}

static void add(struct explain_sum *sum, uint64_t bytes)
{
    sum->count++;
    if (__builtin_add_overflow(sum->bytes, bytes, &sum->bytes))
        sum->bytes = UINT64_MAX;
}

void explain_add(struct explain_device *device, enum explain_kind kind, uint64_t bytes)
{
    unsigned size_class = 0;

    while (bytes > most[size_class])
        size_class++;
    add(&device->kind[kind].all, bytes);
    add(&device->kind[kind].size[size_class], bytes);
}

uint64_t explain_charged(const struct explain_device *device)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < EXPLAIN_CHARGED; i++) {
        if (__builtin_add_overflow(sum, device->kind[i].all.bytes, &sum))
            return UINT64_MAX;
    }
    return sum;
}

static uint64_t check_of(const void *file, const struct head *head)
{
    struct head copy = *head;

    copy.check = 0;
    return ledger_checksum(&copy, sizeof(copy)) ^ ledger_checksum((const char *)file + sizeof(copy), head->size - sizeof(copy));
}

size_t explain_pack(const struct explain *explain, void *file, size_t size)
{
    struct head head = {.magic = MAGIC,
                        .major = MAJOR,
                        .minor = MINOR,
                        .device_stride = sizeof(struct explain_device),
                        .size = sizeof(head) + explain->devices * sizeof(struct explain_device),
                        .request = explain->request,
                        .tag = explain->tag,
                        .when = explain->when,
                        .took = explain->took,
                        .pid = explain->pid,
                        .devices = explain->devices};

    if (explain->devices > LEDGER_DEVICES || head.size > size)
        return 0;
    memcpy((char *)file + sizeof(head), explain->device, head.size - sizeof(head));
    head.check = check_of(file, &head);
    memcpy(file, &head, sizeof(head));
    return head.size;
}

int explain_parse(const void *file, size_t size, struct explain *explain)
{
    struct head head;

    memset(explain, 0, sizeof(*explain));
    if (size < sizeof(head) || size > EXPLAIN_FILE_MOST || size % 8)
        return -EPROTO;
    memcpy(&head, file, sizeof(head));
    if (head.magic != MAGIC || head.major != MAJOR || head.size != size || head.check != check_of(file, &head) ||
        head.devices > LEDGER_DEVICES || head.device_stride % 8 || head.device_stride < offsetof(struct explain_device, kind) ||
        head.devices * (uint64_t)head.device_stride > size - sizeof(head))
        return -EPROTO;
    explain->request = head.request;
    explain->tag = head.tag;
    explain->when = head.when;
    explain->took = head.took;
    explain->pid = head.pid;
    explain->devices = head.devices;
    for (uint32_t i = 0; i < head.devices; i++)
        memcpy(&explain->device[i], (const char *)file + sizeof(head) + (size_t)i * head.device_stride,
               head.device_stride < sizeof(struct explain_device) ? head.device_stride : sizeof(struct explain_device));
    return 0;
}

int explain_read(int dirfd, const char *name, uint32_t slot, uint64_t since, uint64_t request, struct explain *explain)
{
    static char file[EXPLAIN_FILE_MOST] __attribute__((aligned(8)));
    ssize_t size = ledger_read_answer(dirfd, name, slot, file, sizeof(file));
    int result;

    if (size < 0)
        return size == -ENOENT ? -EAGAIN : (int)size;
    result = explain_parse(file, (size_t)size, explain);
    if (result < 0)
        return result;
    return explain->tag == since && (int64_t)(explain->request - request) >= 0 ? 0 : -EAGAIN;
}
