/* SPDX-License-Identifier: Apache-2.0 */
/* What a thread launches in ends meanwhile, by another one: the stream while the launch is being marked, its handle being the next stream's at once, on another
 * GPU; the stream, its green context or the primary context while the thread waits at the gate. The launch ends as the driver says, nobody is left to
 * wait for it, and the process rests when its work is done. */
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate SOFTSIM_GPUS=2 -- marked
// run: SOFTSLICE_COMPUTE=1% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- stream
// run: SOFTSLICE_COMPUTE=1% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- green
// run: SOFTSLICE_COMPUTE=1% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- reset
// run: SOFTSLICE_COMPUTE=1% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- release
// unsanitized: most of it is in virtual time, and what it does is a race by intent
// unemulated: most of it is in virtual time
#include "gate_helper.h"

/* Periods are counted while there is work. */
static void rests(unsigned gpus)
{
    for (int tries = 0;; tries++) {
        uint64_t before = 0, after = 0;

        for (unsigned i = 0; i < gpus; i++)
            before += gate_account(i).nr_periods;
        usleep(400000);
        for (unsigned i = 0; i < gpus; i++)
            after += gate_account(i).nr_periods;
        if (after == before)
            return;
        t_check(tries < 20, "a device is taken for busy though it has no work");
    }
}

struct launch {
    CUfunction kernel;
    CUstream stream;
    CUresult result;
    bool over;
};

static void launch_once(void *argument)
{
    struct launch *l = argument;

    l->result = gate_try(l->kernel, l->stream);
    __atomic_store_n(&l->over, true, __ATOMIC_SEQ_CST);
}

static bool hangs(const char *path)
{
    FILE *file = fopen(path, "re");
    int process = 0, thread = 0;
    bool found = file && fscanf(file, "%d %d\n", &process, &thread) == 2;

    if (file)
        fclose(file);
    return found;
}

static void marked(void)
{
    static char path[4096], setting[sizeof(path) + 32];
    struct gate_thread thread;
    struct launch l;
    CUcontext context[2];
    CUfunction other;
    CUstream before, next;

    snprintf(path, sizeof(path), "%s/hang", getenv("TEST_TMP"));
    snprintf(setting, sizeof(setting), "cuEventRecord:%s", path);
    setenv("SOFTSIM_BLOCK", setting, 1);
    for (int i = 1; i >= 0; i--) {
        context[i] = t_context(i);
        other = i ? gate_kernel("k__20us") : other;
    }
    before = gate_stream();
    /* Each is of a function that was never seen, and gets a mark. */
    for (int round = 0; round < 10; round++) {
        char name[32];

        snprintf(name, sizeof(name), "k%d__100us", round);
        t_cuda(cuCtxSetCurrent(context[0]));
        l = (struct launch){.kernel = gate_kernel(name), .stream = gate_stream()};
        gate_launch(gate_kernel("k__20ms"), before); /* the GPU is busy: nothing is recorded before the launch */
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        t_check(fd >= 0, "%s: %s", path, strerror(errno));
        close(fd);
        gate_start(&thread, context[0], launch_once, &l);
        while (!hangs(path))
            usleep(1000);
        t_cuda(cuStreamDestroy(l.stream));
        t_cuda(cuCtxSetCurrent(context[1]));
        next = gate_stream();
        gate_launch(other, next);
        t_equal(unlink(path), 0);
        gate_join(&thread);
        t_cuda(l.result);
        gate_launch(other, next);
        t_cuda(cuStreamSynchronize(next));
        t_cuda(cuStreamDestroy(next));
    }
    rests(2);
}

/* A thread that waits at the gate: 20 ms are two seconds of debt. */
static void wait_there(struct gate_thread *thread, struct launch *l, CUcontext context)
{
    gate_launch(gate_kernel("k__20ms"), l->stream);
    t_cuda(cuStreamSynchronize(l->stream));
    gate_start(thread, context, launch_once, l);
    usleep(50000);
    t_check(!__atomic_load_n(&l->over, __ATOMIC_SEQ_CST), "the launch did not wait");
}

