/* SPDX-License-Identifier: Apache-2.0 */
/* Whose the allocations are, by the kubelet's PodResources API; those that are nobody's any more are removed, if no process has them mounted, either. Where
 * the kubelet does not answer there, allocations have no names, and go after their devices were given out again. */
#include <string.h>
#include <time.h>

#include "node.h"
#include "podresources.pb-c.h"

#define LIST_MS 10000
#define SOON    2.0

#define LOOKS 4096

/* A question to the kubelet, and what else is looked at meanwhile. */
struct asking {
    struct node *node;
    char socket[256];
    const char *proc; /* NULL: the node's processes cannot be seen */
    struct rpc_reply reply;
    int seen; /* 0, or -errno of mounts_look() */
    unsigned looks, records;
    struct look look[LOOKS]; /* what may be removed: first what has a record */
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

/* Whether a container of the list has its devices. */
static bool find_owner(struct node *node, const struct cdi_root *root, struct given *record,
                       const V1__ListPodResourcesResponse *list)
{
    bool listed = false;

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
            listed |= count > 0;
            if (count == record->ids && all == record->ids && is_latest(&node->given, record))
                given_label(record, root, pod->name, pod->namespace_, container->name);
        }
    }
    return listed;
}

static const struct look *look_of(const struct asking *asking, const char *name)
{
    for (unsigned i = 0; i < asking->looks; i++) {
        if (strcmp(asking->look[i].name, name) == 0)
            return &asking->look[i];
    }
    return NULL;
}

/* One that has ended is in use until it was looked for among the mounts, which takes another round, and nothing was found. It is removed when that was so for
 * long enough: at once where its devices are another's and all of the node was seen. */
static bool is_over(struct node *node, const struct cdi_root *root, struct given *record, const struct asking *asking,
                    bool superseded)
{
    const struct look *look = look_of(asking, record->name);
    bool seen = asking->proc && asking->seen == 0;

    if (!record->ended || given_lives(root, record->name) || (look && look->mounted)) {
        record->missing_since = 0;
    } else if (!look) {
        pods_soon(node);
    } else {
        if (!record->missing_since)
            record->missing_since = now_seconds();
        return now_seconds() - record->missing_since >= node->settings.keep || (superseded && seen);
    }
    return false;
}

/* Why it is removed; NULL: it stays. Without a list only what others have been given the devices of is known to have ended. */
static const char *judge(struct node *node, const struct cdi_root *root, struct given *record, const struct asking *asking,
                         const V1__ListPodResourcesResponse *list)
{
    bool superseded = is_superseded(&node->given, record), there = given_is_there(root, record->name);

    if (superseded || list)
        record->ended = superseded || !find_owner(node, root, record, list);
    if (!there && record->ended)
        return "its directory was removed";
    if (!there && !list && !record->missing_since)
        record->missing_since = now_seconds();
    if ((!superseded && !list) || !is_over(node, root, record, asking, superseded))
        return NULL;
    return superseded ? "its devices are given to another container" : "the kubelet has no pod for it any more";
}

static void judge_all(struct node *node, const struct cdi_root *root, const struct asking *asking,
                      const V1__ListPodResourcesResponse *list)
{
    for (unsigned i = 0; i < node->given.count;) {
        unsigned before = node->given.count;
        const char *why = judge(node, root, &node->given.one[i], asking, list);

        if (why)
            given_remove(&node->given, root, node->given.one[i].name, why);
        i += node->given.count == before;
    }
}

/* What was never given to anybody. */
static void remove_left(struct node *node, const struct cdi_root *root, const struct asking *asking)
{
    for (unsigned i = asking->records; i < asking->looks; i++) {
        if (!asking->look[i].mounted && !given_lives(root, asking->look[i].name))
            given_remove(&node->given, root, asking->look[i].name, "a process that made or removed it was killed");
    }
}

/* ---- asking */

