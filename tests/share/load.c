/* SPDX-License-Identifier: Apache-2.0 */
/* A load for a GPU: a plain driver-API program that launches kernels of a known length in one of several ways, and says in one line of JSON
 * what it got done. tests/share/run starts as many as a scenario has. On the simulated GPU a kernel is as long as its name says; on a real
 * one it is a loop whose speed `load --calibrate` measures first.
 *
 *   load [option...]
 *     --kernel US         length of a kernel (1000)
 *     --mode MODE         async: launch without waiting, as far ahead as a driver lets a program be
 *                         sync: wait for each kernel       graph: replay a graph of --width kernels
 *                         streams: --width streams in turn  threads: --width threads, each with a stream
 *                         mix: short kernels, and after each 100 ms of them one of --long US
 *                         collective: two GPUs, a thread for each; both do a kernel, then one of 20 us that runs on both at once, and
 *                         spins on its own until it can (on the simulated GPU only)
 *     --width N           (4)
 *     --duty WORK/PERIOD  a burst of WORK ms of kernels is due every PERIOD ms; tells how long after that it was done
 *     --blind             ... or does not know: nothing waits for a burst, nor asks about it
 *     --seconds S         how long (10)
 *     --from MS           begin so long after the start of the process (100)
 *     --at NS             begin then instead, by CLOCK_MONOTONIC
 *     --run COMMAND       no load: at the beginning, run this with sh, without any preloaded library
 *     --rest S            afterwards do nothing for so long
 *     --idle S            and for so long then, and tell what processor time the library's threads take meanwhile
 *     --loops N           loops of the kernel in a microsecond, on a real GPU
 *     --calibrate         tell that number, and end */
#include <cuda.h>
#include <dirent.h>
#include <getopt.h>
#include <pthread.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "spin.h"

#define AHEAD_LAUNCHES 1024                 /* what a driver's queue holds, about */
#define AHEAD_NS       UINT64_C(1000000000) /* and no more work than this, for the end is waited for */
#define MIX_SHORT_NS   UINT64_C(100000000)
#define MEETING        "meet__pair__20us"
#define LANES_MAX      16
#define NODES_MAX      1000
#define BURSTS_MAX     100000

extern char **environ;

enum mode { ASYNC, SYNC, GRAPH, STREAMS, THREADS, MIX, COLLECTIVE };
static const char *const mode_name[] = {"async", "sync", "graph", "streams", "threads", "mix", "collective"};

static struct {
    enum mode mode;
    unsigned width;
    double kernel_us, long_us, seconds, from_ms, duty_ms, period_ms, rest, idle, loops;
    uint64_t at_ns;
    const char *command;
    int calibrate, blind;
} set = {.mode = ASYNC, .width = 4, .kernel_us = 1000, .long_us = 500000, .seconds = 10, .from_ms = 100};

/* A kernel on a GPU, of one length. */
struct kernel {
    CUfunction function;
    uint64_t ns, loops;
};

struct gpu {
    CUcontext context;
    CUmodule module;
    CUdeviceptr out;
    unsigned blocks, threads;
};

/* A stream, and what was launched into it. */
struct lane {
    struct gpu *gpu;
    CUstream stream;
    CUevent behind[2]; /* behind every half queue */
    CUgraphExec graph;
    struct kernel kernel, other;
    unsigned depth, since, turn;
    bool recorded[2];
    uint64_t launches, work_ns, graph_ns, short_ns;
    uint64_t now_ns;     /* the clock is read once for each launch */
    uint64_t longest_ns; /* that a call to launch took */
    pthread_t thread;
};

static struct lane lanes[LANES_MAX];
static struct gpu gpus[2];
static uint64_t begin_ns, end_ns;
static double *latency_us;
static unsigned bursts;

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t ns)
{
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) != 0)
        continue;
}

static void need(CUresult result, const char *what)
{
    const char *name = NULL;

    if (result == CUDA_SUCCESS)
        return;
    cuGetErrorName(result, &name);
    fprintf(stderr, "load: %s: %s\n", what, name ? name : "an unknown error");
    exit(result == CUDA_ERROR_NO_DEVICE ? 77 : 1);
}

#define NEED(call) need((call), #call)

