/* SPDX-License-Identifier: Apache-2.0 */
/* The methods that the kubelet calls, between protobuf's messages and what the other files do. */
#include <string.h>

#include "deviceplugin.pb-c.h"
#include "node.h"

/* A message becomes the reply's bytes. */
static void reply_with(struct rpc_reply *reply, const ProtobufCMessage *message)
{
    size_t length = protobuf_c_message_get_packed_size(message);

    reply->body = malloc(length ? length : 1);
    if (!reply->body) {
        rpc_fail(reply, RPC_INTERNAL, "out of memory");
        return;
    }
    reply->length = protobuf_c_message_pack(message, reply->body);
    reply->code = RPC_OK;
}

static void *unpack(const ProtobufCMessageDescriptor *descriptor, const uint8_t *request, size_t length, struct rpc_reply *reply)
{
    void *message = protobuf_c_message_unpack(descriptor, NULL, length, request);

    if (!message)
        rpc_fail(reply, RPC_INVALID_ARGUMENT, "not a message of type %s", descriptor->name);
    return message;
}

static void *or_fail(void *memory, struct rpc_reply *reply)
{
    if (!memory)
        rpc_fail(reply, RPC_INTERNAL, "out of memory");
    return memory;
}

/* ---- GetDevicePluginOptions, PreStartContainer */

static void get_options(void *argument, const uint8_t *request, size_t length, struct rpc_reply *reply)
{
    V1beta1__DevicePluginOptions options = V1BETA1__DEVICE_PLUGIN_OPTIONS__INIT;

    (void)argument;
    (void)request;
    (void)length;
    options.get_preferred_allocation_available = true;
    reply_with(reply, &options.base);
}

static void pre_start(void *argument, const uint8_t *request, size_t length, struct rpc_reply *reply)
{
    V1beta1__PreStartContainerResponse response = V1BETA1__PRE_START_CONTAINER_RESPONSE__INIT;

    (void)argument;
    (void)request;
    (void)length;
    reply_with(reply, &response.base);
}

/* ---- ListAndWatch */

struct listing {
    V1beta1__Device device;
    V1beta1__TopologyInfo topology;
    V1beta1__NUMANode numa, *numas[1];
    char id[PLUGIN_ID];
};

static void list_one(const struct service *service, struct offer_device device, struct listing *listing)
{
    const struct node *node = service->node;
    const struct gpu *gpu = &node->offer.gpu[device.gpu].is;

    v1beta1__device__init(&listing->device);
    v1beta1__topology_info__init(&listing->topology);
    v1beta1__numanode__init(&listing->numa);
    offer_id(&node->offer, &node->settings, service->slice, device, listing->id);
    listing->device.id = listing->id;
    listing->device.health = gpu->healthy ? "Healthy" : "Unhealthy";
    if (gpu->numa < 0)
        return;
    listing->numa.id = gpu->numa;
    listing->numas[0] = &listing->numa;
    listing->topology.nodes = listing->numas;
    listing->topology.n_nodes = 1;
    listing->device.topology = &listing->topology;
}

static void list(void *argument, const uint8_t *request, size_t length, struct rpc_reply *reply)
{
    V1beta1__ListAndWatchResponse response = V1BETA1__LIST_AND_WATCH_RESPONSE__INIT;
    const struct service *service = argument;
    unsigned count;
    CLEANUP_FREE struct offer_device *devices = offer_devices(&service->node->offer, service->slice, &count);
    CLEANUP_FREE struct listing *listings = calloc(count + 1, sizeof(*listings));
    CLEANUP_FREE V1beta1__Device **all = calloc(count + 1, sizeof(*all));

    (void)request;
    (void)length;
    if (!or_fail(listings, reply) || !or_fail(all, reply))
        return;
    for (unsigned i = 0; i < count; i++) {
        list_one(service, devices[i], &listings[i]);
        all[i] = &listings[i].device;
    }
    response.devices = all;
    response.n_devices = count;
    reply_with(reply, &response.base);
}

#define LIST_AND_WATCH "/v1beta1.DevicePlugin/ListAndWatch"

void service_tell(struct service *service)
{
    struct rpc_reply reply = {0};

    if (!service->server)
        return;
    list(service, NULL, 0, &reply);
    if (reply.code == RPC_OK)
        rpc_server_send(service->server, LIST_AND_WATCH, reply.body, reply.length);
    free(reply.body);
}

bool service_is_heard(const struct service *service)
{
    return rpc_server_streams(service->server, LIST_AND_WATCH) > 0;
}

/* ---- GetPreferredAllocation */