static void ask(void *argument)
{
    struct asking *asking = argument;

    rpc_call(asking->socket, "/v1.PodResourcesLister/List", NULL, 0, LIST_MS, &asking->reply);
    if (asking->proc && asking->looks)
        asking->seen = mounts_look(asking->proc, asking->look, asking->looks);
}

/* A kubelet that has just started knows its pods once the API server has told it, and then all of them, ours too. Before, what is missing says nothing. */
static bool is_whole(struct node *node, const V1__ListPodResourcesResponse *list)
{
    bool found = !node->pod;

    for (size_t i = 0; i < list->n_pod_resources && !found; i++) {
        const char *space = list->pod_resources[i]->namespace_;

        found = strncmp(node->pod, space, strlen(space)) == 0 && node->pod[strlen(space)] == '/' &&
                strcmp(node->pod + strlen(space) + 1, list->pod_resources[i]->name) == 0;
    }
    if (!found && !node->pods.early)
        say_info("the kubelet does not list pod %s, in which this runs: until it does, no pod counts as gone", node->pod);
    node->pods.early = !found;
    return found;
}

static void tell_unseen(struct node *node, const struct asking *asking)
{
    if (!asking->looks || node->pods.unseen || (asking->proc && asking->seen == 0))
        return;
    say_info("the node's processes cannot be seen (--proc; %s): a container without a pod counts as ended after %g s",
             asking->proc ? strerror(-asking->seen) : "this runs in a PID namespace of its own", node->settings.keep);
    node->pods.unseen = true;
}

static void retry_later(struct node *node, const struct rpc_reply *reply, const char *socket)
{
    bool first = node->pods.backoff == 0;

    if (first)
        say_info("the kubelet's pods cannot be asked for yet (%s): %s: %s", socket, rpc_code_name(reply->code), reply->message);
    else if (!node->pods.told)
        say_warning("the kubelet's pods cannot be asked for (%s): %s: %s; allocations have no pod's name", socket,
                    rpc_code_name(reply->code), reply->message);
    node->pods.told |= !first;
    node->pods.backoff = backoff_after(node->pods.backoff, node->settings.ask_pods);
    node->pods.next = now_seconds() + node->pods.backoff;
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
    if (list) {
        node->pods.told = false;
        node->pods.backoff = 0;
    } else {
        retry_later(node, &asking->reply, asking->socket);
    }
    tell_unseen(node, asking);
    if (cdi_root_open(&root, node->root, true, &error)) {
        say_error("%s", error.text);
    } else {
        judge_all(node, &root, asking, list && is_whole(node, list) ? list : NULL);
        remove_left(node, &root, asking);
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

static void look_for(void *context, const char *name)
{
    struct asking *asking = context;

    if (asking->looks < LOOKS)
        snprintf(asking->look[asking->looks++].name, sizeof(asking->look->name), "%s", name);
}

static void choose(struct asking *asking)
{
    struct node *node = asking->node;
    struct cli_error error = {""};
    struct cdi_root root;

    for (unsigned i = 0; i < node->given.count; i++) {
        if (node->given.one[i].ended)
            look_for(asking, node->given.one[i].name);
    }
    asking->records = asking->looks;
    if (cdi_root_open(&root, node->root, false, &error) == 0)
        given_left(&node->given, &root, node->settings.keep, look_for, asking);
    if (root.fd >= 0)
        close(root.fd);
}

void pods_check(struct node *node)
{
    struct asking *asking;

    if (node->pods.busy || now_seconds() < node->pods.next)
        return;
    node->pods.next = now_seconds() + node->settings.ask_pods;
    asking = calloc(1, sizeof(*asking));
    if (!asking)
        return;
    asking->node = node;
    asking->proc = mounts_proc(node->proc);
    snprintf(asking->socket, sizeof(asking->socket), "%s", node->settings.pods);
    choose(asking);
    if (node->given.count || asking->looks)
        node->pods.busy = job_start(ask, answered, asking) == 0;
    if (!node->pods.busy)
        free(asking);
}