static void *zeros(size_t count, size_t size)
{
    void *memory = calloc(count, size);

    if (!memory)
        exit(1);
    return memory;
}

/* ---- kernels */

static struct kernel kernel_of(struct gpu *gpu, double us)
{
    struct kernel k = {.ns = (uint64_t)(us * 1000), .loops = (uint64_t)(us * set.loops)};
    char name[48];

    snprintf(name, sizeof(name), "spin__%gus", us);
    if (cuModuleGetFunction(&k.function, gpu->module, name) == CUDA_SUCCESS)
        return k;
    NEED(cuModuleGetFunction(&k.function, gpu->module, "spin"));
    if (!k.loops && !set.calibrate) {
        fprintf(stderr, "load: a real GPU wants --loops\n");
        exit(1);
    }
    return k;
}

static void open_gpu(struct gpu *gpu, int ordinal)
{
    int processors = 1;

    NEED(cuDevicePrimaryCtxRetain(&gpu->context, ordinal));
    NEED(cuCtxSetCurrent(gpu->context));
    NEED(cuModuleLoadData(&gpu->module, image));
    NEED(cuMemAlloc(&gpu->out, 4096));
    NEED(cuDeviceGetAttribute(&processors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, ordinal));
    /* Every place on the GPU is taken, so that kernels of one process follow each other. */
    gpu->blocks = 2 * (unsigned)processors;
    gpu->threads = 1024;
}

static void start_kernel(const struct lane *lane, const struct kernel *kernel)
{
    struct kernel k = *kernel;
    CUdeviceptr out = lane->gpu->out;
    void *params[] = {&k.loops, &out};

    NEED(cuLaunchKernel(k.function, lane->gpu->blocks, 1, 1, lane->gpu->threads, 1, 1, 0, lane->stream, params, NULL));
}

