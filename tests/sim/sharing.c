/* SPDX-License-Identifier: Apache-2.0 */
/* Pools, physical memory by handles, and memory that several processes hold. */
#include "helper.h"
#include <cuda.h>
#include <fcntl.h>

static void use_gpu(void)
{
    CUcontext ctx;

    t_cuda(cuInit(0));
    t_cuda(cuCtxCreate(&ctx, NULL, 0, 0));
}

static uint64_t pool_value(CUmemoryPool pool, CUmemPool_attribute which)
{
    cuuint64_t value;

    t_cuda(cuMemPoolGetAttribute(pool, which, &value));
    return value;
}

#define RESERVED(pool) pool_value(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)
#define USED(pool)     pool_value(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT)

static void check_pools(void)
{
    CUmemPoolProps props = {
        .allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}, .maxSize = 64 * T_MIB};
    cuuint64_t keep = UINT64_MAX, zero = 0, one = 1;
    CUmemoryPool pool, own, current;
    CUdeviceptr p, q = 9;
    CUstream s;

    use_gpu();
    t_cuda(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    t_cuda(cuDeviceGetDefaultMemPool(&pool, 0));
    t_cuda(cuMemAllocAsync(&p, 1000, s));
    t_equal(RESERVED(pool), 32 * T_MIB);
    t_equal(USED(pool), 1024);
    t_equal(t_used(0), 132 * T_MIB);
    t_cuda(cuMemFreeAsync(p, s));
    t_result(cuMemFreeAsync(p, s), CUDA_ERROR_INVALID_VALUE);
    t_equal(USED(pool), 0);
    t_equal(RESERVED(pool), 32 * T_MIB); /* given back at the next synchronisation */
    t_cuda(cuStreamSynchronize(s));
    t_equal(RESERVED(pool), 0);
    t_equal(t_used(0), 100 * T_MIB);

    t_cuda(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &keep));
    t_cuda(cuMemAllocAsync(&p, 100 * T_MIB, s));
    t_equal(RESERVED(pool), 128 * T_MIB);
    t_cuda(cuMemFree(p));
    t_cuda(cuStreamSynchronize(s));
    t_equal(RESERVED(pool), 128 * T_MIB);
    t_cuda(cuMemPoolTrimTo(pool, 64 * T_MIB));
    t_equal(t_used(0), 164 * T_MIB);
    t_equal(pool_value(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH), 128 * T_MIB);
    t_result(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH, &one), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH, &zero));
    t_equal(pool_value(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH), 64 * T_MIB);
    t_cuda(cuMemPoolTrimTo(pool, 0));
    t_result(cuMemAllocAsync(&q, 2 * T_GIB, s), CUDA_ERROR_OUT_OF_MEMORY);
    t_result(cuMemAllocAsync(&q, 0, s), CUDA_ERROR_INVALID_VALUE);
    t_equal(q, 9);
    t_equal(t_used(0), 100 * T_MIB);

    t_cuda(cuMemPoolCreate(&own, &props));
    t_cuda(cuDeviceSetMemPool(0, own));
    t_cuda(cuMemAllocAsync(&p, 40 * T_MIB, s));
    t_equal(RESERVED(own), 64 * T_MIB);
    t_result(cuMemAllocAsync(&q, 40 * T_MIB, s), CUDA_ERROR_OUT_OF_MEMORY);
    t_result(cuMemPoolDestroy(pool), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMemPoolDestroy(own));
    t_result(cuMemPoolTrimTo(own, 0), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuDeviceGetMemPool(&current, 0));
    t_check(current == pool, "the default pool is not current again");
    t_equal(t_used(0), 140 * T_MIB); /* until its last allocation is freed */
    t_cuda(cuMemFreeAsync(p, s));
    t_equal(t_used(0), 100 * T_MIB);
}

static const CUmemAllocationProp device_memory = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                                  .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                                  .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
static const CUmemAccessDesc access_desc = {{CU_MEM_LOCATION_TYPE_DEVICE, 0}, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};

