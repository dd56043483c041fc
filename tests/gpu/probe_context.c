/* SPDX-License-Identifier: Apache-2.0 */
/* What a context costs in GPU memory, step by step, and what the driver's common calls cost in time.
 * Sizes are read from NVML (device and process) and cuMemGetInfo; times are medians in nanoseconds. */
#include "probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t last_device, last_process, first_device;

static long long difference(uint64_t now, uint64_t then)
{
    if (now == PROBE_UNKNOWN)
        return -1;
    return (long long)(now - (then == PROBE_UNKNOWN ? 0 : then));
}

/* One row: what this step added, and what stands now. */
static void step(const char *key)
{
    uint64_t device = probe_device_used(), process = probe_process_used(getpid());
    CUcontext ctx = NULL;
    uint64_t free_bytes = PROBE_UNKNOWN;
    char name[96];

    if (cu.cuCtxGetCurrent(&ctx) == CUDA_SUCCESS && ctx)
        free_bytes = probe_free();
    snprintf(name, sizeof(name), "size.%s", key);
    probe_row(name, "device +%lld process +%lld; device since init %lld, process %lld, free %lld", difference(device, last_device),
              difference(process, last_process), difference(device, first_device), difference(process, 0), (long long)free_bytes);
    last_device = device;
    last_process = process;
}

static void run(CUfunction fn, void **params)
{
    CUresult res = CUDA_ERROR_NOT_FOUND;

    if (fn)
        res = cu.cuLaunchKernel(fn, 1, 1, 1, 32, 1, 1, 0, NULL, params, NULL);
    if (res == CUDA_SUCCESS)
        res = cu.cuCtxSynchronize();
    if (res != CUDA_SUCCESS)
        probe_row("launch", "%s", probe_result(res));
}

static void sizes(void *arg)
{
    CUcontext primary, second = NULL;
    CUdeviceptr out = 0;
    uint64_t index = 0;
    void *deep_params[] = {&out, &index};

    if (arg)
        setenv("CUDA_MODULE_LOADING", (const char *)arg, 1);
    probe_row("size.module_loading", "%s", arg ? (const char *)arg : "default");
    CUdevice dev = probe_device();
    first_device = last_device = probe_device_used();
    last_process = PROBE_UNKNOWN;
    step("after_init");
    primary = probe_context(dev);
    step("primary_context");
    CUmodule mod = probe_module();
    step("first_module");
    CUfunction empty = probe_kernel(mod, "empty"), deep = probe_kernel(mod, "deep");
    step("first_function");
    run(empty, NULL);
    step("first_launch");
    cu.cuMemAlloc_v2(&out, 4096);
    step("first_small_allocation");
    run(deep, deep_params);
    step("launch_with_16KiB_stack");
    size_t limit = 0;
    cu.cuCtxGetLimit(&limit, CU_LIMIT_STACK_SIZE);
    probe_row("size.stack_limit", "%zu", limit);
    probe_row("size.set_stack_64KiB", "%s", probe_result(cu.cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 65536)));
    step("stack_limit_64KiB");
    run(empty, NULL);
    step("launch_after_stack_limit");
    probe_row("size.set_heap_256MiB", "%s", probe_result(cu.cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, 256 * MIB)));
    step("malloc_heap_limit_256MiB");
    cu.cuMemFree_v2(out);
    if (mod)
        cu.cuModuleUnload(mod);
    step("module_unloaded");
    CUresult res = cu.cuCtxCreate_v2(&second, 0, dev);
    probe_row("size.second_context_result", "%s", probe_result(res));
    step("second_context");
    mod = probe_module();
    run(probe_kernel(mod, "empty"), NULL);
    step("second_context_first_launch");
    if (second)
        cu.cuCtxDestroy_v2(second);
    step("second_context_destroyed");
    cu.cuCtxSetCurrent(primary);
    step("primary_current_again");
    cu.cuCtxSetCurrent(NULL);
    cu.cuDevicePrimaryCtxRelease_v2(dev);
    step("primary_released");
    probe_context(dev);
    step("primary_again");
}

/* cuCtxCreate alone, without a primary context: is it as large? */
static void created_only(void *arg)
{
    CUcontext ctx = NULL;
    CUdevice dev = probe_device();

    (void)arg;
    first_device = last_device = probe_device_used();
    last_process = PROBE_UNKNOWN;
    CUresult res = cu.cuCtxCreate_v2(&ctx, 0, dev);
    probe_row("size.created_only_result", "%s", probe_result(res));
    step("created_only");
    if (ctx)
        cu.cuCtxDestroy_v2(ctx);
    step("created_only_destroyed");
}

/* Several processes, each with a context: what does each add to the device? */
static void several(void *arg)
{
    enum { N = 4 };
    int up[2], down[2];
    char byte = 0;

    (void)arg;
    if (pipe(up) || pipe(down))
        return;
    fflush(stdout);
    pid_t pid[N];
    for (int i = 0; i < N; i++) {
        pid[i] = fork();
        if (pid[i] == 0) {
            probe_die_with_parent();
            close(down[1]);
            probe_context(probe_device());
            if (write(up[1], &byte, 1) == 1 && read(down[0], &byte, 1) < 0)
                _exit(1);
            _exit(0);
        }
    }
    close(up[1]);
    probe_device();
    for (int i = 0; i < N && read(up[0], &byte, 1) == 1; i++)
        ;
    for (int i = 0; i < N; i++) {
        uint64_t used = probe_process_used(pid[i]);
        probe_row("several.process", "%lld", used == PROBE_UNKNOWN ? -1ll : (long long)used);
    }
    uint64_t with = probe_device_used();
    close(down[1]);
    for (int i = 0; i < N; i++)
        waitpid(pid[i], NULL, 0);
    uint64_t without = probe_device_used();
    probe_row("several.device", "%lld for %d contexts", difference(with, without), N);
}

