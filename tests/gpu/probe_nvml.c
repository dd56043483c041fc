/* SPDX-License-Identifier: Apache-2.0 */
/* What NVML says of processes and memory: whether a process's memory is known at all, whose process
 * ids are listed inside and outside a PID namespace, how the two memory calls differ, and how long
 * after an allocation the figures follow. */
#include "probe.h"

#include <dlfcn.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

static void processes(const char *key)
{
    nvml_device dev = probe_nvml_device();
    struct nvml_process_v1 p1[64];
    struct nvml_process_v2 p2[64];
    unsigned int n = 64;
    char name[96];

    if (!dev) {
        probe_row(key, "no NVML device");
        return;
    }
    snprintf(name, sizeof(name), "%s.own_pid", key);
    probe_row(name, "%d", (int)getpid());
    if (nv.processes_v1) {
        int rc = nv.processes_v1(dev, &n, p1);
        snprintf(name, sizeof(name), "%s.list_v1", key);
        probe_row(name, "result %d, %u processes", rc, rc ? 0 : n);
        for (unsigned int i = 0; !rc && i < n; i++)
            probe_row(name, "pid %u used %llu", p1[i].pid, p1[i].used);
    }
    for (int v = 2; v <= 3; v++) {
        __typeof__(nv.processes_v2) list = v == 2 ? nv.processes_v2 : nv.processes_v3;

        snprintf(name, sizeof(name), "%s.list_v%d", key, v);
        if (!list) {
            probe_row(name, "missing");
            continue;
        }
        n = 64;
        int rc = list(dev, &n, p2);
        probe_row(name, "result %d, %u processes", rc, rc ? 0 : n);
        for (unsigned int i = 0; !rc && i < n; i++)
            probe_row(name, "pid %u used %llu gi %u ci %u", p2[i].pid, p2[i].used, p2[i].gpu_instance, p2[i].compute_instance);
    }
}

static void memory(const char *key)
{
    nvml_device dev = probe_nvml_device();
    struct nvml_memory m = {0, 0, 0};
    struct nvml_memory_v2 m2;
    size_t f = 0, t = 0, total = 0;
    char name[96];

    if (!dev)
        return;
    memset(&m2, 0, sizeof(m2));
    m2.version = (unsigned int)(sizeof(m2) | (2u << 24));
    int rc1 = nv.memory ? nv.memory(dev, &m) : -1;
    int rc2 = nv.memory_v2 ? nv.memory_v2(dev, &m2) : -1;
    cu.cuMemGetInfo_v2(&f, &t);
    cu.cuDeviceTotalMem_v2(&total, 0);
    snprintf(name, sizeof(name), "%s.v1", key);
    probe_row(name, "result %d total %llu free %llu used %llu", rc1, m.total, m.free, m.used);
    snprintf(name, sizeof(name), "%s.v2", key);
    probe_row(name, "result %d total %llu reserved %llu free %llu used %llu", rc2, m2.total, m2.reserved, m2.free, m2.used);
    snprintf(name, sizeof(name), "%s.driver", key);
    probe_row(name, "cuMemGetInfo free %zu total %zu cuDeviceTotalMem %zu", f, t, total);
    if (nv.memory_v2) {
        m2.version = 0;
        rc2 = nv.memory_v2(dev, &m2);
        snprintf(name, sizeof(name), "%s.v2_without_version", key);
        probe_row(name, "result %d", rc2);
    }
}

