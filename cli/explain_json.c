/* SPDX-License-Identifier: Apache-2.0 */
/* Where a tenant's bytes are, as a JSON document: docs/explain.schema.json describes it. What is not known is left out. */
#include "document.h"
#include "explain.h"

#define DOCUMENT_VERSION 1

static struct json_object *kinds(bool *failed, const struct explain_device *device)
{
    struct json_object *array = json_object_new_array();

    for (unsigned kind = 0; kind < EXPLAIN_KINDS; kind++) {
        const struct explain_sums *sums = &device->kind[kind];
        struct json_object *object, *sizes;

        if (!sums->all.count)
            continue;
        object = json_object_new_object();
        document_put(failed, object, "kind", document_text(explain_kind_name(kind)));
        document_put(failed, object, "count", document_number(sums->all.count));
        document_put(failed, object, "bytes", document_number(sums->all.bytes));
        document_put(failed, object, "charged", json_object_new_boolean(kind < EXPLAIN_CHARGED));
        sizes = json_object_new_array();
        for (unsigned i = 0; i < EXPLAIN_CLASSES; i++) {
            struct json_object *size;

            if (!sums->size[i].count)
                continue;
            size = json_object_new_object();
            if (explain_class_most(i) != UINT64_MAX)
                document_put(failed, size, "up_to_bytes", document_number(explain_class_most(i)));
            document_put(failed, size, "count", document_number(sums->size[i].count));
            document_put(failed, size, "bytes", document_number(sums->size[i].bytes));
            document_append(failed, sizes, size);
        }
        if (kind != EXPLAIN_ROUNDING)
            document_put(failed, object, "sizes", sizes);
        else
            json_object_put(sizes);
        document_append(failed, array, object);
    }
    return array;
}

static struct json_object *account(bool *failed, const struct explain *answer, const struct explain_device *device)
{
    struct json_object *object = json_object_new_object();

    document_put(failed, object, "committed_bytes", document_number(device->committed));
    document_put(failed, object, "told_bytes", document_number(explain_charged(device)));
    document_put(failed, object, "moving", json_object_new_boolean(device->flags & EXPLAIN_MOVING));
    document_put(failed, object, "figure", json_object_new_boolean(device->flags & EXPLAIN_FIGURE));
    document_put(failed, object, "granule_bytes", document_number(device->granule));
    if (device->limit && device->limit != LEDGER_NO_LIMIT)
        document_put(failed, object, "limit_bytes", document_number(device->limit));
    if (device->flags & EXPLAIN_POOLS_ASKED)
        document_put(failed, object, "pools_cached_bytes", document_number(explain_cached(device, EXPLAIN_POOL)));
    if (device->flags & EXPLAIN_GRAPHS_ASKED)
        document_put(failed, object, "graphs_cached_bytes", document_number(explain_cached(device, EXPLAIN_GRAPH)));
    document_put(failed, object, "pool_blocks", document_number(device->blocks));
    document_put(failed, object, "orphaned_bytes", document_number(device->orphaned));
    if (device->refused) {
        document_put(failed, object, "refused_bytes", document_number(device->refused));
        document_put(failed, object, "refused_ago_ns", document_number(device->refused_ago));
        if (device->refusals)
            document_put(failed, object, "refusals", document_number(device->refusals));
    }
    document_put(failed, object, "took_ns", document_number(answer->took));
    document_put(failed, object, "kinds", kinds(failed, device));
    return object;
}

