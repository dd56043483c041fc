/* SPDX-License-Identifier: Apache-2.0 */
/* Stream capture and graphs of the simulated driver. */
#include "helper.h"
#include <cuda.h>
#include <pthread.h>

static CUmodule module;

static void use_gpu(void)
{
    CUcontext ctx;

    t_cuda(cuInit(0));
    t_cuda(cuCtxCreate(&ctx, NULL, 0, 0));
    t_cuda(cuModuleLoadData(&module, "any image"));
}

static CUfunction kernel(const char *name)
{
    CUfunction f;

    t_cuda(cuModuleGetFunction(&f, module, name));
    return f;
}

static CUstream stream(unsigned flags)
{
    CUstream s;

    t_cuda(cuStreamCreate(&s, flags));
    return s;
}

static void launch(CUstream s)
{
    t_cuda(cuLaunchKernel(kernel("k__1ms"), 1, 1, 1, 1, 1, 1, 0, s, NULL, NULL));
}

static CUstreamCaptureStatus status(CUstream s)
{
    CUstreamCaptureStatus out;

    t_cuda(cuStreamIsCapturing(s, &out));
    return out;
}

/* What invalidates a capture, and what its end then says. */
static void ends_invalidated(CUstream s)
{
    CUgraph g = (CUgraph)1;

    t_equal(status(s), CU_STREAM_CAPTURE_STATUS_INVALIDATED);
    t_result(cuStreamEndCapture(s, &g), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    t_check(!g, "an invalidated capture left a graph");
    t_equal(status(s), CU_STREAM_CAPTURE_STATUS_NONE);
}

static void *alloc_in_thread(void *result)
{
    CUcontext ctx;
    CUdeviceptr p;

    *(int *)result = cuDevicePrimaryCtxRetain(&ctx, 0) || cuCtxSetCurrent(ctx) ? -1 : (int)cuMemAlloc(&p, 4096);
    return NULL;
}

static int alloc_elsewhere(void)
{
    pthread_t thread;
    int result = -1;

    t_check(pthread_create(&thread, NULL, alloc_in_thread, &result) == 0, "no thread");
    pthread_join(thread, NULL);
    return result;
}

static void check_unsafe(void)
{
    CUstreamCaptureMode mode;
    CUstream s;
    CUdeviceptr p;
    CUgraph g;
    CUevent e;

    use_gpu();
    s = stream(CU_STREAM_NON_BLOCKING);
    t_cuda(cuEventCreate(&e, 0));
    t_result(cuStreamBeginCapture(NULL, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    t_result(cuStreamEndCapture(s, &g), CUDA_ERROR_ILLEGAL_STATE);

    t_cuda(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
    t_result(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_ERROR_ILLEGAL_STATE);
    t_result(cuMemAlloc(&p, 4096), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    t_result(cuLaunchKernel(kernel("k"), 1, 1, 1, 1, 1, 1, 0, s, NULL, NULL), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    ends_invalidated(s);

    t_cuda(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
    t_result(alloc_elsewhere(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    ends_invalidated(s);

    t_cuda(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    t_result(alloc_elsewhere(), CUDA_SUCCESS);
    t_equal(status(s), CU_STREAM_CAPTURE_STATUS_ACTIVE);
    t_result(cuMemAlloc(&p, 4096), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    ends_invalidated(s);

    t_cuda(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
    mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    t_cuda(cuThreadExchangeStreamCaptureMode(&mode));
    t_equal(mode, CU_STREAM_CAPTURE_MODE_GLOBAL);
    t_cuda(cuMemAlloc(&p, 4096));
    t_cuda(cuThreadExchangeStreamCaptureMode(&mode));
    t_cuda(cuStreamEndCapture(s, &g));
    t_cuda(cuGraphDestroy(g));

    t_cuda(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    t_cuda(cuMemFree(p));
    t_result(cuStreamSynchronize(s), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    ends_invalidated(s);

    t_cuda(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    t_cuda(cuEventRecord(e, s));
    t_result(cuEventQuery(e), CUDA_ERROR_CAPTURED_EVENT);
    t_cuda(cuStreamEndCapture(s, &g));
    t_cuda(cuGraphDestroy(g));
}

static void check_joining(void)
{
    CUstream s, other, blocking;
    CUevent fork_event, join_event, outside;
    size_t nodes = 0, edges = 0;
    CUgraph g;

    use_gpu();
    s = stream(CU_STREAM_NON_BLOCKING);
    other = stream(CU_STREAM_NON_BLOCKING);
    blocking = stream(CU_STREAM_DEFAULT);
    t_cuda(cuEventCreate(&fork_event, 0));
    t_cuda(cuEventCreate(&join_event, 0));
    t_cuda(cuEventCreate(&outside, 0));

    t_cuda(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    launch(s);
    t_cuda(cuEventRecord(fork_event, s));
    t_cuda(cuStreamWaitEvent(other, fork_event, 0));
    t_equal(status(other), CU_STREAM_CAPTURE_STATUS_ACTIVE);
    launch(other);
    launch(s);
    t_cuda(cuEventRecord(join_event, other));
    t_cuda(cuStreamWaitEvent(s, join_event, 0));
    launch(s);
    t_cuda(cuStreamEndCapture(s, &g));
    t_equal(status(other), CU_STREAM_CAPTURE_STATUS_NONE);
    t_cuda(cuGraphGetNodes(g, NULL, &nodes));
    t_cuda(cuGraphGetEdges(g, NULL, NULL, NULL, &edges));
    t_equal(nodes, 4);
    t_equal(edges, 4);
    t_cuda(cuGraphDestroy(g));

    t_cuda(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    t_cuda(cuEventRecord(fork_event, s));
    t_cuda(cuStreamWaitEvent(other, fork_event, 0));
    launch(other);
    t_result(cuStreamEndCapture(s, &g), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);

    t_cuda(cuEventRecord(outside, other));
    t_cuda(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    t_result(cuStreamWaitEvent(s, outside, 0), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    ends_invalidated(s);

    t_cuda(cuStreamBeginCapture(blocking, CU_STREAM_CAPTURE_MODE_RELAXED));
    t_result(cuLaunchKernel(kernel("k"), 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    ends_invalidated(blocking);
}

static int calls;

static void count_call(void *data)
{
    (void)data;
    __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
}

static void check_graphs(void)
{
    CUDA_KERNEL_NODE_PARAMS p = {.gridDimX = 1, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 1, .blockDimY = 1, .blockDimZ = 1};
    CUDA_HOST_NODE_PARAMS host = {.fn = count_call};
    CUgraphNode a, b, c, child_node;
    CUgraphExec exec;
    CUgraph g, child;
    CUevent begin, end;
    CUstream s;
    unsigned word = 0;
    CUdeviceptr dev;
    float ms;

    use_gpu();
    s = stream(CU_STREAM_NON_BLOCKING);
    t_cuda(cuMemAlloc(&dev, 4096));
    t_cuda(cuEventCreate(&begin, 0));
    t_cuda(cuEventCreate(&end, 0));
    t_cuda(cuGraphCreate(&g, 0));
    t_cuda(cuGraphCreate(&child, 0));
    p.func = kernel("work__5ms");
    t_cuda(cuGraphAddKernelNode(&a, g, NULL, 0, &p));
    t_cuda(cuGraphAddKernelNode(&b, g, &a, 1, &p));
    t_cuda(cuGraphAddHostNode(&c, g, &b, 1, &host));
    t_result(cuGraphAddHostNode(&c, child, &b, 1, &host), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuGraphAddMemsetNode(
        &c, child, NULL, 0, &(CUDA_MEMSET_NODE_PARAMS){.dst = dev, .value = 5, .elementSize = 4, .width = 1, .height = 1}, NULL));
    t_cuda(cuGraphAddChildGraphNode(&child_node, g, &b, 1, child));
    t_cuda(cuGraphDestroy(child));
    t_cuda(cuGraphInstantiate(&exec, g, 0));
    t_cuda(cuEventRecord(begin, s));
    for (int i = 0; i < 3; i++)
        t_cuda(cuGraphLaunch(exec, s));
    t_cuda(cuEventRecord(end, s));
    t_cuda(cuStreamSynchronize(s));
    t_equal(__atomic_load_n(&calls, __ATOMIC_SEQ_CST), 3);
    t_cuda(cuMemcpyDtoH(&word, dev, 4));
    t_equal(word, 5);
    t_cuda(cuEventElapsedTime(&ms, begin, end));
    t_check(ms >= 29.99f, "6 kernels of 5 ms took %.3f ms", (double)ms);
    t_cuda(cuGraphNodeSetEnabled(exec, a, 0));
    p.func = kernel("work__1ms");
    t_cuda(cuGraphExecKernelNodeSetParams(exec, b, &p));

    /* A circle cannot be instantiated. */
    t_cuda(cuGraphAddDependencies(g, &b, &a, NULL, 1));
    t_result(cuGraphInstantiate(&exec, g, 0), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuGraphRemoveDependencies(g, &b, &a, NULL, 1));
    t_result(cuGraphRemoveDependencies(g, &b, &a, NULL, 1), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuGraphExecDestroy(exec));
    t_cuda(cuGraphDestroy(g));
    t_result(cuGraphDestroy(g), CUDA_ERROR_INVALID_VALUE);
}

static uint64_t attribute(CUgraphMem_attribute which)
{
    cuuint64_t value;

    t_cuda(cuDeviceGetGraphMemAttribute(0, which, &value));
    return value;
}

/* Memory nodes: addresses at once, HBM at the launch, kept until it is trimmed. */
static void check_memory_nodes(void)
{
    CUstream s;
    CUdeviceptr p = 0, q = 0;
    CUgraphExec exec;
    CUgraph g;
    uint64_t before;

    use_gpu();
    s = stream(CU_STREAM_NON_BLOCKING);
    before = t_used(0);
    t_cuda(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    t_cuda(cuMemAllocAsync(&p, 64 * T_MIB, s));
    t_cuda(cuMemsetD8Async(p, 1, 100, s));
    t_cuda(cuMemFreeAsync(p, s));
    t_cuda(cuMemAllocAsync(&q, 10 * T_MIB, s));
    t_cuda(cuStreamEndCapture(s, &g));
    t_check(p && q && p != q, "the nodes have no addresses");
    t_cuda(cuGraphInstantiate(&exec, g, 0));
    t_equal(t_used(0), before);
    t_cuda(cuGraphLaunch(exec, s));
    t_cuda(cuStreamSynchronize(s));
    t_equal(t_used(0), before + 64 * T_MIB);
    t_equal(attribute(CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT), 64 * T_MIB);
    t_equal(attribute(CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT), 10 * T_MIB);
    t_equal(attribute(CU_GRAPH_MEM_ATTR_USED_MEM_HIGH), 64 * T_MIB);
    t_result(cuGraphLaunch(exec, s), CUDA_ERROR_INVALID_VALUE); /* q is still allocated */
    t_cuda(cuMemFree(q));
    t_result(cuMemFree(q), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuGraphLaunch(exec, s));
    t_cuda(cuMemFreeAsync(q, s));
    t_cuda(cuStreamSynchronize(s));
    t_cuda(cuGraphExecDestroy(exec));
    t_cuda(cuGraphDestroy(g));
    t_equal(t_used(0), before + 64 * T_MIB);
    t_cuda(cuDeviceGraphMemTrim(0));
    t_equal(t_used(0), before);

    /* More than there is: the launch says so, and nothing is taken. */
    t_cuda(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    t_cuda(cuMemAllocAsync(&p, 2 * T_GIB, s));
    t_cuda(cuMemFreeAsync(p, s));
    t_cuda(cuStreamEndCapture(s, &g));
    t_cuda(cuGraphInstantiate(&exec, g, 0));
    t_result(cuGraphLaunch(exec, s), CUDA_ERROR_OUT_OF_MEMORY);
    t_equal(t_used(0), before);
}

static void in_child(void (*check)(void))
{
    pid_t child = t_fork();

    if (child == 0) {
        check();
        fflush(stdout);
        _exit(0);
    }
    t_join(child);
}

int main(void)
{
    setenv("SOFTSIM_MEM", "1G", 1);
    setenv("SOFTSIM_CONTEXT_BYTES", "100M", 1);
    in_child(check_unsafe);
    in_child(check_joining);
    in_child(check_graphs);
    in_child(check_memory_nodes);
    return 0;
}
