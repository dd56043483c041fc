/* SPDX-License-Identifier: Apache-2.0 */
/* What a driver call costs with softslice in front of it, against the same call of the null driver under a name that no hook knows, in
 * turns in one process. One measurement a run, one line of tab-separated figures; bench/run.sh makes the table.
 *
 *   calls pairs BYTES LIVE THREADS MEMBERS   cuMemAlloc + cuMemFree of a random one of LIVE blocks, MEMBERS processes in the tenant:
 *                                            ns per pair unhooked, hooked, and their difference (medians of rounds); of one
 *                                            thread's CPU time, of several threads' elapsed time over the pairs of all
 *   calls drawn BYTES LIVE THREADS MEMBERS   the same of cuMemAllocAsync + cuMemFreeAsync, from the default pool in a stream
 *   calls mapped BYTES LIVE THREADS MEMBERS  the same of cuMemCreate + cuMemMap + cuMemUnmap + cuMemRelease
 *   calls pauses BYTES LIVE                  single calls while LIVE blocks are made and then churned, for unhooked and hooked:
 *                                            p50, p99 and longest in ns, and the longest by the thread's own CPU clock
 *   calls pointer NAME                       whether a look-up gives the driver's own address by both roads, ns unhooked, hooked
 *   calls launch NAME [legacy|another]       a launch of a known kernel, or graph, while the gate is open, in one stream, the legacy one, or two
 *                                            in turn: ns unhooked, hooked, and their difference
 *   calls info MEMBERS                       cuMemGetInfo with so many processes in the tenant: ns unhooked, hooked, and their difference
 *   calls lookup                             dlsym of a name that is not CUDA's: ns by glibc's own dlsym, by the program's
 *   calls init                               cuInit, then the time on standard output, then exit: for bench/start
 *   calls hold                               one block of a member; ends with standard input */
#include <cuda.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define ROUNDS      15
#define CALLS       60000 /* in a round */
#define ROUNDS_MAX  151
#define THREADS_MAX 64

typedef CUresult (*alloc_function)(CUdeviceptr *pointer, size_t bytes);
typedef CUresult (*free_function)(CUdeviceptr pointer);

static void *driver;
static alloc_function alloc_call[2]; /* unhooked, hooked */
static free_function free_call[2];

static void *look_up(const char *name)
{
    return bench_need(dlsym(driver, name), name);
}

static void check(CUresult result, const char *what)
{
    if (result != CUDA_SUCCESS) {
        fprintf(stderr, "bench: %s: CUDA error %d\n", what, result);
        exit(1);
    }
}

static void set_context(void)
{
    CUcontext context;

    check(((__typeof__(&cuDevicePrimaryCtxRetain))look_up("cuDevicePrimaryCtxRetain"))(&context, 0), "cuDevicePrimaryCtxRetain");
    check(((__typeof__(&cuCtxSetCurrent))look_up("cuCtxSetCurrent"))(context), "cuCtxSetCurrent");
}

static void open_driver(void)
{
    driver = bench_need(dlopen("libcuda.so.1", RTLD_NOW), "libcuda.so.1");
    check(((__typeof__(&cuInit))look_up("cuInit"))(0), "cuInit");
    alloc_call[0] = (alloc_function)look_up("unhooked_cuMemAlloc_v2");
    free_call[0] = (free_function)look_up("unhooked_cuMemFree_v2");
    alloc_call[1] = (alloc_function)look_up("cuMemAlloc_v2");
    free_call[1] = (free_function)look_up("cuMemFree_v2");
    set_context();
}

/* ---- stream-ordered allocation, in the form of the plain one */

#define STREAM ((CUstream)(uintptr_t)0x40000)

static __typeof__(&cuMemAllocAsync) alloc_async[2];
static __typeof__(&cuMemFreeAsync) free_async[2];

static CUresult draw_unhooked(CUdeviceptr *pointer, size_t bytes)
{
    return alloc_async[0](pointer, bytes, STREAM);
}

static CUresult draw_hooked(CUdeviceptr *pointer, size_t bytes)
{
    return alloc_async[1](pointer, bytes, STREAM);
}

static CUresult free_unhooked(CUdeviceptr pointer)
{
    return free_async[0](pointer, STREAM);
}

static CUresult free_hooked(CUdeviceptr pointer)
{
    return free_async[1](pointer, STREAM);
}

