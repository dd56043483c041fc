/* SPDX-License-Identifier: Apache-2.0 */
/* A look as a JSON document: docs/status.schema.json describes it. What is not known is left out. */
#include <stdio.h>
#include <string.h>

#include "document.h"

#define DOCUMENT_VERSION 1

/* json-c tells that it is out of memory by NULL from its makers, and by a status from what adds. The first failure is kept. */
struct writer {
    const struct observe *before, *seen;
    bool failed;
};

static void put_known(struct writer *writer, struct json_object *object, const char *key, const char *value)
{
    if (*value)
        document_put(&writer->failed, object, key, document_text(value));
}

static struct json_object *gpu_object(struct writer *writer, const struct observe_gpu *gpu)
{
    struct json_object *object = json_object_new_object();

    document_put(&writer->failed, object, "uuid", document_text(gpu->uuid_text));
    if (gpu->index >= 0)
        document_put(&writer->failed, object, "index", json_object_new_int(gpu->index));
    put_known(writer, object, "name", gpu->name);
    if (gpu->total) {
        document_put(&writer->failed, object, "memory_total_bytes", document_number(gpu->total));
        document_put(&writer->failed, object, "memory_used_bytes", document_number(gpu->used));
    }
    return object;
}

static const char *uuid_text(const struct observe *seen, const uint8_t uuid[16], char own[OBSERVE_UUID])
{
    const struct observe_gpu *gpu = observe_find_gpu(seen, uuid);

    if (gpu)
        return gpu->uuid_text;
    observe_uuid_text(uuid, own);
    return own;
}

static struct json_object *vram_object(struct writer *writer, const struct ledger_device_state *state)
{
    struct json_object *object = json_object_new_object(), *events = json_object_new_object();

    if (state->limit != LEDGER_NO_LIMIT)
        document_put(&writer->failed, object, "limit_bytes", document_number(state->limit));
    document_put(&writer->failed, object, "current_bytes", document_number(state->current));
    document_put(&writer->failed, object, "peak_bytes", document_number(state->peak));
    document_put(&writer->failed, object, "tentative_bytes", document_number(state->tentative));
    document_put(&writer->failed, object, "spilled_bytes", document_number(state->spilled));
    if (state->context_bytes)
        document_put(&writer->failed, object, "context_bytes", document_number(state->context_bytes));
    document_put(&writer->failed, events, "refused", document_number(state->events[LEDGER_EVENT_REFUSED]));
    document_put(&writer->failed, events, "oom", document_number(state->events[LEDGER_EVENT_OOM]));
    document_put(&writer->failed, events, "buried", document_number(state->events[LEDGER_EVENT_BURIED]));
    document_put(&writer->failed, events, "underflow", document_number(state->events[LEDGER_EVENT_UNDERFLOW]));
    document_put(&writer->failed, object, "events", events);
    return object;
}

/* A share of 0 to 1, in percent with three digits. */
static struct json_object *percent(double share)
{
    char digits[32];

    snprintf(digits, sizeof(digits), "%.3f", 100 * share);
    return json_object_new_double_s(100 * share, digits);
}

static struct json_object *compute_object(struct writer *writer, const struct observe_tenant *tenant, unsigned device)
{
    const struct ledger_device_state *state = &tenant->view.device[device];
    struct json_object *object = json_object_new_object();
    double busy, throttled;
    char share[16];

    snprintf(share, sizeof(share), "%u.%02u", state->share / 100, state->share % 100);
    document_put(&writer->failed, object, "share_percent", json_object_new_double_s(state->share / 100.0, share));
    if (state->weight)
        document_put(&writer->failed, object, "weight", document_number(state->weight));
    document_put(&writer->failed, object, "busy_ns", document_number(state->busy));
    document_put(&writer->failed, object, "throttled_ns", document_number(state->throttled));
    document_put(&writer->failed, object, "forgiven_ns", document_number(state->forgiven));
    document_put(&writer->failed, object, "nr_periods", document_number(state->nr_periods));
    document_put(&writer->failed, object, "nr_throttled", document_number(state->nr_throttled));
    document_put(&writer->failed, object, "turns_taken", document_number(state->turns_taken));
    document_put(&writer->failed, object, "turns_lost", document_number(state->turns_lost));
    if (writer->before && observe_rate(writer->before, writer->seen, tenant, device, &busy, &throttled)) {
        document_put(&writer->failed, object, "busy_percent", percent(busy));
        document_put(&writer->failed, object, "throttled_percent", percent(throttled));
    }
    return object;
}

static struct json_object *device_object(struct writer *writer, const struct observe_tenant *tenant, unsigned device)
{
    const struct ledger_device_state *state = &tenant->view.device[device];
    struct json_object *object = json_object_new_object();
    char own[OBSERVE_UUID];

    document_put(&writer->failed, object, "gpu", document_text(uuid_text(writer->seen, state->uuid, own)));
    if (observe_counts_vram(tenant))
        document_put(&writer->failed, object, "vram", vram_object(writer, state));
    if (state->compute)
        document_put(&writer->failed, object, "compute", compute_object(writer, tenant, device));
    return object;
}

