/* SPDX-License-Identifier: Apache-2.0 */
/* HBM that a driver takes without being asked for it: modules, lazily loaded functions, limits, further and green contexts. Each takes
 * what its setting says, gives it back with its owner, and is out of memory where it does not fit. */
#include "helper.h"
#include <cuda.h>

#define CONTEXT (100 * T_MIB)

static CUcontext use_gpu(void)
{
    CUcontext ctx;

    t_cuda(cuInit(0));
    t_cuda(cuCtxCreate(&ctx, NULL, 0, 0));
    return ctx;
}

static CUresult launch(CUfunction f)
{
    return cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
}

static void check_modules(void)
{
    CUmodule m, n;
    CUfunction f, g;
    CUdeviceptr p;
    CUfunctionLoadingState state;

    use_gpu();
    t_cuda(cuModuleLoadData(&m, ""));
    t_equal(t_used(0), CONTEXT + 32 * T_MIB);
    t_cuda(cuModuleGetFunction(&f, m, "f"));
    t_cuda(cuModuleGetFunction(&g, m, "g"));
    t_equal(t_used(0), CONTEXT + 32 * T_MIB);
    t_cuda(launch(f));
    t_cuda(launch(f));
    t_equal(t_used(0), CONTEXT + 36 * T_MIB); /* 3 MiB, rounded up, once */
    t_cuda(cuFuncLoad(g));
    t_equal(t_used(0), CONTEXT + 40 * T_MIB);
    t_cuda(launch(g));
    t_equal(t_used(0), CONTEXT + 40 * T_MIB);
    t_cuda(cuModuleUnload(m));
    t_equal(t_used(0), CONTEXT);

    t_cuda(cuModuleLoadData(&m, ""));
    t_cuda(cuModuleGetFunction(&f, m, "f"));
    t_cuda(cuMemAlloc(&p, 1024 * T_MIB - CONTEXT - 34 * T_MIB));
    t_result(launch(f), CUDA_ERROR_OUT_OF_MEMORY);
    t_cuda(cuFuncIsLoaded(&state, f));
    t_equal(state, CU_FUNCTION_LOADING_STATE_UNLOADED);
    t_result(cuModuleLoadData(&n, ""), CUDA_ERROR_OUT_OF_MEMORY);
    t_cuda(cuMemFree(p));
    t_cuda(launch(f));
}

/* A library takes nothing before a context needs something of it; a graph's functions are loaded when it is instantiated. */
static void check_libraries(void)
{
    CUcontext ctx = use_gpu(), other;
    CUlibrary l;
    CUkernel k;
    CUmodule m;
    CUfunction f;
    CUgraph graph;
    CUgraphExec exec;
    CUstream s;

    t_cuda(cuLibraryLoadData(&l, "", NULL, NULL, 0, NULL, NULL, 0));
    t_cuda(cuLibraryGetKernel(&k, l, "k"));
    t_equal(t_used(0), CONTEXT);
    t_cuda(launch((CUfunction)k));
    t_cuda(launch((CUfunction)k));
    t_equal(t_used(0), CONTEXT + 36 * T_MIB);
    t_cuda(cuCtxCreate(&other, NULL, 0, 0));
    t_cuda(cuLibraryGetModule(&m, l));
    t_equal(t_used(0), CONTEXT + 68 * T_MIB);
    t_cuda(cuCtxDestroy(other));
    t_equal(t_used(0), CONTEXT + 36 * T_MIB);
    t_cuda(cuLibraryUnload(l));
    t_equal(t_used(0), CONTEXT);

    t_cuda(cuCtxSetCurrent(ctx));
    t_cuda(cuModuleLoadData(&m, ""));
    t_cuda(cuModuleGetFunction(&f, m, "f"));
    t_cuda(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    t_cuda(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
    t_cuda(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, s, NULL, NULL));
    t_cuda(cuStreamEndCapture(s, &graph));
    t_equal(t_used(0), CONTEXT + 32 * T_MIB);
    t_cuda(cuGraphInstantiate(&exec, graph, 0));
    t_equal(t_used(0), CONTEXT + 36 * T_MIB);
    t_cuda(cuGraphLaunch(exec, s));
    t_equal(t_used(0), CONTEXT + 36 * T_MIB);
}

/* Eager: a library goes into all contexts at once, those to come included, and functions take nothing further. */
static void check_eager(void)
{
    CUcontext other;
    CUlibrary l, second;
    CUkernel k;
    CUdeviceptr p;

    use_gpu();
    t_cuda(cuLibraryLoadData(&l, "", NULL, NULL, 0, NULL, NULL, 0));
    t_equal(t_used(0), CONTEXT + 32 * T_MIB);
    t_cuda(cuLibraryGetKernel(&k, l, "k"));
    t_cuda(launch((CUfunction)k));
    t_equal(t_used(0), CONTEXT + 32 * T_MIB);
    t_cuda(cuMemAlloc(&p, 1024 * T_MIB - CONTEXT - 62 * T_MIB));
    t_result(cuLibraryLoadData(&second, "", NULL, NULL, 0, NULL, NULL, 0), CUDA_ERROR_OUT_OF_MEMORY);
    t_result(cuCtxCreate(&other, NULL, 0, 0), CUDA_ERROR_OUT_OF_MEMORY);
    t_equal(t_used(0), 994 * T_MIB);
    t_cuda(cuMemFree(p));
    t_cuda(cuCtxCreate(&other, NULL, 0, 0));
    t_equal(t_used(0), CONTEXT + 64 * T_MIB);
}

static void check_limits(void)
{
    uint64_t before;
    CUcontext ctx;
    size_t value;

    ctx = use_gpu();
    before = t_used(0);
    t_cuda(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 512)); /* below the default nothing comes back */
    t_equal(t_used(0), before);
    t_cuda(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 2048));
    t_equal(t_used(0), before + 216 * T_MIB); /* 1 KiB more for 108 x 2048 threads */
    t_result(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 64 * T_KIB), CUDA_ERROR_OUT_OF_MEMORY);
    t_cuda(cuCtxGetLimit(&value, CU_LIMIT_STACK_SIZE));
    t_equal(value, 2048);
    t_cuda(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, 108 * T_MIB));
    t_equal(t_used(0), before + 316 * T_MIB);
    t_cuda(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 1024));
    t_equal(t_used(0), before + 100 * T_MIB);
    t_cuda(cuCtxSetLimit(CU_LIMIT_PRINTF_FIFO_SIZE, 18 * T_MIB));
    t_cuda(cuCtxSetLimit(CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT, 4096));
    t_equal(t_used(0), before + 112 * T_MIB);
    t_result(cuCtxSetLimit(CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH, 4), CUDA_ERROR_UNSUPPORTED_LIMIT);
    t_result(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, SIZE_MAX), CUDA_ERROR_OUT_OF_MEMORY);
    t_equal(t_used(0), before + 112 * T_MIB);
    t_cuda(cuCtxDestroy(ctx));
    t_equal(t_used(0), 0);
}