static void use_pool(void)
{
    alloc_async[0] = (__typeof__(&cuMemAllocAsync))look_up("unhooked_cuMemAllocAsync");
    alloc_async[1] = (__typeof__(&cuMemAllocAsync))look_up("cuMemAllocAsync");
    free_async[0] = (__typeof__(&cuMemFreeAsync))look_up("unhooked_cuMemFreeAsync");
    free_async[1] = (__typeof__(&cuMemFreeAsync))look_up("cuMemFreeAsync");
    alloc_call[0] = draw_unhooked;
    alloc_call[1] = draw_hooked;
    free_call[0] = free_unhooked;
    free_call[1] = free_hooked;
}

/* ---- physical memory, in the form of the plain one: mapped at the address that is its handle */

static __typeof__(&cuMemCreate) create[2];
static __typeof__(&cuMemMap) map[2];
static __typeof__(&cuMemUnmap) unmap[2];
static __typeof__(&cuMemRelease) let_go[2];
static size_t mapped_bytes;

static CUresult make_mapped(int which, CUdeviceptr *pointer, size_t bytes)
{
    static const CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
    CUmemGenericAllocationHandle handle;
    CUresult result = create[which](&handle, bytes, &prop, 0);

    *pointer = handle;
    return result == CUDA_SUCCESS ? map[which](handle, bytes, 0, handle, 0) : result;
}

static CUresult end_mapped(int which, CUdeviceptr pointer)
{
    CUresult result = unmap[which](pointer, mapped_bytes);

    return result == CUDA_SUCCESS ? let_go[which](pointer) : result;
}

static CUresult map_unhooked(CUdeviceptr *pointer, size_t bytes)
{
    return make_mapped(0, pointer, bytes);
}

static CUresult map_hooked(CUdeviceptr *pointer, size_t bytes)
{
    return make_mapped(1, pointer, bytes);
}

static CUresult unmap_unhooked(CUdeviceptr pointer)
{
    return end_mapped(0, pointer);
}

static CUresult unmap_hooked(CUdeviceptr pointer)
{
    return end_mapped(1, pointer);
}

static void use_mappings(size_t bytes)
{
    create[0] = (__typeof__(&cuMemCreate))look_up("unhooked_cuMemCreate");
    create[1] = (__typeof__(&cuMemCreate))look_up("cuMemCreate");
    map[0] = (__typeof__(&cuMemMap))look_up("unhooked_cuMemMap");
    map[1] = (__typeof__(&cuMemMap))look_up("cuMemMap");
    unmap[0] = (__typeof__(&cuMemUnmap))look_up("unhooked_cuMemUnmap");
    unmap[1] = (__typeof__(&cuMemUnmap))look_up("cuMemUnmap");
    let_go[0] = (__typeof__(&cuMemRelease))look_up("unhooked_cuMemRelease");
    let_go[1] = (__typeof__(&cuMemRelease))look_up("cuMemRelease");
    mapped_bytes = bytes;
    alloc_call[0] = map_unhooked;
    alloc_call[1] = map_hooked;
    free_call[0] = unmap_unhooked;
    free_call[1] = unmap_hooked;
}

/* ---- members: other processes of the tenant, each with one block */

static int members_end; /* closed: they end */

static void start_members(unsigned count)
{
    int end[2], ready[2];
    char byte;

    if (pipe(end) != 0 || pipe(ready) != 0)
        exit(1);
    for (unsigned i = 0; i < count; i++) {
        pid_t pid = fork();

        if (pid == 0) {
            dup2(end[0], 0);
            dup2(ready[1], 1);
            close(end[1]);
            execl("/proc/self/exe", "calls", "hold", (char *)NULL);
            _exit(1);
        }
        if (pid < 0 || read(ready[0], &byte, 1) != 1) {
            fprintf(stderr, "bench: a member did not start\n");
            exit(1);
        }
    }
    members_end = end[1];
}

static void end_members(void)
{
    close(members_end);
    while (wait(NULL) > 0)
        continue;
}

static int hold(void)
{
    CUdeviceptr pointer;
    char byte = 'x';

    open_driver();
    check(alloc_call[1](&pointer, 2 << 20), "cuMemAlloc");
    if (write(1, &byte, 1) != 1 || read(0, &byte, 1) != 0)
        return 1;
    return 0;
}

/* ---- pairs */

struct worker {
    pthread_t thread;
    CUdeviceptr *ring[2]; /* its live blocks, in random order; freed and filled again one after the other */
    size_t live, at[2];
    uint64_t seed;
    double cpu; /* ns of its own CPU time in the round */
};

static struct worker worker[THREADS_MAX];
static unsigned threads, rounds, pairs_each; /* of one thread in a round */
static size_t block_bytes;
static pthread_barrier_t barrier;
static int side; /* which set the round calls */

