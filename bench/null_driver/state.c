/* SPDX-License-Identifier: Apache-2.0 */
/* The null driver's counters and its table of names. */
#include "state.h"

#include <string.h>

__thread CUcontext null_context;
__thread CUstreamCaptureMode null_mode;
__thread uint64_t null_next;
__thread uint64_t null_small;

static uint64_t chunks;
static uintptr_t contexts;
static int primaries;

uint64_t null_new_chunk(void)
{
    return __atomic_fetch_add(&chunks, 1, __ATOMIC_RELAXED) * NULL_CHUNK;
}

CUcontext null_new_context(void)
{
    return (CUcontext)(0x20000 + 64 * __atomic_fetch_add(&contexts, 1, __ATOMIC_RELAXED));
}

void null_retain(int change)
{
    __atomic_fetch_add(&primaries, change, __ATOMIC_RELAXED);
}

int null_primaries(void)
{
    return __atomic_load_n(&primaries, __ATOMIC_RELAXED);
}

static const struct {
    const char *base;
    void *function;
    int since;
} entries[] = {
#define ENTRY(base, symbol, since) {#base, (void *)symbol, since},
#include "entries.def"
};

void *null_find(const char *base, int version)
{
    void *found = NULL;

    for (size_t i = 0; i < sizeof(entries) / sizeof(*entries); i++)
        if (entries[i].since <= version && !strcmp(entries[i].base, base))
            found = entries[i].function;
    return found;
}
