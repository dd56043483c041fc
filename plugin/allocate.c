/* SPDX-License-Identifier: Apache-2.0 */
/* Allocate: what a container gets for its devices, and its files on the host. All or nothing. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "mig.h"
#include "node.h"

#define GPU_KIND "nvidia.com/gpu" /* what the NVIDIA Container Toolkit names its CDI devices */

/* Of a GPU that a container was not given but sees all the same (a pod can set NVIDIA_VISIBLE_DEVICES): too little for a context. */
#define OTHER_GPUS "1MiB"

#define RESTORE_MOST  60.0
#define RESTORE_AGAIN 5.0 /* seconds: where the library is installed by a container that comes later */

/* ---- the limits */

static bool has_key(const char *lines, const char *key, size_t length)
{
    for (const char *line = lines; *line; line = strchr(line, '\n') + 1) {
        if (strncmp(line, key, length) == 0 && line[length] == ' ')
            return true;
    }
    return false;
}

/* What holds for every container, where the slice says nothing else. */
static int add_common(const struct settings *settings, const char *own, struct cdi_budget *budget, struct cli_error *error)
{
    if (settings->share && !has_key(own, "mode", 4) && cdi_limit(budget, error, "mode = share\n"))
        return -1;
    for (const char *line = settings->others; *line; line = strchr(line, '\n') + 1) {
        if (!has_key(own, line, strcspn(line, " ")) && cdi_limit(budget, error, "%.*s\n", (int)strcspn(line, "\n"), line))
            return -1;
    }
    return *own ? cdi_limit(budget, error, "%s", own) : 0;
}

static int make_limits(const struct node *node, int slice, unsigned gpu, uint64_t bytes, struct cdi_budget *budget,
                       struct cli_error *error)
{
    const struct settings *settings = &node->settings;
    const struct slice *is = slice == OFFER_UNITS ? NULL : &settings->slice[slice];
    unsigned part = offer_part(&node->offer, gpu, bytes);
    bool by_policy = !is || (!*is->is.compute && !is->is.weighted);
    char size[UNITS_TEXT_MAX];

    *budget->limits = '\0';
    if (add_common(settings, is ? is->others : "", budget, error) || cdi_limit(budget, error, "vram = " OTHER_GPUS "\n") ||
        (by_policy && settings->compute == POLICY_WEIGHT && cdi_limit(budget, error, "weight = %u\n", part)))
        return -1;
    if (bytes % PLUGIN_UNIT == 0)
        snprintf(size, sizeof(size), "%llu GiB", (unsigned long long)(bytes / PLUGIN_UNIT));
    else
        snprintf(size, sizeof(size), "%llu", (unsigned long long)bytes);
    if (cdi_limit(budget, error, "[gpu %s]\nvram = %s\n", node->offer.gpu[gpu].is.uuid, size))
        return -1;
    if (by_policy && settings->compute == POLICY_PROPORTIONAL)
        return cdi_limit(budget, error, "compute = %u.%02u%%\n", part / 100, part % 100);
    return is && *is->is.compute ? cdi_limit(budget, error, "compute = %s\n", is->is.compute) : 0;
}

/* ---- the answer */

static void add_device(const struct node *node, struct answer *answer, const char *name)
{
    char seen[512];

    snprintf(seen, sizeof(seen), "%s/%s", node->settings.dev, name);
    if (answer->devices < ANSWER_DEVICES && access(seen, F_OK) == 0)
        snprintf(answer->device[answer->devices++], sizeof(*answer->device), "/dev/%s", name);
}

/* The GPU itself: by its nodes, and by a name that brings the driver's libraries. */
static void add_gpu(const struct node *node, const struct gpu *gpu, struct answer *answer)
{
    char name[64];
    int caps[2];

    if (node->settings.driver_cdi) {
        snprintf(answer->cdi_device[answer->cdi++], sizeof(*answer->cdi_device), GPU_KIND "=%s", gpu->uuid);
        return;
    }
    snprintf(answer->visible, sizeof(answer->visible), "%s", gpu->uuid);
    snprintf(name, sizeof(name), "nvidia%d", gpu->minor);
    if (gpu->minor >= 0)
        add_device(node, answer, name);
    add_device(node, answer, "nvidiactl");
    add_device(node, answer, "nvidia-uvm");
    add_device(node, answer, "nvidia-uvm-tools");
    for (unsigned i = 0, count = mig_capabilities(MIG_CAPABILITIES, gpu, caps); i < count; i++) {
        snprintf(name, sizeof(name), "nvidia-caps/nvidia-cap%d", caps[i]);
        add_device(node, answer, name);
    }
}