static void check_handles(void)
{
    CUmemGenericAllocationHandle h, again, second;
    CUmemAllocationProp host = device_memory;
    CUdeviceptr va;
    size_t g;
    unsigned value = 0;

    use_gpu();
    t_cuda(cuMemGetAllocationGranularity(&g, &device_memory, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    t_equal(g, 2 * T_MIB);
    t_result(cuMemCreate(&h, g + 1, &device_memory, 0), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMemCreate(&h, 2 * T_GIB, &device_memory, 0), CUDA_ERROR_OUT_OF_MEMORY);
    t_cuda(cuMemCreate(&h, 4 * g, &device_memory, 0));
    t_cuda(cuMemCreate(&second, 2 * g, &device_memory, 0));
    t_equal(t_used(0), 100 * T_MIB + 6 * g);
    t_cuda(cuMemAddressReserve(&va, 8 * g, 0, 0, 0));
    t_equal(t_used(0), 100 * T_MIB + 6 * g);
    t_result(cuMemMap(va, 2 * g, 0, h, 0), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMemMap(va, 4 * g, 0, h, 0));
    t_result(cuMemMap(va + g, 2 * g, 0, second, 0), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMemMap(va + 4 * g, 2 * g, 0, second, 0));
    t_result(cuMemsetD32(va, 6, 1), CUDA_ERROR_INVALID_VALUE); /* no access yet */
    t_cuda(cuMemSetAccess(va, 6 * g, &access_desc, 1));
    t_cuda(cuMemsetD32(va + 4 * g - 4, 6, 2)); /* over both mappings */
    t_cuda(cuMemcpyDtoH(&value, va + 4 * g, 4));
    t_equal(value, 6);
    t_cuda(cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)(va + 5)));
    t_check(again == h, "another handle for the same memory");
    t_cuda(cuMemRelease(h));
    t_cuda(cuMemRelease(again));
    t_result(cuMemRelease(h), CUDA_ERROR_INVALID_VALUE);
    t_equal(t_used(0), 100 * T_MIB + 6 * g); /* still mapped */
    t_result(cuMemAddressFree(va, 8 * g), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMemUnmap(va, 2 * g), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMemFree(va), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMemUnmap(va, 6 * g));
    t_equal(t_used(0), 100 * T_MIB + 2 * g);
    t_cuda(cuMemRelease(second));
    t_equal(t_used(0), 100 * T_MIB);
    t_cuda(cuMemAddressFree(va, 8 * g));
    host.location.type = CU_MEM_LOCATION_TYPE_HOST;
    t_cuda(cuMemCreate(&h, 4 * g, &host, 0));
    t_equal(t_used(0), 100 * T_MIB);
    t_cuda(cuMemRelease(h));
}

