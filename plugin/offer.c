/* SPDX-License-Identifier: Apache-2.0 */
/* The offer: which devices there are of which resource, and what each is worth. */
#include <string.h>

#include "offer.h"

#define SEPARATOR "::"

/* ---- room, and slices in it */

static uint64_t size_of(const struct settings *settings, const struct offer *offer, unsigned slice, unsigned gpu)
{
    return units_bytes_of(&settings->slice[slice].vram, offer->gpu[gpu].room);
}

static bool fits(const struct settings *settings, const struct offer *offer, unsigned slice, unsigned gpu)
{
    return size_of(settings, offer, slice, gpu) <= offer->gpu[gpu].room - offer->gpu[gpu].sliced;
}

/* The GPU with the least room left that is enough, or with the most where slices are spread. */
static int best_gpu(const struct settings *settings, const struct offer *offer, unsigned slice)
{
    int best = -1;
    uint64_t best_left = 0;

    for (unsigned i = 0; i < offer->gpus; i++) {
        uint64_t left = offer->gpu[i].room - offer->gpu[i].sliced;

        if (!fits(settings, offer, slice, i) || (best >= 0 && (settings->spread ? left <= best_left : left >= best_left)))
            continue;
        best = (int)i;
        best_left = left;
    }
    return best;
}

static int gpu_of(const struct offer *offer, const char *uuid)
{
    for (unsigned i = 0; i < offer->gpus; i++) {
        if (strcmp(offer->gpu[i].is.uuid, uuid) == 0)
            return (int)i;
    }
    return -1;
}

static void put(const struct settings *settings, struct offer *offer, struct offer_replica *replica, int gpu)
{
    replica->gpu = gpu;
    if (gpu >= 0)
        offer->gpu[gpu].sliced += size_of(settings, offer, replica->slice, (unsigned)gpu);
}

/* Where it was before, if it is the same replica and still fits. */
static int place_before(const struct offer *before, const struct settings *settings, const struct offer *offer,
                        const struct offer_replica *replica)
{
    int gpu = -1;

    for (unsigned i = 0; before && i < before->replicas; i++) {
        const struct offer_replica *was = &before->replica[i];

        if (was->slice == replica->slice && was->replica == replica->replica && was->gpu >= 0)
            gpu = gpu_of(offer, before->gpu[was->gpu].is.uuid);
    }
    return gpu >= 0 && fits(settings, offer, replica->slice, (unsigned)gpu) ? gpu : -1;
}

/* The largest first, for they are the hardest to place; a part of a GPU by what it is of the largest one. */
static int next_slice(const struct settings *settings, const struct offer *offer, const bool *done)
{
    int next = -1;
    uint64_t largest = 0;

    for (unsigned i = 0; i < settings->slices; i++) {
        uint64_t size = 0;

        for (unsigned j = 0; j < offer->gpus; j++) {
            uint64_t here = size_of(settings, offer, i, j);

            size = here > size ? here : size;
        }
        if (done[i] || (next >= 0 && size <= largest))
            continue;
        next = (int)i;
        largest = size;
    }
    return next;
}

static void place_slices(struct offer *offer, const struct settings *settings, const struct offer *before)
{
    bool done[PLUGIN_SLICES] = {false};
    int slice;

    while ((slice = next_slice(settings, offer, done)) >= 0) {
        done[slice] = true;
        for (unsigned i = 0; i < settings->slice[slice].replicas && offer->replicas < PLUGIN_REPLICAS; i++)
            offer->replica[offer->replicas++] = (struct offer_replica){(unsigned)slice, i, -1};
    }
    for (unsigned i = 0; i < offer->replicas; i++)
        put(settings, offer, &offer->replica[i], place_before(before, settings, offer, &offer->replica[i]));
    for (unsigned i = 0; i < offer->replicas; i++) {
        if (offer->replica[i].gpu < 0)
            put(settings, offer, &offer->replica[i], best_gpu(settings, offer, offer->replica[i].slice));
        offer->unplaced += offer->replica[i].gpu < 0;
    }
}

