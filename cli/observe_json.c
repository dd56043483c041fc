/* SPDX-License-Identifier: Apache-2.0 */
/* A look as a JSON document: docs/status.schema.json describes it. What is not known is left out. */
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "observe.h"

#define DOCUMENT_VERSION 1

/* json-c tells that it is out of memory by NULL from its makers, and by a status from what adds. The first failure is kept. */
struct writer {
    const struct observe *before, *seen;
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
    char clean[OBSERVE_TEXT];

    return json_object_new_string(observe_text(clean, sizeof(clean), value, false));
}

/* A path can be longer than a name. */
static struct json_object *path_text(const char *value)
{
    char clean[4096 * 2];

    return json_object_new_string(observe_text(clean, sizeof(clean), value, false));
}

static void put_known(struct writer *writer, struct json_object *object, const char *key, const char *value)
{
    if (*value)
        put(writer, object, key, text(value));
}

static struct json_object *gpu_object(struct writer *writer, const struct observe_gpu *gpu)
{
    struct json_object *object = json_object_new_object();

    put(writer, object, "uuid", text(gpu->uuid_text));
    if (gpu->index >= 0)
        put(writer, object, "index", json_object_new_int(gpu->index));
    put_known(writer, object, "name", gpu->name);
    if (gpu->total) {
        put(writer, object, "memory_total_bytes", number(gpu->total));
        put(writer, object, "memory_used_bytes", number(gpu->used));
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
        put(writer, object, "limit_bytes", number(state->limit));
    put(writer, object, "current_bytes", number(state->current));
    put(writer, object, "peak_bytes", number(state->peak));
    put(writer, object, "tentative_bytes", number(state->tentative));
    put(writer, object, "spilled_bytes", number(state->spilled));
    if (state->context_bytes)
        put(writer, object, "context_bytes", number(state->context_bytes));
    put(writer, events, "refused", number(state->events[LEDGER_EVENT_REFUSED]));
    put(writer, events, "oom", number(state->events[LEDGER_EVENT_OOM]));
    put(writer, events, "buried", number(state->events[LEDGER_EVENT_BURIED]));
    put(writer, events, "underflow", number(state->events[LEDGER_EVENT_UNDERFLOW]));
    put(writer, object, "events", events);
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
    put(writer, object, "share_percent", json_object_new_double_s(state->share / 100.0, share));
    if (state->weight)
        put(writer, object, "weight", number(state->weight));
    put(writer, object, "busy_ns", number(state->busy));
    put(writer, object, "throttled_ns", number(state->throttled));
    put(writer, object, "forgiven_ns", number(state->forgiven));
    put(writer, object, "nr_periods", number(state->nr_periods));
    put(writer, object, "nr_throttled", number(state->nr_throttled));
    put(writer, object, "turns_taken", number(state->turns_taken));
    put(writer, object, "turns_lost", number(state->turns_lost));
    if (writer->before && observe_rate(writer->before, writer->seen, tenant, device, &busy, &throttled)) {
        put(writer, object, "busy_percent", percent(busy));
        put(writer, object, "throttled_percent", percent(throttled));
    }
    return object;
}

static struct json_object *device_object(struct writer *writer, const struct observe_tenant *tenant, unsigned device)
{
    const struct ledger_device_state *state = &tenant->view.device[device];
    struct json_object *object = json_object_new_object();
    char own[OBSERVE_UUID];

