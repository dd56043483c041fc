/* SPDX-License-Identifier: Apache-2.0 */
/* Every kind of stream and of launch under a share: what is launched in the legacy stream, threads' own ones, streams with priorities and those of green
 * contexts, cooperatively, by configuration and by the first interface, and as graphs with children and conditions and such whose work is exchanged,
 * gets the share of the GPU and is charged what it took. */
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- default
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- priority
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- streams
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- overtaken
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- given
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- outrun
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- green
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 SOFTSIM_GREEN_EVENTS=own -- green
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 SOFTSIM_LOOPS=1 -- graph
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- road
// unsanitized: it is in virtual time
// unemulated: it is in virtual time
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#include "gate_helper.h"

static uint64_t begun, charged, work, done; /* done: atomic, when the last of it was; 0: now */

static void begin(void)
{
    begun = v_clock(CLOCK_MONOTONIC);
    charged = gate_account(0).busy;
    work = done = 0;
}

/* All of `work` is done by now. */
static void got(const char *what, double points)
{
    uint64_t took = (done ? done : v_clock(CLOCK_MONOTONIC)) - begun, busy;

    /* The last of it is charged when somebody looks. */
    usleep(50000);
    busy = gate_account(0).busy - charged;
    printf("%s: %.2f %%, charged %.2f %% of it\n", what, 100.0 * (double)work / (double)took, 100.0 * (double)busy / (double)work);
    gate_percent(work, took, 51, points);
    gate_percent(busy, work, 100, points == 1 ? 2 : points > 3 ? 2 * points : 3); /* half of which it may have */
}

/* ---- the default streams */

extern CUresult cuLaunchKernel_ptsz(CUfunction f, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
                                    unsigned shared, CUstream stream, void **params, void **extra);

