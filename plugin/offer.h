/* SPDX-License-Identifier: Apache-2.0 */
/* What a node offers: its GPUs' memory as units of vram-gib, and slices, each on one GPU. Pure: nothing here asks anybody.
 *
 * Both come out of the same memory: of a GPU's room (its memory less the reserve) the slices that are placed on it are taken off first, and what is left
 * is units. So the sum of what can be handed out of a GPU is never more than its room. */
#ifndef SOFTSLICE_PLUGIN_OFFER_H
#define SOFTSLICE_PLUGIN_OFFER_H

#include "plugin.h"

struct offer_gpu {
    struct gpu is;
    uint64_t room, sliced; /* bytes: all that can be handed out, and what of it slices have */
    unsigned units;        /* of vram-gib that are offered */
    unsigned whole;        /* that there would be without slices */
};

struct offer_replica {
    unsigned slice, replica;
    int gpu; /* -1: it fits nowhere */
};

struct offer {
    unsigned gpus, replicas, unplaced;
    struct offer_gpu gpu[PLUGIN_GPUS];
    struct offer_replica replica[PLUGIN_REPLICAS];
};

/* Make the offer. Replicas that `before` (may be NULL) has on a GPU stay there while they fit. */
void offer_make(struct offer *offer, const struct settings *settings, const struct gpus *gpus, const struct offer *before);

/* A resource: the units, or one slice. */
#define OFFER_UNITS (-1)
const char *offer_resource(const struct settings *settings, int slice); /* "vram-gib", "small" */

/* A device of a resource: which GPU's, and which of it. */
struct offer_device {
    unsigned gpu, number;
};

/* The id of a device, and back. offer_find() is false where there is none of that id. */
void offer_id(const struct offer *offer, const struct settings *settings, int slice, struct offer_device device,
              char id[PLUGIN_ID]);
bool offer_find(const struct offer *offer, const struct settings *settings, int slice, const char *id, struct offer_device *device);

/* The devices of a resource, in order; NULL where there are none (or no memory). To free. */
struct offer_device *offer_devices(const struct offer *offer, int slice, unsigned *count);

/* The bytes of `count` devices on that GPU, and what part of it they are, in hundredths of a percent. */
uint64_t offer_bytes(const struct offer *offer, const struct settings *settings, int slice, unsigned gpu, unsigned count);
unsigned offer_part(const struct offer *offer, unsigned gpu, uint64_t bytes);

/* Choose `size` of the available devices: with those that must be in it, on one GPU if that can be, on the one with the fewest left on which they fit (slices
 * that are spread: the most). `chosen` has room for `size`. Returns how many were chosen: fewer where there are fewer. */
unsigned offer_prefer(const struct settings *settings, int slice, const struct offer_device *available, unsigned count,
                      const struct offer_device *must, unsigned must_count, unsigned size, struct offer_device *chosen);

#endif