static void make_answer(const struct node *node, unsigned gpu, const char *name, const char *root, const char *library,
                        struct answer *answer)
{
    memset(answer, 0, sizeof(*answer));
    snprintf(answer->name, sizeof(answer->name), "%s", name);
    add_gpu(node, &node->offer.gpu[gpu].is, answer);
    if (node->settings.answer_cdi) {
        snprintf(answer->cdi_device[answer->cdi++], sizeof(*answer->cdi_device), CDI_VENDOR "/" CDI_CLASS "=%s", name);
    } else {
        cdi_mounts(answer->mount, root, name, library);
        answer->mounts = CDI_MOUNTS;
    }
}

int allocate_preview(struct node *node, int slice, unsigned gpu, unsigned count, struct cdi_budget *budget, struct answer *answer,
                     struct cli_error *error)
{
    char library[PATH_MAX];

    memset(budget, 0, sizeof(*budget));
    snprintf(budget->name, sizeof(budget->name), "k8s-00000000");
    if (make_limits(node, slice, gpu, offer_bytes(&node->offer, &node->settings, slice, gpu, count), budget, error) ||
        cdi_check(budget, error) || library_find(node->library, library, error))
        return -1;
    make_answer(node, gpu, budget->name, node->root, library, answer);
    return 0;
}

/* ---- what was asked for */

static const char *advice(int slice)
{
    return slice == OFFER_UNITS
               ? "the free units of this node are spread over several GPUs: ask for less, or delete the pod so that it is "
                 "scheduled again where one GPU has room"
               : "a container takes one slice: ask for 1, or for a larger slice";
}

static enum rpc_code check_ids(const struct node *node, int slice, char *const *ids, size_t count, unsigned *gpu,
                               struct rpc_reply *reply)
{
    const char *resource = offer_resource(&node->settings, slice);
    struct offer_device device, first = {0};

    if (!count)
        return rpc_fail(reply, RPC_INVALID_ARGUMENT, "a container without a device of " PLUGIN_VENDOR "%s", resource);
    for (size_t i = 0; i < count; i++) {
        if (!offer_find(&node->offer, &node->settings, slice, ids[i], &device))
            return rpc_fail(reply, RPC_NOT_FOUND, "this node has no device '%.100s' of " PLUGIN_VENDOR "%s (now)", ids[i],
                            resource);
        for (size_t j = 0; j < i; j++) {
            if (strcmp(ids[j], ids[i]) == 0)
                return rpc_fail(reply, RPC_INVALID_ARGUMENT, "the device '%.100s' is asked for twice", ids[i]);
        }
        if (i == 0)
            first = device;
        if (device.gpu != first.gpu || (slice != OFFER_UNITS && i))
            return rpc_fail(reply, RPC_FAILED_PRECONDITION,
                            "%zu devices of " PLUGIN_VENDOR
                            "%s on more than one GPU or slice (%s and %s); a container's budget is on one "
                            "GPU: %s",
                            count, resource, ids[0], ids[i], advice(slice));
    }
    *gpu = first.gpu;
    if (!node->offer.gpu[*gpu].is.healthy)
        return rpc_fail(reply, RPC_FAILED_PRECONDITION, "%s is unhealthy: %s", node->offer.gpu[*gpu].is.uuid,
                        node->offer.gpu[*gpu].is.reason);
    return RPC_OK;
}

/* ---- what others have */

/* Until it is known to have ended, which pods.c finds out. */
static bool is_in_use(const struct given *record)
{
    return !record->missing_since;
}

/* What is asked for: who has one of these devices has ended, or is of the same pod. */
struct asked {
    const char *resource;
    char *const *ids;
    size_t count;
};

static bool counts(const struct given *record, const struct asked *asked)
{
    return is_in_use(record) && !given_has(record, asked->resource, asked->ids, asked->count);
}

/* The bytes of a record's devices that are not counted with an earlier one's: containers of one pod can have the same ones one after the other, and those of
 * another configuration's time be of another size. */
static uint64_t bytes_in_use(const struct node *node, unsigned number, const struct asked *asked)
{
    const struct given *record = &node->given.one[number];
    uint64_t bytes = 0, size = record->bytes / record->ids;

    for (unsigned i = 0; i < record->ids; i++) {
        char *const id[] = {record->id[i]};
        uint64_t counted = 0;

        for (unsigned j = 0; j < number; j++) {
            const struct given *other = &node->given.one[j];

            if (other->bytes / other->ids > counted && given_has(other, record->resource, id, 1) && counts(other, asked))
                counted = other->bytes / other->ids;
        }
        bytes += size > counted ? size - counted : 0;
    }
    return bytes;
}

