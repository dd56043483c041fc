/* SPDX-License-Identifier: Apache-2.0 */
/* How much memory an allocation of each size really takes, and when it is given back.
 *
 * Each size and order of freeing is tried in a process of its own, so that no earlier slab helps.
 * Rows: bytes a block by cuMemGetInfo and by NVML, the allocations at which free memory fell, the
 * distance between neighbours, and the frees at which memory came back. */
#include "probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum order { FORWARD, REVERSE, EVERY_OTHER };
static const char *const order_name[] = {"forward", "reverse", "every_other"};

struct trial {
    size_t size;
    unsigned int blocks;
    enum order order;
};

#define MAX_BLOCKS 8192

/* Notes that free memory changed at step i. */
static void text_add(char *text, size_t cap, unsigned int i, uint64_t before, uint64_t now)
{
    size_t n = strlen(text);

    if (n + 40 < cap)
        snprintf(text + n, cap - n, " %u:%+lldKiB", i, ((long long)now - (long long)before) / 1024);
}

static int by_address(const void *a, const void *b)
{
    CUdeviceptr x = *(const CUdeviceptr *)a, y = *(const CUdeviceptr *)b;

    return x < y ? -1 : x > y;
}

static unsigned int which(const struct trial *t, unsigned int step)
{
    unsigned int half = (t->blocks + 1) / 2;

    if (t->order == FORWARD)
        return step;
    if (t->order == REVERSE)
        return t->blocks - 1 - step;
    return step < half ? 2 * step : 2 * (step - half) + 1;
}

/* Allocates and reports; returns the number of blocks that could be had. */
static unsigned int take(const struct trial *t, const char *key, CUdeviceptr *block)
{
    uint64_t free0 = probe_free(), dev0 = probe_device_used(), own0 = probe_process_used(getpid());
    uint64_t before = free0;
    char text[512] = "", name[96];
    unsigned int n;

    for (n = 0; n < t->blocks; n++) {
        CUresult res = cu.cuMemAlloc_v2(&block[n], t->size);

        if (res != CUDA_SUCCESS) {
            probe_row(key, "stopped at %u: %s", n, probe_result(res));
            break;
        }
        uint64_t now = probe_free();
        if (now != before)
            text_add(text, sizeof(text), n, before, now);
        before = now;
    }
    uint64_t free1 = probe_free(), dev1 = probe_device_used(), own1 = probe_process_used(getpid());
    snprintf(name, sizeof(name), "%s.bytes", key);
    probe_row(name, "blocks %u meminfo %lld nvml_device %lld nvml_process %lld", n, (long long)(free0 - free1),
              (long long)(dev1 - dev0), own0 == PROBE_UNKNOWN || own1 == PROBE_UNKNOWN ? -1ll : (long long)(own1 - own0));
    snprintf(name, sizeof(name), "%s.taken_at", key);
    probe_row(name, "%s", text);
    return n;
}

static void spacing(const char *key, const CUdeviceptr *block, unsigned int n)
{
    CUdeviceptr *sorted = malloc(n * sizeof(*sorted));
    unsigned long long least = ~0ull, most = 0, low = 0;
    char name[96];

    if (!sorted)
        return;
    memcpy(sorted, block, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), by_address);
    for (unsigned int i = 0; i < n; i++) {
        low |= sorted[i];
        if (!i)
            continue;
        unsigned long long d = sorted[i] - sorted[i - 1];
        least = d < least ? d : least;
        most = d > most ? d : most;
    }
    snprintf(name, sizeof(name), "%s.spacing", key);
    probe_row(name, "least %llu most %llu aligned_to %llu first_mod_2MiB %llu", least, most, low & -low,
              (unsigned long long)(block[0] & (2 * MIB - 1)));
    free(sorted);
}

static void give(const struct trial *t, const char *key, const CUdeviceptr *block)
{
    uint64_t start = probe_free(), before = start;
    char text[512] = "", name[96];

    for (unsigned int step = 0; step < t->blocks; step++) {
        CUresult res = cu.cuMemFree_v2(block[which(t, step)]);

        if (res != CUDA_SUCCESS)
            probe_row(key, "free %u: %s", step, probe_result(res));
        uint64_t now = probe_free();
        if (now != before)
            text_add(text, sizeof(text), step, before, now);
        before = now;
    }
    snprintf(name, sizeof(name), "%s.given_back_at", key);
    probe_row(name, "%s", text);
    snprintf(name, sizeof(name), "%s.given_back_total", key);
    probe_row(name, "%lld", (long long)(probe_free() - start));
}

