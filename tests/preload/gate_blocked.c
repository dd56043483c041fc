/* SPDX-License-Identifier: Apache-2.0 */
/* A thread hangs inside the driver, in a call of the program's or in a question of ours: no lock of ours is held meanwhile, so another thread goes on
 * launching, waiting, allocating, and making and destroying streams and contexts. When the driver goes on, so does all. Where it is our own thread that
 * hangs, not even the context that it asks about is kept from ending, and from being followed by others; below 100 % each closing lasts max_stall then. */
// run: SOFTSLICE_COMPUTE=90% SOFTSLICE_MAX_STALL=500ms SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=gate SOFTSIM_CONTEXT_BYTES=100M -- cuLaunchKernel
// run: SOFTSLICE_COMPUTE=90% SOFTSLICE_MAX_STALL=500ms SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=gate SOFTSIM_CONTEXT_BYTES=100M -- cuEventCreate
// run: SOFTSLICE_COMPUTE=90% SOFTSLICE_MAX_STALL=500ms SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=gate SOFTSIM_CONTEXT_BYTES=100M -- cuEventRecord
// run: SOFTSLICE_COMPUTE=90% SOFTSLICE_MAX_STALL=500ms SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=gate SOFTSIM_CONTEXT_BYTES=100M -- cuEventQuery
// run: SOFTSLICE_COMPUTE=90% SOFTSLICE_MAX_STALL=500ms SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=gate SOFTSIM_CONTEXT_BYTES=100M -- cuEventElapsedTime
// run: SOFTSLICE_COMPUTE=90% SOFTSLICE_MAX_STALL=500ms SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=gate SOFTSIM_CONTEXT_BYTES=100M -- cuStreamIsCapturing
// run: SOFTSLICE_COMPUTE=90% SOFTSLICE_MAX_STALL=500ms SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=gate SOFTSIM_CONTEXT_BYTES=100M -- cuGraphLaunch
// run: SOFTSLICE_COMPUTE=90% SOFTSLICE_MAX_STALL=500ms SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=gate SOFTSIM_CONTEXT_BYTES=100M -- cuStreamSynchronize
// run: SOFTSLICE_COMPUTE=90% SOFTSLICE_MAX_STALL=500ms SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=gate SOFTSIM_CONTEXT_BYTES=100M -- cuCtxSynchronize
// run: SOFTSLICE_COMPUTE=90% SOFTSLICE_MAX_STALL=500ms SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=gate SOFTSIM_CONTEXT_BYTES=100M -- cuMemAlloc_v2
// run: SOFTSLICE_COMPUTE=90% SOFTSLICE_MAX_STALL=500ms SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=gate SOFTSIM_CONTEXT_BYTES=100M -- cuCtxDestroy_v2
// run: SOFTSLICE_COMPUTE=100% SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=gate SOFTSIM_CONTEXT_BYTES=100M -- cuEventQuery ours
// run: SOFTSLICE_COMPUTE=100% SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=gate SOFTSIM_CONTEXT_BYTES=100M -- cuEventElapsedTime ours
#include "gate_helper.h"

#define BOUND_MS 10000 /* a hang is longer: the simulated driver hangs for a minute */

static char path[4096];
static bool over, went_on, compared;
static pid_t hanging;  /* the thread */
static uint64_t turns; /* of the thread that comes to hang */
static pid_t comer;

/* All that may hang, in a context of its own. */
static void turn(void)
{
    CUcontext context;
    CUgraph graph;
    CUgraphExec exec;
    CUdeviceptr block;

    t_cuda(cuCtxCreate(&context, NULL, 0, 0));
    CUfunction kernel = gate_kernel("k__1ms");
    CUstream stream = gate_stream();
    t_cuda(cuGraphCreate(&graph, 0));
    CUgraphNode node;
    CUDA_KERNEL_NODE_PARAMS params = {
        .func = kernel, .gridDimX = 1, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 1, .blockDimY = 1, .blockDimZ = 1};
    t_cuda(cuGraphAddKernelNode(&node, graph, NULL, 0, &params));
    t_cuda(cuGraphInstantiate(&exec, graph, 0));
    for (int i = 0; i < 4; i++) {
        gate_launch(kernel, stream);
        t_cuda(cuGraphLaunch(exec, stream));
        t_cuda(cuStreamSynchronize(stream));
        gate_launch(kernel, NULL);
        t_cuda(cuCtxSynchronize());
        t_cuda(cuMemAlloc(&block, T_MIB));
        t_cuda(cuMemFree(block));
    }
    t_cuda(cuGraphExecDestroy(exec));
    t_cuda(cuGraphDestroy(graph));
    t_cuda(cuStreamDestroy(stream));
    t_cuda(cuCtxDestroy(context));
}