static unsigned find_all(const struct service *service, char **ids, size_t count, struct offer_device *devices)
{
    const struct node *node = service->node;
    unsigned found = 0;

    for (size_t i = 0; i < count; i++)
        found += offer_find(&node->offer, &node->settings, service->slice, ids[i], &devices[found]);
    return found;
}

/* What earlier containers of the request were told is not for later ones. */
static unsigned without(struct offer_device *devices, unsigned count, const struct offer_device *taken, unsigned taken_count)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < count; i++) {
        bool is_taken = false;

        for (unsigned j = 0; j < taken_count; j++)
            is_taken |= devices[i].gpu == taken[j].gpu && devices[i].number == taken[j].number;
        if (!is_taken)
            devices[kept++] = devices[i];
    }
    return kept;
}

struct preference {
    V1beta1__ContainerPreferredAllocationResponse response;
    char (*id)[PLUGIN_ID], **ids;
};

static bool prefer_one(const struct service *service, const V1beta1__ContainerPreferredAllocationRequest *request,
                       struct offer_device **taken, unsigned *taken_count, struct preference *preference)
{
    const struct node *node = service->node;
    size_t most = request->n_available_device_ids + request->n_must_include_device_ids + 1;
    CLEANUP_FREE struct offer_device *available = calloc(most, sizeof(*available)), *must = calloc(most, sizeof(*must)),
                                     *chosen = calloc(most, sizeof(*chosen));
    struct offer_device *grown = realloc(*taken, (*taken_count + most) * sizeof(*grown));
    unsigned count, must_count, size = request->allocation_size > 0 ? (unsigned)request->allocation_size : 0;

    if (grown)
        *taken = grown;
    preference->id = calloc(most, sizeof(*preference->id));
    preference->ids = calloc(most, sizeof(*preference->ids));
    if (!available || !must || !chosen || !grown || !preference->id || !preference->ids)
        return false;
    count = find_all(service, request->available_device_ids, request->n_available_device_ids, available);
    must_count = find_all(service, request->must_include_device_ids, request->n_must_include_device_ids, must);
    count = without(available, count, *taken, *taken_count);
    if (size > count + must_count)
        size = count + must_count;
    count = offer_prefer(&node->settings, service->slice, available, count, must, must_count, size, chosen);
    v1beta1__container_preferred_allocation_response__init(&preference->response);
    for (unsigned i = 0; i < count; i++) {
        (*taken)[(*taken_count)++] = chosen[i];
        offer_id(&node->offer, &node->settings, service->slice, chosen[i], preference->id[i]);
        preference->ids[i] = preference->id[i];
    }
    preference->response.device_ids = preference->ids;
    preference->response.n_device_ids = count;
    return true;
}

static void prefer_all(const struct service *service, const V1beta1__PreferredAllocationRequest *asked, struct rpc_reply *reply)
{
    V1beta1__PreferredAllocationResponse response = V1BETA1__PREFERRED_ALLOCATION_RESPONSE__INIT;
    size_t count = asked->n_container_requests;
    CLEANUP_FREE struct preference *preferences = calloc(count + 1, sizeof(*preferences));
    CLEANUP_FREE V1beta1__ContainerPreferredAllocationResponse **all = calloc(count + 1, sizeof(*all));
    CLEANUP_FREE struct offer_device *taken = NULL;
    unsigned taken_count = 0;
    bool good = preferences && all;

    for (size_t i = 0; i < count && good; i++) {
        good = prefer_one(service, asked->container_requests[i], &taken, &taken_count, &preferences[i]);
        all[i] = &preferences[i].response;
    }
    response.container_responses = all;
    response.n_container_responses = count;
    if (good)
        reply_with(reply, &response.base);
    else
        rpc_fail(reply, RPC_INTERNAL, "out of memory");
    for (size_t i = 0; i < count && preferences; i++) {
        free(preferences[i].id);
        free(preferences[i].ids);
    }
}

#define CONTAINERS_MOST 64 /* of one request; the kubelet asks for one */

static bool are_too_many(size_t count, struct rpc_reply *reply)
{
    if (count && count <= CONTAINERS_MOST)
        return false;
    rpc_fail(reply, RPC_INVALID_ARGUMENT, "%zu containers in one request: 1 to %u can be", count, CONTAINERS_MOST);
    return true;
}

static void prefer(void *argument, const uint8_t *request, size_t length, struct rpc_reply *reply)
{
    V1beta1__PreferredAllocationRequest *asked = unpack(&v1beta1__preferred_allocation_request__descriptor, request, length, reply);

    if (!asked)
        return;
    if (!are_too_many(asked->n_container_requests, reply))
        prefer_all(argument, asked, reply);
    protobuf_c_message_free_unpacked(&asked->base, NULL);
}