static void over(struct gate_thread *thread, struct launch *l, uint64_t since)
{
    while (!__atomic_load_n(&l->over, __ATOMIC_SEQ_CST)) {
        t_check(v_clock(CLOCK_MONOTONIC) - since < 3 * S, "a launch into what has ended waits for more than max_stall");
        usleep(1000);
    }
    gate_join(thread);
}

static void stream(void)
{
    CUcontext context = t_context(0);
    struct launch l = {.kernel = gate_kernel("k__1ms"), .stream = gate_stream()};
    struct gate_thread thread;
    uint64_t since;

    wait_there(&thread, &l, context);
    since = v_clock(CLOCK_MONOTONIC);
    t_cuda(cuStreamDestroy(l.stream));
    over(&thread, &l, since);
    t_result(l.result, CUDA_ERROR_INVALID_HANDLE);
    rests(1);
}

static void green(void)
{
    CUdevResource resource;
    CUdevResourceDesc desc;
    CUcontext primary;
    CUgreenCtx made;
    struct launch l = {.result = CUDA_SUCCESS};
    struct gate_thread thread;
    uint64_t since;

    t_cuda(cuInit(0));
    t_cuda(cuDevicePrimaryCtxRetain(&primary, 0));
    t_cuda(cuCtxSetCurrent(primary));
    t_cuda(cuDeviceGetDevResource(0, &resource, CU_DEV_RESOURCE_TYPE_SM));
    t_cuda(cuDevResourceGenerateDesc(&desc, &resource, 1));
    t_cuda(cuGreenCtxCreate(&made, desc, 0, CU_GREEN_CTX_DEFAULT_STREAM));
    t_cuda(cuGreenCtxStreamCreate(&l.stream, made, CU_STREAM_NON_BLOCKING, 0));
    l.kernel = gate_kernel("k__1ms");
    wait_there(&thread, &l, primary);
    since = v_clock(CLOCK_MONOTONIC);
    t_cuda(cuGreenCtxDestroy(made));
    over(&thread, &l, since);
    t_result(l.result, CUDA_ERROR_INVALID_HANDLE);
    rests(1);
    gate_drain(l.kernel);
    rests(1);
}

static void primary_ends(bool reset)
{
    CUcontext primary;
    struct launch l = {.result = CUDA_SUCCESS};
    struct gate_thread thread;
    uint64_t since;

    t_cuda(cuInit(0));
    /* More than there are places for: each gives its own back. */
    for (int i = 0; i < 300; i++) {
        t_cuda(cuDevicePrimaryCtxRetain(&primary, 0));
        t_cuda(cuCtxSetCurrent(primary));
        t_cuda(gate_try(gate_kernel("k__1us"), NULL));
        t_cuda(reset ? cuDevicePrimaryCtxReset(0) : cuDevicePrimaryCtxRelease(0));
    }
    for (int round = 0; round < 2; round++) {
        t_cuda(cuDevicePrimaryCtxRetain(&primary, 0));
        t_cuda(cuCtxSetCurrent(primary));
        l = (struct launch){.kernel = gate_kernel("k__1ms"), .stream = gate_stream()};
        wait_there(&thread, &l, primary);
        since = v_clock(CLOCK_MONOTONIC);
        t_cuda(reset ? cuDevicePrimaryCtxReset(0) : cuDevicePrimaryCtxRelease(0));
        over(&thread, &l, since);
        t_check(l.result != CUDA_SUCCESS, "launched in a context that is gone");
        rests(1);
    }
}

int main(int argc, char **argv)
{
    const char *part = argc > 1 ? argv[1] : "";

    if (strcmp(part, "marked") == 0)
        marked();
    else if (strcmp(part, "stream") == 0)
        stream();
    else if (strcmp(part, "green") == 0)
        green();
    else
        primary_ends(strcmp(part, "reset") == 0);
    return 0;
}
