/* SPDX-License-Identifier: Apache-2.0 */
/* Memory and contexts of the simulated driver in one process: sizes to the byte, errors as documented, bytes that really move. */
#include "helper.h"
#include <cuda.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

static uint64_t free_bytes(void)
{
    size_t f;

    t_cuda(cuMemGetInfo(&f, NULL));
    return f;
}

static CUcontext make_context(void)
{
    CUcontext ctx;
    CUdevice dev;

    t_cuda(cuInit(0));
    t_cuda(cuDeviceGet(&dev, 0));
    t_cuda(cuCtxCreate(&ctx, NULL, 0, dev));
    return ctx;
}

static void check_life(void)
{
    CUdeviceptr p = 7;
    CUcontext ctx = (CUcontext)1, other;
    CUdevice dev = 7;
    size_t total, f;
    int count;

    t_result(cuDeviceGet(&dev, 0), CUDA_ERROR_NOT_INITIALIZED);
    t_result(cuMemAlloc(&p, 1), CUDA_ERROR_NOT_INITIALIZED);
    t_result(cuInit(1), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuInit(0));
    t_cuda(cuInit(0));
    t_cuda(cuDeviceGetCount(&count));
    t_equal(count, 1);
    t_result(cuDeviceGet(&dev, 1), CUDA_ERROR_INVALID_DEVICE);
    t_result(cuMemAlloc(&p, 1), CUDA_ERROR_INVALID_CONTEXT);
    t_equal(p, 7);
    t_cuda(cuCtxGetCurrent(&ctx));
    t_check(!ctx, "a context is current before one was made");
    t_cuda(cuDeviceGet(&dev, 0));
    t_cuda(cuDeviceTotalMem(&total, dev));
    t_equal(total, T_GIB);
    t_equal(t_used(0), 0);
    t_cuda(cuDevicePrimaryCtxRetain(&ctx, dev));
    t_equal(t_used(0), 100 * T_MIB);
    t_result(cuMemGetInfo(&f, &total), CUDA_ERROR_INVALID_CONTEXT);
    t_cuda(cuCtxSetCurrent(ctx));
    t_cuda(cuMemGetInfo(NULL, NULL));
    t_cuda(cuMemGetInfo(NULL, &total));
    t_equal(total, T_GIB);
    t_equal(free_bytes(), 924 * T_MIB);
    /* A second context on the device costs nothing in this model. */
    t_cuda(cuCtxCreate(&other, NULL, 0, dev));
    t_equal(free_bytes(), 924 * T_MIB);
    t_cuda(cuMemAlloc(&p, 10 * T_MIB));
    t_cuda(cuCtxDestroy(other));
    t_equal(free_bytes(), 924 * T_MIB);
    t_result(cuCtxDestroy(other), CUDA_ERROR_CONTEXT_IS_DESTROYED);
    t_result(cuCtxDestroy((CUcontext)0x1234), CUDA_ERROR_INVALID_CONTEXT);
    t_result(cuMemFree(p), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuDevicePrimaryCtxRelease(dev));
    t_result(cuMemAlloc(&p, 1), CUDA_ERROR_CONTEXT_IS_DESTROYED);
    t_result(cuDevicePrimaryCtxRelease(dev), CUDA_ERROR_INVALID_CONTEXT);
    t_equal(t_used(0), 0);

    pid_t child = t_fork();
    if (child == 0) {
        t_result(cuInit(0), CUDA_ERROR_NOT_INITIALIZED);
        t_result(cuMemAlloc(&p, 1), CUDA_ERROR_NOT_INITIALIZED);
        exit(0);
    }
    t_join(child);
}

