/* SPDX-License-Identifier: Apache-2.0 */
/* What every snippet is stamped into: a snippet is one hooked symbol, tests/snippets/<symbol>.c, and a few lines that use it and look at what is
 * charged. They run once for each road on which a program comes by the symbol, each time in a process that has never used CUDA. */
#ifndef TESTS_SNIPPETS_SNIPPET_H
#define TESTS_SNIPPETS_SNIPPET_H

#define __CUDA_API_VERSION_INTERNAL /* names are those of the symbol table */
#include <cuda.h>

#include "../helper.h"

#ifndef SNIPPET_LIBRARY
#    define SNIPPET_LIBRARY "libcuda.so.1"
#    define SNIPPET_ROADS   ROADS
#endif

enum road { LINKED, LOOKED_UP, BY_DEFAULT, BY_VERSION, ROADS };

static enum road road;
static const char *const road_names[ROADS] = {"linked", "dlsym of a handle", "dlsym of RTLD_DEFAULT", "cuGetProcAddress"};

/* A symbol on the present road. */
#define CALL(symbol) ((__typeof__(&symbol))come_by(#symbol, (void *)(symbol)))

static struct {
    const char *base, *symbol;
    int since, per_thread;
} const rows[] = {
#define HOOK(home, body, arm, base_, symbol_, since_, per_thread_, treatment, reason)                                              \
    {.base = #base_, .symbol = #symbol_, .since = since_, .per_thread = per_thread_},
#include "../../shim/hooks.def"
};

T_UNUSED static void *come_by(const char *symbol, void *linked)
{
    void *found = NULL;

    for (size_t i = 0; road == BY_VERSION && i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strcmp(rows[i].symbol, symbol) == 0)
            t_cuda(cuGetProcAddress_v2(
                rows[i].base, &found, rows[i].since,
                rows[i].per_thread ? CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM : CU_GET_PROC_ADDRESS_LEGACY_STREAM, NULL));
    if (road == LINKED)
        found = linked;
    else if (road == LOOKED_UP)
        found = dlsym(t_library(SNIPPET_LIBRARY), symbol);
    else if (road == BY_DEFAULT)
        found = dlsym(RTLD_DEFAULT, symbol);
    t_check(found, "%s: %s: not found", symbol, road_names[road]);
    t_check(t_is_ours(found), "%s: %s: in %s, not the wrapper", symbol, road_names[road], t_object(found));
    return found;
}

/* ---- what is charged, as NVML tells this tenant, so that no context need be current */

T_UNUSED static uint64_t charged_on(unsigned gpu)
{
    unsigned long long memory[3]; /* total, free, used */
    int (*info)(void *, void *) = (int (*)(void *, void *))dlsym(t_library("libnvidia-ml.so.1"), "nvmlDeviceGetMemoryInfo");

    t_check(info && t_is_ours((void *)info), "nvmlDeviceGetMemoryInfo is not the wrapper");
    t_result(info(t_nvml_device(gpu), memory), 0);
    return memory[2];
}

static uint64_t at_first[2];

/* `bytes` more than when the snippet began. */
#define EXPECT_ON(gpu, bytes) t_equal(charged_on(gpu) - at_first[gpu], bytes)
#define EXPECT(bytes)         EXPECT_ON(0, bytes)

/* ---- a snippet */

#define BUDGET  (4 * T_GIB) /* of each of two GPUs; SOFTSLICE_VRAM in every snippet */
#define GRANULE (2 * T_MIB)

static void snippet(void);

/* It begins in a context of GPU 0, unless it says otherwise before it includes this. */
#ifndef SNIPPET_CONTEXT
#    define SNIPPET_CONTEXT cuCtxCreate_v2(&context, 0, 0)
#endif
T_UNUSED static CUcontext context;

T_UNUSED static CUmemAllocationProp on_gpu(int gpu)
{
    return (CUmemAllocationProp){.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                 .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                 .location = {CU_MEM_LOCATION_TYPE_DEVICE, gpu}};
}

T_UNUSED static CUmemPoolProps pool_on_gpu(int gpu)
{
    return (CUmemPoolProps){.allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, gpu}};
}

/* A graph with one allocation node of `bytes`, and a node that frees it. */
T_UNUSED static CUgraph memory_graph(size_t bytes)
{
    CUDA_MEM_ALLOC_NODE_PARAMS params = {.poolProps = pool_on_gpu(0), .bytesize = bytes};
    CUgraphNode take, give;
    CUgraph graph;

    t_cuda(cuGraphCreate(&graph, 0));
    t_cuda(cuGraphAddMemAllocNode(&take, graph, NULL, 0, &params));
    t_cuda(cuGraphAddMemFreeNode(&give, graph, &take, 1, params.dptr));
    return graph;
}

T_UNUSED static CUgraphExec memory_exec(size_t bytes)
{
    CUgraphExec exec;
    CUgraph graph = memory_graph(bytes);

    t_cuda(cuGraphInstantiateWithFlags(&exec, graph, 0));
    t_cuda(cuGraphDestroy(graph));
    return exec;
}

int main(void)
{
    for (road = LINKED; road < SNIPPET_ROADS; road++) {
        pid_t child = t_fork();
        if (child == 0) {
            t_cuda(cuInit(0));
            t_cuda(SNIPPET_CONTEXT);
            for (unsigned gpu = 0; gpu < 2; gpu++)
                at_first[gpu] = charged_on(gpu);
            snippet();
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        t_check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "that was: %s", road_names[road]);
    }
    return 0;
}

#endif
