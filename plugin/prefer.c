/* SPDX-License-Identifier: Apache-2.0 */
/* Which of the free devices a container should get, so that it is on one GPU and the others stay whole. */
#include <string.h>

#include "offer.h"

static bool has(const struct offer_device *list, unsigned count, struct offer_device device)
{
    for (unsigned i = 0; i < count; i++) {
        if (list[i].gpu == device.gpu && list[i].number == device.number)
            return true;
    }
    return false;
}

/* Add free devices of that GPU, the lowest first. */
static unsigned take_from(unsigned gpu, const struct offer_device *available, unsigned count, unsigned size,
                          struct offer_device *chosen, unsigned taken)
{
    while (taken < size) {
        const struct offer_device *lowest = NULL;

        for (unsigned i = 0; i < count; i++) {
            if (available[i].gpu == gpu && (!lowest || available[i].number < lowest->number) && !has(chosen, taken, available[i]))
                lowest = &available[i];
        }
        if (!lowest)
            break;
        chosen[taken++] = *lowest;
    }
    return taken;
}

/* On how many of its devices a choice could go on with that GPU: `free` of each, 0 where it is used up. */
struct tally {
    unsigned free[PLUGIN_GPUS];
};

/* The GPU that has enough, with the fewest (or the most, `spread`); else the one with the most. */
static int choose_gpu(const struct tally *tally, unsigned wanted, bool spread)
{
    int best = -1;

    for (unsigned i = 0; i < PLUGIN_GPUS; i++) {
        bool enough = tally->free[i] >= wanted, best_enough = best >= 0 && tally->free[best] >= wanted;

        if (!tally->free[i])
            continue;
        if (best < 0 || (enough && !best_enough) ||
            (enough == best_enough &&
             (enough && !spread ? tally->free[i] < tally->free[best] : tally->free[i] > tally->free[best])))
            best = (int)i;
    }
    return best;
}

unsigned offer_prefer(const struct settings *settings, int slice, const struct offer_device *available, unsigned count,
                      const struct offer_device *must, unsigned must_count, unsigned size, struct offer_device *chosen)
{
    static struct tally tally;
    unsigned taken = 0;
    int gpu;

    for (unsigned i = 0; i < must_count && taken < size; i++) {
        if (!has(chosen, taken, must[i]))
            chosen[taken++] = must[i];
    }
    /* What must be in it says which GPU. */
    for (unsigned i = 0, given = taken; i < given; i++)
        taken = take_from(chosen[i].gpu, available, count, size, chosen, taken);
    memset(&tally, 0, sizeof(tally));
    for (unsigned i = 0; i < count; i++)
        tally.free[available[i].gpu] += !has(chosen, taken, available[i]);
    while (taken < size && (gpu = choose_gpu(&tally, size - taken, settings->spread && slice != OFFER_UNITS)) >= 0) {
        taken = take_from((unsigned)gpu, available, count, size, chosen, taken);
        tally.free[gpu] = 0;
    }
    return taken;
}