static void check_sizes(void)
{
    CUdeviceptr p[1024], big, untouched = 42;
    uint64_t before;
    size_t pitch, size;
    unsigned n = 0;

    make_context();
    before = free_bytes();
    t_result(cuMemAlloc(&untouched, 0), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMemAlloc(NULL, 1), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMemAlloc(&untouched, 2 * T_GIB), CUDA_ERROR_OUT_OF_MEMORY);
    t_equal(untouched, 42);
    t_equal(free_bytes(), before);

    t_cuda(cuMemAlloc(&big, 2 * T_MIB + 1));
    t_equal(before - free_bytes(), 4 * T_MIB);
    t_cuda(cuMemGetAddressRange(&p[0], &size, big + 5));
    t_equal(p[0], big);
    t_equal(size, 2 * T_MIB + 1);
    t_cuda(cuMemFree(big));
    t_result(cuMemFree(big), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMemFree(0));
    t_equal(free_bytes(), before);

    /* Small ones share granules: two of 1 MiB each, 4,096 of 512 bytes. */
    t_cuda(cuMemAlloc(&p[0], T_MIB));
    t_cuda(cuMemAlloc(&p[1], T_MIB));
    t_equal(before - free_bytes(), 2 * T_MIB);
    t_cuda(cuMemAlloc(&p[2], 1));
    t_equal(before - free_bytes(), 4 * T_MIB);
    t_cuda(cuMemAlloc(&p[3], 512));
    t_equal(before - free_bytes(), 4 * T_MIB);
    t_result(cuMemFree(p[3] + 1), CUDA_ERROR_INVALID_VALUE);
    for (unsigned i = 0; i < 4; i++)
        t_cuda(cuMemFree(p[i]));
    t_equal(free_bytes(), before);

    t_cuda(cuMemAllocPitch(&p[0], &pitch, 1000, 4096, 4));
    t_check(pitch >= 1000 && pitch % 512 == 0, "pitch is %zu", pitch);
    t_equal(before - free_bytes(), 4 * T_MIB);
    t_result(cuMemAllocPitch(&p[1], &pitch, 1000, 4096, 3), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMemFree(p[0]));

    /* To the block: 1 MiB at a time until the last byte. */
    while (n < 1024 && cuMemAlloc(&p[n], T_MIB) == CUDA_SUCCESS)
        n++;
    t_equal(n, 924);
    t_equal(free_bytes(), 0);
    while (n)
        t_cuda(cuMemFree(p[--n]));
    t_equal(free_bytes(), before);
}