static void check_contexts(void)
{
    CUdevResourceDesc desc;
    CUdevResource sms;
    CUgreenCtx green;
    CUcontext other;
    CUdeviceptr p;

    use_gpu();
    t_cuda(cuCtxCreate(&other, NULL, 0, 0));
    t_equal(t_used(0), CONTEXT + 50 * T_MIB);
    t_cuda(cuCtxDestroy(other));
    t_equal(t_used(0), CONTEXT);
    t_cuda(cuDeviceGetDevResource(0, &sms, CU_DEV_RESOURCE_TYPE_SM));
    t_cuda(cuDevResourceGenerateDesc(&desc, &sms, 1));
    t_cuda(cuGreenCtxCreate(&green, desc, 0, CU_GREEN_CTX_DEFAULT_STREAM));
    t_equal(t_used(0), CONTEXT + 80 * T_MIB); /* the primary context and its own */
    t_cuda(cuGreenCtxDestroy(green));
    t_equal(t_used(0), CONTEXT);
    t_cuda(cuMemAlloc(&p, 1024 * T_MIB - CONTEXT - 60 * T_MIB));
    t_result(cuGreenCtxCreate(&green, desc, 0, CU_GREEN_CTX_DEFAULT_STREAM), CUDA_ERROR_OUT_OF_MEMORY);
    t_equal(t_used(0), 964 * T_MIB);
    t_cuda(cuCtxCreate(&other, NULL, 0, 0));
    t_result(cuCtxCreate(&other, NULL, 0, 0), CUDA_ERROR_OUT_OF_MEMORY);
}

static void in_child(void (*check)(void), const char *variable, const char *value)
{
    pid_t child = t_fork();

    if (child == 0) {
        if (variable)
            setenv(variable, value, 1);
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
    setenv("SOFTSIM_MODULE_BYTES", "32M", 1);
    setenv("SOFTSIM_LAZY_BYTES", "3M", 1);
    in_child(check_modules, NULL, NULL);
    in_child(check_libraries, NULL, NULL);
    in_child(check_eager, "CUDA_MODULE_LOADING", "EAGER");
    in_child(check_limits, NULL, NULL);
    setenv("SOFTSIM_FURTHER_CONTEXT_BYTES", "50M", 1);
    in_child(check_contexts, "SOFTSIM_GREEN_BYTES", "30M");
    return 0;
}
