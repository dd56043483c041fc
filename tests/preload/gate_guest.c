/* SPDX-License-Identifier: Apache-2.0 */
/* The gate is a guest: nothing of it where no share is set, no work of its own while the program has none, a process that ends or forks while
 * threads wait does so, and streams, events and contexts come and go in some threads while others launch. */
// run: SOFTSLICE_VRAM=4GiB SOFTSLICE_TENANT=gate -- unarmed
// run: SOFTSLICE_COMPUTE=30% SOFTSLICE_TENANT=gate -- idle
// run: SOFTSLICE_COMPUTE=1% SOFTSLICE_TENANT=gate -- exit
// run: SOFTSLICE_COMPUTE=1% SOFTSLICE_TENANT=gate -- kill
// run: SOFTSLICE_COMPUTE=20% SOFTSLICE_TENANT=gate -- fork
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate -- threads
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate SOFTSIM_CONTEXT_BYTES=2M SOFTSIM_MEM=512G -- contexts
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate -- callback
// unemulated: threads by the hundred
#include "gate_helper.h"
#include <dirent.h>

/* The thread of ours with that name; 0: none. */
static int thread_named(const char *wanted)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *entry;
    int found = 0;

    while ((entry = readdir(tasks))) {
        char path[300], name[32] = "";
        snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
        FILE *file = fopen(path, "re");
        if (!file)
            continue;
        if (fgets(name, sizeof(name), file) && strncmp(name, wanted, strlen(wanted)) == 0)
            found = atoi(entry->d_name);
        fclose(file);
    }
    closedir(tasks);
    return found;
}

static unsigned long switches(int thread)
{
    char path[64], line[128];
    unsigned long count = 0, sum = 0;

    snprintf(path, sizeof(path), "/proc/self/task/%d/status", thread);
    FILE *file = fopen(path, "re");
    t_check(file, "%s: %s", path, strerror(errno));
    while (fgets(line, sizeof(line), file))
        if (sscanf(line, "voluntary_ctxt_switches: %lu", &count) == 1)
            sum += count;
    fclose(file);
    return sum;
}

static void unarmed(void)
{
    CUfunction kernel = gate_kernel("k__1ms");
    void *found = NULL;

    for (int i = 0; i < 20; i++)
        gate_launch(kernel, NULL);
    t_cuda(cuCtxSynchronize());
    t_check(dlsym(t_library("libcuda.so.1"), "cuLaunchKernel") == t_real("cuLaunchKernel"),
            "a program without a share has a wrapper of cuLaunchKernel");
    t_cuda(cuGetProcAddress("cuLaunchKernel", &found, 12000, CU_GET_PROC_ADDRESS_DEFAULT, NULL));
    t_check(!t_is_ours(found), "cuGetProcAddress hands out a wrapper of cuLaunchKernel");
    t_equal(thread_named("softslice-pace"), 0);
}

static void idle(void)
{
    CUfunction kernel = gate_kernel("k__1ms");

    t_equal(thread_named("softslice-pace"), 0);
    for (int i = 0; i < 20; i++)
        gate_launch(kernel, NULL);
    t_cuda(cuCtxSynchronize());
    int pacer = thread_named("softslice-pace");
    t_check(pacer, "no thread that looks after the work");
    /* It stays awake for a while; then there is a second without anything. */
    for (int tries = 0;; tries++) {
        unsigned long before = switches(pacer);
        sleep(1);
        if (switches(pacer) == before)
            break;
        t_check(tries < 20, "it does not sleep");
    }
    /* And it wakes. */
    unsigned long before = switches(pacer);
    for (int i = 0; i < 20; i++)
        gate_launch(kernel, NULL);
    t_cuda(cuCtxSynchronize());
    for (int tries = 0; switches(pacer) == before; tries++) {
        t_check(tries < 20, "it does not wake");
        sleep(1);
    }
}

static uint64_t launched;
static bool over;

static void launch_for_ever(void *argument)
{
    CUfunction kernel = argument;
    CUstream stream = gate_stream();

    while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
        errno = 77;
        CUresult result = gate_try(kernel, stream);
        if (result == CUDA_ERROR_DEINITIALIZED)
            return;
        t_cuda(result);
        t_equal(errno, 77);
        __atomic_add_fetch(&launched, 1, __ATOMIC_RELAXED);
    }
    t_cuda(cuStreamDestroy(stream));
}

static void some_are_launched(uint64_t more)
{
    uint64_t before = __atomic_load_n(&launched, __ATOMIC_RELAXED);

    while (__atomic_load_n(&launched, __ATOMIC_RELAXED) < before + more)
        usleep(1000);
}

static struct gate_thread *start(unsigned count, void (*run)(void *), void *argument)
{
    static struct gate_thread thread[256];
    CUcontext context;

    t_cuda(cuCtxGetCurrent(&context));
    for (unsigned i = 0; i < count; i++)
        gate_start(&thread[i], context, run, argument);
    return thread;
}

static void end_now(bool killed)
{
    t_context(0);
    start(8, launch_for_ever, gate_kernel("k__5ms"));
    some_are_launched(8);
    if (killed)
        raise(SIGKILL);
    exit(0);
}

/* In a program of its own, as most are that end like this. */
static void ending(char *self, char *part)
{
    bool killed = strcmp(part, "kill") == 0;
    pid_t child = t_fork();
    int status;

    if (child == 0) {
        execv("/proc/self/exe", (char *[]){self, part, "now", NULL});
        _exit(1);
    }
    t_equal(waitpid(child, &status, 0), child);
    t_check(killed ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL : WIFEXITED(status) && WEXITSTATUS(status) == 0,
            "it ended with wait status 0x%x", (unsigned)status);
}