static struct json_object *member_object(struct writer *writer, const struct observe_tenant *tenant,
                                         const struct observe_member *member)
{
    struct json_object *object = json_object_new_object(), *devices = json_object_new_array();
    char own[OBSERVE_UUID];

    document_put(&writer->failed, object, "pid", document_number(member->pid));
    if (member->host_pid)
        document_put(&writer->failed, object, "host_pid", document_number(member->host_pid));
    if (member->pid_namespace)
        document_put(&writer->failed, object, "pid_namespace", document_number(member->pid_namespace));
    put_known(writer, object, "command", member->command);
    document_put(&writer->failed, object, "state",
                 document_text(member->dead        ? "dead"
                               : member->suspended ? "checkpointed"
                                                   : "running"));
    for (unsigned i = 0; i < tenant->view.devices && observe_counts_vram(tenant); i++) {
        struct json_object *device = json_object_new_object();

        document_put(&writer->failed, device, "gpu", document_text(uuid_text(writer->seen, tenant->view.device[i].uuid, own)));
        document_put(&writer->failed, device, "committed_bytes", document_number(member->device[i].committed));
        document_put(&writer->failed, device, "tentative_bytes", document_number(member->device[i].tentative));
        document_put(&writer->failed, device, "spilled_bytes", document_number(member->device[i].spilled));
        document_append(&writer->failed, devices, device);
    }
    document_put(&writer->failed, object, "devices", devices);
    return object;
}

static void put_view(struct writer *writer, const struct observe_tenant *tenant, struct json_object *object)
{
    struct json_object *armed = json_object_new_array(), *devices = json_object_new_array(), *members;

    document_put(&writer->failed, object, "processes", document_number(tenant->view.members));
    if (tenant->view.arms & LEDGER_ARMS_VRAM)
        document_append(&writer->failed, armed, document_text("vram"));
    if (tenant->view.arms & LEDGER_ARMS_COMPUTE)
        document_append(&writer->failed, armed, document_text("compute"));
    document_put(&writer->failed, object, "armed", armed);
    for (unsigned i = 0; i < tenant->view.devices; i++)
        document_append(&writer->failed, devices, device_object(writer, tenant, i));
    document_put(&writer->failed, object, "devices", devices);
    if (!writer->seen->with_members)
        return;
    members = json_object_new_array();
    for (unsigned i = 0; i < tenant->members; i++)
        document_append(&writer->failed, members, member_object(writer, tenant, &tenant->member[i]));
    document_put(&writer->failed, object, "members", members);
}

static struct json_object *tenant_object(struct writer *writer, const struct observe_tenant *tenant)
{
    struct json_object *object = json_object_new_object();

    document_put(&writer->failed, object, "tenant", document_text(tenant->name));
    document_put(&writer->failed, object, "state_directory", document_text(tenant->directory));
    document_put(&writer->failed, object, "uid", document_number(tenant->uid));
    put_known(writer, object, "pod", tenant->pod);
    put_known(writer, object, "namespace", tenant->namespace);
    put_known(writer, object, "container", tenant->container);
    if (tenant->problem)
        document_put(&writer->failed, object, "unreadable", document_text(tenant->reason));
    else
        put_view(writer, tenant, object);
    return object;
}

struct json_object *observe_json_since(const struct observe *before, const struct observe *seen)
{
    struct json_object *object = json_object_new_object(), *gpus = json_object_new_array(), *tenants = json_object_new_array(),
                       *warnings = json_object_new_array();
    struct writer writer = {before, seen, false};

    document_put(&writer.failed, object, "version", json_object_new_int(DOCUMENT_VERSION));
    document_put(&writer.failed, object, "softslice", document_text(SOFTSLICE_VERSION));
    document_put(&writer.failed, object, "time", document_time(seen->when));
    document_put(&writer.failed, object, "clock_ns", document_number(seen->clock));
    if (before && seen->clock > before->clock)
        document_put(&writer.failed, object, "interval_ns", document_number(seen->clock - before->clock));
    for (unsigned i = 0; i < seen->gpus; i++)
        document_append(&writer.failed, gpus, gpu_object(&writer, &seen->gpu[i]));
    document_put(&writer.failed, object, "gpus", gpus);
    for (unsigned i = 0; i < seen->tenants; i++)
        document_append(&writer.failed, tenants, tenant_object(&writer, &seen->tenant[i]));
    document_put(&writer.failed, object, "tenants", tenants);
    document_put(&writer.failed, object, "omitted", document_number(seen->omitted));
    for (char **complaint = seen->complaints; complaint && *complaint; complaint++)
        document_append(&writer.failed, warnings, document_text(*complaint));
    document_put(&writer.failed, object, "warnings", warnings);
    if (!writer.failed)
        return object;
    json_object_put(object);
    return NULL;
}

struct json_object *observe_json(const struct observe *seen)
{
    return observe_json_since(NULL, seen);
}
