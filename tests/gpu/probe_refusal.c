/* SPDX-License-Identifier: Apache-2.0 */
/* What the driver answers to requests that it refuses, what it leaves in their outputs, and whether
 * anything sticks afterwards; NULL outputs, the 32-bit entry points, and a forked child. */
#include "probe.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SENTINEL 0x5eed5eed5eed5eedull

static void alloc_row(const char *key, size_t size)
{
    CUdeviceptr p = SENTINEL;
    CUresult res = cu.cuMemAlloc_v2(&p, size);

    probe_row(key, "%s output %s", probe_result(res), p == SENTINEL ? "untouched" : p ? "written" : "zeroed");
    if (res == CUDA_SUCCESS)
        cu.cuMemFree_v2(p);
}

/* Calls that a program can make too early, and what stays in their outputs. */
static void too_early(const char *stage)
{
    CUdeviceptr p = SENTINEL;
    size_t a = SENTINEL, b = SENTINEL;
    CUcontext ctx = (CUcontext)SENTINEL;
    CUdevice dev = 0x5eed;
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    char key[64];
#define EARLY(name, call, output)                                                                                                  \
    do {                                                                                                                           \
        CUresult res = (call);                                                                                                     \
        snprintf(key, sizeof(key), "%s.%s", stage, name);                                                                          \
        probe_row(key, "%s output 0x%llx", probe_result(res), (unsigned long long)(output));                                       \
    } while (0)
    EARLY("cuMemAlloc", cu.cuMemAlloc_v2(&p, MIB), p);
    EARLY("cuMemAlloc_null", cu.cuMemAlloc_v2(NULL, MIB), 0);
    p = SENTINEL;
    EARLY("cuMemAlloc_zero", cu.cuMemAlloc_v2(&p, 0), p);
    p = SENTINEL;
    EARLY("cuMemAllocManaged", cu.cuMemAllocManaged(&p, MIB, CU_MEM_ATTACH_GLOBAL), p);
    p = SENTINEL;
    EARLY("cuMemAllocPitch", cu.cuMemAllocPitch_v2(&p, &a, 100, 10, 4), p);
    EARLY("cuMemAllocPitch_pitch", cu.cuMemAllocPitch_v2(&p, &a, 100, 10, 4), a);
    EARLY("cuMemFree", cu.cuMemFree_v2(0x1000), 0);
    EARLY("cuMemFree_zero", cu.cuMemFree_v2(0), 0);
    a = SENTINEL;
    EARLY("cuMemGetInfo_free", cu.cuMemGetInfo_v2(&a, &b), a);
    EARLY("cuMemGetInfo_total", cu.cuMemGetInfo_v2(&a, &b), b);
    EARLY("cuMemGetInfo_null", cu.cuMemGetInfo_v2(NULL, NULL), 0);
    EARLY("cuCtxGetCurrent", cu.cuCtxGetCurrent(&ctx), (uintptr_t)ctx);
    EARLY("cuCtxGetDevice", cu.cuCtxGetDevice(&dev), dev);
    EARLY("cuCtxSetCurrent_null", cu.cuCtxSetCurrent(NULL), 0);
    EARLY("cuDeviceGet", cu.cuDeviceGet(&dev, 0), dev);
    EARLY("cuDeviceGet_99", cu.cuDeviceGet(&dev, 99), dev);
    a = SENTINEL;
    EARLY("cuDeviceTotalMem", cu.cuDeviceTotalMem_v2(&a, 0), a);
    ctx = (CUcontext)SENTINEL;
    EARLY("cuDevicePrimaryCtxRetain_99", cu.cuDevicePrimaryCtxRetain(&ctx, 99), (uintptr_t)ctx);
    EARLY("cuThreadExchangeStreamCaptureMode", cu.cuThreadExchangeStreamCaptureMode(&mode), mode);
#undef EARLY
}

static void early(void *arg)
{
    (void)arg;
    too_early("before_init");
    CUresult res = cu.cuInit(0);
    probe_row("init", "%s", probe_result(res));
    probe_row("init_bad_flags", "%s", probe_result(cu.cuInit(1)));
    too_early(res == CUDA_SUCCESS ? "without_context" : "after_failed_init");
}

