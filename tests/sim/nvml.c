/* SPDX-License-Identifier: Apache-2.0 */
/* What NVML says of processes where it says less than one would like: foreign ids, no bytes, MPS clients, nothing at all. */
#include "helper.h"
#include <cuda.h>
#include <sched.h>

#define NOT_AVAILABLE ~0ULL

struct process {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
};

static CUdeviceptr use_gpu(void)
{
    CUcontext ctx;
    CUdeviceptr p;

    t_cuda(cuInit(0));
    t_cuda(cuCtxCreate(&ctx, NULL, 0, 0));
    t_cuda(cuMemAlloc(&p, 10 * T_MIB));
    return p;
}

/* The only process of a list; false: the list is empty. */
static bool only(const char *list, struct process *out)
{
    struct process found[4];
    unsigned count = 4;

    t_result(((int (*)(void *, unsigned *, struct process *))t_real_nvml(list))(t_nvml_device(0), &count, found), 0);
    t_check(count <= 1, "%s has %u processes", list, count);
    if (count)
        *out = found[0];
    return count;
}

static void check_foreign(void)
{
    struct process p;

    use_gpu();
    t_check(only("nvmlDeviceGetComputeRunningProcesses_v3", &p), "this process is not listed");
    t_equal(p.pid, getpid() + 10000000);
    t_equal(p.used, 110 * T_MIB);
}

static void check_shifted(void)
{
    struct process p;

    use_gpu();
    t_check(only("nvmlDeviceGetComputeRunningProcesses_v3", &p), "this process is not listed");
    t_equal(p.pid, getpid() + 1);
}

static void check_no_bytes(void)
{
    struct process p;

    use_gpu();
    t_check(only("nvmlDeviceGetComputeRunningProcesses_v3", &p), "this process is not listed");
    t_equal(p.pid, getpid());
    t_equal(p.used, NOT_AVAILABLE);
    t_equal(t_used(0), 110 * T_MIB);
}

/* A client of MPS is in its own list; its limit is what it can have and what it sees as free, not the total. */
static void check_mps(void)
{
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
    CUmemGenericAllocationHandle h;
    CUdeviceptr q;
    struct process p;
    size_t f, total;

    use_gpu();
    t_check(!only("nvmlDeviceGetComputeRunningProcesses_v3", &p), "an MPS client is listed as a compute process");
    t_check(!only("nvmlDeviceGetGraphicsRunningProcesses_v3", &p), "an MPS client is listed as a graphics process");
    t_check(only("nvmlDeviceGetMPSComputeRunningProcesses_v3", &p), "this process is not listed as a client");
    t_equal(p.pid, getpid());
    t_equal(p.used, 110 * T_MIB);
    t_cuda(cuMemGetInfo(&f, &total));
    t_equal(f, 90 * T_MIB);
    t_equal(total, T_GIB);
    t_result(cuMemAlloc(&q, 92 * T_MIB), CUDA_ERROR_OUT_OF_MEMORY);
    t_result(cuMemCreate(&h, 92 * T_MIB, &prop, 0), CUDA_ERROR_OUT_OF_MEMORY);
    t_cuda(cuMemAlloc(&q, 90 * T_MIB));
    t_cuda(cuMemGetInfo(&f, &total));
    t_equal(f, 0);
    t_cuda(cuMemFree(q));
}

static int init(void)
{
    return ((int (*)(void))t_real_nvml("nvmlInit_v2"))();
}

static void check_absent(void)
{
    size_t f;

    use_gpu();
    t_result(init(), 9);
    t_result(((int (*)(unsigned *))t_real_nvml("nvmlDeviceGetCount_v2"))(NULL), 1);
    t_cuda(cuMemGetInfo(&f, NULL));
    t_equal(f, 914 * T_MIB);
}

static void check_failures(void)
{
    unsigned count;

    t_result(init(), 999);
    t_result(init(), 0);
    t_result(((int (*)(unsigned *))t_real_nvml("nvmlDeviceGetCount_v2"))(&count), 0);
    t_result(((int (*)(unsigned *))t_real_nvml("nvmlDeviceGetCount_v2"))(&count), 15);
    t_result(((int (*)(unsigned *))t_real_nvml("nvmlDeviceGetCount_v2"))(&count), 15);
}

