/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual time: what takes how long is exact, whoever spins lets time pass, and a participant that is killed or blocks stops nobody. How
 * fast it goes is printed, never asserted. */
// run: LD_PRELOAD=$BUILD/sim/libvirtualtime.so SOFTSIM_VIRTUAL=1 -- exact
// run: LD_PRELOAD=$BUILD/sim/libvirtualtime.so SOFTSIM_VIRTUAL=1 -- spin
// run: LD_PRELOAD=$BUILD/sim/libvirtualtime.so SOFTSIM_VIRTUAL=1 -- host
// run: LD_PRELOAD=$BUILD/sim/libvirtualtime.so SOFTSIM_VIRTUAL=1 -- futex
// run: LD_PRELOAD=$BUILD/sim/libvirtualtime.so SOFTSIM_VIRTUAL=3 -- order
// run: LD_PRELOAD=$BUILD/sim/libvirtualtime.so SOFTSIM_VIRTUAL=3 -- killed
// run: LD_PRELOAD=$BUILD/sim/libvirtualtime.so SOFTSIM_VIRTUAL=3 -- stopped
// run: LD_PRELOAD=$BUILD/sim/libvirtualtime.so SOFTSIM_VIRTUAL=4 -- kills
// run: LD_PRELOAD=$BUILD/sim/libvirtualtime.so SOFTSIM_VIRTUAL=1 -- blocked
// run: LD_PRELOAD=$BUILD/sim/libvirtualtime.so SOFTSIM_VIRTUAL=1 -- speed
#include "virtual_helper.h"
#include <cuda.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>

#define MS        1000000ull
#define LAUNCH_NS 2500 /* SOFTSIM_LAUNCH_NS */

static CUmodule module;

static CUfunction kernel(const char *name)
{
    CUfunction f;

    t_cuda(cuModuleGetFunction(&f, module, name));
    return f;
}

static void use_gpu(void)
{
    CUcontext ctx;

    t_cuda(cuInit(0));
    t_cuda(cuCtxCreate(&ctx, NULL, 0, 0));
    t_cuda(cuModuleLoadData(&module, "any image"));
}

static void launch(CUfunction f)
{
    t_cuda(cuLaunchKernel(f, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL));
}

static void check_exact(void)
{
    struct timespec t = {.tv_nsec = 10000000};
    uint64_t begin = v_clock(CLOCK_MONOTONIC), real = v_clock(CLOCK_REALTIME), cpu = v_clock(CLOCK_PROCESS_CPUTIME_ID);

    nanosleep(&t, NULL);
    t_equal(v_clock(CLOCK_MONOTONIC) - begin, 10 * MS);
    t_equal(v_clock(CLOCK_REALTIME) - real, 10 * MS);
    t_equal(v_clock(CLOCK_BOOTTIME) - begin, 10 * MS);
    t_check(v_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu < 10000 * MS && cpu > 0, "the clock of CPU time is virtual");
    usleep(5000);
    t_equal(v_clock(CLOCK_MONOTONIC_RAW) - begin, 15 * MS);
    begin += 20 * MS;
    t = (struct timespec){.tv_sec = (time_t)(begin / (1000 * MS)), .tv_nsec = (long)(begin % (1000 * MS))};
    t_equal(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL), 0);
    t_equal(v_clock(CLOCK_MONOTONIC), begin);
    t_equal(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL), 0);
    t.tv_nsec = 1000000000;
    t_equal(clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL), EINVAL);
    errno = 0;
    t_check(syscall(SYS_close, -1) == -1 && errno == EBADF, "errno after a system call is %d", errno);

    use_gpu();
    begin = v_clock(CLOCK_MONOTONIC);
    launch(kernel("work__1ms"));
    t_cuda(cuCtxSynchronize());
    t_equal(v_clock(CLOCK_MONOTONIC) - begin, 1 * MS + LAUNCH_NS);
    begin = v_clock(CLOCK_MONOTONIC);
    for (int i = 0; i < 50; i++)
        launch(kernel("work__500us"));
    t_cuda(cuCtxSynchronize());
    t_equal(v_clock(CLOCK_MONOTONIC) - begin, 25 * MS + LAUNCH_NS);
}

/* Four ways of asking again and again. */
static void check_spin(void)
{
    uint64_t begin = v_clock(CLOCK_MONOTONIC);
    CUevent e;

    while (v_clock(CLOCK_MONOTONIC) - begin < MS)
        ;
    begin = v_clock(CLOCK_MONOTONIC);
    for (int i = 0; i < 1000; i++)
        sched_yield();
    t_equal(v_clock(CLOCK_MONOTONIC) - begin, MS);
    use_gpu();
    t_cuda(cuEventCreate(&e, 0));
    launch(kernel("work__3ms"));
    t_cuda(cuEventRecord(e, NULL));
    while (cuEventQuery(e) == CUDA_ERROR_NOT_READY)
        ;
    launch(kernel("work__3ms"));
    while (cuStreamQuery(NULL) == CUDA_ERROR_NOT_READY)
        ;
}

