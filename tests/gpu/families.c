/* SPDX-License-Identifier: Apache-2.0 */
/* Every way to take device memory under a budget, on any driver, real or simulated: each takes until it is refused and gives all back.
 *
 *   families [NAME...]     plain, async, virtual, array, graph; default: all
 *
 * For each: how much was granted before the refusal (which must be CUDA_ERROR_OUT_OF_MEMORY, near the budget and not over it), what is told to
 * be free after all was given back (the same as at first), and whether memory can be had after. `budget watch` around it tells what the GPU held.
 * Exits 0 when that held, 1 with a line saying what did not, 77 when it cannot tell. */
#include "probe.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST = 20000 };

static size_t piece; /* what is taken at a time */
static uint64_t held[MOST];
static CUdeviceptr mapped_at[MOST];

/* The driver's functions by their exact names; the link is by dlsym, as programs do. */
#define DRIVER(X)                                                                                                                  \
    X(cuMemAddressReserve)                                                                                                         \
    X(cuMemAddressFree)                                                                                                            \
    X(cuMemMap)                                                                                                                    \
    X(cuMemUnmap)                                                                                                                  \
    X(cuArray3DCreate_v2)                                                                                                          \
    X(cuArrayDestroy)                                                                                                              \
    X(cuGraphCreate)                                                                                                               \
    X(cuGraphAddMemAllocNode)                                                                                                      \
    X(cuGraphInstantiateWithFlags)                                                                                                 \
    X(cuGraphLaunch)                                                                                                               \
    X(cuGraphExecDestroy)
static struct {
#define X(name) __typeof__(&(name)) name;
    DRIVER(X)
#undef X
} more;

static int fail(const char *family, const char *why)
{
    probe_row(family, "failed: %s", why);
    return 1;
}

/* ---- one piece of each family, and its end */

static CUresult plain_take(unsigned i)
{
    return cu.cuMemAlloc_v2((CUdeviceptr *)&held[i], piece);
}

static void plain_give(unsigned i)
{
    cu.cuMemFree_v2(held[i]);
}

static CUresult async_take(unsigned i)
{
    CUresult result = cu.cuMemAllocAsync((CUdeviceptr *)&held[i], piece, NULL);
    return result == CUDA_SUCCESS ? cu.cuStreamSynchronize(NULL) : result;
}

static void async_give(unsigned i)
{
    cu.cuMemFreeAsync(held[i], NULL);
}

/* The handle is released at once: the mapping holds the memory. */
static CUresult virtual_take(unsigned i)
{
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
    CUmemGenericAllocationHandle handle;
    CUresult result = cu.cuMemCreate(&handle, piece, &prop, 0);

    if (result != CUDA_SUCCESS)
        return result;
    result = more.cuMemAddressReserve(&mapped_at[i], piece, 0, 0, 0);
    if (result == CUDA_SUCCESS)
        result = more.cuMemMap(mapped_at[i], piece, 0, handle, 0);
    cu.cuMemRelease(handle);
    return result;
}

static void virtual_give(unsigned i)
{
    more.cuMemUnmap(mapped_at[i], piece);
    more.cuMemAddressFree(mapped_at[i], piece);
}

static CUresult array_take(unsigned i)
{
    CUDA_ARRAY3D_DESCRIPTOR array = {.Width = 2048, .Height = piece / 2048 / 16, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 4};
    return more.cuArray3DCreate_v2((CUarray *)&held[i], &array);
}

static void array_give(unsigned i)
{
    more.cuArrayDestroy((CUarray)(uintptr_t)held[i]);
}

/* A graph that allocates and does not free. */
static CUresult graph_take(unsigned i)
{
    CUDA_MEM_ALLOC_NODE_PARAMS node = {
        .poolProps = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}}, .bytesize = piece};
    CUgraphNode made;
    CUgraphExec exec;
    CUgraph graph;
    CUresult result = more.cuGraphCreate(&graph, 0);

    if (result == CUDA_SUCCESS)
        result = more.cuGraphAddMemAllocNode(&made, graph, NULL, 0, &node);
    if (result == CUDA_SUCCESS)
        result = more.cuGraphInstantiateWithFlags(&exec, graph, 0);
    if (result == CUDA_SUCCESS) {
        result = more.cuGraphLaunch(exec, NULL);
        cu.cuStreamSynchronize(NULL);
        more.cuGraphExecDestroy(exec);
    }
    cu.cuGraphDestroy(graph);
    held[i] = node.dptr;
    return result;
}

static void graph_give(unsigned i)
{
    cu.cuMemFree_v2(held[i]);
}

/* ---- the same for each */

static void trim(void)
{
    CUmemoryPool pool;

    cu.cuCtxSynchronize();
    if (cu.cuDeviceGetDefaultMemPool(&pool, 0) == CUDA_SUCCESS)
        cu.cuMemPoolTrimTo(pool, 0);
    cu.cuDeviceGraphMemTrim(0);
}

static int family(const char *name, CUresult (*take)(unsigned), void (*give)(unsigned))
{
    size_t total = 0, free_before = 0, free_after = 0;
    CUresult result = CUDA_SUCCESS;
    CUdeviceptr block;
    unsigned n = 0;

    cu.cuMemGetInfo_v2(&free_before, &total);
    while (n < MOST && (result = take(n)) == CUDA_SUCCESS)
        n++;
    probe_row(name, "%u pieces of %zu MiB, then %s; budget %zu MiB, free before %zu MiB", n, piece / MIB, probe_result(result),
              total / MIB, free_before / MIB);
    usleep(300000); /* for who watches */
    for (unsigned i = 0; i < n; i++)
        give(i);
    trim();
    if (result != CUDA_ERROR_OUT_OF_MEMORY)
        return fail(name, "the refusal is not CUDA_ERROR_OUT_OF_MEMORY");
    if (n * piece > free_before)
        return fail(name, "more was granted than cuMemGetInfo called free");
    if ((n + 4) * piece < free_before)
        return fail(name, "refused although four pieces were free");
    for (int i = 0; i < 30 && (cu.cuMemGetInfo_v2(&free_after, &total), free_after < free_before); i++)
        usleep(100000); /* what the driver took by itself is read about once a second */
    probe_row(name, "free after: %zu MiB", free_after / MIB);
    if (free_after + 64 * MIB < free_before)
        return fail(name, "not all came back");
    if (cu.cuMemAlloc_v2(&block, piece) != CUDA_SUCCESS || cu.cuMemFree_v2(block) != CUDA_SUCCESS ||
        cu.cuCtxSynchronize() != CUDA_SUCCESS)
        return fail(name, "the refusal left something behind");
    return 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        CUresult (*take)(unsigned);
        void (*give)(unsigned);
    } all[] = {{"plain", plain_take, plain_give},
               {"async", async_take, async_give},
               {"virtual", virtual_take, virtual_give},
               {"array", array_take, array_give},
               {"graph", graph_take, graph_give}};
    int failed = 0;

    probe_open("families");
    probe_context(probe_device());
#define X(name) more.name = (__typeof__(more.name))dlsym(probe_libcuda, #name);
    DRIVER(X)
#undef X
    piece = 64 * MIB;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        bool wanted = argc == 1;

        for (int n = 1; n < argc; n++)
            wanted |= strcmp(argv[n], all[i].name) == 0;
        if (wanted)
            failed |= family(all[i].name, all[i].take, all[i].give);
    }
    return failed;
}
