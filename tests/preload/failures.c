/* SPDX-License-Identifier: Apache-2.0 */
/* Where the driver itself fails, the program gets the driver's error and the charge is as before: given back for what was not taken, kept for
 * what was not freed. */
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_FAIL=cuMemAlloc_v2:2:2,cuMemAlloc_v2:3:719,cuMemAlloc_v2:4:999 -- alloc
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_FAIL=cuMemFree_v2:1:719,cuMemFree_v2:2:1 -- free
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_FAIL=cuMemAllocPitch_v2:1:2,cuMemAllocManaged:1:801 -- others
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_FAIL=cuCtxCreate_v4:1:2,cuCtxCreate_v4:2:304,cuCtxDestroy_v2:1:719 -- context
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_FAIL=cuDevicePrimaryCtxRetain:1:2,cuDevicePrimaryCtxRelease_v2:1:999 -- primary
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_FAIL=cuInit:1:100,cuInit:2:3 -- init
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_MEM=500M -- physical
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_FAIL=cuDeviceGetUuid_v2:1+:999 -- devices
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_GPUS=2 SOFTSIM_FAIL=cuDeviceTotalMem_v2:2+:101 -- devices
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSLICE_ON_ERROR=open SOFTSLICE_STATE_DIR=$TMP/late -- late
#include <sys/stat.h>

#include "../cuda_helper.h"

static uint64_t limit, cost;

static void holds(uint64_t bytes)
{
    t_equal(t_used(0), bytes);
    t_equal(t_free(), limit - bytes);
}

static CUdeviceptr fails(size_t size, CUresult expected)
{
    CUdeviceptr p = T_UNTOUCHED;
    CUresult result = cuMemAlloc(&p, size);

    t_result(result, expected);
    t_check(p == T_UNTOUCHED, "a failing cuMemAlloc wrote its output");
    return p;
}

static void alloc(void)
{
    t_context(0);
    CUdeviceptr p = t_alloc(10 * T_MIB);
    t_check(p, "refused");
    fails(10 * T_MIB, CUDA_ERROR_OUT_OF_MEMORY);
    holds(cost + 10 * T_MIB);
    fails(4096, CUDA_ERROR_LAUNCH_FAILED);
    holds(cost + 10 * T_MIB);
    fails(10 * T_MIB, CUDA_ERROR_UNKNOWN);
    holds(cost + 10 * T_MIB);
    t_check(t_alloc(limit - cost - 10 * T_MIB), "what failed was not given back");
}

static void release(void)
{
    t_context(0);
    CUdeviceptr p = t_alloc(10 * T_MIB), q = t_alloc(T_MIB);
    t_result(cuMemFree(p), CUDA_ERROR_LAUNCH_FAILED);
    t_result(cuMemFree(q), CUDA_ERROR_INVALID_VALUE);
    holds(cost + 12 * T_MIB);
    t_cuda(cuMemFree(p));
    t_cuda(cuMemFree(q));
    holds(cost);
}

static void others(void)
{
    CUdeviceptr p = T_UNTOUCHED;
    size_t pitch = 77;

    t_context(0);
    t_result(cuMemAllocPitch(&p, &pitch, 1000, 4096, 4), CUDA_ERROR_OUT_OF_MEMORY);
    t_result(cuMemAllocManaged(&p, T_MIB, CU_MEM_ATTACH_GLOBAL), CUDA_ERROR_NOT_SUPPORTED);
    t_check(p == T_UNTOUCHED && pitch == 77, "a failing call wrote its output");
    holds(cost);
    t_cuda(cuMemAllocPitch(&p, &pitch, 1000, 4096, 4));
    t_cuda(cuMemFree(p));
    holds(cost);
}

static void context(void)
{
    CUcontext c = (CUcontext)0x77;

    t_cuda(cuInit(0));
    t_result(cuCtxCreate(&c, NULL, 0, 0), CUDA_ERROR_OUT_OF_MEMORY);
    t_result(cuCtxCreate(&c, NULL, 0, 0), CUDA_ERROR_OPERATING_SYSTEM);
    t_check(c == (CUcontext)0x77, "a failing cuCtxCreate wrote its output");
    t_cuda(cuCtxCreate(&c, NULL, 0, 0));
    t_check(t_alloc(10 * T_MIB), "refused");
    t_result(cuCtxDestroy(c), CUDA_ERROR_LAUNCH_FAILED);
    t_cuda(cuCtxSetCurrent(c));
    holds(cost + 10 * T_MIB);
    t_cuda(cuCtxDestroy(c));
    t_cuda(cuCtxCreate(&c, NULL, 0, 0));
    holds(cost);
}

static void primary(void)
{
    CUcontext c;

    t_cuda(cuInit(0));
    t_result(cuDevicePrimaryCtxRetain(&c, 0), CUDA_ERROR_OUT_OF_MEMORY);
    t_cuda(cuDevicePrimaryCtxRetain(&c, 0));
    t_cuda(cuCtxSetCurrent(c));
    t_check(t_alloc(10 * T_MIB), "refused");
    t_result(cuDevicePrimaryCtxRelease(0), CUDA_ERROR_UNKNOWN);
    holds(cost + 10 * T_MIB);
    t_cuda(cuDevicePrimaryCtxRelease(0));
    t_equal(t_used(0), 0);
    t_context(0);
    holds(cost);
}

static void init(void)
{
    t_result(cuInit(0), CUDA_ERROR_NO_DEVICE);
    t_result(cuInit(0), CUDA_ERROR_NOT_INITIALIZED);
    t_result(cuInit(1), CUDA_ERROR_INVALID_VALUE);
    t_context(0);
    holds(cost);
}

/* The GPU is smaller than the budget: its own refusals, and the smaller figure is told. */
static void physical(void)
{
    t_context(0);
    limit = t_physical(0);
    t_equal(t_total(), limit);
    holds(cost);
    uint64_t blocks = 0;
    while (t_alloc(2 * T_MIB))
        blocks++;
    t_equal(blocks, (limit - cost) / (2 * T_MIB));
    holds(t_used(0));
}

/* A driver that has devices and does not say which is no reason to run without limits. */
static void devices(void)
{
    CUcontext c = (CUcontext)0x77;

    t_result(cuInit(0), CUDA_ERROR_OPERATING_SYSTEM);
    t_result(cuCtxCreate(&c, NULL, 0, 0), CUDA_ERROR_OPERATING_SYSTEM);
    t_check(c == (CUcontext)0x77, "a failing cuCtxCreate wrote its output");
    t_equal(t_used(0), 0);
}

/* The state directory comes too late: who went on without limits does not fall under them half-way. */
static void late(void)
{
    t_context(0);
    t_check(t_alloc(T_GIB), "refused, though without limits");
    t_check(mkdir(getenv("SOFTSLICE_STATE_DIR"), 0700) == 0, "mkdir: %s", strerror(errno));
    t_check(t_alloc(T_GIB), "refused, though without limits");
    t_equal(t_total(), t_physical(0));
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } parts[] = {{"alloc", alloc}, {"free", release},      {"others", others},   {"context", context}, {"primary", primary},
                 {"init", init},   {"physical", physical}, {"devices", devices}, {"late", late}};

    limit = t_bytes("SOFTSLICE_VRAM", 0);
    cost = t_bytes("SOFTSIM_CONTEXT_BYTES", 0);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (argc > 1 && strcmp(parts[i].name, argv[1]) == 0) {
            parts[i].run();
            return 0;
        }
    t_fail("what is to fail?");
}
