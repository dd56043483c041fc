/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated GPU in virtual time: runs repeat exactly, launches wait for room in the queue, calls and switches take what they are said to
 * take, times of events stay exact, and kernels that meet on two GPUs spin until both have started. */
// run: LD_PRELOAD=$BUILD/sim/libvirtualtime.so SOFTSIM_VIRTUAL=4 -- repeat
// run: LD_PRELOAD=$BUILD/sim/libvirtualtime.so SOFTSIM_VIRTUAL=1 SOFTSIM_QUEUE=4 -- queue
// run: SOFTSIM_QUEUE=4 -- queue
// run: LD_PRELOAD=$BUILD/sim/libvirtualtime.so SOFTSIM_VIRTUAL=1 SOFTSIM_LAUNCH_NS=4000 SOFTSIM_RECORD_NS=1000 -- costs
// run: LD_PRELOAD=$BUILD/sim/libvirtualtime.so SOFTSIM_VIRTUAL=2 SOFTSIM_SWITCH_US=100 SOFTSIM_TIMELINE=$TMP/timeline -- switch
// run: LD_PRELOAD=$BUILD/sim/libvirtualtime.so SOFTSIM_VIRTUAL=2 SOFTSIM_SLICE_US=50 -- events
// run: LD_PRELOAD=$BUILD/sim/libvirtualtime.so SOFTSIM_VIRTUAL=1 SOFTSIM_GPUS=2 SOFTSIM_TIMELINE=$TMP/timeline -- pair
// run: LD_PRELOAD=$BUILD/sim/libvirtualtime.so SOFTSIM_VIRTUAL=2 SOFTSIM_GPUS=2 SOFTSIM_GROUP=g SOFTSIM_TIMELINE=$TMP/timeline -- group
#include "virtual_helper.h"
#include "../../sim/shared.h"
#include <cuda.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>

#define MS 1000000ull

static CUmodule module;

static CUfunction kernel(const char *name)
{
    CUfunction f;

    t_cuda(cuModuleGetFunction(&f, module, name));
    return f;
}

static CUcontext use_gpu(int dev)
{
    CUcontext ctx;

    t_cuda(cuInit(0));
    t_cuda(cuCtxCreate(&ctx, NULL, 0, dev));
    t_cuda(cuModuleLoadData(&module, "any image"));
    return ctx;
}

