/* SPDX-License-Identifier: Apache-2.0 */
/* Where a tenant's bytes are, as a JSON document: docs/explain.schema.json describes it. What is not known is left out. */
#include <json-c/json.h>
#include <stdio.h>
#include <time.h>

#include "explain.h"

#define DOCUMENT_VERSION 1

struct writer {
    bool failed;
};

static void put(struct writer *writer, struct json_object *object, const char *key, struct json_object *value)
{
    if (value && object && json_object_object_add(object, key, value) == 0)
        return;
    json_object_put(value);
    writer->failed = true;
}

static void append(struct writer *writer, struct json_object *array, struct json_object *value)
{
    if (value && array && json_object_array_add(array, value) == 0)
        return;
    json_object_put(value);
    writer->failed = true;
}

static struct json_object *number(uint64_t value)
{
    return json_object_new_int64(value > INT64_MAX ? INT64_MAX : (int64_t)value);
}

static struct json_object *text(const char *value)
{
    char clean[8192];

    return json_object_new_string(observe_text(clean, sizeof(clean), value, false));
}

static struct json_object *time_text(uint64_t when)
{
    time_t seconds = (time_t)(when / 1000000000);
    char stamp[32], all[64];
    struct tm utc;

    gmtime_r(&seconds, &utc);
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(all, sizeof(all), "%s.%09uZ", stamp, (unsigned)(when % 1000000000));
    return text(all);
}

static struct json_object *kinds(struct writer *writer, const struct explain_device *device)
{
    struct json_object *array = json_object_new_array();

    for (unsigned kind = 0; kind < EXPLAIN_KINDS; kind++) {
        const struct explain_sums *sums = &device->kind[kind];
        struct json_object *object, *sizes;

        if (!sums->all.count)
            continue;
        object = json_object_new_object();
        put(writer, object, "kind", text(explain_kind_name(kind)));
        put(writer, object, "count", number(sums->all.count));
        put(writer, object, "bytes", number(sums->all.bytes));
        put(writer, object, "charged", json_object_new_boolean(kind < EXPLAIN_CHARGED));
        sizes = json_object_new_array();
        for (unsigned i = 0; i < EXPLAIN_CLASSES; i++) {
            struct json_object *size;

            if (!sums->size[i].count)
                continue;
            size = json_object_new_object();
            if (explain_class_most(i) != UINT64_MAX)
                put(writer, size, "up_to_bytes", number(explain_class_most(i)));
            put(writer, size, "count", number(sums->size[i].count));
            put(writer, size, "bytes", number(sums->size[i].bytes));
            append(writer, sizes, size);
        }
        if (kind != EXPLAIN_ROUNDING)
            put(writer, object, "sizes", sizes);
        else
            json_object_put(sizes);
        append(writer, array, object);
    }
    return array;
}

static struct json_object *account(struct writer *writer, const struct explain *answer, const struct explain_device *device)
{
    struct json_object *object = json_object_new_object();

    put(writer, object, "committed_bytes", number(device->committed));
    put(writer, object, "told_bytes", number(explain_charged(device)));
    put(writer, object, "moving", json_object_new_boolean(device->flags & EXPLAIN_MOVING));
    put(writer, object, "figure", json_object_new_boolean(device->flags & EXPLAIN_FIGURE));
    put(writer, object, "granule_bytes", number(device->granule));
    if (device->limit && device->limit != LEDGER_NO_LIMIT)
        put(writer, object, "limit_bytes", number(device->limit));
    if (device->flags & EXPLAIN_POOLS_ASKED)
        put(writer, object, "pools_cached_bytes", number(explain_cached(device, EXPLAIN_POOL)));
    if (device->flags & EXPLAIN_GRAPHS_ASKED)
        put(writer, object, "graphs_cached_bytes", number(explain_cached(device, EXPLAIN_GRAPH)));
    put(writer, object, "pool_blocks", number(device->blocks));
    put(writer, object, "orphaned_bytes", number(device->orphaned));
    if (device->refused) {
        put(writer, object, "refused_bytes", number(device->refused));
        put(writer, object, "refused_ago_ns", number(device->refused_ago));
    }
    put(writer, object, "took_ns", number(answer->took));
    put(writer, object, "kinds", kinds(writer, device));
    return object;
}

