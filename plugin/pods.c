/* SPDX-License-Identifier: Apache-2.0 */
/* Whose the allocations are, by the kubelet's PodResources API; those that are nobody's any more are removed. Where the kubelet does not answer there,
 * allocations have no names, and go when their devices are given out again. */
#include <string.h>
#include <time.h>

#include "node.h"
#include "podresources.pb-c.h"

#define LIST_MS 10000
#define SOON    2.0

struct asking {
    struct node *node;
    char socket[256];
    struct rpc_reply reply;
};

/* ---- judging */

/* How many of the record's devices are among a container's. */
static unsigned shared(const struct given *record, const V1__ContainerDevices *devices)
{
    unsigned count = 0;

    if (strncmp(devices->resource_name, PLUGIN_VENDOR, strlen(PLUGIN_VENDOR)) != 0 ||
        strcmp(devices->resource_name + strlen(PLUGIN_VENDOR), record->resource) != 0)
        return 0;
    for (unsigned i = 0; i < record->ids; i++) {
        for (size_t j = 0; j < devices->n_device_ids; j++) {
            if (strcmp(record->id[i], devices->device_ids[j]) == 0) {
                count++;
                break;
            }
        }
    }
    return count;
}

/* Its devices were given out again, to another pod. */
static bool is_superseded(const struct given_list *records, const struct given *record)
{
    for (unsigned i = 0; i < records->count; i++) {
        if (records->one[i].made >= record->made + GIVEN_ONE_POD && given_overlap(record, &records->one[i]))
            return true;
    }
    return false;
}

/* The latest of those with the same devices is who runs with them at last. */
static bool is_latest(const struct given_list *records, const struct given *record)
{
    for (unsigned i = 0; i < records->count; i++) {
        const struct given *other = &records->one[i];

        if (other != record && given_overlap(record, other) &&
            (other->made > record->made || (other->made == record->made && other > record)))
            return false;
    }
    return true;
}

static void find_owner(struct node *node, const struct cdi_root *root, struct given *record,
                       const V1__ListPodResourcesResponse *list)
{
    record->listed = false;
    if (is_superseded(&node->given, record))
        return;
    for (size_t i = 0; i < list->n_pod_resources; i++) {
        const V1__PodResources *pod = list->pod_resources[i];

        for (size_t j = 0; j < pod->n_containers; j++) {
            const V1__ContainerResources *container = pod->containers[j];
            unsigned count = 0;
            size_t all = 0;

            /* A kubelet lists a resource once for each NUMA node, some once for each device. */
            for (size_t k = 0; k < container->n_devices; k++) {
                unsigned here = shared(record, container->devices[k]);

                count += here;
                all += here ? container->devices[k]->n_device_ids : 0;
            }
            record->listed |= count > 0;
            if (count == record->ids && all == record->ids && is_latest(&node->given, record))
                given_label(record, root, pod->name, pod->namespace_, container->name);
        }
    }
}

static void judge(struct node *node, const struct cdi_root *root, const V1__ListPodResourcesResponse *list)
{
    double now = now_seconds();

    for (unsigned i = 0; i < node->given.count; i++)
        find_owner(node, root, &node->given.one[i], list);
    for (unsigned i = 0; i < node->given.count;) {
        struct given *record = &node->given.one[i];
        unsigned before = node->given.count;

        if (record->listed || given_lives(record, root))
            record->missing_since = 0;
        else if (!record->missing_since)
            record->missing_since = now;
        else if (now - record->missing_since >= node->settings.keep)
            given_remove(&node->given, root, record->name, "the kubelet has no pod for it any more");
        i += node->given.count == before;
    }
    node->pods.known = true;
}

/* ---- asking */

static void ask(void *argument)
{
    struct asking *asking = argument;

    rpc_call(asking->socket, "/v1.PodResourcesLister/List", NULL, 0, LIST_MS, &asking->reply);
}

static void tell_trouble(struct node *node, const struct rpc_reply *reply, const char *socket)
{
    if (!node->pods.told)
        say_warning("the kubelet's pods cannot be asked for (%s): %s: %s; allocations have no pod's name", socket,
                    rpc_code_name(reply->code), reply->message);
    node->pods.told = true;
}

static void answered(void *argument)
{
    struct asking *asking = argument;
    struct node *node = asking->node;
    struct cli_error error = {""};
    struct cdi_root root = {.fd = -1};
    V1__ListPodResourcesResponse *list =
        asking->reply.code == RPC_OK ? v1__list_pod_resources_response__unpack(NULL, asking->reply.length, asking->reply.body)
                                     : NULL;

    node->pods.busy = false;
    if (!list) {
        tell_trouble(node, &asking->reply, asking->socket);
    } else if (node->given.count && cdi_root_open(&root, node->root, true, &error)) {
        say_error("%s", error.text);
    } else {
        node->pods.told = false;
        judge(node, &root, list);
    }
    if (root.fd >= 0)
        close(root.fd);
    if (list)
        v1__list_pod_resources_response__free_unpacked(list, NULL);
    free(asking->reply.body);
    free(asking);
}

void pods_soon(struct node *node)
{
    double soon = now_seconds() + (node->settings.ask_pods < SOON ? node->settings.ask_pods : SOON);

    if (soon < node->pods.next)
        node->pods.next = soon;
}

void pods_check(struct node *node)
{
    struct asking *asking;

    if (node->pods.busy || now_seconds() < node->pods.next)
        return;
    node->pods.next = now_seconds() + node->settings.ask_pods;
    if (!node->given.count)
        return;
    asking = calloc(1, sizeof(*asking));
    if (!asking)
        return;
    asking->node = node;
    snprintf(asking->socket, sizeof(asking->socket), "%s", node->settings.pods);
    node->pods.busy = job_start(ask, answered, asking) == 0;
    if (!node->pods.busy)
        free(asking);
}
