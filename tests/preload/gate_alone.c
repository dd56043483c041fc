/* SPDX-License-Identifier: Apache-2.0 */
/* A process that has the GPU to itself waits at the gate seldom and long: each wait costs its thread some 20 us. Its share is the same, what the balance can
 * pay for waits for nothing, and where estimates are too long the GPU does not idle for as long. Beside another tenant, and beside another process of its own,
 * it has no more than two marks on their way, for those are to have the GPU soon; so has one that comes later. */
// run: SOFTSLICE_COMPUTE=50% LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- alone 50
// run: SOFTSLICE_COMPUTE=10% LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- alone 10
// run: SOFTSLICE_COMPUTE=90% LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- alone 90
// run: SOFTSLICE_COMPUTE=100% LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- alone 100
// run: SOFTSLICE_COMPUTE=50% LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- again 50
// run: SOFTSLICE_COMPUTE=50% LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- waited 50
// run: SOFTSLICE_COMPUTE=100% LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- streams 100
// run: SOFTSLICE_COMPUTE=25% LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- burst 25
// run: SOFTSLICE_COMPUTE=100% LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- varies 100
// run: SOFTSLICE_COMPUTE=50% LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- varies 50
// run: SOFTSLICE_COMPUTE=50% LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- handshake 50
// run: SOFTSLICE_COMPUTE=100% LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- four 100
// run: SOFTSLICE_COMPUTE=50% LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- joined 50 neighbour
// run: SOFTSLICE_COMPUTE=50% LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- beside 50 neighbour
// run: SOFTSLICE_COMPUTE=100% LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- beside 100 neighbour
// run: SOFTSLICE_COMPUTE=50% LD_PRELOAD="$LIB $SIM/libvirtualtime.so" -- beside 50 gate
// unsanitized: virtual time is preloaded too
// unemulated: it is in virtual time
#include <stdio.h>
#include <time.h>

#include "gate_helper.h"

#define STREAMS           4
#define AT_ONCE           (100 * US)
#define LEAST_OF_CHANGING 0.9 /* of the share */

struct seen {
    unsigned waits, row; /* launches that waited; most of them in a row that did not */
    uint64_t took;
};

static uint64_t now(void)
{
    return v_clock(CLOCK_MONOTONIC);
}

/* So many of a kind, in so many streams in turn; `waited` for each. */
static struct seen launch_all(CUfunction kernel, unsigned kernels, unsigned streams, bool waited)
{
    CUstream stream[STREAMS];
    struct seen seen = {0};
    unsigned row = 0;

    for (unsigned i = 0; i < streams; i++)
        stream[i] = gate_stream();
    uint64_t begun = now();
    for (unsigned i = 0; i < kernels; i++) {
        bool at_once = gate_launch(kernel, stream[i % streams]) < AT_ONCE;

        if (waited)
            t_cuda(cuStreamSynchronize(stream[i % streams]));
        row = at_once ? row + 1 : 0;
        seen.waits += !at_once;
        seen.row = row > seen.row ? row : seen.row;
    }
    t_cuda(cuCtxSynchronize());
    seen.took = now() - begun;
    for (unsigned i = 0; i < streams; i++)
        t_cuda(cuStreamDestroy(stream[i]));
    printf("%u of %u launches waited, %u in a row did not; %.1f ms\n", seen.waits, kernels, seen.row, (double)seen.took / 1e6);
    return seen;
}

/* Two seconds of work, after what may be used at once. */
static void alone(double percent, unsigned streams, bool waited)
{
    CUfunction kernel = gate_kernel("k__1ms");
    unsigned kernels = (unsigned)(percent * 20);

    launch_all(kernel, 50, streams, waited);
    uint64_t before = gate_account(0).throttled;
    struct seen seen = launch_all(kernel, kernels, streams, waited);
    gate_percent(kernels * MS, seen.took, percent, 1);
    double waits = seen.waits / ((double)seen.took / 1e9);
    t_check(waits < 250, "%.0f waits in a second", waits);
    usleep(100000);
    if (percent < 100)
        gate_percent(gate_account(0).throttled - before, seen.took, 100 - percent, 4); /* waits for work are none */
}

