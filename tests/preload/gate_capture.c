/* SPDX-License-Identifier: Apache-2.0 */
/* A launch while a stream is captured, in every mode: into the captured stream, beside it, into the legacy and the thread's own stream, by the same
 * thread and by another, before and after the library knows the stream. Everything is as without the library: results, the capture's fate, and the number
 * of nodes of its graph. A launch into a capturing stream does not wait, however deep in debt its tenant is, and is not charged: neither in the stream that
 * the capture began in nor in one that joined it, though both had work before. */
// run: SOFTSLICE_COMPUTE=30% SOFTSLICE_TENANT=gate SOFTSIM_MEM=4G SOFTSIM_CONTEXT_BYTES=100M -- compare
// run: SOFTSLICE_COMPUTE=30% SOFTSLICE_VRAM=2GiB SOFTSLICE_TENANT=gate SOFTSIM_MEM=4G SOFTSIM_CONTEXT_BYTES=100M -- compare
// run: SOFTSLICE_COMPUTE=1% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- indebted
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- again
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- few
// unsanitized: it runs itself once with nothing preloaded, and a sanitizer's runtime wants to be
// unemulated: it runs itself through a shell
#include "gate_helper.h"
#include "graph_helper.h"

static CUcontext context;
static CUstream captured, other, blocking;
static CUfunction kernel;
static CUgraphExec plain;

#define LAUNCH(name, stream, symbol)                                                                                               \
    static CUresult name(void)                                                                                                     \
    {                                                                                                                              \
        return symbol(kernel, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL);                                                            \
    }
extern CUresult cuLaunchKernel_ptsz(CUfunction f, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
                                    unsigned shared, CUstream stream, void **params, void **extra);
LAUNCH(into_captured, captured, cuLaunchKernel)
LAUNCH(into_captured_ptsz, captured, cuLaunchKernel_ptsz)
LAUNCH(into_other, other, cuLaunchKernel)
LAUNCH(into_blocking, blocking, cuLaunchKernel)
LAUNCH(into_legacy, NULL, cuLaunchKernel)
LAUNCH(into_legacy_named, CU_STREAM_LEGACY, cuLaunchKernel)
LAUNCH(into_own, CU_STREAM_PER_THREAD, cuLaunchKernel)
LAUNCH(into_own_ptsz, NULL, cuLaunchKernel_ptsz)

static CUresult graph_into_captured(void)
{
    return cuGraphLaunch(plain, captured);
}

static CUresult graph_into_other(void)
{
    return cuGraphLaunch(plain, other);
}

static CUresult destroy_other(void)
{
    CUstream stream;
    CUresult result = cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);

    if (result == CUDA_SUCCESS && (result = gate_try(kernel, stream)) == CUDA_SUCCESS)
        result = cuStreamDestroy(stream);
    return result;
}

static CUresult synchronise_other(void)
{
    return cuStreamSynchronize(other);
}

static CUresult (*const calls[])(void) = {into_captured,       into_captured_ptsz, into_other,    into_blocking,
                                          into_legacy,         into_legacy_named,  into_own,      into_own_ptsz,
                                          graph_into_captured, graph_into_other,   destroy_other, synchronise_other};
#define CALLS (sizeof(calls) / sizeof(calls[0]))

struct act {
    unsigned call;
    CUstreamCaptureMode mode;
    CUresult result[3];
};

/* Three times: the first may be of a stream that the library does not know. */
static void act(void *argument)
{
    struct act *a = argument;
    CUstreamCaptureMode mode = a->mode;

    t_cuda(cuThreadExchangeStreamCaptureMode(&mode));
    for (int i = 0; i < 3; i++) {
        errno = 77;
        a->result[i] = calls[a->call]();
        t_equal(errno, 77);
    }
    t_cuda(cuThreadExchangeStreamCaptureMode(&mode));
    t_check(mode == a->mode, "a call left the thread in another capture mode");
}

static void report(bool own, bool from_blocking, CUstreamCaptureMode begun, struct act a)
{
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    CUgraph graph = NULL;
    size_t nodes = 0;
    struct gate_thread thread;

    t_cuda(cuStreamCreate(&captured, from_blocking ? CU_STREAM_DEFAULT : CU_STREAM_NON_BLOCKING));
    t_cuda(gate_try(kernel, captured));
    t_cuda(cuStreamBeginCapture(captured, begun));
    if (own) {
        act(&a);
    } else {
        gate_start(&thread, context, act, &a);
        gate_join(&thread);
    }
    CUresult asked = cuStreamIsCapturing(captured, &status);
    CUresult end = cuStreamEndCapture(captured, &graph);
    if (graph)
        t_cuda(cuGraphGetNodes(graph, NULL, &nodes));
    printf("%s blocking %d begun %d mode %d call %u: results %d %d %d, asked %d, status %d, end %d, nodes %zu\n",
           own ? "own" : "other", from_blocking, (int)begun, (int)a.mode, a.call, (int)a.result[0], (int)a.result[1],
           (int)a.result[2], (int)asked, (int)status, (int)end, nodes);
    if (graph)
        t_cuda(cuGraphDestroy(graph));
    t_cuda(cuCtxSynchronize());
    t_cuda(cuStreamDestroy(captured));
}

static void report_all(void)
{
    for (int own = 0; own < 2; own++)
        for (int from_blocking = 0; from_blocking < 2; from_blocking++)
            for (int begun = 0; begun < 3; begun++)
                for (int mode = 0; mode < 3; mode++)
                    for (unsigned call = 0; call < CALLS; call++)
                        report(own, from_blocking, (CUstreamCaptureMode)begun,
                               (struct act){.call = call, .mode = (CUstreamCaptureMode)mode});
}

