/* SPDX-License-Identifier: Apache-2.0 */
/* Being known to the kubelet. When it starts it deletes every socket in its directory and knows no plugin: then each resource listens and registers anew.
 *
 * A kubelet connects to the plugin and asks for its options before it answers Register, so that is called from a thread of its own. */
#include <errno.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "deviceplugin.pb-c.h"
#include "node.h"

#define REGISTER_MS 15000 /* the kubelet itself gives up connecting to us after 10 s */
#define BACKOFF_MAX 30.0
#define LOST_AFTER  3.0  /* seconds after which a kubelet that is there and does not listen to a list any more has lost it */
#define NEVER_AFTER 15.0 /* and one that never did: it tries for 10 s to connect */
#define SOCKET      "kubelet.sock"
#define NO_SLICE    (-2)

/* ---- registration */

struct registration {
    struct node *node;
    char kubelet[PATH_MAX];
    unsigned long long socket;
    unsigned count;
    struct {
        char endpoint[PLUGIN_RESOURCE + 32], resource[PLUGIN_RESOURCE + sizeof(PLUGIN_VENDOR)];
        struct rpc_reply reply;
    } one[SERVICES];
};

static void register_one(const char *kubelet, char *endpoint, char *resource, struct rpc_reply *reply)
{
    V1beta1__DevicePluginOptions options = V1BETA1__DEVICE_PLUGIN_OPTIONS__INIT;
    V1beta1__RegisterRequest request = V1BETA1__REGISTER_REQUEST__INIT;
    uint8_t bytes[512];

    options.get_preferred_allocation_available = true;
    request.version = "v1beta1";
    request.endpoint = endpoint;
    request.resource_name = resource;
    request.options = &options;
    rpc_call(kubelet, "/v1beta1.Registration/Register", bytes, v1beta1__register_request__pack(&request, bytes), REGISTER_MS,
             reply);
    free(reply->body);
    reply->body = NULL;
}

static void register_work(void *argument)
{
    struct registration *all = argument;

    for (unsigned i = 0; i < all->count; i++)
        register_one(all->kubelet, all->one[i].endpoint, all->one[i].resource, &all->one[i].reply);
}

static void retry_later(struct node *node)
{
    node->reach.backoff = backoff_after(node->reach.backoff, BACKOFF_MAX);
    node->reach.next = now_seconds() + node->reach.backoff;
    say_info("trying again in %g s", node->reach.backoff);
}

static void tell_registered(const struct node *node, const char *resource, const struct registration *all,
                            const struct rpc_reply *reply)
{
    if (reply->code == RPC_OK)
        say_info("%s is registered with the kubelet", resource);
    else
        (node->reach.backoff == 0 && reply->code == RPC_UNAVAILABLE ? say_info : say_error)(
            "%s cannot be registered with the kubelet (%s): %s: %s", resource, all->kubelet, rpc_code_name(reply->code),
            reply->message);
}

static void register_done(void *argument)
{
    struct registration *all = argument;
    struct node *node = all->node;
    bool failed = false;

    node->reach.busy = false;
    /* What came of asking a kubelet that has been replaced says nothing of this one. */
    if (all->socket != node->reach.socket) {
        free(all);
        return;
    }

    for (unsigned i = 0; i < all->count; i++) {
        const struct rpc_reply *reply = &all->one[i].reply;

        for (unsigned j = 0; j < SERVICES; j++) {
            struct service *service = &node->service[j];

            if (strcmp(service->name, all->one[i].resource + strlen(PLUGIN_VENDOR)) != 0 || !service->asked)
                continue;
            service->asked = false;
            service->registered = reply->code == RPC_OK;
            service->heard = false;
            service->unheard = 0;
        }
        failed |= reply->code != RPC_OK;
        tell_registered(node, all->one[i].resource, all, reply);
    }
    if (failed)
        retry_later(node);
    else
        node->reach.next = node->reach.backoff = 0;
    free(all);
}

static void register_all(struct node *node, unsigned long long socket)
{
    struct registration *all = calloc(1, sizeof(*all));
    int result;

    if (!all)
        return;
    all->node = node;
    all->socket = socket;
    snprintf(all->kubelet, sizeof(all->kubelet), "%s/" SOCKET, node->kubelet);
    for (unsigned i = 0; i < SERVICES; i++) {
        struct service *service = &node->service[i];

        if (!service->server || service->registered)
            continue;
        service->asked = true;
        snprintf(all->one[all->count].endpoint, sizeof(all->one->endpoint), "%s", strrchr(service->socket, '/') + 1);
        snprintf(all->one[all->count].resource, sizeof(all->one->resource), PLUGIN_VENDOR "%s", service->name);
        all->count++;
    }
    result = all->count ? job_start(register_work, register_done, all) : 0;
    node->reach.busy = all->count && result == 0;
    if (result < 0)
        say_error("cannot register: %s", strerror(-result));
    if (!node->reach.busy)
        free(all);
}

/* ---- sockets */

static void listen_on(struct service *service)
{
    struct node *node = service->node;
    struct stat file;
    int error = 0;

    service->registered = service->asked = false;
    service->server = rpc_server_new(node->loop, service->socket, service_methods, service_method_count, service, &error);
    if (service->server || error == service->error) {
        service->error = error;
        return;
    }
    service->error = error;
    if (error == -EADDRINUSE && (lstat(service->socket, &file) < 0 || S_ISSOCK(file.st_mode))) {
        say_error("another plugin listens on %s: only one can offer " PLUGIN_VENDOR "%s on a node; ending", service->socket,
                  service->name);
        node->stop = true;
        node->status = 1;
    } else {
        say_error("cannot listen on %s: %s", service->socket,
                  error == -EADDRINUSE ? "something that is no socket is there" : strerror(-error));
    }
}

