/* SPDX-License-Identifier: Apache-2.0 */
/* What goes on, seen from outside: the tenants of one or several state directories, their members and the GPUs they are on. For status, top, explain,
 * events and the exporter, which all show this and nothing else, so that no two of them disagree.
 *
 * Nobody who is looked at is slowed or stopped: ledgers are read as ledger_read() does, without a mapping, a lock that others wait for, or a symbolic link
 * followed. Whoever looks is an ordinary program: memory is allocated with malloc(). */
#ifndef SOFTSLICE_CLI_OBSERVE_H
#define SOFTSLICE_CLI_OBSERVE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "softslice/ledger.h"

#define OBSERVE_UUID  48  /* "GPU-..." or "MIG-..." as nvidia-smi prints it, with its 0 */
#define OBSERVE_LABEL 254 /* of a Kubernetes name, with its 0 */
#define OBSERVE_TENANTS                                                                                                            \
    10000 /* folders and directories, some of each directory; more are not looked at, and counted in `omitted` */
#define OBSERVE_MEMBERS 16384 /* of all tenants together; more are counted in `members_omitted` */
#define OBSERVE_GPUS    1024
#define OBSERVE_TEXT    (3 * NAME_MAX + 1) /* the longest name that observe_text() writes, with its 0 */

/* A process of a tenant. */
struct observe_member {
    uint32_t pid;           /* in its own PID namespace */
    uint32_t host_pid;      /* in the caller's; 0 unknown */
    uint64_t pid_namespace; /* inode; 0 unknown */
    char command[16];       /* as the kernel has it; "" unknown */
    bool suspended, dead;   /* as in struct ledger_member */
    struct {
        uint64_t committed, tentative, spilled; /* bytes */
    } device[LEDGER_DEVICES];                   /* as in the tenant's view */
};

struct observe_tenant {
    char name[NAME_MAX + 1]; /* of its folder */
    const char *directory;   /* its state directory; belongs to the struct observe */
    uid_t uid;               /* who owns it */
    int problem;             /* 0, or what ledger_read() gave: then of what is below only the labels hold */
    char reason[128];        /* the same in words; "" */
    char pod[OBSERVE_LABEL], namespace[OBSERVE_LABEL], container[OBSERVE_LABEL]; /* "": not known */
    struct ledger_view view;
    unsigned members; /* those of view.members, and the dead whose bytes still count */
    struct observe_member *member;
};

/* A GPU that a tenant knows, or that NVML shows. */
struct observe_gpu {
    uint8_t uuid[16];
    char uuid_text[OBSERVE_UUID];
    char name[96];        /* "" unknown */
    uint64_t total, used; /* bytes, physical; 0: NVML could not be asked. By NVML without our library in between */
    int index;            /* NVML's; -1 unknown */
};

struct observe {
    uint64_t when;  /* CLOCK_REALTIME, ns */
    uint64_t clock; /* clock_now(), for rates between two of them */
    unsigned tenants, gpus;
    bool with_members;                 /* they were asked for */
    unsigned omitted, members_omitted; /* beyond OBSERVE_TENANTS and OBSERVE_MEMBERS */
    struct observe_tenant *tenant;     /* by state directory, then by name */
    struct observe_gpu *gpu;           /* those NVML shows in its order, then others by UUID */
    char **directories;                /* that were looked at; NULL-terminated */
    char **
        complaints; /* NULL-terminated; for people: what was asked for and could not be read, or was not believed. No control characters */
};

/* What to look at. All zeros: the state directory in use (as `softslice run` would find it), every tenant, with members, GPUs from NVML. */
struct observe_request {
    const char *const *directories; /* state directories; NULL-terminated */
    const char *const *roots;       /* directories whose folders are state directories, as containers' are; NULL-terminated */
    const char *tenant;             /* this one alone */
    const uint8_t *uuid;            /* this device alone */
    bool without_members, without_nvml;
    bool ended; /* also tenants in which nothing runs */
};

#define OBSERVE_ERROR_MAX 512

/* Look. 0, or -errno with one line in `error`: no such directory, none could be read, out of memory. A single tenant that cannot be read is no error: it
 * has `problem`. A tenant or device that is asked for by name and not there gives -ENOENT or -ENODEV. */
/* NVML stays initialised between two calls. One thread at a time. */
int observe(const struct observe_request *request, struct observe *seen, char error[OBSERVE_ERROR_MAX]);
void observe_free(struct observe *seen);

struct config;

/* Load what says where the state directory is that programs started from here use, the tenant's and limits' variables of this environment included as far
 * as they decide that. As config_load(). */
int observe_configured(struct config *config);

/* Whether softslice's library is in this very process as libvgpu.so, in HAMi's place, as it then is in the programs around it. */
bool observe_in_hamis_place(void);

/* A state directory's O_PATH file, or -errno: it is no symbolic link. */
int observe_open(const char *directory);

/* The same as a document: docs/status.schema.json. The caller puts it (json_object_put). NULL: out of memory. */
struct json_object *observe_json(const struct observe *seen);

/* The same with what share of the time since an earlier look each device of a tenant was busy and throttled; `before` may be NULL. */
struct json_object *observe_json_since(const struct observe *before, const struct observe *seen);

/* The UUID of a device as people name it: GPU-<uuid>, MIG-<uuid>, or the number that NVML (nvidia-smi) has for it. 0, or -errno with one line. */
int observe_device(const char *text, uint8_t uuid[16], char error[OBSERVE_ERROR_MAX]);

/* Each process that NVML lists on a GPU, by NVML's number of that: where this is a PID namespace that NVML does not know, `pid` may be another process. No
 * figure for its bytes: all ones. */
typedef void observe_gpu_process(void *context, int gpu, unsigned pid, uint64_t bytes);
void observe_gpu_processes(observe_gpu_process *found, void *context);

/* Whether a tenant's bytes are counted; else limit, current and peak are to be told as absent, not as 0. (What has ended is told as it was.) */
static inline bool observe_counts_vram(const struct observe_tenant *tenant)
{
    return tenant->view.arms & LEDGER_ARMS_VRAM || !tenant->view.members;
}

/* What share of the time between two looks (0 to 1) device `device` of the tenant of `now` was busy and throttled. False where that is not known: it
 * is not in the earlier look, compute is not armed in both, its counters began anew. */
bool observe_rate(const struct observe *before, const struct observe *now, const struct observe_tenant *tenant, unsigned device,
                  double *busy, double *throttled);

/* What a device's contended time is divided by: the weight that somebody set, else the share in percent. */
static inline unsigned observe_weight(const struct ledger_device_state *state)
{
    return state->weight ? state->weight : share_weight(state->share);
}

/* The GPU of `seen` with that UUID, or NULL. */
const struct observe_gpu *observe_find_gpu(const struct observe *seen, const uint8_t uuid[16]);

/* `text` as it may stand on a terminal, in JSON or in a label: UTF-8, with U+FFFD (`?` where `ascii`) for every control character and every byte
 * that is none. Returns `clean`, which ends where it is full. */
const char *observe_text(char *clean, size_t size, const char *text, bool ascii);

/* below_root.c: the state directory below `root` in which `tenant` runs. 0, or -1 with *error set, for `command`, where there is none or more than one. */
struct cli_error;
int observe_below_root(const char *command, const char *root, const char *tenant, char path[PATH_MAX], struct cli_error *error);

/* Whether a folder of that name can be a tenant's. */
bool observe_is_name(const char *text);

/* GPU-xxxxxxxx-... of 16 bytes. */
void observe_uuid_text(const uint8_t uuid[16], char text[OBSERVE_UUID]);

#endif