static void reports(bool without, char *text, size_t size)
{
    char command[128];
    size_t length = 0, got;

    snprintf(command, sizeof(command), "%s SOFTSIM_KERNEL_US=10 /proc/%d/exe report", without ? "env -u LD_PRELOAD" : "env",
             (int)getpid());
    FILE *pipe = popen(command, "r");
    t_check(pipe, "popen: %s", strerror(errno));
    while (length < size - 1 && (got = fread(text + length, 1, size - 1 - length, pipe)) > 0)
        length += got;
    text[length] = '\0';
    t_check(pclose(pipe) == 0 && length > 1000, "the program failed: %s", text);
}

static void compare(void)
{
    static char with[1 << 18], without[1 << 18];

    reports(true, without, sizeof(without));
    reports(false, with, sizeof(with));
    for (char *a = with, *b = without; *a && *b;) {
        size_t n = strcspn(a, "\n"), k = strcspn(b, "\n");
        t_check(n == k && strncmp(a, b, n) == 0, "with the library: %.*s\nwithout: %.*s", (int)n, a, (int)k, b);
        a += n + (a[n] != 0);
        b += k + (b[k] != 0);
    }
    t_equal(strlen(with), strlen(without));
}

static void prepare(void)
{
    CUgraph empty;
    CUgraphNode node;

    context = t_context(0);
    other = g_stream();
    t_cuda(cuStreamCreate(&blocking, CU_STREAM_DEFAULT));
    empty = g_graph();
    t_cuda(cuGraphAddEmptyNode(&node, empty, NULL, 0));
    plain = g_exec(empty);
    kernel = gate_kernel("k__10us");
}

/* 20 ms at 1 %: two seconds of debt. */
static void indebted(void)
{
    CUgraph graph;
    size_t nodes;

    gate_launch(gate_kernel("long__20ms"), other);
    t_cuda(cuStreamSynchronize(other));
    captured = gate_stream();
    for (int begun = 0; begun < 3; begun++) {
        t_cuda(cuStreamBeginCapture(captured, (CUstreamCaptureMode)begun));
        uint64_t before = v_clock(CLOCK_MONOTONIC);
        for (int i = 0; i < 100; i++)
            gate_launch(kernel, captured);
        uint64_t took = v_clock(CLOCK_MONOTONIC) - before;
        t_check(took < 5 * MS, "100 launches into a capture took %.3f ms", (double)took / 1e6);
        t_cuda(cuStreamEndCapture(captured, &graph));
        t_cuda(cuGraphGetNodes(graph, NULL, &nodes));
        t_equal(nodes, 100);
    }
    /* It is in debt indeed. */
    uint64_t waited = gate_launch(kernel, other);
    t_check(waited > 500 * MS, "a launch in debt waited %.3f ms", (double)waited / 1e6);
}

/* As programs do that capture each of their steps anew. */
static void again(void)
{
    CUfunction longer = gate_kernel("k__100us");
    unsigned rounds = 300;
    CUgraph graph;
    CUevent event;

    captured = gate_stream();
    t_cuda(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    for (unsigned round = 0; round < rounds; round++) {
        gate_launch(longer, captured);
        gate_launch(longer, other);
        t_cuda(round % 2 ? cuStreamBeginCapture(captured, CU_STREAM_CAPTURE_MODE_RELAXED)
                         : cuStreamBeginCaptureToGraph(captured, graph = g_graph(), NULL, NULL, 0, CU_STREAM_CAPTURE_MODE_RELAXED));
        t_cuda(cuEventRecord(event, captured));
        t_cuda(cuStreamWaitEvent(other, event, 0));
        for (int i = 0; i < 8; i++) {
            gate_launch(longer, captured);
            gate_launch(longer, other);
        }
        t_cuda(cuEventRecord(event, other));
        t_cuda(cuStreamWaitEvent(captured, event, 0));
        t_cuda(cuStreamEndCapture(captured, &graph));
        t_cuda(cuGraphDestroy(graph));
    }
    gate_drain(longer);
    usleep(100000);
    gate_percent(gate_account(0).busy, (2 * rounds + 1) * 100 * US, 100, 2);
}

/* A few launches become a graph while the stream may launch without asking: the GPU has nothing to do for them, and idles. */
static void few(void)
{
    CUfunction longer = gate_kernel("k__100us");
    unsigned rounds = 50;
    CUgraph graph;

    captured = gate_stream();
    gate_launch(longer, captured);
    t_cuda(cuStreamSynchronize(captured));
    uint64_t before = gate_account(0).busy;
    for (unsigned round = 0; round < rounds; round++) {
        for (int i = 0; i < 2; i++)
            gate_launch(longer, captured);
        t_cuda(cuStreamBeginCapture(captured, CU_STREAM_CAPTURE_MODE_RELAXED));
        for (int i = 0; i < 3; i++)
            gate_launch(longer, captured);
        t_cuda(cuStreamEndCapture(captured, &graph));
        t_cuda(cuGraphDestroy(graph));
        usleep(40000);
    }
    gate_percent(gate_account(0).busy - before, 2 * rounds * 100 * US, 100, 2);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "compare") == 0) {
        compare();
        return 0;
    }
    prepare();
    if (argc > 1 && strcmp(argv[1], "indebted") == 0)
        indebted();
    else if (argc > 1 && strcmp(argv[1], "again") == 0)
        again();
    else if (argc > 1 && strcmp(argv[1], "few") == 0)
        few();
    else
        report_all();
    return 0;
}
