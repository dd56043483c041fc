/* SPDX-License-Identifier: Apache-2.0 */
/* Graph memory (rule R6): nodes and captures take nothing, what can never fit is refused when it is instantiated, a launch is charged what
 * the driver then holds for graphs, replays cost nothing more, and what comes back is given back. */
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_MEM=4G SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_GPUS=2
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_MEM=4G SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_GPUS=2 SOFTSLICE_TENANT=graphs
#include <cudaTypedefs.h>
#include <pthread.h>

#include "graph_helper.h"

static CUstream stream;
static CUcontext context[2];
static size_t base; /* what is charged while no graph has memory */

/* Nothing of graphs is left charged, nor held by the driver. */
static void trim(void)
{
    t_cuda(cuDeviceGraphMemTrim(0));
    t_equal(g_charged(), base);
    g_agree(0);
}

static void check_nothing_before_launch(void)
{
    CUgraph graph = g_graph(), captured;
    CUdeviceptr p = 0, q = 0;
    CUgraphNode node;
    CUgraphExec exec;

    node = g_alloc(graph, NULL, 0, 300 * T_MIB, &p);
    g_free(graph, node, p);
    CUgraphNodeParams params = {.type = CU_GRAPH_NODE_TYPE_MEM_ALLOC};
    params.alloc.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    params.alloc.poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    params.alloc.bytesize = 10 * T_MIB;
    t_cuda(cuGraphAddNode(&node, graph, NULL, NULL, 0, &params));
    t_check(params.alloc.dptr, "a node has no address");
    t_cuda(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    t_cuda(cuMemAllocAsync(&q, 900 * T_MIB, stream));
    t_cuda(cuMemFreeAsync(q, stream));
    t_cuda(cuMemAllocAsync(&q, 900 * T_MIB, stream));
    t_cuda(cuMemFreeAsync(q, stream));
    t_cuda(cuStreamEndCapture(stream, &captured));
    t_equal(g_charged(), base);
    exec = g_exec(captured);
    t_equal(g_charged(), base);
    g_agree(0);
    g_run(exec, stream);
    t_equal(g_charged(), base + 900 * T_MIB);
    g_agree(0);
    t_cuda(cuGraphExecDestroy(exec));
    t_cuda(cuGraphDestroy(captured));
    t_equal(g_charged(), base + 900 * T_MIB); /* the device's, for the next graph */
    trim();
    exec = g_exec(graph);
    g_run(exec, stream);
    g_agree(0);
    t_cuda(cuMemFree(params.alloc.dptr));
    t_cuda(cuGraphExecDestroy(exec));
    t_cuda(cuGraphDestroy(graph));
    trim();
}

/* The first two ABIs. */
typedef CUresult (*with_log)(CUgraphExec *, CUgraph, CUgraphNode *, char *, size_t);

/* Through every entry point. */
static CUresult instantiate(int way, CUgraphExec *exec, CUgraph graph)
{
    CUDA_GRAPH_INSTANTIATE_PARAMS params = {.result_out = CUDA_GRAPH_INSTANTIATE_INVALID_STRUCTURE, .hUploadStream = stream};
    CUresult result;

    switch (way) {
    case 0:
        return ((with_log)t_wrapper("cuGraphInstantiate"))(exec, graph, NULL, NULL, 0);
    case 1:
        return ((with_log)t_wrapper("cuGraphInstantiate_v2"))(exec, graph, NULL, NULL, 0);
    case 2:
        return cuGraphInstantiateWithFlags(exec, graph, 0);
    default:
        result = ((PFN_cuGraphInstantiateWithParams_v12000)t_wrapper(
            way == 3 ? "cuGraphInstantiateWithParams" : "cuGraphInstantiateWithParams_ptsz"))(exec, graph, &params);
        t_equal(params.result_out, result == CUDA_SUCCESS ? CUDA_GRAPH_INSTANTIATE_SUCCESS : CUDA_GRAPH_INSTANTIATE_ERROR);
        return result;
    }
}

static void check_never_fits(void)
{
    CUgraph large = g_graph(), small = g_graph();

    g_pass(large, NULL, 0, T_GIB + 1);
    g_pass(small, NULL, 0, T_GIB); /* not now, for there is a context; who knows later */
    for (int way = 0; way < 5; way++) {
        CUgraphExec exec = (CUgraphExec)T_UNTOUCHED;

        t_result(instantiate(way, &exec, large), CUDA_ERROR_OUT_OF_MEMORY);
        t_check(exec == (CUgraphExec)T_UNTOUCHED, "a refused instantiation wrote its output");
        t_result(instantiate(way, NULL, large), CUDA_ERROR_INVALID_VALUE);
        t_cuda(instantiate(way, &exec, small));
        t_result(cuGraphLaunch(exec, stream), CUDA_ERROR_OUT_OF_MEMORY);
        t_result(cuGraphUpload(exec, stream), CUDA_ERROR_OUT_OF_MEMORY);
        t_cuda(cuGraphExecDestroy(exec));
        t_result(cuGraphLaunch(exec, stream), CUDA_ERROR_INVALID_VALUE); /* it is the driver's again to say */
    }
    t_cuda(cuGraphDestroy(large));
    t_cuda(cuGraphDestroy(small));
    t_equal(g_charged(), base);
    g_agree(0);
}

static void check_replays(void)
{
    CUgraphExec exec = g_passing(0, 200 * T_MIB);

    for (int i = 0; i < 1000; i++) {
        t_cuda(cuGraphLaunch(exec, stream));
        if (i % 100 == 0) {
            t_equal(g_charged(), base + 200 * T_MIB);
            g_agree(0);
        }
    }
    t_cuda(cuStreamSynchronize(stream));
    t_equal(g_charged(), base + 200 * T_MIB);
    t_cuda(cuGraphExecDestroy(exec));
    trim();
}

static void check_sharing(void)
{
    CUgraphExec a = g_passing(0, 300 * T_MIB), b = g_passing(0, 500 * T_MIB), c;
    CUdeviceptr p = 0;

    g_run(a, stream);
    g_run(b, stream);
    g_agree(0);
    t_equal(g_charged(), base + 500 * T_MIB);
    /* One more leaves something, in what both use: they have to make room, again and again. */
    c = g_leaving(0, 100 * T_MIB, &p);
    g_run(c, stream);
    for (int i = 0; i < 3; i++) {
        g_run(a, stream);
        g_agree(0);
        g_run(b, stream);
        g_agree(0);
        t_cuda(cuMemFree(p));
        g_run(a, stream);
        g_run(c, stream);
        g_agree(0);
    }
    t_cuda(cuMemFreeAsync(p, stream));
    t_cuda(cuStreamSynchronize(stream));
    t_cuda(cuGraphExecDestroy(a));
    t_cuda(cuGraphExecDestroy(b));
    t_cuda(cuGraphExecDestroy(c));
    trim();
}

/* A refused launch did nothing; after a free it succeeds; nothing sticks. */
static void check_over_budget(void)
{
    CUgraph graph = g_graph();
    CUdeviceptr block = t_alloc(500 * T_MIB), mark = t_alloc(T_MIB), p = 0;
    unsigned char value = 0;
    CUgraphNode node;
    CUDA_MEMSET_NODE_PARAMS set = {.dst = mark, .value = 7, .elementSize = 1, .width = 1, .height = 1};
    size_t before = g_charged();

    t_check(block && mark, "refused too early");
    t_cuda(cuMemsetD8(mark, 1, 1));
    node = g_alloc(graph, NULL, 0, 500 * T_MIB, &p);
    t_cuda(cuGraphAddMemsetNode(&node, graph, &node, 1, &set, context[0]));
    g_free(graph, node, p);
    CUgraphExec exec = g_exec(graph);
    for (int i = 0; i < 3; i++) {
        t_result(cuGraphLaunch(exec, stream), CUDA_ERROR_OUT_OF_MEMORY);
        t_result(cuGraphUpload(exec, stream), CUDA_ERROR_OUT_OF_MEMORY);
        t_cuda(cuCtxSynchronize());
        t_cuda(cuMemcpyDtoH(&value, mark, 1));
        t_equal(value, 1);
        t_equal(g_charged(), before);
        g_agree(0);
    }
    t_cuda(cuMemFree(block));
    g_run(exec, stream);
    t_cuda(cuMemcpyDtoH(&value, mark, 1));
    t_equal(value, 7);
    g_agree(0);

    /* What graphs keep is given back for others; then the graph is like one that was never launched. */
    block = t_alloc(800 * T_MIB);
    t_check(block, "what graphs keep was not given back");
    g_agree(0);
    t_result(cuGraphLaunch(exec, stream), CUDA_ERROR_OUT_OF_MEMORY);
    g_agree(0);
    t_cuda(cuMemFree(block));
    g_run(exec, stream);
    g_agree(0);
    t_cuda(cuDeviceGraphMemTrim(0));
    block = t_alloc(800 * T_MIB);
    t_check(block, "refused what the program has trimmed");
    t_result(cuGraphLaunch(exec, stream), CUDA_ERROR_OUT_OF_MEMORY);
    t_cuda(cuMemFree(block));
    t_cuda(cuMemFree(mark));
    t_cuda(cuGraphExecDestroy(exec));
    trim();
}

/* A replay whose memory is still there is not refused, however little else is left. */
static void check_tight_replay(void)
{
    CUgraphExec exec = g_passing(0, 600 * T_MIB), small = g_passing(0, 100 * T_MIB);
    CUdeviceptr p = 0;

    g_run(exec, stream);
    CUdeviceptr block = t_alloc(300 * T_MIB);
    t_check(block, "refused too early");
    for (int i = 0; i < 10; i++)
        g_run(exec, stream);
    /* Trims find nothing while a graph's allocation is held: what was there is there still. */
    CUgraphExec leaving = g_leaving(0, 600 * T_MIB, &p);
    g_run(leaving, stream);
    t_check(!t_alloc(200 * T_MIB), "granted too much");
    t_result(cuGraphLaunch(leaving, stream), CUDA_ERROR_INVALID_VALUE);
    g_agree(0);
    t_cuda(cuMemFreeAsync(p, stream));
    g_run(leaving, stream);
    t_cuda(cuMemFreeAsync(p, stream));
    t_cuda(cuStreamSynchronize(stream));
    t_cuda(cuMemFree(block));
    t_cuda(cuGraphExecDestroy(exec));
    t_cuda(cuGraphExecDestroy(small));
    t_cuda(cuGraphExecDestroy(leaving));
    trim();
}

static void check_free_on_launch(void)
{
    CUgraph graph = g_graph();
    CUgraphExec exec;
    CUdeviceptr p = 0;

    g_alloc(graph, NULL, 0, 400 * T_MIB, &p);
    t_cuda(cuGraphInstantiateWithFlags(&exec, graph, CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH));
    for (int i = 0; i < 20; i++) {
        g_run(exec, stream);
        t_equal(g_charged(), base + 400 * T_MIB);
        g_agree(0);
    }
    t_cuda(cuDeviceGraphMemTrim(0));
    t_equal(g_charged(), base + 400 * T_MIB); /* it is allocated */
    t_cuda(cuMemFree(p));
    t_cuda(cuGraphExecDestroy(exec));
    trim();
}

/* How much a graph takes at most is as its edges have it: allocations one behind the other share, those of branches do not. */
static void check_edges(void)
{
    CUgraph chain = g_graph(), fork = g_graph();
    CUgraphNode last = NULL, root;
    CUdeviceptr p = 0, block;

    for (int i = 0; i < 100; i++) {
        last = g_alloc(chain, last, 0, 300 * T_MIB + (size_t)i * 4096, &p);
        last = g_free(chain, last, p);
    }
    t_cuda(cuGraphAddEmptyNode(&root, fork, NULL, 0));
    for (int i = 0; i < 3; i++) {
        last = root;
        for (int steps = 0; steps < 4 * i; steps++)
            t_cuda(cuGraphAddEmptyNode(&last, fork, &last, 1));
        g_pass(fork, last, 0, 300 * T_MIB);
    }
    CUgraphExec in_turn = g_exec(chain), at_once = g_exec(fork);
    g_run(in_turn, stream);
    g_agree(0);
    trim();
    block = t_alloc(100 * T_MIB);
    t_result(cuGraphLaunch(at_once, stream), CUDA_ERROR_OUT_OF_MEMORY);
    t_cuda(cuMemFree(block));
    g_run(at_once, stream);
    g_agree(0);
    t_cuda(cuGraphExecDestroy(in_turn));
    t_cuda(cuGraphExecDestroy(at_once));
    trim();
}

/* Child graphs count where they stand, and an update counts. */
static void check_children_and_updates(void)
{
    CUgraph child = g_graph(), parent = g_graph(), larger = g_graph();
    CUgraphExecUpdateResultInfo info;
    CUgraphNode node;

    g_pass(child, NULL, 0, 800 * T_MIB);
    t_cuda(cuGraphAddChildGraphNode(&node, parent, NULL, 0, child));
    t_cuda(cuGraphAddChildGraphNode(&node, parent, &node, 1, child));
    CUgraphExec exec = g_exec(parent);
    CUdeviceptr block = t_alloc(400 * T_MIB);
    t_result(cuGraphLaunch(exec, stream), CUDA_ERROR_OUT_OF_MEMORY);
    t_cuda(cuMemFree(block));
    g_run(exec, stream);
    t_equal(g_charged(), base + 800 * T_MIB);
    t_cuda(cuGraphExecDestroy(exec));
    trim();

    exec = g_passing(0, 100 * T_MIB);
    g_run(exec, stream);
    g_pass(larger, NULL, 0, 700 * T_MIB);
    t_cuda(cuGraphExecUpdate(exec, larger, &info));
    block = t_alloc(500 * T_MIB);
    t_result(cuGraphLaunch(exec, stream), CUDA_ERROR_OUT_OF_MEMORY);
    g_agree(0);
    t_cuda(cuMemFree(block));
    g_run(exec, stream);
    g_agree(0);
    t_cuda(cuGraphExecDestroy(exec));
    trim();
}

static void check_uploads(void)
{
    CUgraph graph = g_graph();
    CUDA_GRAPH_INSTANTIATE_PARAMS params = {.flags = CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD, .hUploadStream = stream};
    CUgraphExec exec = g_passing(0, 600 * T_MIB);
    CUdeviceptr block;

    t_cuda(cuGraphUpload(exec, stream));
    t_equal(g_charged(), base + 600 * T_MIB);
    g_agree(0);
    g_run(exec, stream);
    t_cuda(cuGraphExecDestroy(exec));
    trim();
    g_pass(graph, NULL, 0, 600 * T_MIB);
    block = t_alloc(500 * T_MIB);
    exec = (CUgraphExec)T_UNTOUCHED;
    params.result_out = CUDA_GRAPH_INSTANTIATE_SUCCESS;
    t_result(cuGraphInstantiateWithParams(&exec, graph, &params), CUDA_ERROR_OUT_OF_MEMORY);
    t_equal(params.result_out, CUDA_GRAPH_INSTANTIATE_ERROR);
    t_check(exec == (CUgraphExec)T_UNTOUCHED, "a refused instantiation wrote its output");
    t_cuda(cuMemFree(block));
    t_cuda(cuGraphInstantiateWithParams(&exec, graph, &params));
    g_agree(0);
    g_run(exec, stream);
    g_agree(0);
    t_cuda(cuGraphExecDestroy(exec));
    trim();
}

/* The charge is the allocation's device's, whatever is current, and each device's budget counts. */
static void check_devices(void)
{
    CUgraph graph = g_graph();
    CUdeviceptr block;
    size_t other;

    t_cuda(cuCtxSetCurrent(context[1]));
    other = g_charged();
    t_cuda(cuCtxSetCurrent(context[0]));
    g_pass(graph, NULL, 0, 100 * T_MIB);
    g_pass(graph, NULL, 1, 700 * T_MIB);
    CUgraphExec exec = g_exec(graph);
    g_run(exec, stream);
    t_equal(g_charged(), base + 100 * T_MIB);
    g_agree(0);
    t_cuda(cuCtxSetCurrent(context[1]));
    t_equal(g_charged(), other + 700 * T_MIB);
    g_agree(1);
    t_cuda(cuDeviceGraphMemTrim(1));
    t_equal(g_charged(), other);
    block = t_alloc(500 * T_MIB);
    t_cuda(cuCtxSetCurrent(context[0]));
    t_result(cuGraphLaunch(exec, stream), CUDA_ERROR_OUT_OF_MEMORY);
    g_agree(0);
    t_cuda(cuCtxSetCurrent(context[1]));
    g_agree(1);
    t_cuda(cuMemFree(block));
    CUstream there = g_stream(); /* one device's graph in the other's stream */
    CUgraphExec foreign = g_passing(0, 300 * T_MIB);
    g_run(foreign, there);
    g_run(exec, there);
    g_agree(1);
    t_cuda(cuDeviceGraphMemTrim(1));
    t_cuda(cuCtxSetCurrent(context[0]));
    g_agree(0);
    t_cuda(cuGraphExecDestroy(exec));
    t_cuda(cuGraphExecDestroy(foreign));
    trim();
    t_result(cuDeviceGraphMemTrim(77), CUDA_ERROR_INVALID_DEVICE);
}

#define THREADS 8
#define ROUNDS  200

static void *launch_many(void *argument)
{
    size_t number = (size_t)argument;
    CUgraphExec exec;
    CUstream mine;

    t_cuda(cuCtxSetCurrent(context[0]));
    mine = g_stream();
    exec = g_passing(0, (20 + number * 10) * T_MIB);
    for (int i = 0; i < ROUNDS; i++) {
        CUresult result = cuGraphLaunch(exec, i % 10 ? mine : CU_STREAM_PER_THREAD);

        t_check(result == CUDA_SUCCESS || result == CUDA_ERROR_OUT_OF_MEMORY, "a launch returned %d", (int)result);
    }
    t_cuda(cuStreamSynchronize(mine));
    t_cuda(cuStreamSynchronize(CU_STREAM_PER_THREAD));
    t_cuda(cuGraphExecDestroy(exec));
    t_cuda(cuStreamDestroy(mine));
    return NULL;
}

/* Takes all that is left, again and again, so that graphs give back what they keep. */
static void *press(void *argument)
{
    t_cuda(cuCtxSetCurrent(context[0]));
    for (int i = 0; i < ROUNDS / 4; i++) {
        CUdeviceptr pointer = t_alloc((i % 2 ? 850 : 600) * T_MIB);

        if (pointer)
            t_cuda(cuMemFree(pointer));
        if (i % 8 == 0)
            t_cuda(cuDeviceGraphMemTrim(0));
        t_check(t_used(0) <= T_GIB, "%llu bytes are more than the budget", (unsigned long long)t_used(0));
    }
    return argument;
}

static void check_threads(void)
{
    pthread_t thread[THREADS];

    for (size_t i = 0; i < THREADS; i++)
        t_equal(pthread_create(&thread[i], NULL, i ? launch_many : press, (void *)i), 0);
    for (size_t i = 0; i < THREADS; i++)
        t_equal(pthread_join(thread[i], NULL), 0);
    g_agree(0);
    trim();
}

int main(void)
{
    CUdevice device;

    context[1] = t_context(1);
    context[0] = t_context(0);
    stream = g_stream();
    t_cuda(cuDeviceGet(&device, 0));
    base = g_charged();
    check_nothing_before_launch();
    check_never_fits();
    check_replays();
    check_sharing();
    check_over_budget();
    check_tight_replay();
    check_free_on_launch();
    check_edges();
    check_children_and_updates();
    check_uploads();
    check_devices();
    if (!t_thread_sanitizer())
        check_threads();
    return 0;
}