static void check_copies(void)
{
    unsigned char out[64], in[64];
    CUdeviceptr p, q, managed;
    unsigned *words;
    void *pinned;

    make_context();
    for (unsigned i = 0; i < sizeof(in); i++)
        in[i] = (unsigned char)i;
    t_cuda(cuMemAlloc(&p, 4096));
    t_cuda(cuMemAlloc(&q, 64 * T_MIB));
    t_cuda(cuMemcpyHtoD(p + 100, in, 64));
    t_cuda(cuMemcpyDtoD(q + 64 * T_MIB - 64, p + 100, 64));
    t_cuda(cuMemcpyDtoH(out, q + 64 * T_MIB - 64, 64));
    t_check(memcmp(in, out, 64) == 0, "64 bytes did not survive three copies");
    t_result(cuMemcpyDtoH(out, q + 64 * T_MIB - 63, 64), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMemcpyHtoD((CUdeviceptr)(uintptr_t)out, in, 64), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMemsetD32(p, 0xdeadbeef, 4));
    t_cuda(cuMemcpy((CUdeviceptr)(uintptr_t)out, p, 16));
    words = (unsigned *)out;
    t_equal(words[3], 0xdeadbeef);
    t_result(cuMemsetD32(p + 1, 0, 1), CUDA_ERROR_INVALID_VALUE);

    t_cuda(cuMemAllocManaged(&managed, 4096, CU_MEM_ATTACH_GLOBAL));
    memset((void *)(uintptr_t)managed, 0x5a, 4096);
    t_cuda(cuMemcpyDtoH(out, managed + 4000, 1));
    t_equal(out[0], 0x5a);
    t_cuda(cuMemFree(managed));

    t_cuda(cuMemHostAlloc(&pinned, 4096, 0));
    t_cuda(cuMemcpyHtoD(p, pinned, 4096));
    t_result(cuMemFree((CUdeviceptr)(uintptr_t)pinned), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMemFreeHost(pinned));
    t_result(cuMemFreeHost(pinned), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMemHostRegister(out, sizeof(out), 0));
    t_result(cuMemHostRegister(out, sizeof(out), 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    t_cuda(cuMemHostUnregister(out));
    t_result(cuMemHostUnregister(out), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
}

static void check_arrays(void)
{
    CUDA_ARRAY_DESCRIPTOR d = {.Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 4};
    CUDA_ARRAY3D_DESCRIPTOR deferred = {
        .Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 4, .Flags = CUDA_ARRAY3D_DEFERRED_MAPPING};
    CUDA_ARRAY_MEMORY_REQUIREMENTS need;
    CUDA_MEMCPY2D c = {.srcMemoryType = CU_MEMORYTYPE_HOST, .dstMemoryType = CU_MEMORYTYPE_ARRAY, .WidthInBytes = 8, .Height = 2};
    unsigned char in[16] = "abcdefghijklmno", out[8];
    uint64_t before;
    CUarray a, twin;

    make_context();
    before = free_bytes();
    t_cuda(cuArrayCreate(&a, &d));
    t_equal(before - free_bytes(), 16 * T_MIB);
    t_result(cuArrayGetMemoryRequirements(&need, a, 0), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuArray3DCreate(&twin, &deferred));
    t_equal(before - free_bytes(), 16 * T_MIB);
    t_cuda(cuArrayGetMemoryRequirements(&need, twin, 0));
    t_equal(need.size, 16 * T_MIB);
    c.srcHost = in;
    c.dstArray = a;
    c.dstXInBytes = 16;
    c.dstY = 5;
    t_cuda(cuMemcpy2D(&c));
    c = (CUDA_MEMCPY2D){.srcMemoryType = CU_MEMORYTYPE_ARRAY,
                        .srcArray = a,
                        .srcXInBytes = 16,
                        .srcY = 6,
                        .dstMemoryType = CU_MEMORYTYPE_HOST,
                        .dstHost = out,
                        .WidthInBytes = 8,
                        .Height = 1};
    t_cuda(cuMemcpy2D(&c));
    t_check(memcmp(out, in + 8, 8) == 0, "the second row came back as %.8s", out);
    t_cuda(cuArrayDestroy(a));
    t_cuda(cuArrayDestroy(twin));
    t_equal(free_bytes(), before);
}

/* The first ABI answers only to contexts of the first ABI, and with addresses of 32 bits. */
static void check_v1(void)
{
    int (*alloc_v1)(unsigned *, unsigned) = (int (*)(unsigned *, unsigned))t_real("cuMemAlloc");
    int (*free_v1)(unsigned) = (int (*)(unsigned))t_real("cuMemFree");
    int (*create_v1)(CUcontext *, unsigned, CUdevice) = (int (*)(CUcontext *, unsigned, CUdevice))t_real("cuCtxCreate");
    CUcontext ctx;
    unsigned p = 0;

    make_context();
    t_result(alloc_v1(&p, 4096), CUDA_ERROR_INVALID_CONTEXT);
    t_cuda(create_v1(&ctx, 0, 0));
    t_cuda(alloc_v1(&p, 4096));
    t_check(p, "a null address");
    t_cuda(free_v1(p));
    t_result(free_v1(p), CUDA_ERROR_INVALID_VALUE);
}

static void check_failures(void)
{
    CUdeviceptr p;

    make_context();
    t_cuda(cuMemAlloc(&p, 1));
    t_result(cuMemAlloc(&p, 1), CUDA_ERROR_ILLEGAL_ADDRESS);
    t_cuda(cuMemAlloc(&p, 1));
    t_cuda(cuCtxSynchronize());
    t_result(cuCtxSynchronize(), CUDA_ERROR_UNKNOWN);
    t_result(cuCtxSynchronize(), CUDA_ERROR_UNKNOWN);
}

static bool returned; /* the call that hangs */

static void *hang(void *context)
{
    CUdeviceptr p;

    t_cuda(cuCtxSetCurrent(context));
    t_cuda(cuMemAlloc(&p, 1));
    __atomic_store_n(&returned, true, __ATOMIC_SEQ_CST);
    return NULL;
}

/* One call hangs, with nothing done and no lock held: all others pass, of the same function too. */
static void check_hang(void)
{
    const char *path = strchr(getenv("SOFTSIM_BLOCK"), ':') + 1;
    CUcontext context = make_context();
    uint64_t left = free_bytes();
    struct stat about = {.st_size = 0};
    pthread_t thread;
    CUdeviceptr p;

    t_cuda(cuMemAlloc(&p, 1));
    t_cuda(cuMemFree(p));
    close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    t_equal(pthread_create(&thread, NULL, hang, context), 0);
    while (!about.st_size) {
        t_equal(stat(path, &about), 0);
        usleep(1000);
    }
    t_equal(free_bytes(), left);
    t_cuda(cuMemAlloc(&p, 1));
    t_cuda(cuMemFree(p));
    t_cuda(cuCtxSynchronize());
    usleep(20000);
    t_check(!__atomic_load_n(&returned, __ATOMIC_SEQ_CST), "a call did not hang");
    t_equal(unlink(path), 0);
    t_equal(pthread_join(thread, NULL), 0);
    t_check(free_bytes() < left, "a call that hung did nothing");
}

/* A green context is on top of the primary one, and what is allocated in it goes with it. */
static void check_green(void)
{
    CUdevResource all, half[2];
    CUdevResourceDesc desc;
    unsigned groups = 2;
    CUcontext ctx;
    CUgreenCtx green;
    CUdeviceptr p;

    t_cuda(cuInit(0));
    t_cuda(cuDeviceGetDevResource(0, &all, CU_DEV_RESOURCE_TYPE_SM));
    t_cuda(cuDevSmResourceSplitByCount(half, &groups, &all, NULL, 0, all.sm.smCount / 2));
    t_check(groups >= 1 && half[0].sm.smCount >= all.sm.smCount / 2, "%u SMs of %u", half[0].sm.smCount, all.sm.smCount);
    t_cuda(cuDevResourceGenerateDesc(&desc, &half[0], 1));
    t_cuda(cuGreenCtxCreate(&green, desc, 0, CU_GREEN_CTX_DEFAULT_STREAM));
    t_equal(t_used(0), 100 * T_MIB);
    t_cuda(cuCtxFromGreenCtx(&ctx, green));
    t_result(cuCtxDestroy(ctx), CUDA_ERROR_INVALID_CONTEXT);
    t_cuda(cuCtxSetCurrent(ctx));
    t_cuda(cuMemAlloc(&p, 4 * T_MIB));
    t_equal(t_used(0), 104 * T_MIB);
    t_cuda(cuGreenCtxDestroy(green));
    t_result(cuGreenCtxDestroy(green), CUDA_ERROR_INVALID_CONTEXT);
    t_result(cuMemAlloc(&p, 4 * T_MIB), CUDA_ERROR_CONTEXT_IS_DESTROYED);
    t_equal(t_used(0), 0);
}

static void late(void)
{
    int count;

    if (cuDeviceGetCount(&count) != CUDA_ERROR_DEINITIALIZED)
        _exit(1);
}

/* Handlers registered before cuInit run after the driver's. */
static void check_exit(void)
{
    atexit(late);
    make_context();
    exit(0);
}

static void check_visible(void)
{
    CUdevice dev;
    char bus[32];
    int count;

    t_cuda(cuInit(0));
    t_cuda(cuDeviceGetCount(&count));
    t_equal(count, 2);
    t_cuda(cuDeviceGet(&dev, 0));
    t_cuda(cuDeviceGetPCIBusId(bus, sizeof(bus), dev));
    t_check(strcmp(bus, "0000:03:00.0") == 0, "device 0 is %s", bus);
}

static void check_hidden(void)
{
    t_result(cuInit(0), CUDA_ERROR_NO_DEVICE);
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
    in_child(check_life, NULL, NULL);
    in_child(check_sizes, NULL, NULL);
    in_child(check_copies, NULL, NULL);
    in_child(check_arrays, NULL, NULL);
    in_child(check_v1, NULL, NULL);
    in_child(check_failures, "SOFTSIM_FAIL", "cuMemAlloc_v2:2:700,cuCtxSynchronize:2+:999");
    char hanging[4096];
    snprintf(hanging, sizeof(hanging), "cuMemAlloc_v2:%s/hang", getenv("TEST_TMP"));
    in_child(check_hang, "SOFTSIM_BLOCK", hanging);
    in_child(check_green, NULL, NULL);
    in_child(check_exit, NULL, NULL);
    setenv("SOFTSIM_GPUS", "4", 1);
    in_child(check_visible, "CUDA_VISIBLE_DEVICES", "2,0");
    in_child(check_hidden, "CUDA_VISIBLE_DEVICES", "");
    in_child(check_hidden, "CUDA_VISIBLE_DEVICES", "1,1");
    return 0;
}