static void open_lane(struct lane *lane, struct gpu *gpu)
{
    uint64_t unit;

    *lane = (struct lane){.gpu = gpu};
    NEED(cuCtxSetCurrent(gpu->context));
    NEED(cuStreamCreate(&lane->stream, CU_STREAM_NON_BLOCKING));
    for (int i = 0; i < 2; i++)
        NEED(cuEventCreate(&lane->behind[i], CU_EVENT_DISABLE_TIMING));
    lane->kernel = kernel_of(gpu, set.kernel_us);
    if (set.mode == MIX)
        lane->other = kernel_of(gpu, set.long_us);
    if (set.mode == COLLECTIVE)
        NEED(cuModuleGetFunction(&lane->other.function, gpu->module, MEETING));
    unit = lane->kernel.ns;
    if (set.mode == GRAPH) {
        CUgraph graph;

        NEED(cuStreamBeginCapture(lane->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
        for (unsigned i = 0; i < set.width; i++)
            start_kernel(lane, &lane->kernel);
        NEED(cuStreamEndCapture(lane->stream, &graph));
        NEED(cuGraphInstantiate(&lane->graph, graph, 0));
        NEED(cuGraphDestroy(graph));
        lane->graph_ns = unit = set.width * lane->kernel.ns;
    }
    lane->depth = (unsigned)(AHEAD_NS / unit);
    if (lane->depth > AHEAD_LAUNCHES)
        lane->depth = AHEAD_LAUNCHES;
    if (lane->depth < 2)
        lane->depth = 2;
}

/* ---- launches */

static void launch(struct lane *lane, const struct kernel *kernel, bool counts)
{
    uint64_t start = lane->now_ns;

    if (lane->graph) {
        NEED(cuGraphLaunch(lane->graph, lane->stream));
    } else {
        start_kernel(lane, kernel);
    }
    lane->now_ns = now();
    if (lane->now_ns - start > lane->longest_ns)
        lane->longest_ns = lane->now_ns - start;
    if (!counts)
        return;
    lane->launches++;
    lane->work_ns += lane->graph ? lane->graph_ns : kernel->ns;
}

static void synchronise(struct lane *lane)
{
    NEED(cuStreamSynchronize(lane->stream));
    lane->now_ns = now();
}

static void sleep_until_begin(unsigned count, struct lane *first)
{
    sleep_until(begin_ns);
    for (unsigned i = 0; i < count; i++)
        first[i].now_ns = now();
}

/* One launch, and a wait where the program is further ahead than a driver would let it be. */
static void launch_ahead(struct lane *lane)
{
    const struct kernel *kernel = &lane->kernel;
    unsigned turn = lane->turn;

    if (set.mode == MIX && (lane->short_ns += kernel->ns) > MIX_SHORT_NS) {
        kernel = &lane->other;
        lane->short_ns = 0;
    }
    launch(lane, kernel, true);
    if (++lane->since < lane->depth / 2 && kernel != &lane->other)
        return;
    lane->since = 0;
    NEED(cuEventRecord(lane->behind[turn], lane->stream));
    lane->recorded[turn] = true;
    lane->turn = turn = !turn;
    if (!lane->recorded[turn])
        return;
    NEED(cuEventSynchronize(lane->behind[turn]));
    lane->now_ns = now();
}

static void *run_lane(void *argument)
{
    struct lane *lane = argument;

    NEED(cuCtxSetCurrent(lane->gpu->context));
    sleep_until_begin(1, lane);
    while (lane->now_ns < end_ns)
        launch_ahead(lane);
    synchronise(lane);
    return NULL;
}

/* The first rank says which steps there are, so that none is left to wait for the other. */
static bool another_step(const struct lane *lane, uint64_t step)
{
    static uint64_t steps, over;

    if (lane != &lanes[0]) {
        while (__atomic_load_n(&steps, __ATOMIC_SEQ_CST) < step && !__atomic_load_n(&over, __ATOMIC_SEQ_CST))
            sleep_until(now() + 5000);
    } else if (lane->now_ns < end_ns) {
        __atomic_store_n(&steps, step, __ATOMIC_SEQ_CST);
    } else {
        __atomic_store_n(&over, 1, __ATOMIC_SEQ_CST);
    }
    return __atomic_load_n(&steps, __ATOMIC_SEQ_CST) >= step;
}

static void *run_rank(void *argument)
{
    struct lane *lane = argument;

    NEED(cuCtxSetCurrent(lane->gpu->context));
    sleep_until_begin(1, lane);
    for (uint64_t step = 1; another_step(lane, step); step++) {
        launch(lane, &lane->kernel, true);
        launch(lane, &lane->other, false);
        synchronise(lane);
    }
    return NULL;
}

static void in_threads(unsigned count, void *(*body)(void *))
{
    sleep_until(begin_ns); /* virtual time begins with the first wait of the main thread */
    for (unsigned i = 0; i < count; i++)
        if (pthread_create(&lanes[i].thread, NULL, body, &lanes[i]) != 0)
            exit(1);
    for (unsigned i = 0; i < count; i++)
        pthread_join(lanes[i].thread, NULL);
}

static void run_streams(unsigned count)
{
    uint64_t at;

    sleep_until_begin(count, lanes);
    for (unsigned i = 0; lanes[i].now_ns < end_ns; lanes[i].now_ns = at) {
        launch_ahead(&lanes[i]);
        at = lanes[i].now_ns;
        i = (i + 1) % count;
    }
    for (unsigned i = 0; i < count; i++)
        synchronise(&lanes[i]);
}

static void run_sync(struct lane *lane)
{
    sleep_until_begin(1, lane);
    while (lane->now_ns < end_ns) {
        launch(lane, &lane->kernel, true);
        synchronise(lane);
    }
}

/* A burst that is late is waited for by the next ones, which are then late too. */
static void run_duty(struct lane *lane)
{
    uint64_t period = (uint64_t)(set.period_ms * 1e6), work = (uint64_t)(set.duty_ms * 1e6);

    for (uint64_t due = begin_ns; due + period <= end_ns && bursts < BURSTS_MAX; due += period) {
        sleep_until(due);
        lane->now_ns = now();
        for (uint64_t done = 0; done < work; done += lane->graph ? lane->graph_ns : lane->kernel.ns) {
            launch(lane, &lane->kernel, true);
            if (set.mode == SYNC)
                synchronise(lane);
        }
        if (set.blind)
            continue;
        synchronise(lane);
        latency_us[bursts++] = (double)(lane->now_ns - due) / 1000;
    }
    synchronise(lane);
}

/* ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double quantile(double part)
{
    size_t index = (size_t)(part * bursts);

    return bursts ? latency_us[index < bursts ? index : bursts - 1] : 0;
}

/* Nanoseconds of processor time of the library's threads, which have names that begin with its own. */
static uint64_t of_library(void)
{
    DIR *tasks = opendir("/proc/self/task");
    uint64_t sum = 0;

    for (struct dirent *entry; tasks && (entry = readdir(tasks));) {
        char path[300], name[32] = "";
        unsigned long long ns;
        FILE *file;

        snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
        file = fopen(path, "re");
        if (!file)
            continue;
        if (fscanf(file, "%31s", name) != 1)
            name[0] = 0;
        fclose(file);
        snprintf(path, sizeof(path), "/proc/self/task/%s/schedstat", entry->d_name);
        file = strncmp(name, "softslice", 9) ? NULL : fopen(path, "re");
        if (!file)
            continue;
        if (fscanf(file, "%llu", &ns) == 1)
            sum += ns;
        fclose(file);
    }
    if (tasks)
        closedir(tasks);
    return sum;
}

static void report(uint64_t library_ns)
{
    uint64_t launches = 0, work = 0, longest = 0, drained = begin_ns;
    struct rusage usage;

    for (unsigned i = 0; i < LANES_MAX; i++) {
        launches += lanes[i].launches;
        work += lanes[i].work_ns;
        drained = lanes[i].now_ns > drained ? lanes[i].now_ns : drained;
        longest = lanes[i].longest_ns > longest ? lanes[i].longest_ns : longest;
    }
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"pid\": %d, \"launches\": %llu, \"work_ns\": %llu, \"begin_ns\": %llu, \"end_ns\": %llu, \"drained_ns\": %llu, "
           "\"longest_launch_us\": %.1f, \"cpu_us\": %lld, \"library_cpu_us\": %.1f, \"bursts\": %u",
           (int)getpid(), (unsigned long long)launches, (unsigned long long)work, (unsigned long long)begin_ns,
           (unsigned long long)end_ns, (unsigned long long)drained, (double)longest / 1000,
           (long long)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec,
           (double)library_ns / 1000, bursts);
    if (set.idle > 0) {
        sleep_until(now() + (uint64_t)(set.rest * 1e9));
        library_ns = of_library();
        sleep_until(now() + (uint64_t)(set.idle * 1e9));
        printf(", \"library_idle_us\": %.1f", (double)(of_library() - library_ns) / 1000);
    }
    if (bursts) {
        qsort(latency_us, bursts, sizeof(*latency_us), ascending);
        printf(", \"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, \"latency_us\": [", quantile(0.5), quantile(0.99),
               latency_us[bursts - 1]);
        for (unsigned i = 0; i < bursts; i++)
            printf("%s%.0f", i ? ", " : "", latency_us[i]);
        printf("]");
    }
    printf("}\n");
}

/* Loops in a microsecond: the median of kernels of some milliseconds, once the clocks are up. */
static int calibrate(void)
{
    static const uint64_t loops = 1 << 20;
    struct lane *lane = &lanes[0];
    struct kernel k = lane->kernel;
    CUevent before, after;
    double rate[21];

    k.loops = loops;
    NEED(cuEventCreate(&before, 0));
    NEED(cuEventCreate(&after, 0));
    for (uint64_t start = now(); now() - start < UINT64_C(1000000000);) {
        start_kernel(lane, &k);
        NEED(cuStreamSynchronize(lane->stream));
    }
    for (int i = 0; i < 21; i++) {
        float ms;

        NEED(cuEventRecord(before, lane->stream));
        start_kernel(lane, &k);
        NEED(cuEventRecord(after, lane->stream));
        NEED(cuEventSynchronize(after));
        NEED(cuEventElapsedTime(&ms, before, after));
        rate[i] = (double)loops / ((double)ms * 1000);
    }
    qsort(rate, 21, sizeof(*rate), ascending);
    printf("%.3f\n", rate[10]);
    return 0;
}

/* The command is no part of what is measured: nothing is preloaded into it. */
static int run_command(void)
{
    char *const argv[] = {"sh", "-c", (char *)set.command, NULL};
    size_t count = 0, kept = 0;
    char **bare;
    int status;
    pid_t pid;

    while (environ[count])
        count++;
    bare = zeros(count + 1, sizeof(*bare));
    for (size_t i = 0; i < count; i++)
        if (strncmp(environ[i], "LD_PRELOAD=", 11))
            bare[kept++] = environ[i];
    sleep_until(begin_ns);
    if (posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, bare) != 0)
        return 1;
    /* Without a wait: virtual time goes on meanwhile for who waits. */
    while (waitpid(pid, &status, WNOHANG) == 0)
        continue;
    report(of_library());
    return status ? 1 : 0;
}

