/* SPDX-License-Identifier: Apache-2.0 */
/* The null driver's counters and its table of names. */
#include "state.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

__thread CUcontext null_context;
__thread CUcontext null_below;
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

struct null_event {
    struct timespec at;
};

struct null_event *null_new_event(void)
{
    return calloc(1, sizeof(struct null_event));
}

void null_free_event(struct null_event *event)
{
    free(event);
}

CUresult null_record(struct null_event *event)
{
    return clock_gettime(CLOCK_MONOTONIC, &event->at) == 0 ? CUDA_SUCCESS : CUDA_ERROR_UNKNOWN;
}

float null_between(const struct null_event *begin, const struct null_event *end)
{
    return (float)((double)(end->at.tv_sec - begin->at.tv_sec) * 1e3 + (double)(end->at.tv_nsec - begin->at.tv_nsec) / 1e6);
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
