/* SPDX-License-Identifier: Apache-2.0 */
/* Work that its launches did not tell of is charged all the same, and waited for: of an executable graph that is changed between two launches, however the
 * program waits for it; of contexts that end soon; of a context beside the one that is waited for; of a process that returns from main at once; of launches
 * that come back when their work is done. And a primary context that ends with the last green one leaves nothing behind. What is no work of kernels is not:
 * the pauses of a program that waits for nothing, another GPU's work, and for long a wait for the host. */
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- changed stream
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- changed late
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- changed context
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- changed event
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- changed copy
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- changed stream-query
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- changed event-query
// run: SOFTSLICE_COMPUTE=30% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- contexts short
// run: SOFTSLICE_COMPUTE=30% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- contexts beside
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- green
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- asleep
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- pauses
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 SOFTSIM_GPUS=2 -- other
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- word
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 CUDA_LAUNCH_BLOCKING=1 -- blocking 5000 0
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 CUDA_LAUNCH_BLOCKING=1 -- blocking 200 0
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 CUDA_LAUNCH_BLOCKING=1 -- blocking 200 600
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 CUDA_LAUNCH_BLOCKING=1 -- varied
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 CUDA_LAUNCH_BLOCKING=asked -- varied
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate -- jobs
// unsanitized: most of it is in virtual time
// unemulated: most of it is in virtual time
#include <sys/wait.h>

#include "gate_helper.h"

static uint64_t begun, work;

static void begin(void)
{
    begun = v_clock(CLOCK_MONOTONIC);
    work = 0;
}

/* All of `work` is done. */
static void got(double percent)
{
    uint64_t took = v_clock(CLOCK_MONOTONIC) - begun;

    usleep(100000);
    uint64_t busy = gate_account(0).busy;
    printf("%.2f s of work in %.2f s, %.2f s charged\n", (double)work / S, (double)took / S, (double)busy / S);
    gate_percent(work, took, percent, 3);
    gate_percent(busy, work, 100, 3);
}

/* ---- launches that take longer than the last ones */

static CUgraph graph_of(const char *name)
{
    CUDA_KERNEL_NODE_PARAMS params = {
        .func = gate_kernel(name), .gridDimX = 1, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 1, .blockDimY = 1, .blockDimZ = 1};
    CUgraphNode node;
    CUgraph graph;

    t_cuda(cuGraphCreate(&graph, 0));
    t_cuda(cuGraphAddKernelNode(&node, graph, NULL, 0, &params));
    return graph;
}