/* What an idle tenant may use at once, whatever its share. */
static void burst(void)
{
    CUfunction kernel = gate_kernel("k__1ms");

    launch_all(kernel, 50, 1, false);
    for (unsigned i = 0; i < 5; i++) {
        usleep(500000);
        struct seen seen = launch_all(kernel, 8, 1, false);
        t_check(seen.took < 8500 * US, "8 ms took %.1f", (double)seen.took / 1e6);
    }
}

/* One launch of 20 ms and ten of 0.2 ms that are the same one for the library: a graph that changes. */
static uint64_t launch_changing(CUgraphExec exec, CUgraph graph[2], CUstream stream)
{
    CUgraphExecUpdateResultInfo info;

    for (unsigned i = 0; i < 11; i++) {
        if (i < 2)
            t_cuda(cuGraphExecUpdate(exec, graph[i], &info));
        t_cuda(cuGraphLaunch(exec, stream));
    }
    return 20 * MS + 10 * 200 * US;
}

static void varies(double percent)
{
    CUfunction kernel[2] = {gate_kernel("k__20ms"), gate_kernel("k__200us")};
    CUstream stream = gate_stream();
    CUgraphExec exec;
    CUgraph graph[2];
    uint64_t work = 0;

    for (unsigned i = 0; i < 2; i++) {
        t_cuda(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
        gate_launch(kernel[i], stream);
        t_cuda(cuStreamEndCapture(stream, &graph[i]));
    }
    t_cuda(cuGraphInstantiate(&exec, graph[0], 0));
    launch_changing(exec, graph, stream);
    t_cuda(cuStreamSynchronize(stream));
    uint64_t begun = now();
    for (unsigned i = 0; i < 50; i++)
        work += launch_changing(exec, graph, stream);
    t_cuda(cuStreamSynchronize(stream));
    double got = 100.0 * (double)work / (double)(now() - begun);
    printf("%.1f %%\n", got);
    t_check(got > percent * LEAST_OF_CHANGING, "%.1f %%", got);
}

/* Work that waits for a word, which another thread's kernel is to be launched for. */
static CUdeviceptr word;
static CUstream writer;

static void write_word(void *argument)
{
    CUfunction kernel = argument;

    usleep(20000);
    uint64_t begun = now();
    gate_launch(kernel, writer);
    t_cuda(cuStreamWriteValue32(writer, word, 1, CU_STREAM_WRITE_VALUE_DEFAULT));
    t_check(now() - begun < 100 * MS, "the other thread's launch took %.1f ms", (double)(now() - begun) / 1e6);
}

static void handshake(void)
{
    CUfunction kernel = gate_kernel("k__1ms"), brief = gate_kernel("k__10us");
    CUstream stream = gate_stream();
    struct gate_thread thread;
    CUcontext context;

    writer = gate_stream();
    t_cuda(cuCtxGetCurrent(&context));
    t_cuda(cuMemAlloc(&word, 4));
    gate_launch(brief, writer);
    launch_all(kernel, 50, 1, false);
    for (unsigned i = 0; i < 3; i++) {
        t_cuda(cuMemsetD32(word, 0, 1));
        t_cuda(cuStreamWaitValue32(stream, word, 1, CU_STREAM_WAIT_VALUE_EQ));
        gate_start(&thread, context, write_word, brief);
        for (unsigned k = 0; k < 8; k++)
            gate_launch(kernel, stream);
        t_cuda(cuStreamSynchronize(stream));
        gate_join(&thread);
    }
}

/* Of long ones no more is ahead than of short ones. */
static void four(void)
{
    struct seen seen = launch_all(gate_kernel("k__3900us"), 200, 1, false);

    t_check(seen.row <= 3, "%u launches in a row", seen.row);
    t_check(seen.took < 200 * 3900 * US * 101 / 100, "%.1f ms", (double)seen.took / 1e6);
}

static void beside(double percent)
{
    CUfunction kernel = gate_kernel("k__1ms");

    launch_all(kernel, 50, 1, false);
    struct seen seen = launch_all(kernel, 1000, 1, false);
    gate_percent(1000 * MS, seen.took, percent, 1);
    t_check(seen.row <= 3, "%u launches in a row, beside another process", seen.row);
}

/* Comes when the other is in the middle of its work. */
static void joins(void)
{
    CUfunction kernel;
    uint64_t begun;

    t_check(nanosleep(&(struct timespec){.tv_nsec = 700000000}, NULL) == 0, "nanosleep: %s", strerror(errno));
    t_context(0);
    kernel = gate_kernel("k__1ms");
    CUstream stream = gate_stream();
    begun = now();
    gate_launch(kernel, stream);
    t_cuda(cuStreamSynchronize(stream));
    printf("the first took %.1f ms\n", (double)(now() - begun) / 1e6);
    t_check(now() - begun < 15 * MS, "%.1f ms", (double)(now() - begun) / 1e6);
    for (unsigned i = 0; i < 50; i++) {
        gate_launch(kernel, stream);
        t_cuda(cuStreamSynchronize(stream));
    }
}

static void joined(void)
{
    launch_all(gate_kernel("k__1ms"), 1000, 1, false);
    printf("%llu turns, %llu lost\n", (unsigned long long)gate_account(0).turns_taken,
           (unsigned long long)gate_account(0).turns_lost);
}

/* Something now and then. */
static void other(void)
{
    CUfunction kernel = gate_kernel("k__20us");

    for (unsigned i = 0; i < 12; i++) {
        launch_all(kernel, 1, 1, true);
        t_check(nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL) == 0, "nanosleep: %s", strerror(errno));
    }
}

