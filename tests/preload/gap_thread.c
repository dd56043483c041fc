/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that reads the gap: it finds what the driver took by itself, blocks every signal but those of its own faults, is there once
 * while there are contexts and not otherwise, and keeps no process from ending, however that ends. */
// unemulated: rests on MADV_WIPEONFORK, which the emulator does not pass to the kernel, and the emulator has threads of its own
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_LAZY_BYTES=32M -- finds
// run: SOFTSLICE_VRAM=200MiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_LAZY_BYTES=32M -- over
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M -- comes
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M -- churn
// run: SOFTSLICE_VRAM=8GiB SOFTSLICE_TENANT=ends SOFTSIM_CONTEXT_BYTES=10M SOFTSIM_LAZY_BYTES=2M -- ends
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M -- forks
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_NVML=absent -- absent
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_LAZY_BYTES=32M -- opens
// run: SOFTSLICE_TENANT=rests SOFTSLICE_COMPUTE=50% SOFTSIM_CONTEXT_BYTES=100M SOFTSLICE_LOG=off -- rests
#include <dirent.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "../cuda_helper.h"

#define SECONDS 60 /* for what takes one or a few, on a machine that does much else */
#define ENDS    40

/* How many threads of ours there are; each blocks all signals that can be. */
static int threads(void)
{
    DIR *directory = opendir("/proc/self/task");
    struct dirent *entry;
    int count = 0;

    t_check(directory, "/proc/self/task");
    while ((entry = readdir(directory))) {
        char path[300], line[256];
        uint64_t blocked = 0;
        bool ours = false;

        snprintf(path, sizeof(path), "/proc/self/task/%s/status", entry->d_name);
        FILE *status = fopen(path, "re");
        while (status && fgets(line, sizeof(line), status)) {
            ours |= strcmp(line, "Name:\tsoftslice\n") == 0;
            if (strncmp(line, "SigBlk:", 7) == 0)
                blocked = strtoull(line + 7, NULL, 16);
        }
        if (status)
            fclose(status);
        if (!ours)
            continue;
        count++;
        for (int signal = 1; signal < 64; signal++) {
            /* Blocked, a fault ends the process without a call of the program's handler. */
            if (signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL || signal == SIGTRAP ||
                signal == SIGSYS) {
                t_check(!(blocked >> (signal - 1) & 1), "signal %d is blocked in our thread", signal);
                continue;
            }
            t_check(blocked >> (signal - 1) & 1 || signal == SIGKILL || signal == SIGSTOP || (signal >= 32 && signal < 35),
                    "signal %d is not blocked in our thread", signal);
        }
    }
    closedir(directory);
    return count;
}

