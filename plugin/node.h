/* SPDX-License-Identifier: Apache-2.0 */
/* The state of the thread that serves the kubelet: what is offered, to whom it was given, and how the kubelet is reached. */
#ifndef SOFTSLICE_PLUGIN_NODE_H
#define SOFTSLICE_PLUGIN_NODE_H

#include "offer.h"
#include "given.h"
#include "rpc.h"

#define SERVICES (PLUGIN_SLICES + 1)

/* A resource that the kubelet is offered, on a socket of its own. */
struct service {
    struct node *node;
    char name[PLUGIN_RESOURCE]; /* "vram-gib" */
    int slice;                  /* OFFER_UNITS, or the index of its slice */
    char socket[PATH_MAX];
    struct rpc_server *server; /* NULL: not listening */
    int error;                 /* that was told: why it does not listen */
    bool registered, asked;    /* asked: a registration is on its way */
    bool heard;                /* somebody had its list since it was registered */
    double unheard;            /* when nobody was first seen to have it, of now_seconds(); 0: somebody has */
};

struct node {
    const char *root, *kubelet, *library, *config; /* as given; `config` also where it is the default */
    const char *proc, *pod; /* where the node's processes are seen; "NAMESPACE/NAME" of our own pod; NULL: not known */
    bool config_named, configured, restored, stop;
    int status; /* to end with */
    struct settings settings;
    struct gpus gpus;
    struct offer offer;
    struct given_list given;
    struct rpc_loop *loop;
    struct service service[SERVICES]; /* those with a name */
    struct {
        int watch, directory;      /* inotify; the watch of the directory, or -1 */
        unsigned long long socket; /* of kubelet.sock when we registered: its inode and time, mixed; 0: none */
        double next, backoff;      /* of registrations; backoff: 0 before the first that failed */
        bool busy, before;         /* before: there was a kubelet once */
        bool missing;              /* told that its socket is */
    } reach;
    struct {
        double next, backoff; /* backoff: of questions that failed; 0: the last one did not */
        bool busy, told;      /* told that it cannot be asked */
        bool early;           /* told that its list is not whole yet */
        bool unseen;          /* told that the node's processes cannot be seen */
    } pods;
};

/* ---- service.c: what the kubelet calls */

extern const struct rpc_method service_methods[];
extern const unsigned service_method_count;

/* Tell every stream what there is now. */
void service_tell(struct service *service);

/* Whether somebody has a stream of it. */
bool service_is_heard(const struct service *service);

/* ---- allocate.c */

#define ANSWER_DEVICES 16

/* What a container gets. */
struct answer {
    char name[CONFIG_TENANT_MAX];  /* its budget's */
    unsigned mounts, devices, cdi; /* how many of each */
    struct cdi_mount mount[CDI_MOUNTS];
    char device[ANSWER_DEVICES][64]; /* paths on the node, and in the container */
    char visible[OBSERVE_UUID];      /* NVIDIA_VISIBLE_DEVICES; "": not set */
    char cdi_device[2][128];         /* "nvidia.com/gpu=GPU-..." */
};

/* Give `count` devices of a resource to a container: its files on the host are made, and it is recorded. Returns the status; on failure nothing is left
 * and *reply has the message. */
enum rpc_code allocate(struct node *node, int slice, char *const *ids, size_t count, struct answer *answer,
                       struct rpc_reply *reply);

/* Take it back: the answer was never given. */
void allocate_undo(struct node *node, const struct answer *answer);

/* Make again what containers have that were given it before a reboot: once, when it can be done. Called often. */
void allocate_restore(struct node *node);

/* What allocate() would answer for so many devices of one GPU, without making anything. */
int allocate_preview(struct node *node, int slice, unsigned gpu, unsigned count, struct cdi_budget *budget, struct answer *answer,
                     struct cli_error *error);

/* ---- kubelet.c: being known to the kubelet */

int kubelet_open(struct node *node);

/* Listen where nobody does, register what is not. Called often. */
void kubelet_check(struct node *node);

/* Let the services be those of the settings. */
void kubelet_services(struct node *node);

/* ---- pods.c: whose the allocations are */

/* Ask the kubelet for its pods if it is time to. */
void pods_check(struct node *node);

/* Ask soon: something was given out. */
void pods_soon(struct node *node);

/* ---- mounts.c: which containers still have their files */

struct look {
    char name[CONFIG_TENANT_MAX]; /* of a budget */
    bool mounted;                 /* found by mounts_look() */
};

/* Where the processes of the whole node can be seen: `named`, or /proc for a process in the first PID namespace; else NULL. */
const char *mounts_proc(const char *named);

/* See for each whether a process has its files among its mounts. 0, or -errno: not all could be seen. From any thread. */
int mounts_look(const char *proc, struct look *looks, unsigned count);

/* ---- job.c: what may take its time */

/* Run work(argument) in a thread of its own, and then done(argument) in the loop's. 0 or -errno. */
int job_open(struct rpc_loop *loop);
int job_start(void (*work)(void *argument), void (*done)(void *argument), void *argument);

/* ---- dry_run.c */

/* Print what is offered, and what a container of `units` (0: none asked for) would get, as JSON. */
int dry_run(struct node *node, unsigned units, struct cli_error *error);

#endif
