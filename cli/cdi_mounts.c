/* SPDX-License-Identifier: Apache-2.0 */
/* What is mounted in a container that has a budget: the one list, for CDI specs and for the device plugin's answers. */
#include <string.h>

#include "cdi.h"

static const struct {
    const char *host, *container; /* below the root; %s is the name */
    bool writable;
} place[] = {
    {"/%s/.etc/ld.so.preload", CDI_PRELOAD, false},
    {"/%s/.etc/softslice", CDI_ETC, false},
    {"/%s", CDI_STATE, false},
    {"/%s/%s", CDI_STATE "/%s", true},
    {"/" CDI_TURNS, CDI_STATE "/" CDI_TURNS, false},
    {"/" CDI_TURNS "/%s.turns", CDI_STATE "/" CDI_TURNS "/%s.turns", true},
};
_Static_assert(sizeof(place) / sizeof(*place) + 1 == CDI_MOUNTS, "the library is one more");

static void put(char path[PATH_MAX], const char *before, const char *pattern, const char *name)
{
    size_t length = (size_t)snprintf(path, PATH_MAX, "%s", before);

    for (const char *c = pattern; *c && length < PATH_MAX; c++) {
        if (*c == '%' && c[1] == 's')
            length += (size_t)snprintf(path + length, PATH_MAX - length, "%s", (c++, name));
        else
            length += (size_t)snprintf(path + length, PATH_MAX - length, "%c", *c);
    }
}

void cdi_mounts(struct cdi_mount mount[CDI_MOUNTS], const char *root, const char *name, const char *library)
{
    put(mount[0].host, library, "", name);
    put(mount[0].container, CDI_LIBRARY, "", name);
    mount[0].writable = false;
    mount[0].runs = true;
    for (unsigned i = 1; i < CDI_MOUNTS; i++) {
        put(mount[i].host, root, place[i - 1].host, name);
        put(mount[i].container, "", place[i - 1].container, name);
        mount[i].writable = place[i - 1].writable;
        mount[i].runs = false;
    }
}
