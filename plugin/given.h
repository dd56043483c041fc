/* SPDX-License-Identifier: Apache-2.0 */
/* What was given out, as this process knows it and as it is on the host: in ROOT/NAME/.allocation, for the next process, and in a directory that is
 * there after a reboot, too. For the kubelet starts a node's containers again after that with the answer that it was given once, and ROOT is gone. */
#ifndef SOFTSLICE_PLUGIN_GIVEN_H
#define SOFTSLICE_PLUGIN_GIVEN_H

#include "plugin.h"

#define GIVEN_PREFIX "k8s-" /* of each name; 8 hexadecimal digits follow */

/* Allocations of the same devices within this many seconds are of one pod: the kubelet gives an init container's devices to the next containers, and
 * asks for all of them before any runs. */
#define GIVEN_ONE_POD 60

struct given {
    char name[CONFIG_TENANT_MAX]; /* of its budget, and its directory below the root */
    char resource[PLUGIN_RESOURCE];
    char uuid[OBSERVE_UUID];
    uint64_t bytes;
    int64_t made; /* seconds of CLOCK_REALTIME */
    unsigned ids;
    char (*id)[PLUGIN_ID];
    char *limits;         /* of the budget, as struct cdi_budget has them */
    bool cdi;             /* it is a CDI device, too */
    bool ended;           /* its pod was gone when the kubelet was last asked, or another one has its devices */
    bool unlabelled;      /* told that its labels cannot be written */
    double missing_since; /* of now_seconds(): nothing is known to use it, either; 0: it is in use */
    char pod[OBSERVE_LABEL], namespace[OBSERVE_LABEL], container[OBSERVE_LABEL];
};

struct given_list {
    unsigned count, room;
    struct given *one;
    const char *saved; /* the directory that outlives a reboot */
    bool unsaved;      /* told that nothing can be written there */
};

/* Take what an earlier process left below the root. What cannot be read is told and left alone. */
void given_load(struct given_list *records, const char *root);

/* Call `make` for each that is saved and not below the root any more; where it returns 0, the allocation is taken. False: one or more could not be made,
 * which is worth another try. */
bool given_restore(struct given_list *records, const struct cdi_root *root, int (*make)(void *context, const struct given *record),
                   void *context);

/* Note a new one, on the host too. 0 or -errno; then nothing is noted. */
int given_add(struct given_list *records, const struct cdi_root *root, const struct given *record);

/* Remove its directory, its CDI device and the record. */
void given_remove(struct given_list *records, const struct cdi_root *root, const char *name, const char *why);

/* Whether it has one of these devices. */
bool given_has(const struct given *record, const char *resource, char *const *ids, size_t count);

/* Whether they have a device in common. */
bool given_overlap(const struct given *one, const struct given *other);

/* Say whose it is, in labels.ini as well, if that is new. */
void given_label(struct given *record, const struct cdi_root *root, const char *pod, const char *namespace, const char *container);

/* Whether a process of that budget's container is known to live. */
bool given_lives(const struct cdi_root *root, const char *name);

/* Whether its directory is there. */
bool given_is_there(const struct cdi_root *root, const char *name);

/* Call `found` for what a process left that was killed while it made or removed an allocation: it has no record, and was at rest for `age` seconds. */
void given_left(const struct given_list *records, const struct cdi_root *root, double age,
                void (*found)(void *context, const char *name), void *context);

/* Names like k8s-0f3a9c21 that are free. */
int given_name(const struct cdi_root *root, char name[CONFIG_TENANT_MAX]);

#endif