/* The thread that the file names; 0: none yet. */
static pid_t who_hangs(void)
{
    FILE *file = fopen(path, "re");
    int process = 0, thread = 0;

    t_check(file, "%s: %s", path, strerror(errno));
    if (fscanf(file, "%d %d\n", &process, &thread) != 2)
        thread = 0;
    fclose(file);
    return thread;
}

/* Nobody but our own thread asks for the work of this context, once the clocks have been compared. */
static void let_ours_ask(void)
{
    CUcontext context;

    t_cuda(cuCtxCreate(&context, NULL, 0, 0));
    CUfunction kernel = gate_kernel("k__20ms");
    gate_launch(kernel, NULL);
    usleep(60000);
    __atomic_store_n(&compared, true, __ATOMIC_SEQ_CST);
    while (access(path, F_OK) || !who_hangs()) {
        gate_launch(kernel, NULL);
        usleep(60000);
    }
    t_cuda(cuCtxDestroy(context));
}

static void come_to_hang(void *argument)
{
    if (argument)
        let_ours_ask();
    __atomic_store_n(&comer, (pid_t)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&over, __ATOMIC_SEQ_CST)) {
        turn();
        __atomic_add_fetch(&turns, 1, __ATOMIC_SEQ_CST);
    }
}

/* In the context it has, and in another one. */
static void go_on(void *argument)
{
    CUfunction kernel = argument;
    CUstream stream = gate_stream();
    CUcontext context;
    CUdeviceptr block;

    for (int i = 0; i < 100; i++)
        gate_launch(kernel, stream);
    t_cuda(cuStreamSynchronize(stream));
    t_cuda(cuCtxSynchronize());
    t_cuda(cuMemAlloc(&block, T_MIB));
    t_cuda(cuMemFree(block));
    t_cuda(cuStreamDestroy(stream));
    t_cuda(cuCtxCreate(&context, NULL, 0, 0));
    gate_launch(gate_kernel("k__20us"), NULL);
    t_cuda(cuCtxDestroy(context));
    __atomic_store_n(&went_on, true, __ATOMIC_SEQ_CST);
}

/* No mark of what hung is waited for: periods are counted while there is work, and that ends. */
static void rests(CUfunction kernel)
{
    gate_drain(kernel);
    for (int tries = 0;; tries++) {
        uint64_t periods = gate_account(0).nr_periods;

        usleep(500000);
        if (gate_account(0).nr_periods == periods)
            break;
        t_check(tries < 20, "the device is taken for busy though it has no work");
    }
}

int main(int argc, char **argv)
{
    bool ours = argc > 2;
    char setting[sizeof(path) + 64];
    struct gate_thread hangs, goes;

    t_check(argc >= 2, "which function is to hang?");
    snprintf(path, sizeof(path), "%s/hang", getenv("TEST_TMP"));
    snprintf(setting, sizeof(setting), "%s:%s", argv[1], path);
    setenv("SOFTSIM_BLOCK", setting, 1);

    CUcontext context = t_context(0);
    CUfunction kernel = gate_kernel("k__20us");
    go_on(kernel);
    turn();
    t_cuda(cuCtxSetCurrent(context));
    gate_drain(kernel);
    went_on = false;

    gate_start(&hangs, NULL, come_to_hang, ours ? &turns : NULL);
    while (ours && !__atomic_load_n(&compared, __ATOMIC_SEQ_CST))
        usleep(1000);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    t_check(fd >= 0, "%s: %s", path, strerror(errno));
    close(fd);
    while (!(hanging = who_hangs()))
        usleep(1000);
    uint64_t seen = __atomic_load_n(&turns, __ATOMIC_SEQ_CST);
    bool programs = hanging == __atomic_load_n(&comer, __ATOMIC_SEQ_CST);
    t_check(!(ours && programs), "the program itself hangs in %s", argv[1]);

    gate_start(&goes, context, go_on, kernel);
    for (int ms = 0; !__atomic_load_n(&went_on, __ATOMIC_SEQ_CST) || (ours && __atomic_load_n(&turns, __ATOMIC_SEQ_CST) < 2);
         ms++) {
        t_check(ms < BOUND_MS, "while a thread hangs in %s, another one does not get done", argv[1]);
        usleep(1000);
    }
    gate_join(&goes);
    t_equal(who_hangs(), hanging);
    t_check(!programs || seen == __atomic_load_n(&turns, __ATOMIC_SEQ_CST), "nothing hung in %s", argv[1]);

    /* What our own thread asked about is nobody's any more when it gets its answer, unless the place was given to another context meanwhile. */
    __atomic_store_n(&over, true, __ATOMIC_SEQ_CST);
    if (ours)
        gate_join(&hangs);
    t_equal(unlink(path), 0);
    if (!ours)
        gate_join(&hangs);
    go_on(kernel);
    t_cuda(cuCtxSetCurrent(context));
    rests(kernel);
    return 0;
}
