/* SPDX-License-Identifier: Apache-2.0 */
/* Turns that are always off, until core/turns.c is there. */
#include <errno.h>

#include "softslice/turns.h"

int turns_join(struct turns *turns, int dirfd, const char *tenant, const uint8_t (*uuid)[16], unsigned devices,
               const struct turns_settings *settings, uint64_t now)
{
    (void)turns, (void)dirfd, (void)tenant, (void)uuid, (void)devices, (void)settings, (void)now;
    return 0;
}

void turns_set_weight(struct turns *turns, unsigned device, uint32_t weight, uint32_t share)
{
    (void)turns, (void)device, (void)weight, (void)share;
}

struct turns_answer turns_ask(struct turns *turns, uint64_t devices, uint64_t now)
{
    (void)turns, (void)devices, (void)now;
    return (struct turns_answer){.mine = true, .until = UINT64_MAX};
}

struct turns_demand turns_demand(struct turns *turns, uint64_t devices, uint64_t now)
{
    (void)turns, (void)devices, (void)now;
    return (struct turns_demand){.until = UINT64_MAX};
}

void turns_release(struct turns *turns, uint64_t devices, uint64_t now, uint64_t used)
{
    (void)turns, (void)devices, (void)now, (void)used;
}

void turns_look(struct turns *turns, uint64_t now)
{
    (void)turns, (void)now;
}

bool turns_report(struct turns *turns, char *line, size_t size)
{
    (void)turns, (void)line, (void)size;
    return false;
}