static void check_limits(void)
{
    struct {
        const char *cgroup;
        unsigned long long soft, hard, used;
    } l = {"/", 1, 1, 1};
    int (*get)(void *, void *) = (int (*)(void *, void *))t_real_nvml("nvmlDeviceGetMemoryLimits_v1");

    use_gpu();
    t_result(get(t_nvml_device(0), &l), 0);
    t_equal(l.soft, 0);
    t_equal(l.hard, ~0ULL);
    t_equal(l.used, 110 * T_MIB);
    setenv("SOFTSIM_MEMORY_LIMITS", "100M:1G", 1);
    t_result(get(t_nvml_device(0), &l), 0);
    t_equal(l.soft, 100 * T_MIB);
    t_equal(l.hard, T_GIB);
    l.cgroup = "/nowhere/at/all";
    t_result(get(t_nvml_device(0), &l), 6);
}

static void inner_process(int ready, int go)
{
    struct process p;
    char byte;

    use_gpu();
    t_check(only("nvmlDeviceGetComputeRunningProcesses_v3", &p), "this process is not listed");
    t_equal(p.pid, 1);
    t_equal(p.used, 110 * T_MIB);
    t_check(write(ready, "", 1) == 1, "write");
    t_check(read(go, &byte, 1) == 1, "read");
    t_check(only("nvmlDeviceGetComputeRunningProcesses_v3", &p), "the inner process does not see itself beside the outer one");
    t_equal(p.pid, 1);
    t_equal(t_used(0), 220 * T_MIB);
    _exit(0);
}

/* A PID namespace inside this one: who looks sees those whom the kernel shows, by ids of its own. */
static void check_inner(void)
{
    int ready[2], go[2], told[2];
    struct process found[4];
    unsigned count = 4;
    pid_t inner = 0;
    char byte;

    t_check(pipe(ready) == 0 && pipe(go) == 0 && pipe(told) == 0, "pipe");
    pid_t middle = t_fork();
    if (middle == 0) {
        if (unshare(CLONE_NEWPID) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWPID) < 0) {
            printf("no PID namespace can be made here: %s\n", strerror(errno));
            fflush(stdout);
            _exit(0);
        }
        inner = t_fork();
        if (inner == 0)
            inner_process(ready[1], go[0]);
        t_check(write(told[1], &inner, sizeof(inner)) == sizeof(inner), "write");
        t_join(inner);
        _exit(0);
    }
    close(ready[1]);
    close(told[1]);
    if (read(told[0], &inner, sizeof(inner)) == 0) {
        t_join(middle);
        return;
    }
    t_check(read(ready[0], &byte, 1) == 1, "read");
    t_check(only("nvmlDeviceGetComputeRunningProcesses_v3", &found[0]), "the inner process is not listed");
    t_equal(found[0].pid, inner);
    use_gpu();
    t_result(((int (*)(void *, unsigned *, struct process *))t_real_nvml("nvmlDeviceGetComputeRunningProcesses_v3"))(
                 t_nvml_device(0), &count, found),
             0);
    t_equal(count, 2);
    t_equal(found[0].pid, inner);
    t_equal(found[1].pid, getpid());
    t_check(write(go[1], "", 1) == 1, "write");
    t_join(middle);
}

static void in_child(void (*check)(void), const char *variable, const char *value)
{
    pid_t child = t_fork();

    if (child == 0) {
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
    in_child(check_foreign, "SOFTSIM_NVML_PIDS", "host");
    in_child(check_inner, "SOFTSIM_NVML_PIDS", "");
    in_child(check_shifted, "SOFTSIM_NVML_PIDS", "host:1");
    in_child(check_no_bytes, "SOFTSIM_NVML_PIDS", "none");
    in_child(check_absent, "SOFTSIM_NVML", "absent");
    in_child(check_failures, "SOFTSIM_FAIL", "nvmlInit_v2:1:999,nvmlDeviceGetCount_v2:2+:15");
    in_child(check_limits, "SOFTSIM_DRIVER_VERSION", "13040");
    setenv("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "0=200M", 1);
    in_child(check_mps, "SOFTSIM_MPS", "1");
    return 0;
}