static void forking(void)
{
    struct gate_thread *thread;

    t_context(0);
    thread = start(4, launch_for_ever, gate_kernel("k__1ms"));
    for (int i = 0; i < 50; i++) {
        pid_t child = t_fork();
        if (child == 0) {
            t_result(cuLaunchKernel(NULL, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL), CUDA_ERROR_NOT_INITIALIZED);
            _exit(0);
        }
        t_join(child);
        some_are_launched(1);
    }
    __atomic_store_n(&over, true, __ATOMIC_RELAXED);
    for (int i = 0; i < 4; i++)
        gate_join(&thread[i]);
}

/* 120 of them, in streams of their own and in the legacy one, which they make, destroy and wait for. */
static void work(void *argument)
{
    CUfunction kernel = argument;
    CUcontext context;

    for (int i = 0; i < 10; i++) {
        CUstream stream = gate_stream();
        CUevent event;

        t_cuda(cuEventCreate(&event, CU_EVENT_DEFAULT));
        t_cuda(gate_try(kernel, stream));
        t_cuda(cuEventRecord(event, stream));
        t_cuda(gate_try(kernel, i % 2 ? NULL : CU_STREAM_PER_THREAD));
        if (i % 3)
            t_cuda(cuStreamSynchronize(stream));
        t_cuda(cuStreamDestroy(stream));
        t_cuda(cuEventSynchronize(event));
        t_cuda(cuEventDestroy(event));
    }
    t_cuda(cuCtxGetCurrent(&context));
    t_cuda(cuCtxSynchronize());
}

static void threads(void)
{
    t_context(0);
    if (t_thread_sanitizer())
        gate_launch(gate_kernel("k__20us"), NULL);
    struct gate_thread *thread = start(120, work, gate_kernel("k__20us"));
    for (int i = 0; i < 120; i++)
        gate_join(&thread[i]);
}

/* Each thread makes contexts, launches in them and destroys them; and one launches all the time. */
static void come_and_go(void *argument)
{
    (void)argument;
    for (int i = 0; i < 40; i++) {
        CUcontext context;

        t_cuda(cuCtxCreate(&context, NULL, 0, 0));
        CUfunction kernel = gate_kernel("k__20us");
        t_cuda(gate_try(kernel, NULL));
        t_cuda(gate_try(kernel, gate_stream()));
        t_cuda(cuCtxDestroy(context));
    }
}

static void contexts(void)
{
    static CUcontext many[60];
    struct gate_thread one, *thread;
    CUcontext first = t_context(0);
    CUfunction kernel = gate_kernel("k__20us");

    gate_launch(kernel, NULL);
    gate_start(&one, first, launch_for_ever, kernel);
    thread = start(4, come_and_go, NULL);
    for (int i = 0; i < 4; i++)
        gate_join(&thread[i]);
    for (int i = 0; i < 60; i++) {
        CUresult result = cuCtxCreate(&many[i], NULL, 0, 0);
        t_check(result == CUDA_SUCCESS, "context %d: %d", i, (int)result);
        gate_launch(gate_kernel("k__20us"), NULL);
    }
    for (int i = 0; i < 60; i++)
        t_cuda(cuCtxDestroy(many[i]));
    /* A primary context that is reset and retained again. */
    for (int i = 0; i < 10; i++) {
        CUcontext primary;
        t_cuda(cuDevicePrimaryCtxRetain(&primary, 0));
        t_cuda(cuCtxSetCurrent(primary));
        gate_launch(gate_kernel("k__20us"), NULL);
        gate_launch(gate_kernel("k__20us"), gate_stream());
        t_cuda(i % 2 ? cuDevicePrimaryCtxReset(0) : cuDevicePrimaryCtxRelease(0));
    }
    some_are_launched(10);
    __atomic_store_n(&over, true, __ATOMIC_RELAXED);
    gate_join(&one);
}

static CUresult in_callback;

static void CUDA_CB launch_there(void *argument)
{
    __atomic_store_n(&in_callback, gate_try(argument, NULL), __ATOMIC_SEQ_CST);
}

static void callback(void)
{
    t_context(0);
    CUfunction kernel = gate_kernel("k__1ms");
    CUstream stream = gate_stream();

    for (int i = 0; i < 20; i++) {
        gate_launch(kernel, stream);
        t_cuda(cuLaunchHostFunc(stream, launch_there, kernel));
        t_cuda(cuStreamSynchronize(stream));
        t_equal(in_callback, CUDA_ERROR_NOT_PERMITTED);
    }
}

int main(int argc, char **argv)
{
    const char *part = argc > 1 ? argv[1] : "";

#if defined(__SANITIZE_THREAD__)
    if (strcmp(part, "exit") == 0 || strcmp(part, "kill") == 0 || strcmp(part, "fork") == 0)
        t_skip(
            "ThreadSanitizer's runtime crashes or gives up now and then where processes fork beside threads, or end in the middle");
#endif
    if (strcmp(part, "exit") == 0 || strcmp(part, "kill") == 0) {
        if (argc > 2)
            end_now(strcmp(part, "kill") == 0);
        for (int i = 0; i < 5; i++)
            ending(argv[0], argv[1]);
    } else if (strcmp(part, "fork") == 0) {
        forking();
    } else if (strcmp(part, "threads") == 0) {
        threads();
    } else if (strcmp(part, "contexts") == 0) {
        contexts();
    } else if (strcmp(part, "callback") == 0) {
        callback();
    } else {
        t_context(0);
        if (strcmp(part, "unarmed") == 0)
            unarmed();
        else
            idle();
    }
    return 0;
}