/* ---- Allocate */

struct packed {
    struct answer answer;
    V1beta1__ContainerAllocateResponse response;
    V1beta1__ContainerAllocateResponse__EnvsEntry env, *envs[1];
    V1beta1__Mount mount[CDI_MOUNTS], *mounts[CDI_MOUNTS];
    V1beta1__DeviceSpec device[ANSWER_DEVICES], *devices[ANSWER_DEVICES];
    V1beta1__CDIDevice cdi[2], *cdis[2];
};

static void pack(struct packed *packed)
{
    struct answer *answer = &packed->answer;
    V1beta1__ContainerAllocateResponse *response = &packed->response;

    v1beta1__container_allocate_response__init(response);
    v1beta1__container_allocate_response__envs_entry__init(&packed->env);
    packed->env.key = "NVIDIA_VISIBLE_DEVICES";
    packed->env.value = answer->visible;
    packed->envs[0] = &packed->env;
    response->envs = packed->envs;
    response->n_envs = *answer->visible != '\0';
    for (unsigned i = 0; i < answer->mounts; i++) {
        v1beta1__mount__init(&packed->mount[i]);
        packed->mount[i].container_path = answer->mount[i].container;
        packed->mount[i].host_path = answer->mount[i].host;
        packed->mount[i].read_only = !answer->mount[i].writable;
        packed->mounts[i] = &packed->mount[i];
    }
    response->mounts = packed->mounts;
    response->n_mounts = answer->mounts;
    for (unsigned i = 0; i < answer->devices; i++) {
        v1beta1__device_spec__init(&packed->device[i]);
        packed->device[i].container_path = packed->device[i].host_path = answer->device[i];
        packed->device[i].permissions = "rw";
        packed->devices[i] = &packed->device[i];
    }
    response->devices = packed->devices;
    response->n_devices = answer->devices;
    for (unsigned i = 0; i < answer->cdi; i++) {
        v1beta1__cdidevice__init(&packed->cdi[i]);
        packed->cdi[i].name = answer->cdi_device[i];
        packed->cdis[i] = &packed->cdi[i];
    }
    response->cdi_devices = packed->cdis;
    response->n_cdi_devices = answer->cdi;
}

static void allocate_all(struct service *service, const V1beta1__AllocateRequest *asked, struct rpc_reply *reply)
{
    V1beta1__AllocateResponse response = V1BETA1__ALLOCATE_RESPONSE__INIT;
    size_t count = asked->n_container_requests, given = 0;
    CLEANUP_FREE struct packed *packed = calloc(count, sizeof(*packed));
    CLEANUP_FREE V1beta1__ContainerAllocateResponse **all = calloc(count, sizeof(*all));

    if (!or_fail(packed, reply) || !or_fail(all, reply))
        return;
    reply->code = RPC_OK;
    while (given < count && reply->code == RPC_OK) {
        const V1beta1__ContainerAllocateRequest *one = asked->container_requests[given];

        if (allocate(service->node, service->slice, one->devices_ids, one->n_devices_ids, &packed[given].answer, reply) != RPC_OK)
            break;
        pack(&packed[given]);
        all[given] = &packed[given].response;
        given++;
    }
    response.container_responses = all;
    response.n_container_responses = given;
    if (reply->code == RPC_OK)
        reply_with(reply, &response.base);
    if (reply->code == RPC_OK)
        return;
    say_error("Allocate of " PLUGIN_VENDOR "%s: %s", service->name, reply->message);
    while (given)
        allocate_undo(service->node, &packed[--given].answer);
}

static void call_allocate(void *argument, const uint8_t *request, size_t length, struct rpc_reply *reply)
{
    struct service *service = argument;
    V1beta1__AllocateRequest *asked = unpack(&v1beta1__allocate_request__descriptor, request, length, reply);

    if (!asked)
        return;
    if (!are_too_many(asked->n_container_requests, reply))
        allocate_all(service, asked, reply);
    protobuf_c_message_free_unpacked(&asked->base, NULL);
    pods_soon(service->node);
}

const struct rpc_method service_methods[] = {
    {"/v1beta1.DevicePlugin/GetDevicePluginOptions", get_options, false}, {LIST_AND_WATCH, list, true},
    {"/v1beta1.DevicePlugin/GetPreferredAllocation", prefer, false},      {"/v1beta1.DevicePlugin/Allocate", call_allocate, false},
    {"/v1beta1.DevicePlugin/PreStartContainer", pre_start, false},
};
const unsigned service_method_count = sizeof(service_methods) / sizeof(*service_methods);