static void launch(unsigned functions)
{
    CUfunction function;
    CUmodule module;

    t_cuda(cuModuleLoadData(&module, "an image"));
    for (unsigned i = 0; i < functions; i++) {
        char name[16];

        snprintf(name, sizeof(name), "f%u", i);
        t_cuda(cuModuleGetFunction(&function, module, name));
        t_cuda(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
    }
}

static void wait_until(bool (*seen)(void), const char *what)
{
    uint64_t begun = t_now_ms();

    while (!seen()) {
        t_check(t_now_ms() - begun < SECONDS * 1000, "%s within %d s", what, SECONDS);
        usleep(10000);
    }
}

static bool told(void)
{
    return t_total() - t_free() == t_used(0);
}

static void finds(void)
{
    t_context(0);
    launch(4);
    t_check(t_used(0) == 228 * T_MIB, "functions take nothing");
    wait_until(told, "what the driver took was not found");
}

static bool nothing_free(void)
{
    return t_free() == 0;
}

/* Over the limit it is charged all the same: nothing is refused but what comes next. */
static void over(void)
{
    CUdeviceptr p = T_UNTOUCHED;

    t_context(0);
    launch(5);
    wait_until(nothing_free, "what the driver took was not found");
    t_result(cuMemAlloc(&p, T_MIB), CUDA_ERROR_OUT_OF_MEMORY);
    t_check(p == T_UNTOUCHED, "a refused cuMemAlloc wrote its output");
    launch(1);
}

static bool one(void)
{
    return threads() == 1;
}

static bool none(void)
{
    return threads() == 0;
}

static void comes(void)
{
    t_cuda(cuInit(0));
    t_equal(threads(), 0);
    for (int round = 0; round < 2; round++) {
        CUcontext context = t_context(0);
        wait_until(one, "no thread was there");
        t_cuda(cuCtxDestroy(context));
        wait_until(none, "the thread was not gone");
    }
}

static void *create_and_destroy(void *unused)
{
    for (int i = 0; i < 250; i++) {
        CUcontext context;

        t_cuda(cuCtxCreate(&context, NULL, 0, 0));
        t_cuda(cuCtxDestroy(context));
    }
    return unused;
}

static void churn(void)
{
    pthread_t thread[4];

    t_cuda(cuInit(0));
    t_context(0);
    for (int i = 0; i < 4; i++)
        t_check(pthread_create(&thread[i], NULL, create_and_destroy, NULL) == 0, "no thread");
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    t_check(threads() <= 1, "%d threads", threads());
    t_check(told(), "%zu bytes are told to be in use, and %llu are", t_total() - t_free(), (unsigned long long)t_used(0));
    CUcontext last;
    t_cuda(cuCtxGetCurrent(&last));
    t_cuda(cuCtxDestroy(last));
    wait_until(none, "the thread was not gone");
    t_context(0);
    t_check(told(), "%zu bytes are told to be in use, and %llu are", t_total() - t_free(), (unsigned long long)t_used(0));
}

static void *exits(void *unused)
{
    (void)unused;
    exit(0);
}

/* About when the thread reads for the first time. */
static void end(int how)
{
    pthread_t thread;

    t_context(0);
    launch(3);
    usleep(1000000 + (useconds_t)(how * 977 % 20000) - 10000);
    switch (how % 5) {
    case 0:
        exit(0);
    case 1:
        quick_exit(0);
    case 2:
        kill(getpid(), SIGTERM);
        pause();
        break;
    case 3:
        pthread_create(&thread, NULL, exits, NULL);
        exit(0);
    default:
        _exit(0);
    }
}

static void ends(void)
{
    pid_t child[ENDS];

    for (int i = 0; i < ENDS; i++)
        if ((child[i] = t_fork()) == 0)
            end(i);
    for (int i = 0; i < ENDS; i++) {
        uint64_t begun = t_now_ms();
        int status;

        while (waitpid(child[i], &status, WNOHANG) == 0) {
            t_check(t_now_ms() - begun < SECONDS * 1000, "a process does not end (%d)", i % 5);
            usleep(10000);
        }
        t_check(i % 5 == 2 ? WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM : WIFEXITED(status) && WEXITSTATUS(status) == 0,
                "a child ended with wait status 0x%x (%d)", (unsigned)status, i % 5);
    }
}

/* A child has no thread of its parent's, and its own from its own first context on. */
static void forks(void)
{
    pid_t before = t_fork();

    if (before == 0) {
        comes();
        exit(0);
    }
    t_join(before);
    t_context(0);
    wait_until(one, "no thread was there");
    pid_t child = t_fork();
    if (child == 0) {
        CUcontext context;

        t_equal(threads(), 0);
        t_check(cuCtxCreate(&context, NULL, 0, 0) != CUDA_SUCCESS, "a child of a process that uses CUDA can use it");
        t_equal(threads(), 0);
        exit(0);
    }
    t_join(child);
    t_equal(threads(), 1);
}

/* It opens nothing while the program knows of no call: the program may close what it does not know, or wait for the lowest number. From here on
 * the kernel kills a process that opens a file. */
static void opens(void)
{
    struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                                 BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
                                 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
    pid_t child = t_fork();

    if (child == 0) {
        t_context(0);
        launch(1);
        wait_until(told, "what the driver took was not found");
        wait_until(one, "no thread was there");
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
            syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0)
            t_skip("no filter for system calls here: %s", strerror(errno));
        for (unsigned i = 1; i < 3; i++) {
            launch(i + 1);
            wait_until(told, "what the driver took was not found");
        }
        _exit(0);
    }
    t_join(child);
}

/* Where there is no figure it has nothing to read: it is there for `softslice explain`. */
static void absent(void)
{
    t_context(0);
    t_equal(t_total() - t_free(), 512 * T_MIB);
    wait_until(one, "no thread was there");
    t_equal(t_total() - t_free(), 512 * T_MIB);
}

/* How often our threads have slept and been woken. */
static uint64_t sleeps(void)
{
    DIR *directory = opendir("/proc/self/task");
    struct dirent *entry;
    uint64_t all = 0;

    t_check(directory, "/proc/self/task");
    while ((entry = readdir(directory))) {
        char path[300], line[256];
        bool ours = false;

        snprintf(path, sizeof(path), "/proc/self/task/%s/status", entry->d_name);
        FILE *status = fopen(path, "re");
        while (status && fgets(line, sizeof(line), status)) {
            ours |= strncmp(line, "Name:\tsoftslice", strlen("Name:\tsoftslice")) == 0;
            if (ours && strncmp(line, "voluntary_ctxt_switches:", 24) == 0)
                all += strtoull(line + 24, NULL, 10);
        }
        if (status)
            fclose(status);
    }
    closedir(directory);
    return all;
}

/* Where nothing limits what the driver takes, and nobody asks, the threads sleep: a second is not what wakes them. */
static void rests(void)
{
    uint64_t before = sleeps();

    if (syscall(449 /* futex_waitv */, NULL, 0, 0, NULL, 0) < 0 && errno != EINVAL)
        t_skip("the kernel cannot wait for two words at once: the thread looks once a second");
    t_context(0);
    launch(1);
    t_cuda(cuCtxSynchronize());
    wait_until(one, "no thread was there");
    for (unsigned tries = 0;; tries++) {
        before = sleeps();
        usleep(3500000);
        if (sleeps() == before)
            break;
        t_check(tries < 10, "our threads wake up though nothing is to do");
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {{"finds", finds}, {"over", over},     {"comes", comes}, {"churn", churn}, {"ends", ends},
                 {"forks", forks}, {"absent", absent}, {"opens", opens}, {"rests", rests}};

    for (size_t i = 0; argc > 1 && i < sizeof(tests) / sizeof(tests[0]); i++) {
        if (strcmp(argv[1], tests[i].name) == 0) {
            tests[i].run();
            return 0;
        }
    }
    t_fail("which one?");
}