static void own_stream(void *argument)
{
    for (int i = 0; i < 400; i++) {
        if (i % 2)
            t_cuda(gate_try(argument, CU_STREAM_PER_THREAD));
        else
            t_cuda(cuLaunchKernel_ptsz(argument, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
    }
    t_cuda(cuStreamSynchronize(CU_STREAM_PER_THREAD));
    /* Who joins them sees it later, by real time. */
    __atomic_store_n(&done, v_clock(CLOCK_MONOTONIC), __ATOMIC_SEQ_CST);
}

static void default_streams(void)
{
    CUfunction kernel = gate_kernel("k__250us");
    struct gate_thread thread[3];
    CUcontext context;
    CUstream blocking;

    t_cuda(cuCtxGetCurrent(&context));
    t_cuda(cuStreamCreate(&blocking, CU_STREAM_DEFAULT));
    begin();
    for (int i = 0; i < 2000; i++)
        gate_launch(kernel, i % 5 == 0 ? blocking : i % 2 ? NULL : CU_STREAM_LEGACY);
    t_cuda(cuStreamSynchronize(NULL));
    work = 2000 * 250 * US;
    got("legacy", 2);
    begin();
    for (int i = 0; i < 3; i++)
        gate_start(&thread[i], context, own_stream, kernel);
    for (int i = 0; i < 3; i++)
        gate_join(&thread[i]);
    work = 1200 * 250 * US;
    got("threads' own", 3);
}

/* ---- priorities */

static CUstream stream_of(int priority)
{
    CUstream stream;

    t_cuda(cuStreamCreateWithPriority(&stream, CU_STREAM_NON_BLOCKING, priority));
    return stream;
}

struct mix {
    const char *urgent, *other;
    unsigned each, count;
    uint64_t urgent_ns, other_ns;
    double points;
};

/* `count` of the one in a stream of its own, `each` of the other in one of two, which the program waits for now and then. */
static void mixed(const struct mix *mix, CUstream urgent, CUstream middle, CUstream other)
{
    CUfunction u = gate_kernel(mix->urgent), o = gate_kernel(mix->other);

    begin();
    for (unsigned k = 0; work < 500 * MS; k++) {
        for (unsigned n = 0; n < mix->count; n++, work += mix->other_ns)
            gate_launch(o, other);
        for (unsigned n = 0; n < mix->each; n++, work += mix->urgent_ns)
            gate_launch(u, k % 3 ? urgent : middle);
        if (k % 7 == 0)
            t_cuda(cuStreamSynchronize(urgent));
    }
    t_cuda(cuStreamSynchronize(urgent));
    t_cuda(cuStreamSynchronize(middle));
    t_cuda(cuStreamSynchronize(other));
    got(mix->urgent, mix->points);
}

/* Short urgent kernels among others, whose marks they overtake. Where all are shorter than a mark, what was overtaken is not known well. */
static void priorities(void)
{
    static const struct mix mix[] = {
        {"u__20us", "o__1ms", 10, 10, 20 * US, MS, 2},       {"u__200us", "o__3ms", 3, 4, 200 * US, 3 * MS, 2},
        {"u__2ms", "o__20us", 1, 50, 2 * MS, 20 * US, 2},    {"u__100us", "o__100us", 1, 1, 100 * US, 100 * US, 2},
        {"v__60us", "p__60us", 3, 1, 60 * US, 60 * US, 5},   {"v__300us", "p__100us", 1, 4, 300 * US, 100 * US, 2},
        {"v__150us", "p__90us", 3, 1, 150 * US, 90 * US, 3}, {"v__100us", "p__20us", 1, 1, 100 * US, 20 * US, 3}};
    CUstream urgent = stream_of(-5), middle = stream_of(-1), other = stream_of(0);

    for (size_t i = 0; i < sizeof(mix) / sizeof(mix[0]); i++)
        mixed(&mix[i], urgent, middle, other);
}

/* All the time there is something more urgent, and nobody waits: what is expected of the rest is not to become less and less by that. */
static void overtaken(void)
{
    CUstream urgent = stream_of(-5), other = stream_of(0);
    CUfunction u = gate_kernel("u__10us"), o = gate_kernel("o__20us");

    begin();
    for (unsigned k = 0; work < S; k++) {
        gate_launch(o, other);
        gate_launch(o, other);
        gate_launch(u, urgent);
        work += 50 * US;
    }
    for (unsigned k = 0; k < 50; k++, work += 20 * US)
        gate_launch(o, other);
    t_cuda(cuStreamSynchronize(other));
    t_cuda(cuStreamSynchronize(urgent));
    got("overtaken", 3);
}

/* What less urgent work was launched before a mark comes behind it, and takes its time although nobody waits for it. */
static void given_way(void)
{
    CUstream urgent = stream_of(-5), other = stream_of(0);
    CUfunction u = gate_kernel("way__2ms"), o = gate_kernel("given__20us");

    for (unsigned k = 0; k < 70; k++, work += 2700 * US) {
        if (k == 10) /* how long they take is known */
            begin();
        for (unsigned n = 0; n < 35; n++)
            gate_launch(o, other);
        gate_launch(u, urgent);
        usleep(10000);
    }
    usleep(50000);
    gate_percent(gate_account(0).busy - charged, work, 103,
                 6); /* which of the other work was done before the urgent is not known */
}

/* More urgent work that is launched later has the GPU before a mark: what the marked work takes is known as it was before. */
static void outrun(void)
{
    CUstream urgent = stream_of(-5), other = stream_of(0);
    CUfunction u = gate_kernel("fast__100us"), o = gate_kernel("slow__400us");

    for (unsigned k = 0; k < 40; k++) {
        gate_launch(o, other);
        gate_launch(u, urgent);
        t_cuda(cuCtxSynchronize());
    }
    for (unsigned round = 0; round < 10; round++) {
        for (unsigned k = 0; k < 40; k++) {
            gate_launch(o, other);
            for (unsigned n = 0; n < 6; n++)
                gate_launch(u, urgent);
        }
        t_cuda(cuStreamSynchronize(urgent));
        t_cuda(cuStreamSynchronize(other));
        begin();
        for (unsigned k = 0; k < 4; k++, work += 800 * US) {
            gate_launch(o, other);
            gate_launch(o, other);
            usleep(5000);
        }
        usleep(50000);
        gate_percent(gate_account(0).busy - charged, work, 100, 3);
    }
}

/* The last work of several streams has no mark when the program is made to wait: which of it was done is known by the order of the launches. */
static void streams(void)
{
    static const struct mix mix[] = {
        {"a__110us", "b__60us", 1, 4, 110 * US, 60 * US, 1}, {"a__60us", "b__150us", 3, 1, 60 * US, 150 * US, 1},
        {"a__100us", "b__20us", 1, 1, 100 * US, 20 * US, 1}, {"a__150us", "b__100us", 1, 4, 150 * US, 100 * US, 1},
        {"c__20us", "d__20us", 1, 1, 20 * US, 20 * US, 1},   {"c__40us", "d__20us", 1, 1, 40 * US, 20 * US, 1}};
    CUstream one = stream_of(0), two = stream_of(0), three = stream_of(0);

    for (size_t i = 0; i < sizeof(mix) / sizeof(mix[0]); i++)
        mixed(&mix[i], one, two, three);
}

/* ---- green contexts */

struct green {
    CUgreenCtx green;
    CUcontext context;
    CUstream stream;
};

static struct green green_new(CUdevResourceDesc desc)
{
    struct green g;

    t_cuda(cuGreenCtxCreate(&g.green, desc, 0, CU_GREEN_CTX_DEFAULT_STREAM));
    t_cuda(cuCtxFromGreenCtx(&g.context, g.green));
    t_cuda(cuGreenCtxStreamCreate(&g.stream, g.green, CU_STREAM_NON_BLOCKING, 0));
    return g;
}

/* Whether the process says that it has work: what nobody but our own thread could see is seen. */
static void rests(void)
{
    uint64_t before;

    usleep(300000);
    before = gate_account(0).nr_periods;
    usleep(1000000);
    t_check(gate_account(0).nr_periods == before, "%llu periods with work in a second without any",
            (unsigned long long)(gate_account(0).nr_periods - before));
}

static void greens(void)
{
    CUdevResource resource;
    CUdevResourceDesc desc;
    CUcontext primary;
    struct green g[2];

    t_cuda(cuDevicePrimaryCtxRetain(&primary, 0));
    t_cuda(cuCtxSetCurrent(primary));
    t_cuda(cuDeviceGetDevResource(0, &resource, CU_DEV_RESOURCE_TYPE_SM));
    t_cuda(cuDevResourceGenerateDesc(&desc, &resource, 1));
    CUfunction kernel = gate_kernel("k__3ms"); /* what nobody measured counts as 1 ms */
    for (int round = 0; round < 40; round++) {
        /* With the primary context current, and with its own. */
        for (int i = 0; i < 2; i++)
            g[i] = green_new(desc);
        if (round % 2)
            t_cuda(cuCtxSetCurrent(g[0].context));
        if (round < 4)
            begin();
        for (int i = 0; i < (round < 4 ? 80 : 10); i++, work += 3 * MS)
            gate_launch(kernel, g[round % 2 ? 0 : i % 2].stream);
        if (round < 4) {
            t_cuda(cuStreamSynchronize(g[0].stream));
            t_cuda(cuStreamSynchronize(g[1].stream));
            got("green", 4);
            /* Launched and left alone, while its context stays current here. */
            for (int i = 0; i < 3; i++)
                gate_launch(kernel, g[0].stream);
            rests();
        }
        t_cuda(cuCtxSetCurrent(primary));
        for (int i = 0; i < 2; i++)
            t_cuda(cuGreenCtxDestroy(g[i].green));
    }
    rests();
}

/* ---- graphs */

static CUgraphNode kernel_node(CUgraph graph, CUgraphNode *after, CUfunction kernel)
{
    CUDA_KERNEL_NODE_PARAMS params = {
        .func = kernel, .gridDimX = 1, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 1, .blockDimY = 1, .blockDimZ = 1};
    CUgraphNode node;

    t_cuda(cuGraphAddKernelNode(&node, graph, after, after != NULL, &params));
    return node;
}

/* A child graph of two kernels, then one whose body runs 1 to `rounds` times. */
static CUgraph nested(CUfunction kernel, unsigned rounds)
{
    CUgraph graph, child;
    CUgraphNode node, whiles;
    CUgraphConditionalHandle handle;
    CUcontext context;

    t_cuda(cuCtxGetCurrent(&context));
    t_cuda(cuGraphCreate(&graph, 0));
    t_cuda(cuGraphCreate(&child, 0));
    node = kernel_node(child, NULL, kernel);
    kernel_node(child, &node, kernel);
    t_cuda(cuGraphAddChildGraphNode(&node, graph, NULL, 0, child));
    t_cuda(cuGraphConditionalHandleCreate(&handle, graph, context, rounds, CU_GRAPH_COND_ASSIGN_DEFAULT));
    CUgraphNodeParams params = {.type = CU_GRAPH_NODE_TYPE_CONDITIONAL,
                                .conditional = {.handle = handle, .type = CU_GRAPH_COND_TYPE_WHILE, .size = 1, .ctx = context}};
    t_cuda(cuGraphAddNode_v2(&whiles, graph, &node, NULL, 1, &params));
    kernel_node(params.conditional.phGraph_out[0], NULL, kernel);
    t_cuda(cuGraphDestroy(child));
    return graph;
}

static void conditional(CUstream stream)
{
    const unsigned rounds = 19;
    CUgraphExec exec;

    t_cuda(cuGraphInstantiate(&exec, nested(gate_kernel("k__100us"), rounds), 0));
    for (int waits = 0; waits < 2; waits++) {
        begin();
        for (unsigned i = 0; i < 19 * 30; i++) {
            t_cuda(cuGraphLaunch(exec, stream));
            if (waits)
                t_cuda(cuStreamSynchronize(stream));
        }
        t_cuda(cuStreamSynchronize(stream));
        work = UINT64_C(30) * (19 * 2 + 19 * 20 / 2) * 100 * US;
        got(waits ? "conditional, each waited for" : "conditional", 2);
    }
}

static void of_one_kernel(CUgraph *graph, const CUfunction *kernel, int count)
{
    for (int i = 0; i < count; i++) {
        t_cuda(cuGraphCreate(&graph[i], 0));
        kernel_node(graph[i], NULL, kernel[i]);
    }
}

/* The same executable graph, exchanged for one with more and with less to do: what was learned of it is not what it takes now. */
static void updated(CUstream stream)
{
    CUfunction kernel[] = {gate_kernel("k__50us"), gate_kernel("k__5ms"), gate_kernel("k__200us")};
    static const uint64_t takes[] = {50 * US, 5 * MS, 200 * US};
    CUgraphExecUpdateResultInfo info;
    CUgraph graph[3];
    CUgraphExec exec;

    of_one_kernel(graph, kernel, 3);
    t_cuda(cuGraphInstantiate(&exec, graph[0], 0));
    begin();
    for (unsigned i = 0; work < 1500 * MS; i++) {
        t_cuda(cuGraphExecUpdate(exec, graph[i % 3], &info));
        for (unsigned k = 0; k < 10 * MS / takes[i % 3]; k++, work += takes[i % 3])
            t_cuda(cuGraphLaunch(exec, stream));
    }
    t_cuda(cuStreamSynchronize(stream));
    got("updated", 2);
}

/* The same in bursts that nobody waits for: of most launches it is not known when they were made. */
static void updated_unseen(CUstream stream)
{
    CUfunction kernel[] = {gate_kernel("k__200us"), gate_kernel("k__50us")};
    static const uint64_t takes[] = {200 * US, 50 * US};
    CUgraphExecUpdateResultInfo info;
    CUgraph graph[2];
    CUgraphExec exec;

    of_one_kernel(graph, kernel, 2);
    t_cuda(cuGraphInstantiate(&exec, graph[0], 0));
    for (unsigned i = 0; i < 4; i++) {
        t_cuda(cuGraphExecUpdate(exec, graph[i % 2], &info));
        for (unsigned k = 0; k < 120; k++) {
            if (k == 60) {
                usleep(100000);
                begin();
            }
            for (unsigned n = 0; n < 12; n++, work += takes[i % 2])
                t_cuda(cuGraphLaunch(exec, stream));
            usleep(7000);
        }
        usleep(100000);
        printf("updated, not waited for, %u: charged %.2f %%\n", i,
               100.0 * (double)(gate_account(0).busy - charged) / (double)work);
        gate_percent(gate_account(0).busy - charged, work, 104, 8);
    }
}

/* Work took longer than it was expected to, which a wait shows; then nothing happens for a while, and then much of which it is not known when. */
static void waited_before_a_pause(CUstream stream)
{
    CUfunction kernel[] = {gate_kernel("k__20us"), gate_kernel("k__200us"), gate_kernel("k__600us")};
    CUstream other = gate_stream();
    CUgraphExecUpdateResultInfo info;
    CUgraph graph[2];

    of_one_kernel(graph, kernel, 2);
    for (int i = 0; i < 30; i++) {
        gate_launch(kernel[i % 2 ? 0 : 2], other);
        t_cuda(cuStreamSynchronize(other));
    }
    uint64_t sum = 0, before = gate_account(0).busy;
    for (int round = 0; round < 20; round++) {
        CUgraphExec exec;

        t_cuda(cuGraphInstantiate(&exec, graph[0], 0));
        for (int i = 0; i < 4; i++, sum += 20 * US) {
            t_cuda(cuGraphLaunch(exec, stream));
            t_cuda(cuStreamSynchronize(stream));
        }
        t_cuda(cuGraphExecUpdate(exec, graph[1], &info));
        gate_launch(kernel[0], other);
        for (int i = 0; i < 5; i++)
            t_cuda(cuGraphLaunch(exec, stream));
        gate_launch(kernel[0], other);
        t_cuda(cuStreamSynchronize(stream));
        usleep(2000);
        for (int i = 0; i < 12; i++)
            gate_launch(kernel[0], other);
        gate_launch(kernel[2], other);
        t_cuda(cuStreamSynchronize(other));
        sum += (5 * 200 + 14 * 20 + 600) * US;
        usleep(20000);
        t_cuda(cuGraphExecDestroy(exec));
    }
    printf("waited before a pause: charged %.2f %%\n", 100.0 * (double)(gate_account(0).busy - before) / (double)sum);
    gate_percent(gate_account(0).busy - before, sum, 100, 3);
}

static void graphs(void)
{
    CUstream stream = gate_stream();

    waited_before_a_pause(stream);

    conditional(stream);
    updated_unseen(stream);
    updated(stream);
}

/* ---- roads */

static CUfunction road_kernel;
static CUstream road_stream;

static CUresult cooperative(void)
{
    return cuLaunchCooperativeKernel(road_kernel, 1, 1, 1, 1, 1, 1, 0, road_stream, NULL);
}

static CUresult configured(void)
{
    CUlaunchAttribute attribute = {.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE, .value = {.cooperative = 1}};
    CUlaunchConfig config = {.gridDimX = 1,
                             .gridDimY = 1,
                             .gridDimZ = 1,
                             .blockDimX = 1,
                             .blockDimY = 1,
                             .blockDimZ = 1,
                             .hStream = road_stream,
                             .attrs = &attribute,
                             .numAttrs = 1};

    return cuLaunchKernelEx(&config, road_kernel, NULL, NULL);
}

static CUresult on_devices(void)
{
    CUDA_LAUNCH_PARAMS params = {.function = road_kernel,
                                 .gridDimX = 1,
                                 .gridDimY = 1,
                                 .gridDimZ = 1,
                                 .blockDimX = 1,
                                 .blockDimY = 1,
                                 .blockDimZ = 1,
                                 .hStream = road_stream};

    return cuLaunchCooperativeKernelMultiDevice(&params, 1, 0);
}

static CUresult first_grid(void)
{
    return cuLaunchGrid(road_kernel, 1, 1);
}

static CUresult first_async(void)
{
    return cuLaunchGridAsync(road_kernel, 1, 1, road_stream);
}

static CUresult first(void)
{
    return cuLaunch(road_kernel);
}

static void roads(void)
{
    static const struct {
        const char *name;
        CUresult (*launch)(void);
    } road[] = {{"cooperative", cooperative}, {"configured", configured},         {"on devices", on_devices}, {"first", first},
                {"first, grid", first_grid},  {"first, grid, async", first_async}};

    road_kernel = gate_kernel("k__1ms");
    t_cuda(cuFuncSetBlockShape(road_kernel, 1, 1, 1));
    for (size_t i = 0; i < sizeof(road) / sizeof(road[0]); i++) {
        road_stream = gate_stream();
        begin();
        for (int k = 0; k < 300; k++, work += MS)
            t_cuda(road[i].launch());
        t_cuda(cuStreamSynchronize(road_stream));
        t_cuda(cuStreamSynchronize(NULL));
        got(road[i].name, 2);
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } part[] = {{"default", default_streams},
                {"priority", priorities},
                {"streams", streams},
                {"overtaken", overtaken},
                {"given", given_way},
                {"outrun", outrun},
                {"green", greens},
                {"graph", graphs},
                {"road", roads}};

    t_cuda(cuInit(0));
    if (argc > 1 && strcmp(argv[1], "green") != 0)
        t_context(0);
    for (size_t i = 0; argc > 1 && i < sizeof(part) / sizeof(part[0]); i++)
        if (strcmp(argv[1], part[i].name) == 0)
            part[i].run();
    return 0;
}
