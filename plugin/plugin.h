/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the device plugin share: its settings, the node's GPUs, and log lines.
 *
 * One thread serves the kubelet (main.c's loop). Others do what may take its time: gpus.c asks NVML, job.c registers and asks for pods. They hand results
 * over whole and touch nothing of the first one's. */
#ifndef SOFTSLICE_PLUGIN_PLUGIN_H
#define SOFTSLICE_PLUGIN_PLUGIN_H

#include "cdi.h"
#include "observe.h"
#include "softslice/units.h"

#define PLUGIN_VENDOR  "softslice.io/"
#define PLUGIN_UNITS   "vram-gib" /* the resource of which one device is one GiB */
#define PLUGIN_UNIT    (UINT64_C(1) << 30)
#define PLUGIN_CONFIG  "/etc/softslice/softslice.ini"
#define PLUGIN_KUBELET "/var/lib/kubelet/device-plugins"
#define PLUGIN_PODS    "/var/lib/kubelet/pod-resources/kubelet.sock"
#define PLUGIN_SAVED   "/var/lib/softslice/device-plugin"
#define PLUGIN_SPEC    CDI_VENDOR "-kubernetes.json" /* of the budgets' CDI devices; not the file that `softslice cdi` writes */

#define PLUGIN_GPUS     256 /* and MIG instances */
#define PLUGIN_SLICES   64
#define PLUGIN_REPLICAS 4096 /* of all slices */
#define PLUGIN_ID       160  /* "GPU-<uuid>::17", "GPU-<uuid>::small-3", with its 0 */
#define PLUGIN_REASON   128
#define PLUGIN_RESOURCE 64 /* of a resource's name after "softslice.io/", with its 0 */

/* ---- say.c: one line on stderr: time, level, text without control characters. From any thread. */

void say_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void say_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void say_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Seconds of a clock that never jumps. */
double now_seconds(void);

/* Seconds to wait after another failed try to reach the kubelet, which may be about to listen; `before`: those of the last time, 0 at first. */
double backoff_after(double before, double most);

/* ---- config.c */

enum policy_compute { POLICY_PROPORTIONAL, POLICY_NONE, POLICY_WEIGHT };

struct slice {
    struct cdi_slice is;
    char name[PLUGIN_RESOURCE];
    char others[sizeof(((struct cdi_budget *)0)->limits)]; /* its limits but for vram and compute, as lines */
    struct units_amount vram;
    unsigned replicas;
};

struct settings {
    uint64_t reserve; /* bytes of each GPU */
    enum policy_compute compute;
    bool share;        /* mode = share */
    bool driver_cdi;   /* driver = cdi */
    bool answer_cdi;   /* answer = cdi */
    bool spread;       /* slices = spread */
    char dev[256];     /* where the node's /dev is */
    char pods[256];    /* the kubelet's PodResources socket */
    char cdi[256];     /* the directory of CDI specs */
    char others[1024]; /* limits for every container, as lines */
    unsigned ignored_xids;
    unsigned ignored_xid[64];
    double keep;     /* seconds that an allocation is kept which the kubelet does not list */
    double ask_pods; /* seconds between two looks at the pods */
    double ask_gpus; /* and at the GPUs */
    unsigned slices;
    struct slice *slice; /* array of PLUGIN_SLICES */
};

/* Read them. Without `named`, a missing file is no error. 0, or -1 with *error set; *settings is written on success only, and given to
 * settings_free(). */
int settings_read(struct settings *settings, const char *path, bool named, struct cli_error *error);
void settings_free(struct settings *settings);

/* ---- gpus.c */

struct gpu {
    char uuid[OBSERVE_UUID];            /* as NVML has it: GPU-... or MIG-... */
    int minor;                          /* of /dev/nvidiaN: its own, or that of the GPU that it is an instance of; -1: unknown */
    int numa;                           /* -1: unknown */
    int gpu_instance, compute_instance; /* of a MIG instance; else -1 */
    uint64_t total, reserved;           /* bytes; `reserved` by the driver */
    bool healthy;
    char reason[PLUGIN_REASON]; /* why it is not */
};

struct gpus {
    unsigned count;
    struct gpu gpu[PLUGIN_GPUS];
};

#endif