static void one(void *arg)
{
    static CUdeviceptr block[MAX_BLOCKS];
    struct trial t = *(struct trial *)arg;
    char key[64];

    snprintf(key, sizeof(key), "size_%zu.%s", t.size, order_name[t.order]);
    probe_context(probe_device());
    probe_free(); /* whatever the first reading costs is not the block's */
    probe_process_used(getpid());
    t.blocks = take(&t, key, block);
    if (!t.blocks)
        return;
    spacing(key, block, t.blocks);
    give(&t, key, block);
}

/* Do small sizes share slabs with one another? Free memory after one block of each. */
static void mixed(void *arg)
{
    static const size_t size[] = {1,          512,        4 * KIB,    64 * KIB, 256 * KIB, 512 * KIB,
                                  1024 * KIB, 1025 * KIB, 1536 * KIB, 2 * MIB,  3 * MIB};
    CUdeviceptr p;

    (void)arg;
    probe_context(probe_device());
    uint64_t before = probe_free();
    for (size_t i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
        char key[64];
        CUresult res = cu.cuMemAlloc_v2(&p, size[i]);
        uint64_t now = probe_free();

        snprintf(key, sizeof(key), "mixed.%zu", size[i]);
        probe_row(key, "%s at 0x%llx takes %lld", probe_result(res), (unsigned long long)p, (long long)(before - now));
        before = now;
    }
}

static void granularity(void *arg)
{
    static const struct {
        const char *name;
        CUmemLocationType where;
        CUmemAllocationHandleType handle;
    } kind[] = {{"device", CU_MEM_LOCATION_TYPE_DEVICE, CU_MEM_HANDLE_TYPE_NONE},
                {"device_fd", CU_MEM_LOCATION_TYPE_DEVICE, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR},
                {"device_fabric", CU_MEM_LOCATION_TYPE_DEVICE, CU_MEM_HANDLE_TYPE_FABRIC},
                {"host_numa", CU_MEM_LOCATION_TYPE_HOST_NUMA, CU_MEM_HANDLE_TYPE_NONE}};
    CUdevice dev = probe_device();

    (void)arg;
    probe_context(dev);
    for (size_t i = 0; i < sizeof(kind) / sizeof(kind[0]); i++) {
        CUmemAllocationProp prop;
        size_t least = 0, best = 0;
        char key[64];

        memset(&prop, 0, sizeof(prop));
        prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
        prop.location.type = kind[i].where;
        prop.requestedHandleTypes = kind[i].handle;
        CUresult res = cu.cuMemGetAllocationGranularity(&least, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
        cu.cuMemGetAllocationGranularity(&best, &prop, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
        snprintf(key, sizeof(key), "granularity.%s", kind[i].name);
        probe_row(key, "%s minimum %zu recommended %zu", probe_result(res), least, best);
    }
}

static void pitch(void *arg)
{
    static const size_t width[] = {1, 4, 100, 511, 512, 513, 1000, 4096, 4097, 100000};
    static const size_t height[] = {1, 3, 1000};

    (void)arg;
    probe_context(probe_device());
    for (size_t i = 0; i < sizeof(width) / sizeof(width[0]); i++) {
        for (size_t k = 0; k < sizeof(height) / sizeof(height[0]); k++) {
            CUdeviceptr p = 0;
            size_t got = 0;
            char key[64];
            uint64_t before = probe_free();
            CUresult res = cu.cuMemAllocPitch_v2(&p, &got, width[i], height[k], 4);

            snprintf(key, sizeof(key), "pitch.%zux%zu", width[i], height[k]);
            probe_row(key, "%s pitch %zu takes %lld", probe_result(res), got, (long long)(before - probe_free()));
            cu.cuMemFree_v2(p);
        }
    }
}

int main(void)
{
    static const size_t small[] = {1, 512, 513, 4 * KIB, 64 * KIB, 512 * KIB, 768 * KIB, MIB};
    static const size_t large[] = {MIB + 1, 1536 * KIB, 2 * MIB,  2 * MIB + 1, 3 * MIB, 5 * MIB,
                                   6 * MIB, 31 * MIB,   33 * MIB, 65 * MIB,    GIB,     GIB + 1};

    probe_open("memory");
    probe_fork("granularity", granularity, NULL);
    probe_fork("mixed", mixed, NULL);
    probe_fork("pitch", pitch, NULL);
    for (size_t i = 0; i < sizeof(small) / sizeof(small[0]); i++) {
        size_t want = 24 * MIB / (small[i] < 4 * KIB ? 4 * KIB : small[i]);
        struct trial t = {small[i], (unsigned int)want, FORWARD};

        for (int k = 0; k < 3; k++) {
            t.order = (enum order)k;
            probe_fork("small", one, &t);
        }
    }
    for (size_t i = 0; i < sizeof(large) / sizeof(large[0]); i++) {
        struct trial t = {large[i], large[i] >= GIB ? 4 : 12, FORWARD};

        probe_fork("large", one, &t);
    }
    return 0;
}