static void null_info(void *arg)
{
    int which = *(int *)arg;
    size_t free_bytes = 1, total = 1;

    probe_context(probe_device());
    CUresult res = cu.cuMemGetInfo_v2(which & 1 ? NULL : &free_bytes, which & 2 ? NULL : &total);
    probe_row("null_output.cuMemGetInfo_v2", "%s%s: %s free %zu total %zu", which & 1 ? "free NULL " : "",
              which & 2 ? "total NULL" : "", probe_result(res), free_bytes, total);
}

static void null_other(void *arg)
{
    int which = *(int *)arg;
    CUdevice dev = probe_device();
    size_t pitch = 1;
    CUdeviceptr p;

    probe_context(dev);
    if (which == 0)
        probe_row("null_output.cuMemAlloc_v2", "%s", probe_result(cu.cuMemAlloc_v2(NULL, MIB)));
    if (which == 1)
        probe_row("null_output.cuDeviceTotalMem_v2", "%s", probe_result(cu.cuDeviceTotalMem_v2(NULL, dev)));
    if (which == 2)
        probe_row("null_output.cuMemAllocPitch_v2", "pointer NULL: %s",
                  probe_result(cu.cuMemAllocPitch_v2(NULL, &pitch, 100, 10, 4)));
    if (which == 3)
        probe_row("null_output.cuMemAllocPitch_v2", "pitch NULL: %s", probe_result(cu.cuMemAllocPitch_v2(&p, NULL, 100, 10, 4)));
    if (which == 4 && probe_nvml_device() && nv.memory)
        probe_row("null_output.nvmlDeviceGetMemoryInfo", "%d", nv.memory(probe_nvml_device(), NULL));
    if (which == 5)
        probe_row("null_output.cuMemAllocManaged", "%s", probe_result(cu.cuMemAllocManaged(NULL, MIB, CU_MEM_ATTACH_GLOBAL)));
}

static void old_abi(void *arg)
{
    unsigned int f = 7, t = 7;
    CUdevice dev = probe_device();
    CUdeviceptr_v1 p = 7;

    (void)arg;
    probe_row("v1.cuDeviceTotalMem", "%s %u", probe_result(cu.cuDeviceTotalMem(&t, dev)), t);
    t = 7;
    probe_context(dev);
    probe_row("v1.cuMemGetInfo", "%s free %u total %u", probe_result(cu.cuMemGetInfo(&f, &t)), f, t);
    probe_row("v1.cuMemAlloc", "%s %u", probe_result(cu.cuMemAlloc(&p, 4096)), p);
}

static void too_large(void *arg)
{
    CUdevice dev = probe_device();
    size_t total = 0, pitch = SENTINEL;
    CUdeviceptr p = SENTINEL;

    (void)arg;
    probe_context(dev);
    cu.cuDeviceTotalMem_v2(&total, dev);
    probe_row("total", "%zu", total);
    alloc_row("alloc.zero", 0);
    alloc_row("alloc.all_ones", SIZE_MAX);
    alloc_row("alloc.2_to_63", (size_t)1 << 63);
    alloc_row("alloc.2_to_48", (size_t)1 << 48);
    alloc_row("alloc.total_plus_1", total + 1);
    alloc_row("alloc.total", total);
    alloc_row("alloc.free_plus_2MiB", probe_free() + 2 * MIB);
    alloc_row("alloc.after", MIB);
    CUresult res = cu.cuMemAllocPitch_v2(&p, &pitch, (size_t)1 << 40, (size_t)1 << 10, 4);
    probe_row("pitch.too_large", "%s pointer %s pitch %s", probe_result(res), p == SENTINEL ? "untouched" : "written",
              pitch == SENTINEL ? "untouched" : "written");
    res = cu.cuMemAllocPitch_v2(&p, &pitch, 100, 10, 3);
    probe_row("pitch.element_3", "%s", probe_result(res));
    res = cu.cuMemAllocPitch_v2(&p, &pitch, 0, 10, 4);
    probe_row("pitch.width_0", "%s", probe_result(res));
    p = SENTINEL;
    res = cu.cuMemAllocManaged(&p, 0, CU_MEM_ATTACH_GLOBAL);
    probe_row("managed.zero", "%s", probe_result(res));
    res = cu.cuMemAllocManaged(&p, MIB, 99);
    probe_row("managed.bad_flags", "%s output %s", probe_result(res), p == SENTINEL ? "untouched" : "written");
}

