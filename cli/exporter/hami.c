/* SPDX-License-Identifier: Apache-2.0 */
/* What HAMi's vGPUmonitor tells of a container, told of a tenant under the same names and labels, so that dashboards made for it work: those of
 * its 2.10, and those that it had before. What only HAMi knows is left out. A label of our own, `tenant`, keeps tenants apart that are
 * in no pod. */
#include <inttypes.h>

#include "exporter.h"

struct naming {
    const char *used, *limit, *utilization, *host_used;
    const char *namespace, *pod, *container, *virtual_index, *uuid, *index, *type;
};

static const struct naming namings[] = {
    {"hami_vgpu_memory_used_bytes", "hami_vgpu_memory_limit_bytes", "hami_container_device_utilization_ratio",
     "hami_host_gpu_memory_used_bytes", "namespace", "pod", "container", "vdevice_index", "device_uuid", "device_index",
     "device_type"},
    {"vGPU_device_memory_usage_in_bytes", "vGPU_device_memory_limit_in_bytes", "Device_utilization_desc_of_container",
     "HostGPUMemoryUsage", "podnamespace", "podname", "ctrname", "vdeviceid", "deviceuuid", "deviceidx", "devicetype"},
};

/* The name and all labels of a series of a tenant's `device`. */
static void begin_series(struct out *out, const char *name, const struct naming *naming, const struct observe *seen,
                         const struct observe_tenant *tenant, const char *labels, unsigned device)
{
    char gpu[OBSERVE_UUID];

    out_print(out, "%s{", name);
    out_text(out, labels);
    out_print(out, ",%s=\"%u\"", naming->virtual_index, device);
    out_label(out, naming->uuid, metrics_gpu(seen, tenant->view.device[device].uuid, gpu));
    out_label(out, naming->namespace, tenant->namespace);
    out_label(out, naming->pod, tenant->pod);
    out_label(out, naming->container, tenant->container);
    out_text(out, "} ");
}

enum what { USED, LIMIT, UTILIZATION };

/* Whether it is known, and its value as text. */
static bool value_of(enum what what, const struct observe_tenant *tenant, unsigned device, char text[64])
{
    const struct ledger_device_state *state = &tenant->view.device[device];
    double ratio = 0;

    switch (what) {
    case USED:
        snprintf(text, 64, "%" PRIu64, state->current);
        return observe_counts_vram(tenant);
    case LIMIT:
        snprintf(text, 64, "%" PRIu64, state->limit);
        return observe_counts_vram(tenant) && state->limit != LEDGER_NO_LIMIT;
    default:
        if (!state->compute || !history_busy(tenant, state->uuid, &ratio))
            return false;
        snprintf(text, 64, "%.2f", ratio * 100);
        return true;
    }
}

static void write_tenants(struct out *out, const char *name, const char *help, enum what what, const struct naming *naming,
                          const struct observe *seen, char *const *labels)
{
    char text[64];

    metrics_family(out, name, "gauge", help);
    for (unsigned t = 0; t < seen->tenants; t++) {
        for (unsigned d = 0; !seen->tenant[t].problem && d < seen->tenant[t].view.devices; d++) {
            if (!value_of(what, &seen->tenant[t], d, text))
                continue;
            begin_series(out, name, naming, seen, &seen->tenant[t], labels[t], d);
            out_print(out, "%s\n", text);
        }
    }
}

static void write_hosts(struct out *out, const struct naming *naming, const struct observe *seen)
{
    metrics_family(out, naming->host_used, "gauge", "VRAM of the GPU that is in use, by whomever.");
    for (unsigned g = 0; g < seen->gpus; g++) {
        const struct observe_gpu *gpu = &seen->gpu[g];

        if (!gpu->total || gpu->index < 0)
            continue;
        out_print(out, "%s{%s=\"%d\",%s=\"%s\"", naming->host_used, naming->index, gpu->index, naming->uuid, gpu->uuid_text);
        out_label(out, naming->type, gpu->name);
        out_print(out, "} %" PRIu64 "\n", gpu->used);
    }
}

void hami_write(struct out *out, const struct observe *seen, char *const *labels)
{
    for (unsigned i = 0; i < sizeof(namings) / sizeof(*namings); i++) {
        const struct naming *naming = &namings[i];

        write_tenants(out, naming->used, "VRAM that the container has.", USED, naming, seen, labels);
        write_tenants(out, naming->limit, "VRAM that the container may have.", LIMIT, naming, seen, labels);
        write_tenants(out, naming->utilization, "GPU time that the container used in the last ten seconds, in percent.",
                      UTILIZATION, naming, seen, labels);
        write_hosts(out, naming, seen);
    }
}