/* The importer of exported memory: finds the bytes, and keeps the memory when the exporter is killed. */
static void check_export(void)
{
    CUmemGenericAllocationHandle h;
    CUipcMemHandle ipc;
    CUdeviceptr va, p, q;
    int ready[2], fd;
    unsigned value = 0;
    pid_t child;

    t_check(pipe(ready) == 0, "pipe: %s", strerror(errno));
    child = t_fork();
    if (child == 0) {
        use_gpu();
        t_cuda(cuMemCreate(&h, 20 * T_MIB, &device_memory, 0));
        t_cuda(cuMemAddressReserve(&va, 20 * T_MIB, 0, 0, 0));
        t_cuda(cuMemMap(va, 20 * T_MIB, 0, h, 0));
        t_cuda(cuMemSetAccess(va, 20 * T_MIB, &access_desc, 1));
        t_cuda(cuMemsetD32(va, 1234, 4));
        t_cuda(cuMemExportToShareableHandle(&fd, h, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
        t_cuda(cuMemAlloc(&p, 10 * T_MIB));
        t_cuda(cuMemsetD32(p, 4321, 4));
        t_cuda(cuIpcGetMemHandle(&ipc, p));
        t_result(cuIpcOpenMemHandle(&q, ipc, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS), CUDA_ERROR_INVALID_CONTEXT);
        t_equal(t_used(0), 130 * T_MIB);
        if (write(ready[1], &fd, sizeof(fd)) != sizeof(fd) || write(ready[1], &ipc, sizeof(ipc)) != sizeof(ipc))
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    t_check(read(ready[0], &fd, sizeof(fd)) == sizeof(fd), "the exporter said nothing");
    t_check(read(ready[0], &ipc, sizeof(ipc)) == sizeof(ipc), "the exporter made no IPC handle");
    {
        char path[64];

        snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)child, fd);
        fd = open(path, O_RDWR);
    }
    t_check(fd >= 0, "the exported descriptor cannot be opened: %s", strerror(errno));
    use_gpu();
    t_equal(t_used(0), 230 * T_MIB);
    t_cuda(cuMemImportFromShareableHandle(&h, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
    close(fd);
    t_cuda(cuMemAddressReserve(&va, 20 * T_MIB, 0, 0, 0));
    t_cuda(cuMemMap(va, 20 * T_MIB, 0, h, 0));
    t_cuda(cuMemSetAccess(va, 20 * T_MIB, &access_desc, 1));
    t_cuda(cuMemcpyDtoH(&value, va + 4, 4));
    t_equal(value, 1234);
    t_cuda(cuIpcOpenMemHandle(&q, ipc, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    t_cuda(cuMemcpyDtoH(&value, q + 4, 4));
    t_equal(value, 4321);
    t_result(cuMemFree(q), CUDA_ERROR_INVALID_VALUE);
    t_equal(t_used(0), 230 * T_MIB);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    for (uint64_t until = t_now_ms() + 10000; t_used(0) != 130 * T_MIB;)
        t_check(t_now_ms() < until, "%llu bytes are used after the exporter's death", (unsigned long long)t_used(0));
    t_cuda(cuMemcpyDtoH(&value, q + 4, 4));
    t_equal(value, 4321);
    t_cuda(cuIpcCloseMemHandle(q));
    t_equal(t_used(0), 120 * T_MIB);
    t_cuda(cuMemUnmap(va, 20 * T_MIB));
    t_cuda(cuMemRelease(h));
    t_equal(t_used(0), 100 * T_MIB);
}

/* A pool and an allocation of it in another process: the bytes are there, the HBM is the exporter's. */
static void check_pool_export(void)
{
    CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                            .handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                            .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
    CUmemGenericAllocationHandle h;
    CUmemPoolPtrExportData data;
    CUmemoryPool pool;
    CUdeviceptr p, q;
    char path[64];
    int ready[2], go[2], fd;
    unsigned value = 0;
    pid_t child;

    t_check(pipe(ready) == 0 && pipe(go) == 0, "pipe: %s", strerror(errno));
    child = t_fork();
    if (child == 0) {
        close(go[1]);
        use_gpu();
        t_cuda(cuDeviceGetDefaultMemPool(&pool, 0));
        t_result(cuMemPoolExportToShareableHandle(&fd, pool, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0),
                 CUDA_ERROR_INVALID_VALUE);
        t_cuda(cuMemPoolCreate(&pool, &props));
        t_cuda(cuMemAllocFromPoolAsync(&p, 10 * T_MIB, pool, NULL));
        t_cuda(cuMemsetD32(p, 77, 4));
        t_result(cuMemPoolExportPointer(&data, p), CUDA_ERROR_INVALID_VALUE); /* the pool is not exported yet */
        t_cuda(cuMemPoolExportToShareableHandle(&fd, pool, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
        t_cuda(cuMemPoolExportPointer(&data, p));
        t_equal(t_used(0), 132 * T_MIB);
        if (write(ready[1], &fd, sizeof(fd)) != sizeof(fd) || write(ready[1], &data, sizeof(data)) != sizeof(data))
            _exit(1);
        if (read(go[0], &fd, 1) != 0)
            _exit(1);
        t_cuda(cuMemcpyDtoH(&value, p, 4));
        t_equal(value, 88);
        t_cuda(cuMemFreeAsync(p, NULL));
        t_cuda(cuMemPoolDestroy(pool));
        t_equal(t_used(0), 200 * T_MIB);
        fflush(stdout);
        _exit(0);
    }
    close(ready[1]);
    close(go[0]);
    t_check(read(ready[0], &fd, sizeof(fd)) == sizeof(fd), "the exporter said nothing");
    t_check(read(ready[0], &data, sizeof(data)) == sizeof(data), "the exporter exported no pointer");
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)child, fd);
    fd = open(path, O_RDWR);
    t_check(fd >= 0, "the exported descriptor cannot be opened: %s", strerror(errno));
    use_gpu();
    t_result(cuMemImportFromShareableHandle(&h, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR),
             CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMemPoolImportFromShareableHandle(&pool, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    close(fd);
    t_result(cuMemAllocFromPoolAsync(&p, T_MIB, pool, NULL), CUDA_ERROR_INVALID_VALUE);
    t_result(cuDeviceSetMemPool(0, pool), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMemPoolImportPointer(&q, pool, &data));
    t_equal(t_used(0), 232 * T_MIB);
    t_equal(RESERVED(pool), 0);
    t_cuda(cuMemcpyDtoH(&value, q + 4, 4));
    t_equal(value, 77);
    t_cuda(cuMemsetD32(q, 88, 1));
    t_cuda(cuMemFreeAsync(q, NULL));
    t_result(cuMemFree(q), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMemPoolDestroy(pool));
    close(go[1]);
    t_join(child);
}

/* Memory imported as external: the descriptor is the driver's then, a buffer outlives the handle, nothing is counted twice. */
static void check_external(void)
{
    CUDA_EXTERNAL_MEMORY_HANDLE_DESC desc = {.type = CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD, .size = 20 * T_MIB};
    CUDA_EXTERNAL_MEMORY_BUFFER_DESC part = {.offset = 4 * T_MIB, .size = 4 * T_MIB};
    CUDA_EXTERNAL_MEMORY_MIPMAPPED_ARRAY_DESC image = {
        .arrayDesc = {.Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_UNSIGNED_INT8, .NumChannels = 4}, .numLevels = 3};
    CUmemGenericAllocationHandle h;
    CUmipmappedArray mipmap;
    CUexternalMemory e;
    CUdeviceptr va, p;
    unsigned value = 0;
    int fd;

    use_gpu();
    t_cuda(cuMemCreate(&h, 20 * T_MIB, &device_memory, 0));
    t_cuda(cuMemAddressReserve(&va, 20 * T_MIB, 0, 0, 0));
    t_cuda(cuMemMap(va, 20 * T_MIB, 0, h, 0));
    t_cuda(cuMemSetAccess(va, 20 * T_MIB, &access_desc, 1));
    t_cuda(cuMemExportToShareableHandle(&fd, h, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    desc.handle.fd = fd;
    desc.size++;
    t_result(cuImportExternalMemory(&e, &desc), CUDA_ERROR_INVALID_VALUE);
    desc.size--;
    t_check(fcntl(fd, F_GETFD) >= 0, "a refused import closed the descriptor");
    t_cuda(cuImportExternalMemory(&e, &desc));
    t_check(fcntl(fd, F_GETFD) < 0, "the descriptor is still open after its import");
    part.size = 17 * T_MIB;
    t_result(cuExternalMemoryGetMappedBuffer(&p, e, &part), CUDA_ERROR_INVALID_VALUE);
    part.size = 4 * T_MIB;
    t_cuda(cuExternalMemoryGetMappedBuffer(&p, e, &part));
    t_cuda(cuExternalMemoryGetMappedMipmappedArray(&mipmap, e, &image));
    t_equal(t_used(0), 120 * T_MIB);
    t_cuda(cuMemsetD32(va + 4 * T_MIB, 99, 1));
    t_cuda(cuMemcpyDtoH(&value, p, 4));
    t_equal(value, 99);
    t_cuda(cuDestroyExternalMemory(e));
    t_result(cuDestroyExternalMemory(e), CUDA_ERROR_INVALID_HANDLE);
    t_cuda(cuMemUnmap(va, 20 * T_MIB));
    t_cuda(cuMemRelease(h));
    t_equal(t_used(0), 120 * T_MIB);
    t_cuda(cuMemFree(p));
    t_equal(t_used(0), 120 * T_MIB);
    t_cuda(cuMipmappedArrayDestroy(mipmap));
    t_equal(t_used(0), 100 * T_MIB);
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
    in_child(check_pools);
    in_child(check_handles);
    in_child(check_export);
    in_child(check_pool_export);
    in_child(check_external);
    return 0;
}