static void churn(struct worker *me)
{
    alloc_function alloc = alloc_call[side];
    free_function release = free_call[side];
    CUdeviceptr *ring = me->ring[side];
    size_t at = me->at[side];
    double start = bench_clock(CLOCK_THREAD_CPUTIME_ID);

    for (unsigned i = 0; i < pairs_each; i++) {
        if (me->live) {
            check(release(ring[at]), "cuMemFree");
            check(alloc(&ring[at], block_bytes), "cuMemAlloc");
            if (++at == me->live)
                at = 0;
        } else {
            check(alloc(&ring[0], block_bytes), "cuMemAlloc");
            check(release(ring[0]), "cuMemFree");
        }
    }
    me->cpu = bench_clock(CLOCK_THREAD_CPUTIME_ID) - start;
    me->at[side] = at;
}

static void *work(void *argument)
{
    struct worker *me = argument;

    set_context();
    for (int s = 0; s < 2; s++) {
        me->ring[s] = bench_need(calloc(me->live + 1, sizeof(CUdeviceptr)), "memory");
        for (size_t i = 0; i < me->live; i++)
            check(alloc_call[s](&me->ring[s][i], block_bytes), "cuMemAlloc");
        bench_shuffle((uint64_t *)me->ring[s], me->live, &me->seed);
    }
    for (unsigned round = 0; round < 2 * rounds; round++) {
        /* A ring that was walked whole is in the order of its addresses now. */
        if (me->live < (size_t)rounds * pairs_each)
            bench_shuffle((uint64_t *)me->ring[round % 2], me->live, &me->seed);
        pthread_barrier_wait(&barrier);
        churn(me);
        pthread_barrier_wait(&barrier);
    }
    for (int s = 0; s < 2; s++)
        for (size_t i = 0; i < me->live; i++)
            check(free_call[s](me->ring[s][i]), "cuMemFree");
    return NULL;
}