    put(writer, object, "gpu", text(uuid_text(writer->seen, state->uuid, own)));
    if (observe_counts_vram(tenant))
        put(writer, object, "vram", vram_object(writer, state));
    if (state->compute)
        put(writer, object, "compute", compute_object(writer, tenant, device));
    return object;
}

static struct json_object *member_object(struct writer *writer, const struct observe_tenant *tenant,
                                         const struct observe_member *member)
{
    struct json_object *object = json_object_new_object(), *devices = json_object_new_array();
    char own[OBSERVE_UUID];

    put(writer, object, "pid", number(member->pid));
    if (member->host_pid)
        put(writer, object, "host_pid", number(member->host_pid));
    if (member->pid_namespace)
        put(writer, object, "pid_namespace", number(member->pid_namespace));
    put_known(writer, object, "command", member->command);
    put(writer, object, "state", text(member->dead ? "dead" : member->suspended ? "checkpointed" : "running"));
    for (unsigned i = 0; i < tenant->view.devices && observe_counts_vram(tenant); i++) {
        struct json_object *device = json_object_new_object();

        put(writer, device, "gpu", text(uuid_text(writer->seen, tenant->view.device[i].uuid, own)));
        put(writer, device, "committed_bytes", number(member->device[i].committed));
        put(writer, device, "tentative_bytes", number(member->device[i].tentative));
        put(writer, device, "spilled_bytes", number(member->device[i].spilled));
        append(writer, devices, device);
    }
    put(writer, object, "devices", devices);
    return object;
}

static void put_view(struct writer *writer, const struct observe_tenant *tenant, struct json_object *object)
{
    struct json_object *armed = json_object_new_array(), *devices = json_object_new_array(), *members;

    put(writer, object, "processes", number(tenant->view.members));
    if (tenant->view.arms & LEDGER_ARMS_VRAM)
        append(writer, armed, text("vram"));
    if (tenant->view.arms & LEDGER_ARMS_COMPUTE)
        append(writer, armed, text("compute"));
    put(writer, object, "armed", armed);
    for (unsigned i = 0; i < tenant->view.devices; i++)
        append(writer, devices, device_object(writer, tenant, i));
    put(writer, object, "devices", devices);
    if (!writer->seen->with_members)
        return;
    members = json_object_new_array();
    for (unsigned i = 0; i < tenant->members; i++)
        append(writer, members, member_object(writer, tenant, &tenant->member[i]));
    put(writer, object, "members", members);
}

static struct json_object *tenant_object(struct writer *writer, const struct observe_tenant *tenant)
{
    struct json_object *object = json_object_new_object();

    put(writer, object, "tenant", text(tenant->name));
    put(writer, object, "state_directory", path_text(tenant->directory));
    put(writer, object, "uid", number(tenant->uid));
    put_known(writer, object, "pod", tenant->pod);
    put_known(writer, object, "namespace", tenant->namespace);
    put_known(writer, object, "container", tenant->container);
    if (tenant->problem)
        put(writer, object, "unreadable", text(tenant->reason));
    else
        put_view(writer, tenant, object);
    return object;
}

static struct json_object *time_text(uint64_t when)
{
    time_t seconds = (time_t)(when / UINT64_C(1000000000));
    char date[64], whole[96];
    struct tm parts;

    if (!gmtime_r(&seconds, &parts) || !strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &parts))
        return NULL;
    snprintf(whole, sizeof(whole), "%s.%09uZ", date, (unsigned)(when % UINT64_C(1000000000)));
    return json_object_new_string(whole);
}

struct json_object *observe_json_since(const struct observe *before, const struct observe *seen)
{
    struct json_object *object = json_object_new_object(), *gpus = json_object_new_array(), *tenants = json_object_new_array(),
                       *warnings = json_object_new_array();
    struct writer writer = {before, seen, false};

    put(&writer, object, "version", json_object_new_int(DOCUMENT_VERSION));
    put(&writer, object, "softslice", text(SOFTSLICE_VERSION));
    put(&writer, object, "time", time_text(seen->when));
    put(&writer, object, "clock_ns", number(seen->clock));
    if (before && seen->clock > before->clock)
        put(&writer, object, "interval_ns", number(seen->clock - before->clock));
    for (unsigned i = 0; i < seen->gpus; i++)
        append(&writer, gpus, gpu_object(&writer, &seen->gpu[i]));
    put(&writer, object, "gpus", gpus);
    for (unsigned i = 0; i < seen->tenants; i++)
        append(&writer, tenants, tenant_object(&writer, &seen->tenant[i]));
    put(&writer, object, "tenants", tenants);
    put(&writer, object, "omitted", number(seen->omitted));
    for (char **complaint = seen->complaints; complaint && *complaint; complaint++)
        append(&writer, warnings, path_text(*complaint));
    put(&writer, object, "warnings", warnings);
    if (!writer.failed)
        return object;
    json_object_put(object);
    return NULL;
}

struct json_object *observe_json(const struct observe *seen)
{
    return observe_json_since(NULL, seen);
}