/* Devices that were given out before the configuration changed can overlap with those that are offered now. */
static enum rpc_code check_room(const struct node *node, const char *resource, char *const *ids, size_t count, unsigned gpu,
                                uint64_t bytes, struct rpc_reply *reply)
{
    const struct offer_gpu *on = &node->offer.gpu[gpu];
    const struct asked asked = {resource, ids, count};
    uint64_t taken = 0;

    for (unsigned i = 0; i < node->given.count; i++) {
        const struct given *record = &node->given.one[i];

        if (strcmp(record->uuid, on->is.uuid) == 0 && counts(record, &asked))
            taken += bytes_in_use(node, i, &asked);
    }
    if (taken + bytes <= on->room)
        return RPC_OK;
    return rpc_fail(
        reply, RPC_FAILED_PRECONDITION,
        "%s has %llu MiB to hand out, of which running containers have %llu MiB: the configuration was changed while they "
        "ran; %s",
        on->is.uuid, (unsigned long long)(on->room >> 20), (unsigned long long)(taken >> 20),
        node->pods.told ? "which have ended is not known, for the kubelet's pods cannot be asked for" : "wait until they end");
}

/* ---- files on the host */

static enum rpc_code fail_with(struct rpc_reply *reply, const struct cli_error *error)
{
    return rpc_fail(reply, RPC_FAILED_PRECONDITION, "%s", error->text);
}

static int put_spec(const struct node *node, const struct cdi_root *root, const char *name, const char *library, const char *path,
                    struct cli_error *error)
{
    struct cdi_spec spec = {0};
    int result;

    if (mkdir(node->settings.cdi, 0755) < 0 && errno != EEXIST)
        return cli_fail(error, -1, "cannot make %s: %s", node->settings.cdi, strerror(errno));
    result = cdi_spec_open(&spec, path, CDI_VENDOR "/" CDI_CLASS, error);
    if (!result)
        result = cdi_spec_put(&spec, root, name, NULL, library, error);
    if (!result)
        result = cdi_spec_write(&spec, error);
    cdi_spec_close(&spec);
    return result;
}

/* First the directory, which says in which spec its device is: what is found without a record is removed from there, too. */
static int make_host(const struct node *node, const struct cdi_root *root, const struct cdi_budget *budget, bool cdi,
                     const char *library, struct cli_error *error)
{
    char spec[PATH_MAX];
    int result = cdi_check(budget, error);

    snprintf(spec, sizeof(spec), "%s/" PLUGIN_SPEC, node->settings.cdi);
    if (!result)
        result = cdi_host_make(root, budget, cdi ? spec : NULL, error);
    return result || !cdi ? result : put_spec(node, root, budget->name, library, spec, error);
}

static enum rpc_code make_files(struct node *node, const struct cdi_root *root, const struct given *record,
                                const struct cdi_budget *budget, const char *library, struct rpc_reply *reply)
{
    struct cli_error error = {""};
    int result = make_host(node, root, budget, record->cdi, library, &error);

    if (!result) {
        result = given_add(&node->given, root, record);
        if (result < 0)
            cli_fail(&error, -1, "cannot record %s/%s: %s", root->path, budget->name, strerror(-result));
    }
    if (!result)
        return RPC_OK;
    given_remove(&node->given, root, budget->name, NULL);
    return fail_with(reply, &error);
}

/* The time of day when this was first asked, and what has passed since: where the clock is set meanwhile, nothing becomes older by that. */
static int64_t time_of_day(void)
{
    static int64_t first;
    static double asked;

    if (!first) {
        first = time(NULL);
        asked = now_seconds();
    }
    return first + (int64_t)(now_seconds() - asked);
}

/* The clock may have been set back since one was made: what is given out later must not seem older. */
static int64_t later_than_all(const struct given_list *given, int64_t now)
{
    for (unsigned i = 0; i < given->count; i++)
        now = given->one[i].made > now ? given->one[i].made : now;
    return now;
}

