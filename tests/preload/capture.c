/* SPDX-License-Identifier: Apache-2.0 */
/* While a stream is captured, in every mode, calls of the same thread and of another one do with the library what they do without it: the
 * same results, and the same captures live and die. Each combination runs in this program twice, once without the library, and what was
 * seen is compared. */
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_MEM=4G SOFTSIM_CONTEXT_BYTES=100M
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_MEM=4G SOFTSIM_CONTEXT_BYTES=100M SOFTSLICE_TENANT=capture
// unsanitized: it runs itself once with nothing preloaded, and a sanitizer's runtime wants to be
// unemulated: it runs itself through a shell
#include <pthread.h>

#include "graph_helper.h"

static CUcontext context;
static CUstream captured, other;
static CUgraphExec exec, plain;
static CUmemoryPool pool;

static CUresult mem_alloc(void)
{
    CUdeviceptr p;
    CUresult result = cuMemAlloc(&p, 4 * T_MIB);

    return result == CUDA_SUCCESS ? cuMemFree(p) : result;
}

static CUresult mem_alloc_async(void)
{
    CUdeviceptr p;
    CUresult result = cuMemAllocAsync(&p, 4 * T_MIB, other);

    return result == CUDA_SUCCESS ? cuMemFreeAsync(p, other) : result;
}

static CUresult mem_alloc_captured(void)
{
    CUdeviceptr p;
    CUresult result = cuMemAllocAsync(&p, 4 * T_MIB, captured);

    return result == CUDA_SUCCESS ? cuMemFreeAsync(p, captured) : result;
}

static CUresult info(void)
{
    size_t free_bytes, total;

    return cuMemGetInfo(&free_bytes, &total);
}

static CUresult launch(void)
{
    return cuGraphLaunch(exec, other);
}

static CUresult launch_trimmed(void)
{
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;

    t_cuda(cuThreadExchangeStreamCaptureMode(&mode));
    t_cuda(cuDeviceGraphMemTrim(0));
    t_cuda(cuThreadExchangeStreamCaptureMode(&mode));
    return cuGraphLaunch(exec, other);
}

static CUresult launch_captured(void)
{
    return cuGraphLaunch(plain, captured);
}

static CUresult launch_memory_captured(void)
{
    return cuGraphLaunch(exec, captured);
}

static CUresult launch_legacy(void)
{
    return cuGraphLaunch(exec, NULL);
}

static CUresult upload(void)
{
    return cuGraphUpload(exec, other);
}

static CUresult trim(void)
{
    return cuDeviceGraphMemTrim(0);
}

static CUresult trim_pool(void)
{
    return cuMemPoolTrimTo(pool, 0);
}

static CUresult instantiate(void)
{
    CUgraph graph = g_graph();
    CUgraphExec made;

    g_pass(graph, NULL, 0, 4 * T_MIB);
    CUresult result = cuGraphInstantiateWithFlags(&made, graph, 0);
    return result == CUDA_SUCCESS ? cuGraphExecDestroy(made) : result;
}

static CUresult synchronize(void)
{
    return cuStreamSynchronize(other);
}

static CUresult (*const calls[])(void) = {mem_alloc,
                                          mem_alloc_async,
                                          mem_alloc_captured,
                                          info,
                                          launch,
                                          launch_trimmed,
                                          launch_captured,
                                          launch_memory_captured,
                                          launch_legacy,
                                          upload,
                                          trim,
                                          trim_pool,
                                          instantiate,
                                          synchronize};
#define CALLS (sizeof(calls) / sizeof(calls[0]))

struct act {
    unsigned call;
    CUstreamCaptureMode mode;
    CUresult result;
};

static void *act(void *argument)
{
    struct act *a = argument;
    CUstreamCaptureMode mode = a->mode;

    t_cuda(cuCtxSetCurrent(context));
    t_cuda(cuThreadExchangeStreamCaptureMode(&mode));
    a->result = calls[a->call]();
    t_cuda(cuThreadExchangeStreamCaptureMode(&mode));
    t_check(mode == a->mode, "a call left the thread in another capture mode");
    return NULL;
}

static void report(bool own, CUstreamCaptureMode begun, struct act a)
{
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    CUgraph graph = NULL;
    pthread_t thread;

    t_cuda(cuStreamBeginCapture(captured, begun));
    if (own) {
        act(&a);
    } else {
        t_equal(pthread_create(&thread, NULL, act, &a), 0);
        t_equal(pthread_join(thread, NULL), 0);
    }
    t_cuda(cuStreamIsCapturing(captured, &status));
    CUresult end = cuStreamEndCapture(captured, &graph);
    printf("%s begun %d mode %d call %u: result %d, status %d, end %d\n", own ? "own" : "other", (int)begun, (int)a.mode, a.call,
           (int)a.result, (int)status, (int)end);
    if (graph)
        t_cuda(cuGraphDestroy(graph));
    t_cuda(cuCtxSynchronize());
}

static void report_all(void)
{
    for (int own = 0; own < 2; own++)
        for (int begun = 0; begun < 3; begun++)
            for (int mode = 0; mode < 3; mode++)
                for (unsigned call = 0; call < CALLS; call++)
                    report(own, (CUstreamCaptureMode)begun, (struct act){.call = call, .mode = (CUstreamCaptureMode)mode});
}

/* What this program reports, with or without the library. */
static size_t reports(bool without, char *text, size_t size)
{
    char command[64];
    size_t length = 0, got;

    snprintf(command, sizeof(command), "%s /proc/%d/exe report", without ? "env -u LD_PRELOAD" : "env", (int)getpid());
    FILE *pipe = popen(command, "r");
    t_check(pipe, "popen: %s", strerror(errno));
    while (length < size - 1 && (got = fread(text + length, 1, size - 1 - length, pipe)) > 0)
        length += got;
    text[length] = '\0';
    t_check(pclose(pipe) == 0, "the program failed: %s", text);
    return length;
}

static void compare(void)
{
    static char with[1 << 18], without[1 << 18];

    t_check(reports(true, without, sizeof(without)) > 1000 && reports(false, with, sizeof(with)) > 1000, "nothing was reported");
    if (strcmp(with, without) == 0)
        return;
    for (char *a = with, *b = without; *a && *b;) {
        size_t n = strcspn(a, "\n"), k = strcspn(b, "\n");
        t_check(n == k && strncmp(a, b, n) == 0, "with the library: %.*s\nwithout: %.*s", (int)n, a, (int)k, b);
        a += n + (a[n] != 0);
        b += k + (b[k] != 0);
    }
    t_fail("one report is longer");
}

static void prepare(void)
{
    CUgraph empty;
    CUgraphNode node;

    context = t_context(0);
    captured = g_stream();
    other = g_stream();
    exec = g_passing(0, 64 * T_MIB);
    empty = g_graph();
    t_cuda(cuGraphAddEmptyNode(&node, empty, NULL, 0));
    plain = g_exec(empty);
    t_cuda(cuDeviceGetDefaultMemPool(&pool, 0));
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "report") == 0) {
        prepare();
        report_all();
        return 0;
    }
    compare();
    return 0;
}