#define REPEAT 1001

static void timed(const char *key, uint64_t *v, size_t n)
{
    char name[96];
    uint64_t median = probe_median(v, n);

    snprintf(name, sizeof(name), "ns.%s", key);
    probe_row(name, "median %llu least %llu p99 %llu of %zu", (unsigned long long)median, (unsigned long long)v[0],
              (unsigned long long)v[n * 99 / 100], n);
}

#define TIME(key, n, statement)                                                                                                    \
    do {                                                                                                                           \
        for (size_t i_ = 0; i_ < (n); i_++) {                                                                                      \
            uint64_t t_ = probe_ns();                                                                                              \
            statement;                                                                                                             \
            v[i_] = probe_ns() - t_;                                                                                               \
        }                                                                                                                          \
        timed(key, v, n);                                                                                                          \
    } while (0)

static void allocation_times(uint64_t *v)
{
    static const size_t size[] = {512, 64 * KIB, MIB, 2 * MIB, 64 * MIB, GIB};
    CUdeviceptr p = 0, hold = 0;
    char key[64];

    for (size_t i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
        snprintf(key, sizeof(key), "cuMemAlloc+cuMemFree_%zu", size[i]);
        TIME(key, 201, (cu.cuMemAlloc_v2(&p, size[i]), cu.cuMemFree_v2(p)));
    }
    cu.cuMemAlloc_v2(&hold, 64 * KIB);
    TIME("cuMemAlloc+cuMemFree_65536_beside_another", 201, (cu.cuMemAlloc_v2(&p, 64 * KIB), cu.cuMemFree_v2(p)));
    cu.cuMemFree_v2(hold);
    TIME("cuMemAllocAsync+cuMemFreeAsync_2MiB", 201, (cu.cuMemAllocAsync(&p, 2 * MIB, NULL), cu.cuMemFreeAsync(p, NULL)));
    TIME("cuMemAlloc_too_large", 201, cu.cuMemAlloc_v2(&p, (size_t)1 << 46));
}

static void times(void *arg)
{
    static uint64_t v[REPEAT];
    CUcontext ctx;
    uint64_t t = probe_ns();
    CUdevice dev = probe_device();
    size_t a, b;
    struct nvml_memory m;
    unsigned int n;
    static struct nvml_process_v2 list[256];

    (void)arg;
    probe_row("ns.cuInit_once", "%llu", (unsigned long long)(probe_ns() - t));
    t = probe_ns();
    probe_context(dev);
    probe_row("ns.primary_context_once", "%llu", (unsigned long long)(probe_ns() - t));
    t = probe_ns();
    CUmodule mod = probe_module();
    probe_row("ns.module_once", "%llu", (unsigned long long)(probe_ns() - t));
    CUfunction empty = probe_kernel(mod, "empty");
    CUevent event;
    CUstream stream;

    cu.cuEventCreate(&event, CU_EVENT_DISABLE_TIMING);
    cu.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
    TIME("clock", REPEAT, (void)0);
    TIME("cuMemGetInfo", REPEAT, cu.cuMemGetInfo_v2(&a, &b));
    TIME("cuCtxGetCurrent", REPEAT, cu.cuCtxGetCurrent(&ctx));
    TIME("cuCtxGetDevice", REPEAT, cu.cuCtxGetDevice(&dev));
    TIME("cuDeviceTotalMem", REPEAT, cu.cuDeviceTotalMem_v2(&a, dev));
    if (empty) {
        TIME("cuLaunchKernel", REPEAT, cu.cuLaunchKernel(empty, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL));
        cu.cuCtxSynchronize();
        TIME("cuLaunchKernel+cuStreamSynchronize", REPEAT,
             (cu.cuLaunchKernel(empty, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL), cu.cuStreamSynchronize(stream)));
        TIME("cuEventRecord", REPEAT, cu.cuEventRecord(event, stream));
        TIME("cuEventQuery", REPEAT, cu.cuEventQuery(event));
    }
    allocation_times(v);
    nvml_device nd = probe_nvml_device();
    if (nd && nv.memory)
        TIME("nvmlDeviceGetMemoryInfo", 201, nv.memory(nd, &m));
    if (nd && nv.processes_v3)
        TIME("nvmlDeviceGetComputeRunningProcesses_v3", 201, (n = 256, nv.processes_v3(nd, &n, list)));
    TIME("second_cuCtxCreate+cuCtxDestroy", 11, (cu.cuCtxCreate_v2(&ctx, 0, dev), cu.cuCtxDestroy_v2(ctx)));
}

int main(void)
{
    static char lazy[] = "LAZY", eager[] = "EAGER";

    probe_open("context");
    probe_fork("size.default", sizes, NULL);
    probe_fork("size.lazy", sizes, lazy);
    probe_fork("size.eager", sizes, eager);
    probe_fork("size.created_only", created_only, NULL);
    probe_fork("several", several, NULL);
    for (int i = 0; i < 3; i++)
        probe_fork("ns", times, NULL);
    return 0;
}
