/* SPDX-License-Identifier: Apache-2.0 */
/* Threads with the smallest stack that there is: calls of each kind, from the first on, do on it with us what they do without us. */
// unsanitized: a sanitizer's own frames need more
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=small SOFTSIM_CONTEXT_BYTES=100M
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=small SOFTSIM_CONTEXT_BYTES=100M
#include <limits.h>
#include <pthread.h>

#include "../cuda_helper.h"

static CUcontext context;

static void start(void)
{
    context = t_context(0);
}

static void contexts(void)
{
    CUcontext other;

    t_cuda(cuCtxCreate(&other, NULL, 0, 0));
    t_cuda(cuCtxDestroy(other));
    t_cuda(cuDevicePrimaryCtxRetain(&other, 0));
    t_cuda(cuDevicePrimaryCtxRelease(0));
    t_cuda(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, 64 * T_MIB));
}

static void blocks(void)
{
    CUdeviceptr p, q;

    t_cuda(cuMemAlloc(&p, 3 * T_MIB));
    t_cuda(cuMemAlloc(&q, 300));
    t_check(!t_alloc(T_GIB), "granted");
    t_check(t_free() < T_GIB, "nothing is used");
    t_cuda(cuMemFree(q));
    t_cuda(cuMemFree(p));
}

static void pools(void)
{
    CUdeviceptr p;

    t_cuda(cuMemAllocAsync(&p, T_MIB, NULL));
    t_cuda(cuMemFreeAsync(p, NULL));
    t_cuda(cuCtxSynchronize());
    t_result(cuMemAllocAsync(&p, T_GIB, NULL), CUDA_ERROR_OUT_OF_MEMORY);
}

static void handles(void)
{
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    CUDA_ARRAY_DESCRIPTOR shape = {.Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 4};
    CUmemGenericAllocationHandle handle;
    CUmodule module;
    CUarray array;

    t_cuda(cuMemCreate(&handle, t_granule(), &prop, 0));
    t_cuda(cuMemRelease(handle));
    t_cuda(cuArrayCreate(&array, &shape));
    t_cuda(cuArrayDestroy(array));
    t_cuda(cuModuleLoadData(&module, "an image"));
    t_cuda(cuModuleUnload(module));
}

static void graphs(void)
{
    CUDA_MEM_ALLOC_NODE_PARAMS params = {.bytesize = T_MIB};
    CUgraphExec executable;
    CUgraphNode node;
    CUgraph graph;

    params.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    params.poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    t_cuda(cuGraphCreate(&graph, 0));
    t_cuda(cuGraphAddMemAllocNode(&node, graph, NULL, 0, &params));
    t_cuda(cuGraphInstantiate(&executable, graph, 0));
    t_cuda(cuGraphLaunch(executable, NULL));
    t_cuda(cuCtxSynchronize());
    t_cuda(cuGraphExecDestroy(executable));
    t_cuda(cuDeviceGraphMemTrim(0));
}

static void *run(void *function)
{
    if (context)
        t_cuda(cuCtxSetCurrent(context));
    ((void (*)(void))function)();
    return NULL;
}

int main(void)
{
    void (*const functions[])(void) = {start, contexts, blocks, pools, handles, graphs};
    pthread_attr_t attributes;
    pthread_t thread;

    pthread_attr_init(&attributes);
    t_check(pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN) == 0, "a stack of the smallest size");
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
        t_check(pthread_create(&thread, &attributes, run, (void *)functions[i]) == 0, "no thread");
        pthread_join(thread, NULL);
    }
    return 0;
}