static CUstream new_stream(void)
{
    CUstream s;

    t_cuda(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    return s;
}

static void launch(CUfunction f, CUstream s)
{
    t_cuda(cuLaunchKernel(f, 1, 1, 1, 32, 1, 1, 0, s, NULL, NULL));
}

static const struct sim_machine *machine(void)
{
    int fd = open(getenv("SOFTSIM_STATE"), O_RDONLY | O_CLOEXEC);
    void *m = mmap(NULL, sizeof(struct sim_machine), PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);

    t_check(fd >= 0 && m != MAP_FAILED, "the machine's file cannot be mapped: %s", strerror(errno));
    close(fd);
    return m;
}

/* ---- four processes, each of another kind, twice */

static volatile unsigned told;

static void tell(void *data)
{
    (void)data;
    told++;
}

static void *beside(void *until)
{
    while (v_clock(CLOCK_MONOTONIC) < *(uint64_t *)until)
        usleep(1700);
    return NULL;
}

static void load(int kind, int ms)
{
    CUstream a, b;
    pthread_t thread;
    uint64_t until;
    CUevent e;

    use_gpu(0);
    a = new_stream();
    b = new_stream();
    t_cuda(cuEventCreate(&e, 0));
    until = v_clock(CLOCK_MONOTONIC) + (uint64_t)ms * MS;
    if (kind == 3)
        t_equal(pthread_create(&thread, NULL, beside, &until), 0);
    for (unsigned i = 0; v_clock(CLOCK_MONOTONIC) < until; i++)
        switch (kind) {
        case 0:
            launch(kernel("short__20us"), a);
            break;
        case 1:
            launch(kernel("long__1ms"), a);
            t_cuda(cuStreamSynchronize(a));
            break;
        case 2:
            launch(kernel("other__130us"), i % 2 ? a : b);
            t_cuda(cuEventRecord(e, i % 2 ? a : b));
            if (i % 5 == 0)
                t_cuda(cuLaunchHostFunc(b, tell, NULL));
            if (i % 10 == 9)
                t_cuda(cuEventSynchronize(e));
            break;
        default:
            for (int k = 0; k < 40; k++)
                launch(kernel("burst__200us"), b);
            usleep(11000);
            while (cuStreamQuery(b) == CUDA_ERROR_NOT_READY)
                sched_yield();
        }
    if (kind == 3)
        t_equal(pthread_join(thread, NULL), 0);
    t_cuda(cuCtxSynchronize());
}

/* The file of a run, its processes numbered. */
static char *run_once(const char *self, int run, size_t *size)
{
    char state[200], path[220], number[8], *text = calloc(1, 1 << 22);
    int pids[4], status, pid, gpu;
    unsigned long long begin, end;
    FILE *log;

    snprintf(state, sizeof(state), "%s/gpu%d", getenv("TEST_TMP"), run);
    snprintf(path, sizeof(path), "%s.timeline", state);
    for (int i = 0; i < 4; i++)
        if (!(pids[i] = v_fork())) {
            setenv("SOFTSIM_STATE", state, 1);
            setenv("SOFTSIM_TIMELINE", path, 1);
            snprintf(number, sizeof(number), "%d", i);
            /* The first to come is another one in each run. */
            v_sleep_really((run ? 3 - i : i) * 20);
            execl(self, self, "load", number, NULL);
            _exit(1);
        }
    for (int i = 0; i < 4; i++)
        t_check(waitpid(pids[i], &status, 0) == pids[i] && status == 0, "load %d ended with %x", i, (unsigned)status);
    log = fopen(path, "re");
    t_check(log && text, "%s: %s", path, strerror(errno));
    while (fscanf(log, "%d %d %llu %llu\n", &gpu, &pid, &begin, &end) == 4 && *size < (1 << 22) - 100)
        for (int i = 0; i < 4; i++)
            if (pids[i] == pid)
                *size += (size_t)sprintf(text + *size, "%d %d %llu %llu\n", gpu, i, begin, end);
    fclose(log);
    return text;
}

static void check_repeat(const char *self)
{
    size_t size[2] = {0}, at = 0;
    char *text[2];

    for (int run = 0; run < 2; run++)
        text[run] = run_once(self, run, &size[run]);
    while (at < size[0] && text[0][at] == text[1][at])
        at++;
    t_check(size[0] > 1000, "only %zu bytes of a timeline", size[0]);
    t_check(size[0] == size[1] && at == size[0], "two runs differ at byte %zu of %zu: %.60s | %.60s", at, size[0],
            text[0] + (at > 30 ? at - 30 : 0), text[1] + (at > 30 ? at - 30 : 0));
    printf("%zu bytes of timeline, twice the same\n", size[0]);
    free(text[0]);
    free(text[1]);
}

/* ---- the queue */

static void check_queue(void)
{
    const struct sim_machine *m;
    const struct sim_client *c;
    uint64_t begin;
    CUstream s[2];

    use_gpu(0);
    s[0] = new_stream();
    s[1] = new_stream();
    m = machine();
    c = &m->proc[0].client[0];
    begin = v_clock(CLOCK_MONOTONIC);
    for (unsigned i = 0; i < 12; i++) {
        uint64_t left;

        launch(kernel("work__5ms"), s[i % 2]);
        left = c->submitted_ns - c->served_ns;
        t_check(left <= 4 * 5 * MS, "%llu ns of launches of 5 ms are not finished", (unsigned long long)left);
        if (getenv("SOFTSIM_VIRTUAL"))
            t_equal(v_clock(CLOCK_MONOTONIC) - begin, i < 4 ? 2500 * (i + 1) : 2500 + 5 * MS * (i - 3));
    }
    t_cuda(cuCtxSynchronize());
    t_equal(c->served_ns, 12 * 5 * MS);
}

/* ---- costs */

static void check_costs(void)
{
    CUevent a, b;
    uint64_t begin;
    CUstream s;
    float ms;

    use_gpu(0);
    s = new_stream();
    t_cuda(cuEventCreate(&a, 0));
    t_cuda(cuEventCreate(&b, 0));
    begin = v_clock(CLOCK_MONOTONIC);
    for (int i = 0; i < 10; i++)
        launch(kernel("work__1ms"), s);
    t_equal(v_clock(CLOCK_MONOTONIC) - begin, 10 * 4000);
    t_cuda(cuEventRecord(a, s));
    t_equal(v_clock(CLOCK_MONOTONIC) - begin, 10 * 4000 + 1000);
    launch(kernel("work__2.5ms"), s);
    t_cuda(cuEventRecord(b, s));
    t_cuda(cuEventSynchronize(b));
    t_equal(v_clock(CLOCK_MONOTONIC) - begin, 4000 + 12500000);
    t_cuda(cuEventElapsedTime(&ms, a, b));
    t_check(ms == 2.5f, "%.6f ms between two events, expected 2.5", (double)ms);
    /* Where the GPU is idle, a kernel begins when it is launched. */
    t_cuda(cuEventRecord(a, s));
    launch(kernel("work__1ms"), s);
    t_cuda(cuEventRecord(b, s));
    t_cuda(cuEventSynchronize(b));
    t_cuda(cuEventElapsedTime(&ms, a, b));
    t_check(ms > 1.0039f && ms < 1.0041f, "%.6f ms between two events, expected 1.004", (double)ms);
}

/* ---- switches */

static void check_switch(void)
{
    uint64_t begin;
    pid_t child = v_fork();
    CUstream s;

    use_gpu(0);
    s = new_stream();
    begin = v_clock(CLOCK_MONOTONIC);
    if (!child) {
        usleep(1000);
        launch(kernel("work__8ms"), s);
        t_cuda(cuCtxSynchronize());
        /* It waits for the first slice to end (2 ms after it began), then each of 4 slices costs a switch, and one of 2 ms of the other. */
        t_equal(v_clock(CLOCK_MONOTONIC) - begin, 2502500 - 500000 + 4 * (100000 + 2 * MS) + 3 * (100000 + 2 * MS));
        exit(0);
    }
    launch(kernel("work__20ms"), s);
    t_cuda(cuCtxSynchronize());
    t_equal(v_clock(CLOCK_MONOTONIC) - begin, 2500 + 28 * MS + 8 * 100000);
    v_reap(child, 0);
}

/* ---- events */

/* Slices of 50 us, half of them another process': thousands of them pass before anybody asks. */
static void check_events(void)
{
    CUevent e[40];
    pid_t child = v_fork();
    CUstream s;
    float ms;

    use_gpu(0);
    s = new_stream();
    if (!child) {
        launch(kernel("other__2000ms"), s);
        t_cuda(cuCtxSynchronize());
        exit(0);
    }
    usleep(100000);
    for (int i = 0; i < 40; i++) {
        t_cuda(cuEventCreate(&e[i], 0));
        if (i)
            launch(kernel("work__20ms"), s);
        t_cuda(cuEventRecord(e[i], s));
    }
    usleep(3000000);
    for (int i = 1; i < 40; i++) {
        t_cuda(cuEventElapsedTime(&ms, e[1], e[i]));
        t_check(ms > 40.0f * (float)(i - 1) - 0.0005f && ms < 40.0f * (float)(i - 1) + 0.0005f,
                "event %d is at %.6f ms, expected %d", i, (double)ms, 40 * (i - 1));
    }
    v_reap(child, 0);
}

/* ---- kernels that meet */

/* What a process had of a GPU, from the file. */
static uint64_t had(unsigned gpu)
{
    unsigned long long begin, end, sum = 0;
    FILE *log = fopen(getenv("SOFTSIM_TIMELINE"), "re");
    unsigned on;
    int pid;

    t_check(log, "no timeline: %s", strerror(errno));
    while (fscanf(log, "%u %d %llu %llu\n", &on, &pid, &begin, &end) == 4)
        sum += on == gpu ? end - begin : 0;
    fclose(log);
    return sum;
}

static void check_pair(void)
{
    CUcontext ctx[2];
    CUfunction meet[2], work;
    CUstream s[2];
    uint64_t begin;
    pid_t child;

    /* In a child, so that the file is complete. */
    child = v_fork();
    if (!child) {
        for (int i = 0; i < 2; i++) {
            ctx[i] = use_gpu(i);
            s[i] = new_stream();
            meet[i] = kernel("reduce__pair__50us");
            work = kernel("work__3ms");
        }
        begin = v_clock(CLOCK_MONOTONIC);
        launch(work, s[1]);
        for (int k = 0; k < 3; k++)
            for (int i = 0; i < 2; i++) {
                t_cuda(cuCtxSetCurrent(ctx[i]));
                launch(meet[i], s[i]);
            }
        t_cuda(cuCtxSetCurrent(ctx[0]));
        t_cuda(cuStreamSynchronize(s[0]));
        t_equal(v_clock(CLOCK_MONOTONIC) - begin, 2500 + 3 * MS + 3 * 50000);
        t_cuda(cuStreamSynchronize(s[1]));
        t_equal(v_clock(CLOCK_MONOTONIC) - begin, 2500 + 3 * MS + 3 * 50000);
        exit(0);
    }
    v_reap_only(child, 0);
    t_equal(had(1), 3 * MS + 3 * 50000);
    t_equal(had(0), 3 * MS + 3 * 50000 - 2500);
}

/* The same with a process for each GPU. */
static void check_group(void)
{
    pid_t child[2];

    for (int i = 0; i < 2; i++)
        if (!(child[i] = v_fork())) {
            CUfunction meet;

            use_gpu(i);
            meet = kernel("reduce__pair__1ms");
            usleep(i ? 7000 : 1000);
            for (int k = 0; k < 4; k++) {
                launch(meet, NULL);
                t_cuda(cuCtxSynchronize());
            }
            exit(0);
        }
    v_reap_only(child[0], 0);
    v_reap_only(child[1], 0);
    t_equal(had(0), 6 * MS + 4 * MS);
    t_equal(had(1), 4 * MS);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if (strcmp(what, "load") == 0)
        load(atoi(argv[2]), argc > 3 ? atoi(argv[3]) : 300);
    else if (strcmp(what, "repeat") == 0)
        check_repeat(argv[0]);
    else if (strcmp(what, "queue") == 0)
        check_queue();
    else if (strcmp(what, "costs") == 0)
        check_costs();
    else if (strcmp(what, "switch") == 0)
        check_switch();
    else if (strcmp(what, "events") == 0)
        check_events();
    else if (strcmp(what, "pair") == 0)
        check_pair();
    else if (strcmp(what, "group") == 0)
        check_group();
    else
        t_fail("no such check");
    return 0;
}