static bool parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"kernel", 1, NULL, 'k'},  {"mode", 1, NULL, 'm'},      {"width", 1, NULL, 'w'}, {"duty", 1, NULL, 'd'},
        {"seconds", 1, NULL, 's'}, {"from", 1, NULL, 'f'},      {"at", 1, NULL, 'a'},    {"run", 1, NULL, 'r'},
        {"idle", 1, NULL, 'i'},    {"loops", 1, NULL, 'l'},     {"long", 1, NULL, 'L'},  {"calibrate", 0, &set.calibrate, 1},
        {"rest", 1, NULL, 'R'},    {"blind", 0, &set.blind, 1}, {NULL, 0, NULL, 0}};
    unsigned modes = sizeof(mode_name) / sizeof(*mode_name), mode = 0;

    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'k':
            set.kernel_us = atof(optarg);
            break;
        case 'm':
            for (mode = 0; mode < modes && strcmp(mode_name[mode], optarg); mode++)
                continue;
            set.mode = (enum mode)mode;
            break;
        case 'w':
            set.width = (unsigned)atoi(optarg);
            break;
        case 'd':
            if (sscanf(optarg, "%lf/%lf", &set.duty_ms, &set.period_ms) != 2)
                return false;
            break;
        case 's':
            set.seconds = atof(optarg);
            break;
        case 'f':
            set.from_ms = atof(optarg);
            break;
        case 'a':
            set.at_ns = strtoull(optarg, NULL, 10);
            break;
        case 'r':
            set.command = optarg;
            break;
        case 'R':
            set.rest = atof(optarg);
            break;
        case 'i':
            set.idle = atof(optarg);
            break;
        case 'l':
            set.loops = atof(optarg);
            break;
        case 'L':
            set.long_us = atof(optarg);
            break;
        case 0:
            break;
        default:
            return false;
        }
    }
    return optind == argc && mode < modes && set.kernel_us > 0 && set.seconds > 0 && set.width > 0 &&
           set.width <= (set.mode == GRAPH ? NODES_MAX : LANES_MAX) && (!set.duty_ms || set.period_ms > 0);
}