static struct json_object *member_object(bool *failed, const struct explained *explained, const struct explained_member *member,
                                         unsigned i)
{
    const struct explain_device *device = explain_answer_of(explained, member, i);
    struct json_object *object = json_object_new_object();

    document_put(failed, object, "pid", document_number(member->pid));
    if (member->host_pid)
        document_put(failed, object, "host_pid", document_number(member->host_pid));
    if (*member->command)
        document_put(failed, object, "command", document_text(member->command));
    document_put(failed, object, "committed_bytes", document_number(member->device[i].committed));
    document_put(failed, object, "tentative_bytes", document_number(member->device[i].tentative));
    document_put(failed, object, "spilled_bytes", document_number(member->device[i].spilled));
    document_put(failed, object, "suspended", json_object_new_boolean(member->suspended));
    document_put(failed, object, "dead", json_object_new_boolean(member->dead));
    document_put(failed, object, "answered", json_object_new_boolean(member->answer != NULL));
    if (!member->answer)
        document_put(failed, object, "reason", document_text(member->why));
    if (device)
        document_put(failed, object, "account", account(failed, member->answer, device));
    return object;
}

static struct json_object *vram(bool *failed, const struct ledger_device_state *state)
{
    struct json_object *object = json_object_new_object();

    if (state->limit != LEDGER_NO_LIMIT)
        document_put(failed, object, "limit_bytes", document_number(state->limit));
    document_put(failed, object, "current_bytes", document_number(state->current));
    document_put(failed, object, "peak_bytes", document_number(state->peak));
    document_put(failed, object, "refused", document_number(state->events[LEDGER_EVENT_REFUSED]));
    document_put(failed, object, "oom", document_number(state->events[LEDGER_EVENT_OOM]));
    if (state->context_bytes)
        document_put(failed, object, "context_bytes", document_number(state->context_bytes));
    return object;
}

static struct json_object *device_object(bool *failed, const struct explained *explained, unsigned i)
{
    const struct ledger_device_state *state = &explained->tenant->view.device[i];
    const struct observe_gpu *gpu = observe_find_gpu(&explained->seen, state->uuid);
    struct json_object *object = json_object_new_object(), *members = json_object_new_array(), *reasons = json_object_new_array();
    struct explain_device sum = {.flags = 0};
    char uuid[OBSERVE_UUID];
    struct verdict verdict;

    observe_uuid_text(state->uuid, uuid);
    document_put(failed, object, "gpu", document_text(gpu ? gpu->uuid_text : uuid));
    document_put(failed, object, "vram", vram(failed, state));
    if (gpu && gpu->total) {
        document_put(failed, object, "memory_total_bytes", document_number(gpu->total));
        document_put(failed, object, "memory_used_bytes", document_number(gpu->used));
    }
    document_put(failed, object, "other_tenants_bytes", document_number(explained->others[i]));
    for (unsigned j = 0; j < explained->members; j++) {
        const struct explain_device *device = explain_answer_of(explained, &explained->member[j], i);

        document_append(failed, members, member_object(failed, explained, &explained->member[j], i));
        if (device && !explained->member[j].suspended)
            explain_add_device(&sum, device);
    }
    document_put(failed, object, "members", members);
    document_put(failed, object, "kinds", kinds(failed, &sum));
    explain_judge(explained, i, &verdict);
    for (unsigned j = 0; j < verdict.count; j++)
        document_append(failed, reasons, document_text(verdict.reason[j]));
    document_put(failed, object, "reasons", reasons);
    return object;
}

struct json_object *explain_json(const struct explained *explained)
{
    struct json_object *object = json_object_new_object(), *devices = json_object_new_array();
    bool failed = false;

    document_put(&failed, object, "version", json_object_new_int(DOCUMENT_VERSION));
    document_put(&failed, object, "softslice", document_text(SOFTSLICE_VERSION));
    document_put(&failed, object, "time", document_time(explained->seen.when));
    document_put(&failed, object, "tenant", document_text(explained->tenant->name));
    document_put(&failed, object, "state_directory", document_text(explained->tenant->directory));
    if (explained->not_asked)
        document_put(&failed, object, "not_asked", document_text(explained->not_asked));
    for (unsigned i = 0; i < explained->tenant->view.devices; i++)
        if (explain_is_meant(explained, i))
            document_append(&failed, devices, device_object(&failed, explained, i));
    document_put(&failed, object, "devices", devices);
    if (!failed)
        return object;
    json_object_put(object);
    return NULL;
}