static void bad_free(void *arg)
{
    CUdeviceptr p = 0;

    (void)arg;
    probe_context(probe_device());
    probe_row("free.zero", "%s", probe_result(cu.cuMemFree_v2(0)));
    probe_row("free.garbage", "%s", probe_result(cu.cuMemFree_v2(0x123456789000ull)));
    cu.cuMemAlloc_v2(&p, 4 * MIB);
    probe_row("free.middle", "%s", probe_result(cu.cuMemFree_v2(p + MIB)));
    probe_row("free.once", "%s", probe_result(cu.cuMemFree_v2(p)));
    probe_row("free.twice", "%s", probe_result(cu.cuMemFree_v2(p)));
    alloc_row("free.alloc_after", MIB);
}

/* Fills the GPU in big blocks, then in small ones, until it refuses; then gives all back. */
static void fill(void *arg)
{
    static CUdeviceptr big[4096], little[4096];
    unsigned int nbig = 0, nlittle = 0;
    CUresult res = CUDA_SUCCESS;

    (void)arg;
    probe_context(probe_device());
    uint64_t start = probe_free();
    while (nbig < 4096 && (res = cu.cuMemAlloc_v2(&big[nbig], 256 * MIB)) == CUDA_SUCCESS)
        nbig++;
    probe_row("fill.256MiB", "%u blocks then %s, free %llu", nbig, probe_result(res), (unsigned long long)probe_free());
    while (nlittle < 4096 && (res = cu.cuMemAlloc_v2(&little[nlittle], 2 * MIB)) == CUDA_SUCCESS)
        nlittle++;
    probe_row("fill.2MiB", "%u blocks then %s, free %llu", nlittle, probe_result(res), (unsigned long long)probe_free());
    unsigned int n = 0;
    static CUdeviceptr tiny[4096];
    while (n < 4096 && (res = cu.cuMemAlloc_v2(&tiny[n], 4 * KIB)) == CUDA_SUCCESS)
        n++;
    probe_row("fill.4KiB", "%u blocks then %s, free %llu", n, probe_result(res), (unsigned long long)probe_free());
    probe_row("fill.granted", "%llu of %llu free at the start", (unsigned long long)(nbig * 256 * MIB + nlittle * 2 * MIB),
              (unsigned long long)start);
    CUmodule mod = probe_module();
    CUfunction empty = probe_kernel(mod, "empty");
    if (empty)
        res = cu.cuLaunchKernel(empty, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
    probe_row("fill.module_and_launch", "%s %s", mod ? "loaded" : "not loaded", probe_result(res));
    while (n)
        cu.cuMemFree_v2(tiny[--n]);
    while (nlittle)
        cu.cuMemFree_v2(little[--nlittle]);
    while (nbig)
        cu.cuMemFree_v2(big[--nbig]);
    probe_row("fill.after", "free %llu, synchronize %s", (unsigned long long)probe_free(), probe_result(cu.cuCtxSynchronize()));
    alloc_row("fill.alloc_after", 256 * MIB);
}

static void forked_child(void *arg)
{
    CUcontext ctx = (CUcontext)SENTINEL;

    (void)arg;
    probe_context(probe_device());
    alloc_row("fork.parent_before", MIB);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        alloc_row("fork.child_alloc", MIB);
        probe_row("fork.child_current", "%s %s", probe_result(cu.cuCtxGetCurrent(&ctx)),
                  ctx == (CUcontext)SENTINEL ? "untouched"
                  : ctx                      ? "a context"
                                             : "none");
        probe_row("fork.child_free_reading", "%llx", (unsigned long long)probe_free());
        probe_row("fork.child_init", "%s", probe_result(cu.cuInit(0)));
        alloc_row("fork.child_alloc_after_init", MIB);
        fflush(stdout);
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    probe_row("fork.child_status", "0x%x", status);
    alloc_row("fork.parent_after", MIB);
}

int main(void)
{
    probe_open("refusal");
    probe_fork("early", early, NULL);
    for (int i = 1; i < 4; i++)
        probe_fork("null_output.cuMemGetInfo_v2", null_info, &i);
    for (int i = 0; i < 6; i++)
        probe_fork("null_output.other", null_other, &i);
    probe_fork("v1", old_abi, NULL);
    probe_fork("too_large", too_large, NULL);
    probe_fork("bad_free", bad_free, NULL);
    probe_fork("fill", fill, NULL);
    probe_fork("fork", forked_child, NULL);
    return 0;
}