static uint64_t host_at;

static void note(void *data)
{
    (void)data;
    __atomic_store_n(&host_at, v_clock(CLOCK_MONOTONIC), __ATOMIC_SEQ_CST);
}

/* A host function runs when the GPU gets there, not when anybody looks. */
static void check_host(void)
{
    uint64_t begin;

    use_gpu();
    begin = v_clock(CLOCK_MONOTONIC);
    launch(kernel("work__7ms"));
    t_cuda(cuLaunchHostFunc(NULL, note, NULL));
    usleep(50000);
    t_equal(__atomic_load_n(&host_at, __ATOMIC_SEQ_CST) - begin, 7 * MS + LAUNCH_NS);
}

static uint32_t word;
static uint64_t woken_at;

static void *waiter(void *arg)
{
    while (!__atomic_load_n(&word, __ATOMIC_SEQ_CST))
        syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    woken_at = v_clock(CLOCK_MONOTONIC);
    return arg;
}

static void *sets_later(void *arg)
{
    usleep(5000);
    return arg;
}

static void check_futex(void)
{
    uint64_t begin = v_clock(CLOCK_MONOTONIC), until = begin + 3 * MS;
    struct timespec t = {.tv_nsec = 2000000};
    pthread_t thread;
    uint32_t other = 5;

    t_check(syscall(SYS_futex, &other, FUTEX_WAIT_PRIVATE, 5, &t, NULL, 0) == -1 && errno == ETIMEDOUT, "errno %d", errno);
    t_equal(v_clock(CLOCK_MONOTONIC) - begin, 2 * MS);
    t_check(syscall(SYS_futex, &other, FUTEX_WAIT_PRIVATE, 4, &t, NULL, 0) == -1 && errno == EAGAIN, "errno %d", errno);
    t_equal(v_clock(CLOCK_MONOTONIC) - begin, 2 * MS);
    t = (struct timespec){.tv_sec = (time_t)(until / (1000 * MS)), .tv_nsec = (long)(until % (1000 * MS))};
    t_check(syscall(SYS_futex, &other, FUTEX_WAIT_BITSET, 5, &t, NULL, FUTEX_BITSET_MATCH_ANY) == -1 && errno == ETIMEDOUT,
            "errno %d", errno);
    t_equal(v_clock(CLOCK_MONOTONIC) - begin, 3 * MS);
    t_equal(pthread_create(&thread, NULL, waiter, NULL), 0);
    usleep(4000);
    __atomic_store_n(&word, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    usleep(4000);
    t_equal(pthread_join(thread, NULL), 0);
    t_equal(woken_at - begin, 7 * MS);
    /* Joining waits in virtual time, too. */
    word = 0;
    t_equal(pthread_create(&thread, NULL, sets_later, NULL), 0);
    t_equal(pthread_join(thread, NULL), 0);
    t_equal(v_clock(CLOCK_MONOTONIC) - begin, 16 * MS);
}

struct shared {
    uint32_t count;
    uint64_t at[64];
    uint32_t who[64];
};

static struct shared *board;

static void mark(uint32_t who)
{
    uint32_t i = __atomic_fetch_add(&board->count, 1, __ATOMIC_SEQ_CST);

    board->at[i % 64] = v_clock(CLOCK_MONOTONIC);
    board->who[i % 64] = who;
}

/* Processes that are due at one moment run in their order, whichever came first. */
static void check_order(void)
{
    pid_t child[2];
    uint64_t first;

    for (uint32_t i = 0; i < 2; i++)
        if (!(child[i] = v_fork())) {
            for (int k = 0; k < 4; k++) {
                usleep(i ? 3000 : 2000);
                mark(i + 1);
            }
            _exit(0);
        }
    for (int k = 0; k < 12; k++) {
        usleep(1000);
        mark(0);
    }
    v_reap(child[0], 0);
    v_reap(child[1], 0);
    t_equal(board->count, 20);
    first = board->at[0];
    for (uint32_t i = 0, at = 1, k = 0; at <= 12; at++) {
        for (k = 0; k < 3; k++) {
            if ((k == 1 && (at % 2 || at > 8)) || (k == 2 && at % 3))
                continue;
            t_check(board->who[i] == k && board->at[i] - first == (at - 1) * MS, "number %u at %llu us is %u, expected %u at %u us",
                    i, (unsigned long long)(board->at[i] - first) / 1000, board->who[i], k, (at - 1) * 1000);
            i++;
        }
    }
}

/* One child computes with the baton and the other sleeps when they are killed. */
static void check_killed(void)
{
    uint64_t begin;
    pid_t child[2];

    for (int i = 0; i < 2; i++)
        if (!(child[i] = v_fork())) {
            usleep(1000);
            while (i)
                usleep(1);
            mark(1);
            for (;;)
                ;
        }
    if (!v_fork()) {
        while (!__atomic_load_n(&board->count, __ATOMIC_SEQ_CST))
            ;
        kill(child[0], SIGKILL);
        kill(child[1], SIGKILL);
        _exit(0);
    }
    begin = v_clock(CLOCK_MONOTONIC);
    usleep(5000);
    t_equal(v_clock(CLOCK_MONOTONIC) - begin, 5 * MS);
    v_reap(child[0], SIGKILL);
    v_reap(child[1], SIGKILL);
}

/* Who is stopped with the baton loses it, and goes on later. */
static void check_stopped(void)
{
    pid_t child[2];
    int status;

    for (int i = 0; i < 2; i++)
        if (!(child[i] = v_fork())) {
            usleep(1000);
            if (!i)
                raise(SIGSTOP);
            usleep(1000);
            _exit(0);
        }
    usleep(10000);
    v_leave();
    t_check(waitpid(child[0], &status, WUNTRACED) == child[0] && WIFSTOPPED(status), "the child did not stop");
    v_enter();
    kill(child[0], SIGCONT);
    v_reap(child[0], 0);
    v_reap(child[1], 0);
}

static void *yielder(void *arg)
{
    for (;;) {
        sched_yield();
        usleep(37);
    }
    return arg;
}

/* Whoever is killed wherever it is, and comes anew, leaves the others running: each tells how often it slept. */
static void check_kills(void)
{
    unsigned random = 1, seen[4];
    pid_t child[4] = {0};

    for (unsigned round = 0; round < 150; round++) {
        unsigned victim = round < 4 ? round : (unsigned)rand_r(&random) % 4;

        if (child[victim]) {
            kill(child[victim], SIGKILL);
            v_reap_only(child[victim], SIGKILL);
        }
        child[victim] = v_fork();
        if (!child[victim]) {
            pthread_t thread;
            uint32_t w = 0;
            struct timespec t = {.tv_nsec = 3000};

            pthread_create(&thread, NULL, yielder, NULL);
            for (;;) {
                usleep(10);
                syscall(SYS_futex, &w, FUTEX_WAIT_PRIVATE, 0, &t, NULL, 0);
                syscall(SYS_futex, &board->count, FUTEX_WAKE, 1, NULL, NULL, 0);
                __atomic_fetch_add(&board->who[victim], 1, __ATOMIC_SEQ_CST);
            }
        }
        v_sleep_really((int)((unsigned)rand_r(&random) % 8));
    }
    for (int i = 0; i < 4; i++)
        seen[i] = __atomic_load_n(&board->who[i], __ATOMIC_SEQ_CST);
    for (int i = 0; i < 4; i++)
        while (__atomic_load_n(&board->who[i], __ATOMIC_SEQ_CST) - seen[i] < 10)
            v_sleep_really(1);
    for (int i = 0; i < 4; i++) {
        kill(child[i], SIGKILL);
        v_reap_only(child[i], SIGKILL);
    }
}

static void *sleeper(void *fd)
{
    usleep(20000);
    t_equal(write(*(int *)fd, "x", 1), 1);
    return NULL;
}

/* Waiting for another thread in real time, unannounced, costs some real time and hangs nothing. */
static void check_blocked(void)
{
    uint64_t begin = v_clock(CLOCK_MONOTONIC);
    pthread_t thread;
    int fd[2];
    char c;

    t_equal(pipe(fd), 0);
    usleep(1000);
    t_equal(pthread_create(&thread, NULL, sleeper, &fd[1]), 0);
    t_equal(read(fd[0], &c, 1), 1);
    t_equal(pthread_join(thread, NULL), 0);
    usleep(1000);
    t_equal(v_clock(CLOCK_MONOTONIC) - begin, 22 * MS);
}

static void check_speed(void)
{
    CUfunction f;
    double real;

    use_gpu();
    f = kernel("work__20us");
    real = v_real();
    for (int i = 0; i < 50000; i++) {
        launch(f);
        if (i % 1000 == 999)
            t_cuda(cuCtxSynchronize());
    }
    printf("1 virtual second of kernels of 20 us: %.3f s\n", v_real() - real);
    real = v_real();
    for (int i = 0; i < 10000; i++)
        usleep(1000);
    printf("10 virtual seconds of sleeps of 1 ms: %.3f s\n", v_real() - real);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } checks[] = {{"exact", check_exact},     {"spin", check_spin},     {"host", check_host},       {"futex", check_futex},
                  {"order", check_order},     {"killed", check_killed}, {"stopped", check_stopped}, {"kills", check_kills},
                  {"blocked", check_blocked}, {"speed", check_speed}};

    board = v_shared(sizeof(*board));
    for (size_t i = 0; argc > 1 && i < sizeof(checks) / sizeof(checks[0]); i++)
        if (strcmp(argv[1], checks[i].name) == 0) {
            checks[i].run();
            return 0;
        }
    t_fail("no such check");
}