void offer_make(struct offer *offer, const struct settings *settings, const struct gpus *gpus, const struct offer *before)
{
    memset(offer, 0, sizeof(*offer));
    offer->gpus = gpus->count;
    for (unsigned i = 0; i < gpus->count; i++) {
        struct offer_gpu *gpu = &offer->gpu[i];
        uint64_t kept = gpus->gpu[i].reserved > settings->reserve ? gpus->gpu[i].reserved : settings->reserve;

        gpu->is = gpus->gpu[i];
        gpu->room = gpu->is.total > kept ? gpu->is.total - kept : 0;
        gpu->whole = (unsigned)(gpu->room / PLUGIN_UNIT);
    }
    place_slices(offer, settings, before);
    for (unsigned i = 0; i < offer->gpus; i++)
        offer->gpu[i].units = (unsigned)((offer->gpu[i].room - offer->gpu[i].sliced) / PLUGIN_UNIT);
}

/* ---- devices */

const char *offer_resource(const struct settings *settings, int slice)
{
    return slice == OFFER_UNITS ? PLUGIN_UNITS : settings->slice[slice].name;
}

void offer_id(const struct offer *offer, const struct settings *settings, int slice, struct offer_device device, char id[PLUGIN_ID])
{
    const char *uuid = offer->gpu[device.gpu].is.uuid;

    if (slice == OFFER_UNITS)
        snprintf(id, PLUGIN_ID, "%s" SEPARATOR "%u", uuid, device.number);
    else
        snprintf(id, PLUGIN_ID, "%s" SEPARATOR "%s-%u", uuid, settings->slice[slice].name, device.number);
}

static bool is_offered(const struct offer *offer, int slice, struct offer_device device)
{
    if (slice == OFFER_UNITS)
        return device.number < offer->gpu[device.gpu].units;
    for (unsigned i = 0; i < offer->replicas; i++) {
        const struct offer_replica *replica = &offer->replica[i];

        if ((int)replica->slice == slice && replica->replica == device.number && replica->gpu == (int)device.gpu)
            return true;
    }
    return false;
}

bool offer_find(const struct offer *offer, const struct settings *settings, int slice, const char *id, struct offer_device *device)
{
    const char *rest = strstr(id, SEPARATOR), *digits = rest ? id + strlen(id) : NULL;
    char again[PLUGIN_ID], uuid[OBSERVE_UUID];
    unsigned long number;
    int gpu;

    while (digits && digits > rest && digits[-1] >= '0' && digits[-1] <= '9')
        digits--;
    if (!rest || !*digits || strlen(digits) > 6 || (size_t)(rest - id) >= sizeof(uuid))
        return false;
    snprintf(uuid, sizeof(uuid), "%.*s", (int)(rest - id), id);
    gpu = gpu_of(offer, uuid);
    number = strtoul(digits, NULL, 10);
    if (gpu < 0)
        return false;
    *device = (struct offer_device){(unsigned)gpu, (unsigned)number};
    /* Whatever else is in it, it is the id of that device or none. */
    offer_id(offer, settings, slice, *device, again);
    return strcmp(again, id) == 0 && is_offered(offer, slice, *device);
}

struct offer_device *offer_devices(const struct offer *offer, int slice, unsigned *count)
{
    struct offer_device *list;
    unsigned most = 0;

    *count = 0;
    for (unsigned i = 0; i < offer->gpus && slice == OFFER_UNITS; i++)
        most += offer->gpu[i].units;
    if (slice != OFFER_UNITS)
        most = offer->replicas;
    list = most ? calloc(most, sizeof(*list)) : NULL;
    if (!list)
        return NULL;
    for (unsigned i = 0; i < offer->gpus && slice == OFFER_UNITS; i++) {
        for (unsigned j = 0; j < offer->gpu[i].units; j++)
            list[(*count)++] = (struct offer_device){i, j};
    }
    for (unsigned i = 0; i < offer->replicas && slice != OFFER_UNITS; i++) {
        const struct offer_replica *replica = &offer->replica[i];

        if ((int)replica->slice == slice && replica->gpu >= 0)
            list[(*count)++] = (struct offer_device){(unsigned)replica->gpu, replica->replica};
    }
    return list;
}

uint64_t offer_bytes(const struct offer *offer, const struct settings *settings, int slice, unsigned gpu, unsigned count)
{
    return slice == OFFER_UNITS ? count * PLUGIN_UNIT : size_of(settings, offer, (unsigned)slice, gpu) * count;
}

unsigned offer_part(const struct offer *offer, unsigned gpu, uint64_t bytes)
{
    uint64_t whole = offer->gpu[gpu].whole * PLUGIN_UNIT, part;

    if (!whole)
        return 10000;
    part = (uint64_t)((unsigned __int128)bytes * 10000 / whole);
    return part < 1 ? 1 : part > 10000 ? 10000 : (unsigned)part;
}