/* Polls until NVML shows what was just allocated, or freed. */
static void refresh(void *arg)
{
    CUdeviceptr p;

    (void)arg;
    probe_context(probe_device());
    if (probe_process_used(getpid()) == PROBE_UNKNOWN)
        probe_row("refresh.process", "this process's memory is unknown");
    if (probe_device_used() == PROBE_UNKNOWN)
        return;
    for (int round = 0; round < 5; round++) {
        uint64_t before = probe_process_used(getpid()), dev_before = probe_device_used();
        uint64_t t0 = probe_ns(), own = before == PROBE_UNKNOWN, dev = 0;

        cu.cuMemAlloc_v2(&p, GIB);
        uint64_t t1 = probe_ns();
        while (probe_ns() - t1 < 3000000000u && (!own || !dev)) {
            if (!own && probe_process_used(getpid()) != before)
                own = probe_ns();
            if (!dev && probe_device_used() != dev_before)
                dev = probe_ns();
        }
        probe_row("refresh.after_alloc_ns", "alloc took %llu, process figure after %lld, device after %lld",
                  (unsigned long long)(t1 - t0), own > 1 ? (long long)(own - t1) : -1ll, dev ? (long long)(dev - t1) : -1ll);
        cu.cuMemFree_v2(p);
    }
}

static void in_namespace(int report, int go, int own_proc)
{
    char byte = 0;
    const char *key = own_proc ? "pid_namespace.own_proc" : "pid_namespace";

    probe_die_with_parent();
    if (own_proc && mount("proc", "/proc", "proc", 0, NULL) != 0)
        probe_row(key, "cannot mount /proc: %s", strerror(errno));
    probe_context(probe_device());
    CUdeviceptr p;
    cu.cuMemAlloc_v2(&p, 512 * MIB);
    processes(key);
    if (write(report, &byte, 1) != 1 || read(go, &byte, 1) < 0)
        _exit(1);
    _exit(0);
}

/* Enters a new PID namespace by a child: a process that has unshared it can start no threads. */
static void doorman(int own_proc, int report, int go)
{
    int status;

    probe_die_with_parent();
    if (unshare(CLONE_NEWPID | (own_proc ? CLONE_NEWNS : 0)) != 0) {
        probe_row("pid_namespace", "not permitted: %s", strerror(errno));
        _exit(0);
    }
    if (own_proc && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        probe_row("pid_namespace", "cannot make mounts private: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0)
        in_namespace(report, go, own_proc);
    close(report);
    probe_row("pid_namespace.child_seen_from_outside", "%d", (int)pid);
    waitpid(pid, &status, 0);
    _exit(0);
}

/* A process in a new PID namespace and one outside both list the GPU's processes. */
static void namespaces(void *arg)
{
    int own_proc = arg != NULL, up[2], down[2];
    char byte;

    if (pipe(up) || pipe(down))
        return;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        close(down[1]);
        doorman(own_proc, up[1], down[0]);
    }
    close(up[1]);
    if (read(up[0], &byte, 1) == 1) {
        probe_context(probe_device());
        processes(own_proc ? "pid_namespace.own_proc.outside" : "pid_namespace.outside");
    }
    close(down[1]);
    waitpid(pid, NULL, 0);
}

static void plain(void *arg)
{
    char version[96] = "";
    CUdeviceptr p;

    (void)arg;
    probe_context(probe_device());
    if (probe_nvml_device() && nv.driver_version && nv.driver_version(version, sizeof(version)) == 0)
        probe_row("driver", "%s", version);
    memory("memory.context_only");
    cu.cuMemAlloc_v2(&p, GIB);
    memory("memory.with_1GiB");
    processes("plain");
    static const char *const names[] = {"nvmlDeviceGetRunningProcessDetailList", "nvmlDeviceGetProcessUtilization",
                                        "nvmlDeviceGetProcessesUtilizationInfo", "nvmlDeviceGetMemoryLimits_v1",
                                        "nvmlDeviceSetMemoryLimits_v1"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        probe_row("exports", "%s %s", names[i], probe_libnvml && dlsym(probe_libnvml, names[i]) ? "yes" : "no");
}

int main(void)
{
    static char yes;

    probe_open("nvml");
    probe_fork("plain", plain, NULL);
    probe_fork("refresh", refresh, NULL);
    probe_fork("pid_namespace", namespaces, NULL);
    probe_fork("pid_namespace.own_proc", namespaces, &yes);
    return 0;
}
