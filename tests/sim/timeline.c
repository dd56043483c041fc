/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated GPU's time: streams and events in one process, slices between two. What is compared is the simulator's own account of who
 * had the GPU when, never how fast this machine is. */
#include "helper.h"
#include "../../sim/shared.h"
#include <cuda.h>
#include <fcntl.h>
#include <sys/mman.h>

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

static void launch(CUfunction f, CUstream s)
{
    t_cuda(cuLaunchKernel(f, 1, 1, 1, 32, 1, 1, 0, s, NULL, NULL));
}

static void check_events(void)
{
    CUevent begin, end, unrecorded;
    CUstream s, other;
    CUfunction f;
    float ms;

    use_gpu();
    f = kernel("work__500us");
    t_cuda(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    t_cuda(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    t_cuda(cuEventCreate(&begin, 0));
    t_cuda(cuEventCreate(&end, 0));
    t_cuda(cuEventCreate(&unrecorded, 0));
    t_cuda(cuEventQuery(unrecorded));
    t_result(cuEventElapsedTime(&ms, unrecorded, end), CUDA_ERROR_INVALID_HANDLE);
    t_cuda(cuEventRecord(begin, s));
    for (int i = 0; i < 100; i++)
        launch(f, s);
    t_cuda(cuEventRecord(end, s));
    t_result(cuEventQuery(end), CUDA_ERROR_NOT_READY);
    t_result(cuStreamQuery(s), CUDA_ERROR_NOT_READY);
    t_result(cuEventElapsedTime(&ms, begin, end), CUDA_ERROR_NOT_READY);
    t_cuda(cuStreamWaitEvent(other, end, 0));
    t_result(cuStreamQuery(other), CUDA_ERROR_NOT_READY);
    t_cuda(cuStreamSynchronize(other));
    t_cuda(cuEventQuery(end));
    t_cuda(cuStreamQuery(s));
    t_cuda(cuEventElapsedTime(&ms, begin, end));
    /* Submitting took some time of its own before the first kernel began, so a little more than 50 ms. */
    t_check(ms >= 49.99f, "100 kernels of 500 us took %.3f ms", (double)ms);
    t_result(cuLaunchKernel(f, 0, 1, 1, 1, 1, 1, 0, s, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
    t_result(cuLaunchKernel(f, 1, 1, 1, 2048, 1, 1, 0, s, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
    t_result(cuLaunchKernel((CUfunction)&ms, 1, 1, 1, 1, 1, 1, 0, s, NULL, NULL), CUDA_ERROR_INVALID_HANDLE);
    t_cuda(cuStreamDestroy(s));
    t_result(cuStreamDestroy(s), CUDA_ERROR_INVALID_HANDLE);
    t_result(cuStreamSynchronize(s), CUDA_ERROR_INVALID_HANDLE);
}

static char order[8];
static int steps;

static void note(void *letter)
{
    order[__atomic_fetch_add(&steps, 1, __ATOMIC_SEQ_CST)] = *(char *)letter;
}

/* Such code may not call the driver. */
static void callback(CUstream s, CUresult status, void *letter)
{
    size_t f;

    (void)s;
    if (status == CUDA_SUCCESS && cuMemGetInfo(&f, NULL) == CUDA_ERROR_NOT_PERMITTED)
        note(letter);
}

/* Host functions run in stream order, and what is behind them waits; other streams do not. */
static void check_host_functions(void)
{
    CUstream s, waiting, free_stream;
    CUdeviceptr p;
    CUevent e;
    int value = 0;

    use_gpu();
    t_cuda(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    t_cuda(cuStreamCreate(&waiting, CU_STREAM_NON_BLOCKING));
    t_cuda(cuStreamCreate(&free_stream, CU_STREAM_NON_BLOCKING));
    t_cuda(cuEventCreate(&e, CU_EVENT_DISABLE_TIMING));
    t_cuda(cuMemAlloc(&p, 4));
    launch(kernel("work__20ms"), s);
    t_cuda(cuLaunchHostFunc(s, note, (void *)"a"));
    t_cuda(cuStreamAddCallback(s, callback, (void *)"b", 0));
    t_cuda(cuMemsetD32Async(p, 77, 1, s));
    t_cuda(cuEventRecord(e, s));
    t_cuda(cuStreamWaitEvent(waiting, e, 0));
    t_cuda(cuLaunchHostFunc(waiting, note, (void *)"c"));
    t_cuda(cuLaunchHostFunc(free_stream, note, (void *)"-"));
    t_cuda(cuStreamSynchronize(free_stream));
    t_equal(__atomic_load_n(&steps, __ATOMIC_SEQ_CST), 1);
    t_cuda(cuEventSynchronize(e));
    t_cuda(cuMemcpyDtoHAsync(&value, p, 4, waiting));
    t_cuda(cuStreamSynchronize(waiting));
    t_check(strcmp(order, "-abc") == 0, "host functions ran in the order %s", order);
    t_equal(value, 77);
    t_cuda(cuCtxSynchronize());
}

/* The legacy stream comes after the blocking streams and before their later work. */
static void check_legacy(void)
{
    CUstream blocking;

    use_gpu();
    t_cuda(cuStreamCreate(&blocking, CU_STREAM_DEFAULT));
    t_cuda(cuLaunchHostFunc(blocking, note, (void *)"a"));
    t_cuda(cuLaunchHostFunc(NULL, note, (void *)"b"));
    t_cuda(cuLaunchHostFunc(blocking, note, (void *)"c"));
    t_cuda(cuStreamSynchronize(NULL));
    t_cuda(cuStreamSynchronize(blocking));
    t_check(strcmp(order, "abc") == 0, "host functions ran in the order %s", order);
}

/* A stream waits for a value, and what it writes appears when the GPU got there. */
static void check_values(void)
{
    CUstream s, other;
    volatile unsigned *flag;
    CUdeviceptr p;

    use_gpu();
    t_cuda(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    t_cuda(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    t_cuda(cuMemHostAlloc((void **)&flag, 4096, 0));
    t_cuda(cuMemHostGetDevicePointer(&p, (void *)flag, 0));
    flag[0] = flag[1] = 0;
    t_cuda(cuStreamWaitValue32(s, p, 5, CU_STREAM_WAIT_VALUE_GEQ));
    t_cuda(cuLaunchHostFunc(s, note, (void *)"b"));
    t_result(cuStreamQuery(s), CUDA_ERROR_NOT_READY);
    launch(kernel("work__20ms"), other);
    t_cuda(cuStreamWriteValue32(other, p + 4, 9, 0));
    t_equal(flag[1], 0);
    t_cuda(cuLaunchHostFunc(other, note, (void *)"a"));
    t_cuda(cuStreamSynchronize(other));
    t_equal(flag[1], 9);
    t_cuda(cuStreamWriteValue32(other, p, 6, 0));
    t_cuda(cuStreamSynchronize(s));
    t_check(strcmp(order, "ab") == 0, "host functions ran in the order %s", order);
    t_result(cuStreamWaitValue32(s, p + 1, 0, 0), CUDA_ERROR_INVALID_VALUE);
}

static const struct sim_machine *machine(void)
{
    int fd = open(getenv("SOFTSIM_STATE"), O_RDONLY | O_CLOEXEC);
    void *m = mmap(NULL, sizeof(struct sim_machine), PROT_READ, MAP_SHARED, fd, 0);

    t_check(fd >= 0 && m != MAP_FAILED, "the state file: %s", strerror(errno));
    return m;
}

static int row_of(const struct sim_machine *m, pid_t pid)
{
    for (unsigned i = 0; i < m->procs_high; i++)
        if (m->proc[i].state == SIM_PROC_LIVE && m->proc[i].id.pid == pid)
            return (int)i;
    t_fail("process %d has no row", (int)pid);
}

/* Both say when they are ready, begin together, and stay until they were looked at. */
static void worker(int ready, int go)
{
    CUfunction f;
    char byte = 0;

    use_gpu();
    f = kernel("work__1ms");
    if (write(ready, &byte, 1) != 1 || read(go, &byte, 1) != 1)
        _exit(1);
    for (int i = 0; i < 200; i++)
        launch(f, NULL);
    t_cuda(cuCtxSynchronize());
    if (write(ready, &byte, 1) != 1)
        _exit(1);
    for (;;)
        pause();
}

static void check_slices(void)
{
    const struct sim_client *a, *b;
    const struct sim_machine *m;
    int ready[2], go[2];
    pid_t child[2];
    unsigned both = 0;
    char bytes[2];

    t_check(pipe(ready) == 0 && pipe(go) == 0, "pipe: %s", strerror(errno));
    for (int i = 0; i < 2; i++) {
        child[i] = t_fork();
        if (child[i] == 0)
            worker(ready[1], go[0]);
    }
    close(ready[1]);
    for (int i = 0; i < 2; i++)
        t_check(read(ready[0], bytes, 1) == 1, "a child is not ready");
    t_check(write(go[1], bytes, 2) == 2, "write: %s", strerror(errno));
    for (int i = 0; i < 2; i++)
        t_check(read(ready[0], bytes, 1) == 1, "a child has not finished");
    m = machine();
    a = &m->proc[row_of(m, child[0])].client[0];
    b = &m->proc[row_of(m, child[1])].client[0];
    t_equal(a->served_ns, 200000000);
    t_equal(b->served_ns, 200000000);
    t_check(a->slices <= SIM_HISTORY && b->slices <= SIM_HISTORY, "more slices than are kept");
    for (unsigned i = 0; i < a->slices; i++) {
        const struct sim_slice *x = &a->history[i];
        bool contended = false;

        for (unsigned j = 0; j < b->slices; j++) {
            const struct sim_slice *y = &b->history[j];

            t_check(x->wall_ns + x->length_ns <= y->wall_ns || y->wall_ns + y->length_ns <= x->wall_ns,
                    "both had the GPU at the same time");
            contended |= y->wall_ns + y->length_ns == x->wall_ns && j + 1 < b->slices;
        }
        if (contended && i + 1 < a->slices) {
            t_check(x->length_ns <= 2000000, "a slice of %llu ns between two of the other", (unsigned long long)x->length_ns);
            both++;
        }
    }
    t_check(both >= 10, "they took turns only %u times", both);
    for (int i = 0; i < 2; i++) {
        kill(child[i], SIGKILL);
        waitpid(child[i], NULL, 0);
    }
}

static void check_durations(void)
{
    const struct sim_client *c;
    const struct sim_machine *m;

    use_gpu();
    launch(kernel("named"), NULL);
    launch(kernel("_Z4stepPf__1.5ms"), NULL);
    launch(kernel("plain"), NULL);
    t_cuda(cuCtxSynchronize());
    m = machine();
    c = &m->proc[row_of(m, getpid())].client[0];
    t_equal(c->submitted_ns, 123000 + 1500000 + 7000);
    t_equal(c->served_ns, c->submitted_ns);
}

static void in_child(void (*check)(void))
{
    pid_t child = t_fork();

    if (child == 0) {
        check();
        fflush(stdout);
        _exit(0);
    }
    t_join(child);
}

int main(void)
{
    setenv("SOFTSIM_KERNELS", "other=5,named=123", 1);
    setenv("SOFTSIM_KERNEL_US", "7", 1);
    in_child(check_events);
    in_child(check_host_functions);
    in_child(check_legacy);
    in_child(check_values);
    in_child(check_slices);
    in_child(check_durations);
    return 0;
}
