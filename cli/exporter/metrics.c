/* SPDX-License-Identifier: Apache-2.0 */
/* The exporter's metrics, in Prometheus' text format. A series whose value is not known is not there. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "exporter.h"

/* ---- of each tenant and GPU */

/* Writes the value; false where it is not known. */
typedef bool value_writer(struct out *out, const struct ledger_device_state *state);

static bool has_compute(const struct observe_tenant *tenant)
{
    return tenant->view.arms & LEDGER_ARMS_COMPUTE;
}

static bool is_there(uint64_t value, bool known, struct out *out)
{
    if (known)
        out_print(out, "%" PRIu64, value);
    return known;
}

static bool limit(struct out *out, const struct ledger_device_state *state)
{
    return is_there(state->limit, state->limit != LEDGER_NO_LIMIT, out);
}

static bool current(struct out *out, const struct ledger_device_state *state)
{
    return is_there(state->current, true, out);
}

static bool peak(struct out *out, const struct ledger_device_state *state)
{
    return is_there(state->peak, true, out);
}

static bool spilled(struct out *out, const struct ledger_device_state *state)
{
    return is_there(state->spilled, true, out);
}

static bool share(struct out *out, const struct ledger_device_state *state)
{
    if (state->compute)
        out_print(out, "%u.%04u", state->share / SHARE_WHOLE, state->share % SHARE_WHOLE);
    return state->compute;
}

static bool weight(struct out *out, const struct ledger_device_state *state)
{
    return is_there(state->weight, state->compute && state->weight, out);
}

static bool is_time(uint64_t ns, bool known, struct out *out)
{
    if (known)
        out_seconds(out, ns);
    return known;
}

static bool busy(struct out *out, const struct ledger_device_state *state)
{
    return is_time(state->busy, state->compute, out);
}

static bool throttled(struct out *out, const struct ledger_device_state *state)
{
    return is_time(state->throttled, state->compute, out);
}

static bool forgiven(struct out *out, const struct ledger_device_state *state)
{
    return is_time(state->forgiven, state->compute, out);
}

static bool periods(struct out *out, const struct ledger_device_state *state)
{
    return is_there(state->nr_periods, state->compute, out);
}

static bool throttled_periods(struct out *out, const struct ledger_device_state *state)
{
    return is_there(state->nr_throttled, state->compute, out);
}

static bool turns_taken(struct out *out, const struct ledger_device_state *state)
{
    return is_there(state->turns_taken, state->compute, out);
}

static bool turns_lost(struct out *out, const struct ledger_device_state *state)
{
    return is_there(state->turns_lost, state->compute, out);
}

static const struct {
    const char *name, *type, *help;
    bool (*armed)(const struct observe_tenant *tenant);
    value_writer *write;
} families[] = {
    {"softslice_memory_limit_bytes", "gauge", "VRAM that the tenant may have on the GPU.", observe_counts_vram, limit},
    {"softslice_memory_current_bytes", "gauge", "VRAM that the tenant has, reserved for a call that is under way included.",
     observe_counts_vram, current},
    {"softslice_memory_peak_bytes", "gauge", "The most VRAM that the tenant had at once.", observe_counts_vram, peak},
    {"softslice_memory_spilled_bytes", "gauge", "Memory that the tenant wanted on the GPU and has on the host.",
     observe_counts_vram, spilled},
    {"softslice_compute_share_ratio", "gauge", "Share of the GPU's time that the tenant may use.", has_compute, share},
    {"softslice_compute_weight", "gauge", "Weight by which contended GPU time is divided.", has_compute, weight},
    {"softslice_gpu_busy_seconds_total", "counter", "GPU time that the tenant used.", has_compute, busy},
    {"softslice_gpu_throttled_seconds_total", "counter",
     "Time in which a launch of the tenant waited because its share was used up.", has_compute, throttled},
    {"softslice_gpu_forgiven_seconds_total", "counter", "GPU time beyond the share that the tenant did not have to make up for.",
     has_compute, forgiven},
    {"softslice_periods_total", "counter", "Periods in which the tenant had work on the GPU.", has_compute, periods},
    {"softslice_throttled_periods_total", "counter", "Periods in which the tenant had to wait.", has_compute, throttled_periods},
    {"softslice_turns_taken_total", "counter", "Turns that the tenant took where tenants take turns.", has_compute, turns_taken},
    {"softslice_turns_lost_total", "counter", "Turns that were taken from the tenant because it had gone quiet.", has_compute,
     turns_lost},
};