static void close_socket(struct service *service)
{
    if (service->server)
        rpc_server_free(service->server);
    service->server = NULL;
    service->registered = service->asked = false;
}

static int slice_of(const struct settings *settings, const char *name)
{
    for (int slice = OFFER_UNITS; slice < (int)settings->slices; slice++) {
        if (strcmp(offer_resource(settings, slice), name) == 0)
            return slice;
    }
    return NO_SLICE;
}

/* Its place in the array, which it keeps: its server has the address. */
static struct service *place_of(struct node *node, const char *name)
{
    struct service *free_place = NULL;

    for (unsigned i = 0; i < SERVICES; i++) {
        struct service *service = &node->service[i];

        if (strcmp(service->name, name) == 0)
            return service;
        if (!*service->name && !free_place)
            free_place = service;
    }
    return free_place;
}

static void begin(struct node *node, int slice)
{
    const char *name = offer_resource(&node->settings, slice);
    struct service *service = place_of(node, name);

    if (*service->name) {
        service->slice = slice;
        service_tell(service);
        return;
    }
    memset(service, 0, sizeof(*service));
    service->node = node;
    service->slice = slice;
    if ((size_t)snprintf(service->socket, sizeof(service->socket), "%s/softslice-%s.sock", node->kubelet, name) <
        sizeof(service->socket))
        snprintf(service->name, sizeof(service->name), "%s", name);
    else
        say_error(PLUGIN_VENDOR "%s: the path of its socket would be too long", name);
}

void kubelet_services(struct node *node)
{
    for (unsigned i = 0; i < SERVICES; i++) {
        struct service *service = &node->service[i];

        if (!*service->name || slice_of(&node->settings, service->name) != NO_SLICE)
            continue;
        say_info(PLUGIN_VENDOR "%s is not offered any more", service->name);
        close_socket(service);
        *service->name = '\0';
    }
    for (int slice = OFFER_UNITS; slice < (int)node->settings.slices; slice++)
        begin(node, slice);
}

/* ---- the directory */

/* Which socket it is, so that another one of the same name is told apart; 0: none. */
static unsigned long long socket_of(const struct node *node)
{
    char path[PATH_MAX];
    struct stat status;

    snprintf(path, sizeof(path), "%s/" SOCKET, node->kubelet);
    if (stat(path, &status) < 0 || !S_ISSOCK(status.st_mode))
        return 0;
    return ((unsigned long long)status.st_ino << 20 ^ (unsigned long long)status.st_ctim.tv_sec << 30 ^
            (unsigned long long)status.st_ctim.tv_nsec) |
           1;
}

static void watch_directory(struct node *node)
{
    int watch = inotify_add_watch(node->reach.watch, node->kubelet, IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_MOVED_FROM);

    node->reach.directory = watch; /* the same number for the same directory: adding it again costs nothing */
}

static void drain(void *argument)
{
    struct node *node = argument;
    char events[4096];

    while (read(node->reach.watch, events, sizeof(events)) > 0)
        ;
}

int kubelet_open(struct node *node)
{
    node->reach.watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (node->reach.watch < 0)
        return -errno;
    return rpc_loop_watch(node->loop, node->reach.watch, drain, node);
}

static void tell_missing(struct node *node, bool missing)
{
    if (missing && !node->reach.missing)
        (node->reach.directory < 0 ? say_warning : say_info)("%s%s is not there: waiting for the kubelet", node->kubelet,
                                                             node->reach.directory < 0 ? "" : "/" SOCKET);
    node->reach.missing = missing;
}

/* A kubelet that loses the stream counts the devices as gone, and does not come back by itself; one that could not connect never had it. */
static void check_heard(struct service *service)
{
    if (!service->registered || service_is_heard(service)) {
        service->heard |= service->registered;
        service->unheard = 0;
    } else if (service->unheard == 0) {
        service->unheard = now_seconds();
    } else if (now_seconds() - service->unheard >= (service->heard ? LOST_AFTER : NEVER_AFTER)) {
        say_info("the kubelet does not listen to the list of " PLUGIN_VENDOR "%s: registering again", service->name);
        service->registered = false;
    }
}

void kubelet_check(struct node *node)
{
    unsigned long long socket;
    bool unregistered = false;

    watch_directory(node);
    socket = socket_of(node);
    tell_missing(node, !socket);
    if (socket != node->reach.socket) {
        if (node->reach.before && socket)
            say_info("the kubelet was restarted: registering again");
        node->reach.before |= socket != 0;
        for (unsigned i = 0; i < SERVICES; i++)
            node->service[i].registered = node->service[i].asked = false;
        node->reach.socket = socket;
        node->reach.next = node->reach.backoff = 0;
    }
    for (unsigned i = 0; i < SERVICES && !node->stop && node->reach.directory >= 0; i++) {
        struct service *service = &node->service[i];

        if (!*service->name)
            continue;
        if (service->server && !rpc_server_is_there(service->server)) {
            say_info("%s is gone: listening again", service->socket);
            close_socket(service);
        }
        if (!service->server)
            listen_on(service);
        else
            check_heard(service);
        unregistered |= service->server && !service->registered;
    }
    if (unregistered && socket && !node->reach.busy && now_seconds() >= node->reach.next)
        register_all(node, socket);
}