static int pairs(char kind, size_t bytes, size_t live, unsigned thread_count, unsigned members)
{
    double ns[2][ROUNDS_MAX], plain, hooked;

    threads = thread_count;
    block_bytes = bytes;
    rounds = threads == 1 ? ROUNDS_MAX : ROUNDS;
    pairs_each = threads == 1 ? CALLS / 10 : CALLS / threads;
    if (threads == 0 || threads > THREADS_MAX)
        return 1;
    open_driver();
    if (kind == 'd')
        use_pool();
    else if (kind == 'm')
        use_mappings(bytes);
    start_members(members - 1);
    pthread_barrier_init(&barrier, NULL, threads + 1);
    for (unsigned i = 0; i < threads; i++) {
        worker[i].live = live / threads;
        worker[i].seed = 88172645463325252u + i;
        pthread_create(&worker[i].thread, NULL, work, &worker[i]);
    }
    for (unsigned round = 0; round < 2 * rounds; round++) {
        double start, elapsed;

        side = round % 2;
        pthread_barrier_wait(&barrier);
        start = bench_now();
        pthread_barrier_wait(&barrier);
        elapsed = threads == 1 ? worker[0].cpu : bench_now() - start;
        ns[side][round / 2] = elapsed / (pairs_each * threads);
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(worker[i].thread, NULL);
    end_members();
    plain = bench_quantile(ns[0], rounds, 0.5);
    hooked = bench_quantile(ns[1], rounds, 0.5);
    printf("%.1f\t%.1f\t%.1f\n", plain, hooked, hooked - plain);
    return 0;
}

/* ---- pauses */

struct samples {
    double *wall;
    size_t count;
    double longest_cpu;
};

static CUresult timed(struct samples *samples, int s, bool make, CUdeviceptr *pointer)
{
    double cpu = bench_clock(CLOCK_THREAD_CPUTIME_ID), wall = bench_now();
    CUresult result = make ? alloc_call[s](pointer, block_bytes) : free_call[s](*pointer);

    samples->wall[samples->count++] = bench_now() - wall;
    cpu = bench_clock(CLOCK_THREAD_CPUTIME_ID) - cpu;
    samples->longest_cpu = cpu > samples->longest_cpu ? cpu : samples->longest_cpu;
    return result;
}

static int pauses(size_t bytes, size_t live)
{
    uint64_t seed = 88172645463325252u;

    block_bytes = bytes;
    open_driver();
    for (int s = 0; s < 2; s++) {
        CUdeviceptr *ring = bench_need(calloc(live, sizeof(*ring)), "memory");
        struct samples samples = {.wall = bench_need(calloc(3 * live, sizeof(double)), "memory")};

        memset(samples.wall, 1, 3 * live * sizeof(double)); /* not a fault of its own while the clock runs */
        for (size_t i = 0; i < live; i++)
            check(timed(&samples, s, true, &ring[i]), "cuMemAlloc");
        bench_shuffle((uint64_t *)ring, live, &seed);
        for (size_t i = 0; i < live; i++) {
            check(timed(&samples, s, false, &ring[i]), "cuMemFree");
            check(timed(&samples, s, true, &ring[i]), "cuMemAlloc");
        }
        printf("%.0f\t%.0f\t", bench_quantile(samples.wall, samples.count, 0.5), bench_quantile(samples.wall, samples.count, 0.99));
        printf("%.0f\t%.0f%s", samples.wall[samples.count - 1], samples.longest_cpu, s ? "\n" : "\t");
        for (size_t i = 0; i < live; i++)
            check(free_call[s](ring[i]), "cuMemFree");
        free(ring);
        free(samples.wall);
    }
    return 0;
}

/* ---- calls that nothing is to stand in front of */

static bool is_the_drivers(void *address)
{
    Dl_info info, of_driver;

    return address && dladdr(address, &info) && dladdr(look_up("unhooked_cuInit"), &of_driver) &&
           info.dli_fbase == of_driver.dli_fbase;
}

static double time_call(const char *name, void *function)
{
    double start = bench_now();

    if (!strcmp(name, "cuLaunchKernel")) {
        __typeof__(&cuLaunchKernel) launch = (__typeof__(&cuLaunchKernel))function;

        for (unsigned i = 0; i < CALLS; i++)
            launch(NULL, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
    } else {
        __typeof__(&cuCtxGetCurrent) get = (__typeof__(&cuCtxGetCurrent))function;
        CUcontext context;

        for (unsigned i = 0; i < CALLS; i++)
            get(&context);
    }
    return (bench_now() - start) / CALLS;
}

static int pointer(const char *name)
{
    double ns[2][ROUNDS];
    void *function[2], *by_address = NULL;
    char unhooked[64];

    open_driver();
    snprintf(unhooked, sizeof(unhooked), "unhooked_%s", name);
    function[0] = look_up(unhooked);
    function[1] = look_up(name);
    ((__typeof__(&cuGetProcAddress))look_up("cuGetProcAddress_v2"))(name, &by_address, 13000, 0, NULL);
    for (unsigned round = 0; round < 2 * ROUNDS; round++)
        ns[round % 2][round / 2] = time_call(name, function[round % 2]);
    printf("%s\t%s\t%.2f\t%.2f\n", is_the_drivers(function[1]) ? "yes" : "no", is_the_drivers(by_address) ? "yes" : "no",
           bench_quantile(ns[0], ROUNDS, 0.5), bench_quantile(ns[1], ROUNDS, 0.5));
    return 0;
}

/* ---- launches */

#define FUNCTION ((CUfunction)(uintptr_t)0x50000)
#define GRAPH    ((CUgraphExec)(uintptr_t)0x60000)

static double time_launches(const char *name, void *function, const CUstream stream[2])
{
    double start = bench_clock(CLOCK_THREAD_CPUTIME_ID);

    if (!strcmp(name, "cuLaunchKernel")) {
        __typeof__(&cuLaunchKernel) call = (__typeof__(&cuLaunchKernel))function;

        for (unsigned i = 0; i < CALLS; i++)
            check(call(FUNCTION, 1, 1, 1, 32, 1, 1, 0, stream[i % 2], NULL, NULL), name);
    } else if (!strcmp(name, "cuLaunchKernelEx")) {
        __typeof__(&cuLaunchKernelEx) call = (__typeof__(&cuLaunchKernelEx))function;
        const CUlaunchConfig config = {
            .gridDimX = 1, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 32, .blockDimY = 1, .blockDimZ = 1, .hStream = stream[0]};

        for (unsigned i = 0; i < CALLS; i++)
            check(call(&config, FUNCTION, NULL, NULL), name);
    } else {
        __typeof__(&cuGraphLaunch) call = (__typeof__(&cuGraphLaunch))function;

        for (unsigned i = 0; i < CALLS; i++)
            check(call(GRAPH, stream[i % 2]), name);
    }
    return (bench_clock(CLOCK_THREAD_CPUTIME_ID) - start) / CALLS;
}

static int launch(const char *name, const char *where)
{
    double ns[2][ROUNDS_MAX], plain, hooked;
    void *function[2];
    char unhooked[64];
    CUstream stream[2] = {NULL, NULL};

    open_driver();
    snprintf(unhooked, sizeof(unhooked), "unhooked_%s", name);
    function[0] = look_up(unhooked);
    function[1] = look_up(name);
    for (int i = 0; i < 2 && strcmp(where, "legacy"); i++)
        check(((__typeof__(&cuStreamCreate))look_up("cuStreamCreate"))(&stream[i], CU_STREAM_NON_BLOCKING), "cuStreamCreate");
    if (strcmp(where, "another"))
        stream[1] = stream[0];
    for (unsigned round = 0; round < 2 * ROUNDS_MAX; round++)
        ns[round % 2][round / 2] = time_launches(name, function[round % 2], stream);
    plain = bench_quantile(ns[0], ROUNDS_MAX, 0.5);
    hooked = bench_quantile(ns[1], ROUNDS_MAX, 0.5);
    printf("%.2f\t%.2f\t%.2f\n", plain, hooked, hooked - plain);
    return 0;
}

/* ---- what a program asks of its memory */

static int info(unsigned members)
{
    __typeof__(&cuMemGetInfo_v2) get[2];
    double ns[2][ROUNDS_MAX], plain, hooked;
    size_t free_bytes, total;
    CUdeviceptr pointer;

    open_driver();
    start_members(members - 1);
    get[0] = (__typeof__(get[0]))look_up("unhooked_cuMemGetInfo_v2");
    get[1] = (__typeof__(get[1]))look_up("cuMemGetInfo_v2");
    check(alloc_call[1](&pointer, 2 << 20), "cuMemAlloc");
    for (unsigned round = 0; round < 2 * ROUNDS_MAX; round++) {
        double start = bench_clock(CLOCK_THREAD_CPUTIME_ID);

        for (unsigned i = 0; i < CALLS / 10; i++)
            check(get[round % 2](&free_bytes, &total), "cuMemGetInfo");
        ns[round % 2][round / 2] = (bench_clock(CLOCK_THREAD_CPUTIME_ID) - start) / (CALLS / 10);
    }
    end_members();
    plain = bench_quantile(ns[0], ROUNDS_MAX, 0.5);
    hooked = bench_quantile(ns[1], ROUNDS_MAX, 0.5);
    printf("%.1f\t%.1f\t%.1f\n", plain, hooked, hooked - plain);
    return 0;
}

/* ---- look-ups */

static int lookup(void)
{
    void *(*function[2])(void *, const char *);
    void *libc = bench_need(dlopen("libc.so.6", RTLD_NOW), "libc.so.6");
    double ns[2][ROUNDS];

    /* From libc's own handle the search starts at libc, behind everything that is preloaded. */
    function[0] = (void *(*)(void *, const char *))dlvsym(libc, "dlsym", "GLIBC_2.34");
    if (!function[0])
        function[0] = dlsym;
    function[1] = dlsym;
    for (unsigned round = 0; round < 2 * ROUNDS; round++) {
        double start = bench_now();

        for (unsigned i = 0; i < CALLS / 10; i++)
            bench_need(function[round % 2](libc, "strlen"), "strlen");
        ns[round % 2][round / 2] = (bench_now() - start) / (CALLS / 10);
    }
    printf("%.1f\t%.1f\n", bench_quantile(ns[0], ROUNDS, 0.5), bench_quantile(ns[1], ROUNDS, 0.5));
    return 0;
}

static int init(void)
{
    double now;

    open_driver();
    now = bench_now();
    return write(1, &now, sizeof(now)) == sizeof(now) ? 0 : 1;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if ((!strcmp(what, "pairs") || !strcmp(what, "drawn") || !strcmp(what, "mapped")) && argc == 6)
        return pairs(*what, strtoul(argv[2], NULL, 0), strtoul(argv[3], NULL, 0), (unsigned)atoi(argv[4]), (unsigned)atoi(argv[5]));
    if (!strcmp(what, "pauses") && argc == 4)
        return pauses(strtoul(argv[2], NULL, 0), strtoul(argv[3], NULL, 0));
    if (!strcmp(what, "pointer") && argc == 3)
        return pointer(argv[2]);
    if (!strcmp(what, "launch") && (argc == 3 || (argc == 4 && (!strcmp(argv[3], "legacy") || !strcmp(argv[3], "another")))))
        return launch(argv[2], argc == 4 ? argv[3] : "one");
    if (!strcmp(what, "info") && argc == 3)
        return info((unsigned)atoi(argv[2]));
    if (!strcmp(what, "lookup"))
        return lookup();
    if (!strcmp(what, "init"))
        return init();
    if (!strcmp(what, "hold"))
        return hold();
    fprintf(stderr, "usage: calls pairs|drawn BYTES LIVE THREADS MEMBERS | pauses BYTES LIVE | pointer NAME | "
                    "launch NAME [legacy|another] | info MEMBERS | lookup | init | hold\n");
    return 2;
}