static const char *const event_names[LEDGER_EVENTS] = {[LEDGER_EVENT_REFUSED] = "refused",
                                                       [LEDGER_EVENT_OOM] = "oom",
                                                       [LEDGER_EVENT_BURIED] = "buried",
                                                       [LEDGER_EVENT_UNDERFLOW] = "underflow"};

void metrics_family(struct out *out, const char *name, const char *type, const char *help)
{
    out_print(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

const char *metrics_gpu(const struct observe *seen, const uint8_t uuid[16], char text[OBSERVE_UUID])
{
    const struct observe_gpu *gpu = observe_find_gpu(seen, uuid);

    if (gpu)
        return gpu->uuid_text;
    observe_uuid_text(uuid, text);
    return text;
}

static void write_series(struct out *out, const char *name, const char *labels, const struct observe *seen, const uint8_t uuid[16])
{
    char gpu[OBSERVE_UUID];

    out_print(out, "%s{", name);
    out_text(out, labels);
    out_label(out, "gpu", metrics_gpu(seen, uuid, gpu));
}

static void write_devices(struct out *out, const struct observe *seen, char *const *labels)
{
    for (unsigned f = 0; f < sizeof(families) / sizeof(*families); f++) {
        metrics_family(out, families[f].name, families[f].type, families[f].help);
        for (unsigned t = 0; t < seen->tenants; t++) {
            const struct observe_tenant *tenant = &seen->tenant[t];

            for (unsigned d = 0; !tenant->problem && families[f].armed(tenant) && d < tenant->view.devices; d++) {
                size_t before = out->length;

                write_series(out, families[f].name, labels[t], seen, tenant->view.device[d].uuid);
                out_text(out, "} ");
                if (families[f].write(out, &tenant->view.device[d]))
                    out_text(out, "\n");
                else
                    out->length = before;
            }
        }
    }
}

static void write_events(struct out *out, const struct observe *seen, char *const *labels)
{
    metrics_family(
        out, "softslice_memory_events_total", "counter",
        "Allocations refused (refused), out of memory on the GPU itself (oom), members found dead (buried), more given back "
        "than was held (underflow).");
    for (unsigned t = 0; t < seen->tenants; t++) {
        const struct observe_tenant *tenant = &seen->tenant[t];

        for (unsigned d = 0; !tenant->problem && observe_counts_vram(tenant) && d < tenant->view.devices; d++) {
            for (unsigned e = 0; e < LEDGER_EVENTS; e++) {
                write_series(out, "softslice_memory_events_total", labels[t], seen, tenant->view.device[d].uuid);
                out_print(out, ",event=\"%s\"} %" PRIu64 "\n", event_names[e], tenant->view.device[d].events[e]);
            }
        }
    }
}

/* ---- of each tenant */

static const char *problem_name(int problem)
{
    switch (-problem) {
    case EACCES:
    case EPERM:
        return "permission";
    case EPROTO:
        return "damaged";
    case ELOOP:
    case ENOTDIR:
        return "no ledger";
    case ENOENT:
        return "gone";
    default:
        return "other";
    }
}

static unsigned complaints(const struct observe *seen)
{
    unsigned count = 0;

    while (seen->complaints && seen->complaints[count])
        count++;
    return count;
}

static void write_tenants(struct out *out, const struct observe *seen, char *const *labels)
{
    unsigned unreadable = 0;

    metrics_family(out, "softslice_processes", "gauge", "Processes of the tenant that run.");
    for (unsigned t = 0; t < seen->tenants; t++) {
        unreadable += seen->tenant[t].problem != 0;
        if (seen->tenant[t].problem)
            continue;
        out_text(out, "softslice_processes{");
        out_text(out, labels[t]);
        out_print(out, "} %u\n", seen->tenant[t].view.members);
    }
    metrics_family(out, "softslice_tenant_unreadable", "gauge", "A tenant of which nothing is known, and why.");
    for (unsigned t = 0; t < seen->tenants; t++) {
        if (!seen->tenant[t].problem)
            continue;
        out_text(out, "softslice_tenant_unreadable{");
        out_text(out, labels[t]);
        out_print(out, ",reason=\"%s\"} 1\n", problem_name(seen->tenant[t].problem));
    }
    metrics_family(out, "softslice_tenants", "gauge", "Tenants that were found and read.");
    out_print(out, "softslice_tenants %u\n", seen->tenants - unreadable);
    metrics_family(out, "softslice_unreadable_tenants", "gauge", "Tenants that were found and could not be read.");
    out_print(out, "softslice_unreadable_tenants %u\n", unreadable);
    metrics_family(out, "softslice_omitted_tenants", "gauge", "Tenants that were not looked at, being too many.");
    out_print(out, "softslice_omitted_tenants %u\n", seen->omitted);
    metrics_family(out, "softslice_complaints", "gauge", "Directories and labels that could not be read, or were not believed.");
    out_print(out, "softslice_complaints %u\n", complaints(seen));
}

/* ---- of each GPU */

static void write_gpu(struct out *out, const char *name, const struct observe_gpu *gpu, uint64_t value)
{
    out_print(out, "%s{gpu=\"%s\"", name, gpu->uuid_text);
    out_label(out, "name", gpu->name);
    out_print(out, "} %" PRIu64 "\n", value);
}

static void write_gpus(struct out *out, const struct observe *seen)
{
    metrics_family(out, "softslice_gpu_memory_size_bytes", "gauge", "VRAM of the GPU.");
    for (unsigned g = 0; g < seen->gpus; g++) {
        if (seen->gpu[g].total)
            write_gpu(out, "softslice_gpu_memory_size_bytes", &seen->gpu[g], seen->gpu[g].total);
    }
    metrics_family(out, "softslice_gpu_memory_used_bytes", "gauge", "VRAM of the GPU that is in use, by whomever.");
    for (unsigned g = 0; g < seen->gpus; g++) {
        if (seen->gpu[g].total)
            write_gpu(out, "softslice_gpu_memory_used_bytes", &seen->gpu[g], seen->gpu[g].used);
    }
}

/* ---- all */

/* A name, and its bytes where they cannot all be shown: two that look the same would give one series two values, for which a reader may turn down the
 * document. */
static void name_label(struct out *out, const char *label, const char *name)
{
    char clean[3 * PATH_MAX + 1], hex[2 * PATH_MAX + 1], with[64];

    out_label(out, label, name);
    if (strcmp(observe_text(clean, sizeof(clean), name, false), name) == 0)
        return;
    for (size_t i = 0; i < PATH_MAX && name[i]; i++)
        snprintf(hex + 2 * i, 3, "%02x", (unsigned char)name[i]);
    snprintf(with, sizeof(with), "%s_bytes", label);
    out_label(out, with, hex);
}

/* The labels of a tenant, as memory to free; NULL where there is none left. */
static char *tenant_labels(const struct observe_tenant *tenant, const struct exporter_request *request, bool own)
{
    struct out out = {0};

    name_label(&out, "tenant", tenant->name);
    name_label(&out, "directory", request->many ? tenant->directory : "");
    if (own) {
        out_label(&out, "namespace", tenant->namespace);
        out_label(&out, "pod", tenant->pod);
        out_label(&out, "container", tenant->container);
    }
    out_bytes(&out, "", 1);
    if (out.failed)
        out_free(&out);
    return out.bytes;
}

static void free_labels(char **labels, unsigned count)
{
    for (unsigned i = 0; labels && i < count; i++)
        free(labels[i]);
    free(labels);
}

static char **all_labels(const struct observe *seen, const struct exporter_request *request, bool own)
{
    char **labels = calloc(seen->tenants + 1, sizeof(*labels));

    for (unsigned i = 0; labels && i < seen->tenants; i++) {
        labels[i] = tenant_labels(&seen->tenant[i], request, own);
        if (!labels[i]) {
            free_labels(labels, i);
            return NULL;
        }
    }
    return labels;
}

static void write_self(struct out *out, const struct snapshot *snapshot)
{
    metrics_family(out, "softslice_build_info", "gauge", "The version of softslice that tells all this.");
    out_text(out, "softslice_build_info{version=\"" SOFTSLICE_VERSION "\"} 1\n");
    metrics_family(out, "softslice_scrape_success", "gauge", "Whether the state directories could be looked at.");
    out_print(out, "softslice_scrape_success %d\n", snapshot->valid);
    metrics_family(out, "softslice_scrape_duration_seconds", "gauge", "How long it took to look at all tenants.");
    out_text(out, "softslice_scrape_duration_seconds ");
    out_seconds(out, snapshot->took);
    out_text(out, "\n");
}

void metrics_write(struct out *out, const struct snapshot *snapshot, const struct exporter_request *request)
{
    const struct observe *seen = &snapshot->seen;
    char **labels, **other;

    write_self(out, snapshot);
    if (!snapshot->valid)
        return;
    labels = all_labels(seen, request, true);
    other = request->hami ? all_labels(seen, request, false) : NULL;
    if (labels) {
        write_devices(out, seen, labels);
        write_events(out, seen, labels);
        write_tenants(out, seen, labels);
        write_gpus(out, seen);
    }
    if (other)
        hami_write(out, seen, other);
    if (!labels || (request->hami && !other))
        out->failed = true;
    free_labels(labels, seen->tenants);
    free_labels(other, seen->tenants);
}