static void wait_for(const char *how, CUstream stream)
{
    static CUdeviceptr block;
    static CUevent event;
    char host[16];

    if (!block) {
        t_cuda(cuMemAlloc(&block, sizeof(host)));
        t_cuda(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    }
    t_cuda(cuEventRecord(event, stream));
    if (!strcmp(how, "late")) /* when nearly all is done */
        usleep(90000);
    if (!strcmp(how, "stream") || !strcmp(how, "late"))
        t_cuda(cuStreamSynchronize(stream));
    else if (!strcmp(how, "context"))
        t_cuda(cuCtxSynchronize());
    else if (!strcmp(how, "event"))
        t_cuda(cuEventSynchronize(event));
    else if (!strcmp(how, "copy"))
        t_cuda(cuMemcpyDtoH(host, block, sizeof(host)));
    else
        while ((!strcmp(how, "event-query") ? cuEventQuery(event) : cuStreamQuery(stream)) == CUDA_ERROR_NOT_READY)
            usleep(500);
}

static void changed(const char *how)
{
    CUgraphExecUpdateResultInfo info;
    CUgraphExec exec;
    CUstream stream;

    t_context(0);
    CUgraph brief = graph_of("b__10us"), longer = graph_of("l__5ms");
    t_cuda(cuStreamCreate(&stream, CU_STREAM_DEFAULT)); /* copies wait for it */
    t_cuda(cuGraphInstantiate(&exec, brief, 0));
    begin();
    for (int round = 0; round < 40; round++) {
        t_cuda(cuGraphExecUpdate(exec, brief, &info));
        t_cuda(cuGraphLaunch(exec, stream));
        wait_for(how, stream);
        usleep(20000); /* all of that is seen */
        t_cuda(cuGraphExecUpdate(exec, longer, &info));
        for (int i = 0; i < 20; i++)
            t_cuda(cuGraphLaunch(exec, stream));
        wait_for(how, stream);
        work += 20 * 5 * MS + 10 * US;
    }
    got(10);
}

/* Nobody ever waits for the longer ones: the program knows when they are done. That is found out after some rounds. */
static void asleep(void)
{
    CUgraphExecUpdateResultInfo info;
    CUgraphExec exec;
    CUstream stream;

    t_context(0);
    CUgraph brief = graph_of("b__10us"), longer = graph_of("l__5ms");
    stream = gate_stream();
    t_cuda(cuGraphInstantiate(&exec, brief, 0));
    begin();
    for (int round = 0; round < 100; round++, work += 20 * 5 * MS + 10 * US) {
        t_cuda(cuGraphExecUpdate(exec, brief, &info));
        t_cuda(cuGraphLaunch(exec, stream));
        usleep(20000);
        t_cuda(cuGraphExecUpdate(exec, longer, &info));
        for (int i = 0; i < 20; i++)
            t_cuda(cuGraphLaunch(exec, stream));
        usleep(110000);
    }
    gate_percent(gate_account(0).busy, work, 90, 15);
}

/* ---- what is no work */

static void little(CUfunction kernel, CUstream stream)
{
    for (int i = 0; i < 3; i++, work += 10 * US)
        gate_launch(kernel, stream);
}

static void charged(const char *what, unsigned gpu, uint64_t most)
{
    usleep(100000);
    uint64_t busy = gate_account(gpu).busy;
    t_check(busy >= work * 9 / 10 && busy <= most, "%s: %.3f ms of work, %.3f ms charged", what, (double)work / 1e6,
            (double)busy / 1e6);
}

static void pauses(void)
{
    t_context(0);
    CUfunction kernel = gate_kernel("k__10us");
    CUstream stream = gate_stream();

    for (int round = 0; round < 300; round++) {
        little(kernel, stream);
        usleep(1000);
        if (round % 2)
            t_cuda(cuStreamSynchronize(stream));
        else
            t_cuda(cuCtxSynchronize());
    }
    charged("pauses", 0, work * 11 / 10);
}

static void other(void)
{
    CUcontext second;
    CUevent event;

    t_context(0);
    CUfunction kernel = gate_kernel("k__10us");
    CUstream stream = gate_stream();
    for (int round = 0; round < 10; round++) {
        little(kernel, stream);
        usleep(40000);
    }
    t_cuda(cuCtxCreate(&second, NULL, 0, 1));
    CUfunction longer = gate_kernel("k__500ms");
    CUstream there = gate_stream();
    t_cuda(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    t_cuda(cuLaunchKernel(longer, 1, 1, 1, 1, 1, 1, 0, there, NULL, NULL));
    t_cuda(cuEventRecord(event, there));
    while (cuEventQuery(event) == CUDA_ERROR_NOT_READY)
        usleep(500);
    charged("another GPU's", 0, 2 * work);
    work = 500 * MS;
    charged("its own", 1, work + MS);
}

static void word(void)
{
    CUdeviceptr at;
    CUevent event;

    t_context(0);
    CUfunction kernel = gate_kernel("k__10us");
    CUstream stream = gate_stream();
    t_cuda(cuMemAlloc(&at, 4));
    t_cuda(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    for (int round = 0; round < 10; round++) {
        little(kernel, stream);
        usleep(40000);
    }
    little(kernel, stream);
    t_cuda(cuStreamWaitValue32(stream, at, 1, CU_STREAM_WAIT_VALUE_EQ));
    t_cuda(cuEventRecord(event, stream));
    for (int i = 0; i < 2000; i++, usleep(500))
        t_result(cuEventQuery(event), CUDA_ERROR_NOT_READY);
    t_cuda(cuMemsetD32(at, 1, 1));
    t_cuda(cuEventSynchronize(event));
    charged("a wait for the host", 0, work + 110 * MS);
}

/* ---- contexts */

/* The same in all contexts. */
static CUfunction library_kernel(const char *name)
{
    CUlibrary library;
    CUkernel kernel;

    t_cuda(cuLibraryLoadData(&library, "any image", NULL, NULL, 0, NULL, NULL, 0));
    t_cuda(cuLibraryGetKernel(&kernel, library, name));
    return (CUfunction)kernel;
}

static CUcontext context_new(void)
{
    CUcontext context;

    t_cuda(cuCtxCreate(&context, NULL, 0, 0));
    return context;
}

static void contexts(const char *how)
{
    t_cuda(cuInit(0));
    bool brief_ones = !strcmp(how, "short");
    CUcontext second = brief_ones ? NULL : context_new(), first = context_new();
    CUfunction brief = library_kernel("b__10us"), kernel = library_kernel("k__100us");
    CUstream stream = gate_stream();

    for (int i = 0; i < 40; i++)
        gate_launch(i % 2 ? brief : kernel, stream);
    t_cuda(cuCtxSynchronize());
    usleep(200000);
    begin();
    work = 20 * 110 * US; /* which was charged before */
    if (brief_ones) {
        for (int i = 0; i < 1500; i++, work += 300 * US) {
            CUcontext context = context_new();

            for (int k = 0; k < 3; k++)
                gate_launch(kernel, NULL);
            t_cuda(cuCtxDestroy(context));
        }
    } else {
        for (int i = 0; i < 1000; i++, work += 810 * US) {
            t_cuda(cuCtxSetCurrent(first));
            gate_launch(brief, NULL);
            t_cuda(cuCtxSetCurrent(second));
            for (int k = 0; k < 8; k++)
                gate_launch(kernel, NULL);
            t_cuda(cuCtxSetCurrent(first));
            t_cuda(cuCtxSynchronize());
        }
        t_cuda(cuCtxSetCurrent(second));
        t_cuda(cuCtxSynchronize());
    }
    got(30);
}

/* The green context is the last that holds the primary one. */
static void green(void)
{
    CUcontext base, primary;
    CUdevResource resource;
    CUdevResourceDesc desc;
    CUgreenCtx last;

    t_cuda(cuInit(0));
    base = context_new();
    CUfunction ten = library_kernel("k__10ms"), one = library_kernel("k__1ms");
    t_cuda(cuDeviceGetDevResource(0, &resource, CU_DEV_RESOURCE_TYPE_SM));
    t_cuda(cuDevResourceGenerateDesc(&desc, &resource, 1));
    t_cuda(cuDevicePrimaryCtxRetain(&primary, 0));
    t_cuda(cuCtxSetCurrent(primary));
    CUstream stream = gate_stream();
    t_cuda(cuGreenCtxCreate(&last, desc, 0, CU_GREEN_CTX_DEFAULT_STREAM));
    gate_launch(ten, stream);
    t_cuda(cuDevicePrimaryCtxRelease(0));
    t_cuda(cuGreenCtxDestroy(last));
    t_cuda(cuCtxSetCurrent(base));
    usleep(300000);
    uint64_t periods = gate_account(0).nr_periods;
    usleep(1000000);
    t_equal(gate_account(0).nr_periods, periods);
    begin();
    work = 10 * MS; /* which was charged before */
    stream = gate_stream();
    for (int i = 0; i < 1000; i++, work += MS) {
        uint64_t waited = gate_launch(one, stream);

        t_check(waited < 100 * MS, "a launch waited %.1f ms", (double)waited / 1e6);
    }
    t_cuda(cuStreamSynchronize(stream));
    got(50);
}

/* ---- processes */

#define JOBS   5
#define JOB_MS 200

static void jobs(char **argv)
{
    if (argv[2]) {
        t_context(0);
        gate_launch(gate_kernel("k__200ms"), NULL);
        usleep(JOB_MS * 1000); /* it can tell by its own means when all is done */
        return;
    }
    for (int i = 0; i < JOBS; i++) {
        int status;
        pid_t child = fork();

        if (child == 0) {
            execv("/proc/self/exe", (char *[]){argv[0], argv[1], "job", NULL});
            _exit(1);
        }
        t_equal(waitpid(child, &status, 0), child);
        t_equal(status, 0);
    }
    uint64_t busy = gate_account(0).busy;
    t_check(busy > JOBS * JOB_MS * MS * 9 / 10, "of %d jobs of %d ms, %.1f ms were charged", JOBS, JOB_MS, (double)busy / 1e6);
}

/* CUDA_LAUNCH_BLOCKING=1: each launch returns when its kernel is done, or at once if it is refused. */
static void blocking(unsigned kernel_us, unsigned pause_us)
{
    char name[32];

    t_context(0);
    snprintf(name, sizeof(name), "b__%uus", kernel_us);
    CUfunction kernel = gate_kernel(name);
    CUstream stream = gate_stream();
    begin();
    for (; work < 500 * MS; work += kernel_us * US) {
        uint64_t took = gate_launch(kernel, stream);
        t_check(took >= kernel_us * US, "a launch returned after %.3f ms", (double)took / 1e6);
        t_equal(cuLaunchKernel(kernel, 0, 1, 1, 1, 1, 1, 0, stream, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
        if (pause_us)
            usleep(pause_us);
    }
    got(10);
}

/* One in eleven takes far longer than the others. Where the driver reads the variable otherwise than the library, launches come back at once. */
static void varied(void)
{
    CUgraphExecUpdateResultInfo info;
    CUgraphExec exec;

    t_context(0);
    CUgraph brief = graph_of("b__100us"), longer = graph_of("l__5ms");
    CUstream stream = gate_stream();
    t_cuda(cuGraphInstantiate(&exec, brief, 0));
    begin();
    for (int round = 0; work < S; round++) {
        bool is_long = round % 11 == 5;

        t_cuda(cuGraphExecUpdate(exec, is_long ? longer : brief, &info));
        t_cuda(cuGraphLaunch(exec, stream));
        work += is_long ? 5 * MS : 100 * US;
    }
    t_cuda(cuStreamSynchronize(stream));
    got(10);
}

int main(int argc, char **argv)
{
    t_check(argc > 1, "what is not to be seen?");
    if (!strcmp(argv[1], "changed"))
        changed(argv[2]);
    else if (!strcmp(argv[1], "contexts"))
        contexts(argv[2]);
    else if (!strcmp(argv[1], "green"))
        green();
    else if (!strcmp(argv[1], "asleep"))
        asleep();
    else if (!strcmp(argv[1], "pauses"))
        pauses();
    else if (!strcmp(argv[1], "other"))
        other();
    else if (!strcmp(argv[1], "word"))
        word();
    else if (!strcmp(argv[1], "blocking"))
        blocking((unsigned)atoi(argv[2]), (unsigned)atoi(argv[3]));
    else if (!strcmp(argv[1], "varied"))
        varied();
    else
        jobs(argv);
    return 0;
}
