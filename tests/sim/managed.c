/* SPDX-License-Identifier: Apache-2.0 */
/* Managed memory on the simulated GPU: what is prefetched takes HBM, and makes room when anybody else needs it. */
#include "helper.h"
#include <cuda.h>

static const CUmemLocation gpu = {CU_MEM_LOCATION_TYPE_DEVICE, 0}, host = {CU_MEM_LOCATION_TYPE_HOST, 0};

static CUstream use_gpu(void)
{
    CUcontext ctx;
    CUstream s;

    t_cuda(cuInit(0));
    t_cuda(cuCtxCreate(&ctx, NULL, 0, 0));
    t_cuda(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    return s;
}

static uint64_t listed(pid_t pid)
{
    struct {
        unsigned pid;
        unsigned long long used;
        unsigned gpu_instance, compute_instance;
    } found[4];
    unsigned count = 4;

    t_result(((int (*)(void *, unsigned *, void *))t_real_nvml("nvmlDeviceGetComputeRunningProcesses_v3"))(t_nvml_device(0), &count,
                                                                                                           found),
             0);
    for (unsigned i = 0; i < count; i++)
        if (found[i].pid == (unsigned)pid)
            return found[i].used;
    return 0;
}

static void check_prefetch(void)
{
    CUstream s = use_gpu();
    CUdeviceptr p, q, d, both[2];
    size_t sizes[2] = {10 * T_MIB, 20 * T_MIB}, index = 0;
    CUmemLocation to = gpu;
    size_t f;

    t_cuda(cuMemAllocManaged(&p, 2 * T_GIB, CU_MEM_ATTACH_GLOBAL));
    t_cuda(cuMemAllocManaged(&q, 100 * T_MIB, CU_MEM_ATTACH_GLOBAL));
    t_equal(t_used(0), 100 * T_MIB);
    *(unsigned *)(uintptr_t)p = 5;
    t_cuda(cuMemPrefetchAsync(p, 200 * T_MIB, gpu, 0, s));
    t_equal(t_used(0), 300 * T_MIB);
    t_equal(listed(getpid()), 300 * T_MIB);
    t_cuda(cuMemGetInfo(&f, NULL));
    t_equal(f, 724 * T_MIB);
    t_cuda(cuMemPrefetchAsync(p, 200 * T_MIB, gpu, 0, s));
    t_equal(t_used(0), 300 * T_MIB);
    t_cuda(cuMemPrefetchAsync(p + 50 * T_MIB, 50 * T_MIB, host, 0, s));
    t_equal(t_used(0), 250 * T_MIB);
    t_equal(*(unsigned *)(uintptr_t)p, 5);
    both[0] = q;
    both[1] = p + 50 * T_MIB;
    t_cuda(cuMemPrefetchBatchAsync(both, sizes, 2, &to, &index, 1, 0, s));
    t_equal(t_used(0), 280 * T_MIB);

    /* More than there is: all of the GPU, and no error. Device memory pushes it out again, and is not pushed out by it. */
    t_cuda(cuMemPrefetchAsync(p, 2 * T_GIB, gpu, 0, s));
    t_equal(t_used(0), T_GIB);
    t_cuda(cuMemAlloc(&d, 500 * T_MIB));
    t_equal(t_used(0), T_GIB);
    t_equal(listed(getpid()), T_GIB);
    t_cuda(cuMemPrefetchAsync(q, 100 * T_MIB, gpu, 0, s));
    t_equal(t_used(0), T_GIB);
    t_cuda(cuMemFree(d));
    t_equal(t_used(0), 524 * T_MIB);
    t_cuda(cuMemFree(p));
    t_equal(t_used(0), 200 * T_MIB);
    t_cuda(cuMemFree(q));
    t_equal(t_used(0), 100 * T_MIB);
}

/* Another process' memory comes first, too; a killed one leaves nothing. */
static void check_others(void)
{
    int ready[2];
    CUdeviceptr p;
    CUstream s;
    pid_t child;
    char byte;

    t_check(pipe(ready) == 0, "pipe: %s", strerror(errno));
    child = t_fork();
    if (child == 0) {
        s = use_gpu();
        t_cuda(cuMemAllocManaged(&p, 2 * T_GIB, CU_MEM_ATTACH_GLOBAL));
        t_cuda(cuMemPrefetchAsync(p, 2 * T_GIB, gpu, 0, s));
        if (write(ready[1], "r", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    t_check(read(ready[0], &byte, 1) == 1, "the child said nothing");
    t_equal(t_used(0), T_GIB);
    use_gpu();
    t_equal(t_used(0), T_GIB);
    t_equal(listed(child), 924 * T_MIB);
    t_cuda(cuMemAlloc(&p, 600 * T_MIB));
    t_equal(listed(child), 324 * T_MIB);
    t_result(cuMemAlloc(&p, 226 * T_MIB), CUDA_ERROR_OUT_OF_MEMORY); /* its context stays */
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    t_equal(t_used(0), 700 * T_MIB);
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
    setenv("SOFTSIM_MEM", "1G", 1);
    setenv("SOFTSIM_CONTEXT_BYTES", "100M", 1);
    in_child(check_prefetch);
    in_child(check_others);
    return 0;
}