static void run(const char *what, double percent)
{
    if (strcmp(what, "joins") == 0) {
        joins();
        return;
    }
    t_context(0);
    if (strcmp(what, "other") == 0)
        other();
    else if (strcmp(what, "brief") == 0)
        launch_all(gate_kernel("k__20us"), 5, 1, true);
    else if (strcmp(what, "beside") == 0)
        beside(percent);
    else if (strcmp(what, "burst") == 0)
        burst();
    else if (strcmp(what, "varies") == 0)
        varies(percent);
    else if (strcmp(what, "handshake") == 0)
        handshake();
    else if (strcmp(what, "four") == 0)
        four();
    else if (strcmp(what, "joined") == 0)
        joined();
    else
        alone(percent, strcmp(what, "streams") == 0 ? STREAMS : 1, strcmp(what, "waited") == 0);
}

/* A program of its own, as number `order` of so many in virtual time. */
static void become(char **argv, char *what, unsigned order, unsigned of, const char *tenant)
{
    char text[2][16];

    snprintf(text[0], sizeof(text[0]), "%u", of);
    snprintf(text[1], sizeof(text[1]), "%u", order);
    setenv("SOFTSIM_VIRTUAL", text[0], 1);
    setenv("SOFTSIM_VIRTUAL_ORDER", text[1], 1);
    setenv("SOFTSLICE_TENANT", tenant, 1);
    execv("/proc/self/exe", (char *[]){argv[0], what, argv[2], "run", NULL});
    t_fail("exec: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    bool joined = strcmp(argv[1], "joined") == 0;
    const char *tenant[] = {"gate", argc > 3 ? argv[3] : ""};
    char *what[] = {argv[1], joined ? "joins" : "other"};
    unsigned count = joined || strcmp(argv[1], "beside") == 0 ? 2 : 1;
    pid_t child[2];

    if (argc > 3 && strcmp(argv[3], "run") == 0) {
        run(argv[1], atof(argv[2]));
        return 0;
    }
    if (strcmp(argv[1], "again") == 0) { /* an earlier life of the tenant, that nobody has buried */
        child[0] = t_fork();
        if (child[0] == 0)
            become(argv, "brief", 1, 1, "gate");
        t_join(child[0]);
    }
    for (unsigned i = 0; i < count; i++) {
        child[i] = t_fork();
        if (child[i] == 0)
            become(argv, what[i], i + 1, count, tenant[i]);
    }
    for (unsigned i = 0; i < count; i++)
        t_join(child[i]);
    return 0;
}
