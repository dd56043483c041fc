/* SPDX-License-Identifier: Apache-2.0 */
/* What every probe of a real driver shares; see probe.h. */
#include "probe.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct probe_driver cu;
struct probe_nvml nv;
void *probe_libcuda, *probe_libnvml;

static const char *probe_name = "probe";
static char pci_bus_id[32];

static const char kernels[] = ".version 7.0\n.target sm_75\n.address_size 64\n"
                              ".visible .entry empty() { ret; }\n"
                              ".visible .entry spin(.param .u64 ns) {\n"
                              " .reg .u64 %s, %n, %t; .reg .pred %p;\n"
                              " ld.param.u64 %n, [ns]; mov.u64 %s, %globaltimer;\n"
                              "again: mov.u64 %t, %globaltimer; sub.u64 %t, %t, %s; setp.lt.u64 %p, %t, %n;\n"
                              " @%p bra again; ret; }\n"
                              /* 16 KiB of local memory a thread: the context has to grow before this can run. */
                              ".visible .entry deep(.param .u64 out, .param .u64 i) {\n"
                              " .local .align 4 .b8 frame[16384];\n"
                              " .reg .u64 %o, %i, %a, %b; .reg .u32 %v;\n"
                              " ld.param.u64 %o, [out]; ld.param.u64 %i, [i]; mov.u64 %a, frame; add.u64 %b, %a, %i;\n"
                              " mov.u32 %v, 1; st.local.u32 [%b], %v; ld.local.u32 %v, [%a+16380]; st.global.u32 [%o], %v;\n"
                              " ret; }\n";

void probe_row(const char *key, const char *fmt, ...)
{
    va_list ap;

    printf("%s\t%s\t", probe_name, key);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
}

static void skip(const char *why)
{
    probe_row("skipped", "%s", why);
    exit(77);
}

static void *find(const char *env, const char *name)
{
    const char *path = getenv(env);

    return dlopen(path && *path ? path : name, RTLD_NOW | RTLD_LOCAL);
}

void probe_open(const char *probe)
{
    probe_name = probe;
    probe_libcuda = find("PROBE_LIBCUDA", "libcuda.so.1");
    if (!probe_libcuda)
        skip(dlerror());
#define X(name) cu.name = (__typeof__(&(name)))dlsym(probe_libcuda, #name);
    PROBE_DRIVER(X)
#undef X
    probe_libnvml = find("PROBE_LIBNVML", "libnvidia-ml.so.1");
    if (!probe_libnvml) {
        probe_row("nvml", "missing: %s", dlerror());
        return;
    }
#define NV(field, name) nv.field = (__typeof__(nv.field))dlsym(probe_libnvml, name)
    NV(init, "nvmlInit_v2");
    NV(driver_version, "nvmlSystemGetDriverVersion");
    NV(by_pci, "nvmlDeviceGetHandleByPciBusId_v2");
    NV(memory, "nvmlDeviceGetMemoryInfo");
    NV(memory_v2, "nvmlDeviceGetMemoryInfo_v2");
    NV(processes_v1, "nvmlDeviceGetComputeRunningProcesses");
    NV(processes_v2, "nvmlDeviceGetComputeRunningProcesses_v2");
    NV(processes_v3, "nvmlDeviceGetComputeRunningProcesses_v3");
#undef NV
}

const char *probe_result(CUresult res)
{
    const char *name = NULL;
    static __thread char number[16];

    if (cu.cuGetErrorName && cu.cuGetErrorName(res, &name) == CUDA_SUCCESS && name)
        return name;
    snprintf(number, sizeof(number), "%d", (int)res);
    return number;
}

CUdevice probe_device(void)
{
    CUdevice dev = 0;
    CUresult res = cu.cuInit(0);

    if (res == CUDA_SUCCESS)
        res = cu.cuDeviceGet(&dev, 0);
    if (res == CUDA_SUCCESS)
        res = cu.cuDeviceGetPCIBusId(pci_bus_id, sizeof(pci_bus_id), dev);
    if (res != CUDA_SUCCESS)
        skip(probe_result(res));
    return dev;
}

