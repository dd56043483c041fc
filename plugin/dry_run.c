/* SPDX-License-Identifier: Apache-2.0 */
/* --dry-run: what a node would offer, and what a container would get, as JSON on standard output. Nothing is made, nobody is asked but NVML. */
#include <string.h>

#include "document.h"
#include "node.h"

static struct json_object *gpu_json(const struct node *node, unsigned index, bool *failed)
{
    const struct offer_gpu *gpu = &node->offer.gpu[index];
    struct json_object *object = json_object_new_object(), *slices = json_object_new_array();
    char id[PLUGIN_ID];

    document_put(failed, object, "uuid", document_text(gpu->is.uuid));
    if (gpu->is.minor >= 0)
        document_put(failed, object, "minor", json_object_new_int(gpu->is.minor));
    document_put(failed, object, "healthy", json_object_new_boolean(gpu->is.healthy));
    document_put(failed, object, "memory_bytes", document_number(gpu->is.total));
    document_put(failed, object, "offered_bytes", document_number(gpu->room));
    document_put(failed, object, "slice_bytes", document_number(gpu->sliced));
    document_put(failed, object, PLUGIN_UNITS, document_number(gpu->units));
    for (unsigned i = 0; i < node->offer.replicas; i++) {
        const struct offer_replica *replica = &node->offer.replica[i];

        if (replica->gpu != (int)index)
            continue;
        offer_id(&node->offer, &node->settings, (int)replica->slice, (struct offer_device){index, replica->replica}, id);
        document_append(failed, slices, document_text(id));
    }
    document_put(failed, object, "slices", slices);
    return object;
}

static struct json_object *resource_json(const struct node *node, int slice, bool *failed)
{
    struct json_object *object = json_object_new_object();
    char name[PLUGIN_RESOURCE + sizeof(PLUGIN_VENDOR)];
    unsigned count;

    free(offer_devices(&node->offer, slice, &count));
    snprintf(name, sizeof(name), PLUGIN_VENDOR "%s", offer_resource(&node->settings, slice));
    document_put(failed, object, "name", document_text(name));
    document_put(failed, object, "devices", document_number(count));
    if (slice != OFFER_UNITS)
        document_put(failed, object, "not_placed", document_number(node->settings.slice[slice].replicas - count));
    return object;
}

static struct json_object *answer_json(const struct answer *answer, const struct cdi_budget *budget, bool *failed)
{
    struct json_object *object = json_object_new_object(), *mounts = json_object_new_array(), *devices = json_object_new_array(),
                       *cdi = json_object_new_array(), *envs = json_object_new_object();
    CLEANUP_FREE char *ini = cdi_ini(budget);

    if (*answer->visible)
        document_put(failed, envs, "NVIDIA_VISIBLE_DEVICES", document_text(answer->visible));
    for (unsigned i = 0; i < answer->mounts; i++) {
        struct json_object *mount = json_object_new_object();

        document_put(failed, mount, "container_path", document_text(answer->mount[i].container));
        document_put(failed, mount, "host_path", document_text(answer->mount[i].host));
        document_put(failed, mount, "read_only", json_object_new_boolean(!answer->mount[i].writable));
        document_append(failed, mounts, mount);
    }
    for (unsigned i = 0; i < answer->devices; i++)
        document_append(failed, devices, document_text(answer->device[i]));
    for (unsigned i = 0; i < answer->cdi; i++)
        document_append(failed, cdi, document_text(answer->cdi_device[i]));
    document_put(failed, object, "envs", envs);
    document_put(failed, object, "mounts", mounts);
    document_put(failed, object, "devices", devices);
    document_put(failed, object, "cdi_devices", cdi);
    document_put(failed, object, "softslice.ini", ini ? json_object_new_string(ini) : NULL);
    return object;
}

/* The GPU that the kubelet would be told to prefer were everything free; -1: none has so many. */
static int gpu_for(const struct offer *offer, unsigned units)
{
    int best = -1;

    for (unsigned i = 0; i < offer->gpus; i++) {
        if (offer->gpu[i].is.healthy && offer->gpu[i].units >= units && (best < 0 || offer->gpu[i].units < offer->gpu[best].units))
            best = (int)i;
    }
    return best;
}

static int add_preview(struct node *node, unsigned units, struct json_object *object, bool *failed, struct cli_error *error)
{
    int gpu = gpu_for(&node->offer, units);
    struct cdi_budget budget;
    struct answer answer;

    if (gpu < 0)
        return cli_fail(error, -1, "no GPU of this node has %u units of " PLUGIN_VENDOR PLUGIN_UNITS, units);
    if (allocate_preview(node, OFFER_UNITS, (unsigned)gpu, units, &budget, &answer, error))
        return -1;
    document_put(failed, object, "allocate", answer_json(&answer, &budget, failed));
    return 0;
}

int dry_run(struct node *node, unsigned units, struct cli_error *error)
{
    struct json_object *object = json_object_new_object(), *gpus = json_object_new_array(), *resources = json_object_new_array();
    bool failed = false;
    int result;

    for (unsigned i = 0; i < node->offer.gpus; i++)
        document_append(&failed, gpus, gpu_json(node, i, &failed));
    for (int slice = OFFER_UNITS; slice < (int)node->settings.slices; slice++)
        document_append(&failed, resources, resource_json(node, slice, &failed));
    document_put(&failed, object, "gpus", gpus);
    document_put(&failed, object, "resources", resources);
    result = units ? add_preview(node, units, object, &failed, error) : 0;
    if (!result && failed)
        result = cli_fail(error, -1, "out of memory");
    if (!result && puts(json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
                                                                   JSON_C_TO_STRING_NOSLASHESCAPE)) < 0)
        result = cli_fail(error, -1, "cannot write to standard output");
    json_object_put(object);
    return result;
}