static struct json_object *member_object(struct writer *writer, const struct explained *explained,
                                         const struct explained_member *member, unsigned i)
{
    const struct explain_device *device = explain_answer_of(explained, member, i);
    struct json_object *object = json_object_new_object();

    put(writer, object, "pid", number(member->pid));
    if (member->host_pid)
        put(writer, object, "host_pid", number(member->host_pid));
    if (*member->command)
        put(writer, object, "command", text(member->command));
    put(writer, object, "committed_bytes", number(member->device[i].committed));
    put(writer, object, "tentative_bytes", number(member->device[i].tentative));
    put(writer, object, "spilled_bytes", number(member->device[i].spilled));
    put(writer, object, "suspended", json_object_new_boolean(member->suspended));
    put(writer, object, "dead", json_object_new_boolean(member->dead));
    put(writer, object, "answered", json_object_new_boolean(member->answer != NULL));
    if (!member->answer)
        put(writer, object, "reason", text(member->why));
    if (device)
        put(writer, object, "account", account(writer, member->answer, device));
    return object;
}

static struct json_object *vram(struct writer *writer, const struct ledger_device_state *state)
{
    struct json_object *object = json_object_new_object();

    if (state->limit != LEDGER_NO_LIMIT)
        put(writer, object, "limit_bytes", number(state->limit));
    put(writer, object, "current_bytes", number(state->current));
    put(writer, object, "peak_bytes", number(state->peak));
    put(writer, object, "refused", number(state->events[LEDGER_EVENT_REFUSED]));
    put(writer, object, "oom", number(state->events[LEDGER_EVENT_OOM]));
    if (state->context_bytes)
        put(writer, object, "context_bytes", number(state->context_bytes));
    return object;
}

static struct json_object *device_object(struct writer *writer, const struct explained *explained, unsigned i)
{
    const struct ledger_device_state *state = &explained->tenant->view.device[i];
    const struct observe_gpu *gpu = observe_find_gpu(&explained->seen, state->uuid);
    struct json_object *object = json_object_new_object(), *members = json_object_new_array(), *reasons = json_object_new_array();
    struct explain_device sum = {.flags = 0};
    char uuid[OBSERVE_UUID];
    struct verdict verdict;

    observe_uuid_text(state->uuid, uuid);
    put(writer, object, "gpu", text(gpu ? gpu->uuid_text : uuid));
    put(writer, object, "vram", vram(writer, state));
    if (gpu && gpu->total) {
        put(writer, object, "memory_total_bytes", number(gpu->total));
        put(writer, object, "memory_used_bytes", number(gpu->used));
    }
    put(writer, object, "other_tenants_bytes", number(explained->others[i]));
    for (unsigned j = 0; j < explained->members; j++) {
        const struct explain_device *device = explain_answer_of(explained, &explained->member[j], i);

        append(writer, members, member_object(writer, explained, &explained->member[j], i));
        if (device && !explained->member[j].suspended)
            explain_add_device(&sum, device);
    }
    put(writer, object, "members", members);
    put(writer, object, "kinds", kinds(writer, &sum));
    explain_judge(explained, i, &verdict);
    for (unsigned j = 0; j < verdict.count; j++)
        append(writer, reasons, text(verdict.reason[j]));
    put(writer, object, "reasons", reasons);
    return object;
}

struct json_object *explain_json(const struct explained *explained)
{
    struct json_object *object = json_object_new_object(), *devices = json_object_new_array();
    struct writer writer = {.failed = false};

    put(&writer, object, "version", json_object_new_int(DOCUMENT_VERSION));
    put(&writer, object, "softslice", text(SOFTSLICE_VERSION));
    put(&writer, object, "time", time_text(explained->seen.when));
    put(&writer, object, "tenant", text(explained->tenant->name));
    put(&writer, object, "state_directory", text(explained->tenant->directory));
    if (explained->not_asked)
        put(&writer, object, "not_asked", text(explained->not_asked));
    for (unsigned i = 0; i < explained->tenant->view.devices; i++)
        if (explain_is_meant(explained, i))
            append(&writer, devices, device_object(&writer, explained, i));
    put(&writer, object, "devices", devices);
    if (!writer.failed)
        return object;
    json_object_put(object);
    return NULL;
}