static enum rpc_code give(struct node *node, const struct cdi_root *root, int slice, char *const *ids, size_t count, unsigned gpu,
                          const char *library, struct answer *answer, struct rpc_reply *reply)
{
    uint64_t bytes = offer_bytes(&node->offer, &node->settings, slice, gpu, (unsigned)count);
    struct cdi_budget budget = {0};
    struct given record = {.bytes = bytes,
                           .made = later_than_all(&node->given, time_of_day()),
                           .ids = (unsigned)count,
                           .limits = budget.limits,
                           .cdi = node->settings.answer_cdi};
    struct cli_error error = {""};
    enum rpc_code code;

    snprintf(record.resource, sizeof(record.resource), "%s", offer_resource(&node->settings, slice));
    snprintf(record.uuid, sizeof(record.uuid), "%s", node->offer.gpu[gpu].is.uuid);
    code = check_room(node, record.resource, ids, count, gpu, bytes, reply);
    if (code != RPC_OK)
        return code;
    if (given_name(root, budget.name) < 0)
        return rpc_fail(reply, RPC_INTERNAL, "cannot find a name for the budget in %s", root->path);
    memcpy(record.name, budget.name, sizeof(record.name));
    CLEANUP_FREE char(*copies)[PLUGIN_ID] = calloc(count, sizeof(*copies));
    record.id = copies;
    if (!record.id)
        return rpc_fail(reply, RPC_INTERNAL, "out of memory");
    for (size_t i = 0; i < count; i++)
        snprintf(record.id[i], sizeof(*record.id), "%s", ids[i]);
    if (make_limits(node, slice, gpu, bytes, &budget, &error))
        return fail_with(reply, &error);
    code = make_files(node, root, &record, &budget, library, reply);
    if (code == RPC_OK) {
        make_answer(node, gpu, budget.name, root->path, library, answer);
        say_info("%s: %zu of " PLUGIN_VENDOR "%s on %s", budget.name, count, record.resource, record.uuid);
    }
    return code;
}

enum rpc_code allocate(struct node *node, int slice, char *const *ids, size_t count, struct answer *answer, struct rpc_reply *reply)
{
    struct cli_error error = {""};
    struct cdi_root root;
    char library[PATH_MAX];
    unsigned gpu = 0;
    enum rpc_code code = check_ids(node, slice, ids, count, &gpu, reply);

    if (code != RPC_OK)
        return code;
    if (library_find(node->library, library, &error))
        return fail_with(reply, &error);
    if (cdi_root_open(&root, node->root, true, &error) == 0)
        code = give(node, &root, slice, ids, count, gpu, library, answer, reply);
    else
        code = fail_with(reply, &error);
    if (root.fd >= 0)
        close(root.fd);
    return code;
}

void allocate_undo(struct node *node, const struct answer *answer)
{
    struct cli_error error = {""};
    struct cdi_root root;

    if (cdi_root_open(&root, node->root, false, &error) == 0)
        given_remove(&node->given, &root, answer->name, "another container of the request could not be served");
    else
        say_warning("%s", error.text);
    if (root.fd >= 0)
        close(root.fd);
}

/* ---- after a reboot */

struct restoring {
    const struct node *node;
    const struct cdi_root *root;
    const char *library;
};

/* What a runtime has made there meanwhile, since it found nothing to mount, is in the way. */
static int restore(void *context, const struct given *record)
{
    const struct restoring *restoring = context;
    struct cli_error error = {""};
    struct cdi_budget budget = {0};

    memcpy(budget.name, record->name, sizeof(budget.name));
    snprintf(budget.limits, sizeof(budget.limits), "%s", record->limits);
    if (cdi_host_remove(restoring->root, record->name, &error) == 0 &&
        make_host(restoring->node, restoring->root, &budget, record->cdi, restoring->library, &error) == 0)
        return 0;
    say_error("%s cannot be made again: %s", record->name, error.text);
    return -1;
}

void allocate_restore(struct node *node)
{
    static double next, wait = RESTORE_AGAIN;
    static bool told;
    struct cli_error error = {""};
    struct cdi_root root = {.fd = -1};
    char library[PATH_MAX];
    struct restoring restoring = {node, &root, library};

    if (node->restored || now_seconds() < next)
        return;
    next = now_seconds() + wait;
    if (library_find(node->library, library, &error) == 0 && cdi_root_open(&root, node->root, true, &error) == 0) {
        node->restored = given_restore(&node->given, &root, restore, &restoring);
        wait = wait * 2 < RESTORE_MOST ? wait * 2 : RESTORE_MOST;
    } else if (!told) {
        say_warning("%s; nothing can be given out without", error.text);
        told = true;
    }
    if (root.fd >= 0)
        close(root.fd);
}