int main(int argc, char **argv)
{
    bool many, two;

    if (!parse(argc, argv)) {
        fprintf(stderr, "load: see the head of tests/share/load.c\n");
        return 2;
    }
    begin_ns = set.at_ns ? set.at_ns : now() + (uint64_t)(set.from_ms * 1e6);
    end_ns = begin_ns + (uint64_t)(set.seconds * 1e9);
    if (set.command)
        return run_command();
    NEED(cuInit(0));
    two = set.mode == COLLECTIVE;
    many = set.mode == STREAMS || set.mode == THREADS;
    for (int i = 0; i < (two ? 2 : 1); i++)
        open_gpu(&gpus[i], i);
    for (unsigned i = 0; i < (two ? 2 : many ? set.width : 1); i++)
        open_lane(&lanes[i], &gpus[two ? i : 0]);
    NEED(cuCtxSetCurrent(gpus[0].context));
    if (set.calibrate)
        return calibrate();
    if (set.at_ns && now() > begin_ns) { /* the start took longer */
        begin_ns = now();
        end_ns = begin_ns + (uint64_t)(set.seconds * 1e9);
    }
    latency_us = zeros(BURSTS_MAX, sizeof(*latency_us));
    if (set.duty_ms) {
        run_duty(&lanes[0]);
    } else if (two) {
        in_threads(2, run_rank);
    } else if (set.mode == THREADS) {
        in_threads(set.width, run_lane);
    } else if (set.mode == SYNC) {
        run_sync(&lanes[0]);
    } else {
        run_streams(many ? set.width : 1);
    }
    report(of_library());
    return 0;
}