CUcontext probe_context(CUdevice dev)
{
    CUcontext ctx = NULL;
    CUresult res = cu.cuDevicePrimaryCtxRetain(&ctx, dev);

    if (res == CUDA_SUCCESS)
        res = cu.cuCtxSetCurrent(ctx);
    if (res != CUDA_SUCCESS)
        skip(probe_result(res));
    return ctx;
}

static CUresult load_cubin(CUmodule *mod)
{
    const char *path = getenv("PROBE_CUBIN");
    FILE *f = path ? fopen(path, "rb") : NULL;
    static char image[1 << 20];

    if (!f)
        return CUDA_ERROR_FILE_NOT_FOUND;
    size_t n = fread(image, 1, sizeof(image), f);
    fclose(f);
    return n ? cu.cuModuleLoadData(mod, image) : CUDA_ERROR_INVALID_IMAGE;
}

CUmodule probe_module(void)
{
    CUmodule mod = NULL;
    CUresult res = cu.cuModuleLoadData(&mod, kernels);

    if (res == CUDA_SUCCESS)
        return mod;
    probe_row("module_from_ptx", "%s", probe_result(res));
    res = load_cubin(&mod);
    if (res == CUDA_SUCCESS)
        return mod;
    probe_row("module_from_cubin", "%s", probe_result(res));
    return NULL;
}

CUfunction probe_kernel(CUmodule mod, const char *name)
{
    CUfunction fn = NULL;

    if (!mod || cu.cuModuleGetFunction(&fn, mod, name) != CUDA_SUCCESS)
        return NULL;
    return fn;
}

CUresult probe_spin(CUfunction spin, CUstream stream, uint64_t ns)
{
    void *params[] = {&ns};

    if (!spin)
        return CUDA_ERROR_NOT_FOUND;
    return cu.cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, stream, params, NULL);
}

nvml_device probe_nvml_device(void)
{
    static nvml_device dev;
    static pid_t owner;

    /* A forked child must not use its parent's session. */
    if (dev && owner == getpid())
        return dev;
    dev = NULL;
    if (!nv.init || !nv.by_pci || nv.init() != 0 || nv.by_pci(pci_bus_id, &dev) != 0)
        return NULL;
    owner = getpid();
    return dev;
}

uint64_t probe_device_used(void)
{
    nvml_device dev = probe_nvml_device();
    struct nvml_memory m;

    if (!dev || !nv.memory || nv.memory(dev, &m) != 0)
        return PROBE_UNKNOWN;
    return m.used;
}

uint64_t probe_process_used(pid_t pid)
{
    nvml_device dev = probe_nvml_device();
    struct nvml_process_v2 p[256];
    unsigned int n = 256;

    if (!dev || !nv.processes_v3 || nv.processes_v3(dev, &n, p) != 0)
        return PROBE_UNKNOWN;
    for (unsigned int i = 0; i < n; i++) {
        if (p[i].pid == (unsigned int)pid)
            return p[i].used;
    }
    return PROBE_UNKNOWN;
}

uint64_t probe_free(void)
{
    size_t free_bytes = 0, total = 0;

    if (cu.cuMemGetInfo_v2(&free_bytes, &total) != CUDA_SUCCESS)
        return PROBE_UNKNOWN;
    return free_bytes;
}

uint64_t probe_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

uint64_t probe_median(uint64_t *v, size_t n)
{
    if (!n)
        return 0;
    qsort(v, n, sizeof(*v), by_value);
    return v[n / 2];
}

void probe_die_with_parent(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

void probe_fork(const char *key, void (*fn)(void *), void *arg)
{
    int status = 0;

    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        probe_die_with_parent();
        fn(arg);
        fflush(stdout);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        probe_row(key, "fork failed");
        return;
    }
    if (WIFSIGNALED(status))
        probe_row(key, "killed by signal %d", WTERMSIG(status));
    else if (WEXITSTATUS(status))
        probe_row(key, "exit status %d", WEXITSTATUS(status));
}
