/* SPDX-License-Identifier: Apache-2.0 */
/* What a memory pool holds is charged, cached bytes included: at rest the budget's story is the GPU's, nothing is granted beyond it, and a pool
 * that keeps what nobody uses gives it back before anybody is refused. */
// run: SOFTSLICE_VRAM=1GiB
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_POOL_CHUNK=2097152
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_POOL_CHUNK=134217728
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_GRANULARITY=64K
// run: SOFTSLICE_VRAM=777MiB SOFTSIM_CONTEXT_BYTES=300M
#include "../pool_helper.h"

#define MOST 100000

static CUdeviceptr block[MOST];
static CUstream stream;

/* Blocks until one is refused; the pool then has no more than a chunk left in the budget. */
static size_t fill(CUmemoryPool pool, size_t size)
{
    size_t count = 0;

    while (count < MOST && (block[count] = t_draw(pool, size, stream)))
        count++;
    t_check(count > 0 && count < MOST, "%zu blocks of %zu bytes were granted", count, size);
    t_at_rest(0);
    return count;
}

static void empty(size_t count)
{
    for (size_t i = 0; i < count; i++)
        t_cuda(cuMemFreeAsync(block[i], stream));
}

/* From a pool that gives back at once. */
static void fills(CUmemoryPool pool)
{
    static const size_t sizes[] = {70000, 300000, 5000000, 64 << 20};
    uint64_t before = t_used(0);

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        size_t count = fill(pool, sizes[i]);
        uint64_t most = t_chunk() > 32 * T_MIB ? t_chunk() : 32 * T_MIB, left = t_total() - t_used(0);

        t_check(left < most + sizes[i], "%llu bytes were left when %zu were refused", (unsigned long long)left, sizes[i]);
        empty(count);
        t_cuda(cuStreamSynchronize(stream));
        t_at_rest(0);
        t_equal(t_used(0), before);
    }
}

/* From one that keeps everything: it is asked for it when a plain allocation, a context or another pool wants room. */
static void gives_back(CUmemoryPool pool)
{
    CUmemoryPool other = t_pool(0);
    uint64_t before = t_used(0);
    size_t half = (t_total() - before) / 2 / T_MIB * T_MIB;

    t_keep_all(pool);
    size_t count = fill(pool, 5000000);
    empty(count);
    t_cuda(cuStreamSynchronize(stream));
    t_at_rest(0);
    t_check(t_reserved(pool) > half, "the pool keeps %llu bytes only", (unsigned long long)t_reserved(pool));

    CUdeviceptr pointer = t_alloc(half);
    t_check(pointer, "a plain allocation was refused while a pool kept unused memory");
    t_at_rest(0);
    t_cuda(cuMemFree(pointer));

    count = fill(pool, 5000000);
    empty(count);
    t_cuda(cuStreamSynchronize(stream));
    pointer = t_alloc(1000);
    t_check(pointer, "a small allocation was refused while a pool kept unused memory");
    t_at_rest(0);
    t_cuda(cuMemFree(pointer));

    count = fill(pool, 5000000);
    empty(count);
    t_cuda(cuStreamSynchronize(stream));
    t_keep_all(other);
    pointer = t_draw(other, half, stream);
    t_check(pointer, "a pool was refused while another kept unused memory");
    t_at_rest(0);

    /* What is in use is nobody's to give. */
    t_check(!t_alloc(t_total() - before - half + T_MIB), "a block beyond the budget was granted");
    t_cuda(cuMemFreeAsync(pointer, stream));
    t_cuda(cuStreamSynchronize(stream));
    t_cuda(cuMemPoolDestroy(other));
    t_cuda(cuMemPoolTrimTo(pool, 0));
    t_at_rest(0);
    t_equal(t_used(0), before);
}

/* A caching pool has room of its own when the budget has none, and need not be emptied for that. */
static void own_room(CUmemoryPool pool)
{
    t_keep_all(pool);
    size_t count = fill(pool, 1 << 20);
    uint64_t before = t_reserved(pool);

    empty(count);
    t_cuda(cuStreamSynchronize(stream));
    for (size_t i = 0; i < count; i++)
        t_check((block[i] = t_draw(pool, 1 << 20, stream)),
                "the pool has room for %zu blocks of which the budget refuses number %zu", count, i);
    t_equal(t_reserved(pool), before);
    t_at_rest(0);
    empty(count);
    t_cuda(cuStreamSynchronize(stream));
    t_cuda(cuMemPoolTrimTo(pool, 0));
    t_at_rest(0);
}

/* A destroyed pool's memory is charged until its last block is gone, and then not any more. */
static void destroyed(void)
{
    uint64_t before = t_used(0), left = t_total() - before;
    CUmemoryPool pool = t_pool(0);

    t_keep_all(pool);
    CUdeviceptr a = t_draw(pool, 40 << 20, stream), b = t_draw(pool, 100 << 20, stream), c = t_draw(pool, 1000, stream);
    t_check(a && b && c, "blocks that fit were refused");
    t_cuda(cuMemFreeAsync(a, stream));
    t_cuda(cuStreamSynchronize(stream));
    t_cuda(cuMemPoolDestroy(pool));
    t_at_rest(0);
    t_check(t_used(0) >= before + (100 << 20), "the blocks are gone with their pool");
    t_check(!t_alloc(left), "a block was granted that a destroyed pool still uses");
    t_cuda(cuMemFree(b)); /* by the plain function */
    t_check(t_free() < left, "a destroyed pool gave its charge back before its last block");
    t_cuda(cuMemFreeAsync(c, stream));
    t_cuda(cuStreamSynchronize(stream));
    t_at_rest(0);
    t_equal(t_used(0), before);

    /* Its address is used again. */
    for (int i = 0; i < 50; i++) {
        pool = t_pool(0);
        a = t_draw(pool, 40 << 20, stream);
        t_check(a, "pool number %d was refused its block", i);
        t_at_rest(0);
        t_cuda(cuMemFreeAsync(a, stream));
        t_cuda(cuStreamSynchronize(stream));
        t_cuda(cuMemPoolDestroy(pool));
        t_at_rest(0);
    }
    t_equal(t_used(0), before);
}

/* A driver that takes larger chunks than was thought is seen only when it has done so: then that is undone if the budget has no room for it. The
 * first thing that a process does, for it knows afterwards. */
static void surprised(void)
{
    uint64_t leave = 50 * T_MIB;
    CUdeviceptr plain = t_alloc(t_free() - leave), drawn = t_draw(NULL, T_MIB, stream);

    t_check(plain, "a block that fits was refused");
    t_check(!drawn == (t_chunk() > leave), "a block was %s although the driver takes %llu bytes for it",
            drawn ? "granted" : "refused", (unsigned long long)t_chunk());
    t_cuda(cuStreamSynchronize(stream));
    t_at_rest(0);
    if (drawn)
        t_cuda(cuMemFreeAsync(drawn, stream));
    t_cuda(cuMemFree(plain));
    t_cuda(cuStreamSynchronize(stream));
    t_at_rest(0);
}

/* Errors are the driver's own and change nothing. */
static void errors(void)
{
    CUmemoryPool pool = NULL, standard;
    CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_INVALID};
    CUdeviceptr pointer = T_UNTOUCHED;
    uint64_t before = t_free();

    t_result(cuMemAllocAsync(NULL, 1000, stream), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMemAllocAsync(&pointer, 0, stream), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMemAllocFromPoolAsync(&pointer, 1000, NULL, stream), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMemFreeAsync(0, stream), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMemFreeAsync(0x1234, stream), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMemPoolCreate(&pool, &props), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMemPoolDestroy(NULL), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuDeviceGetDefaultMemPool(&standard, 0));
    t_result(cuMemPoolDestroy(standard), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMemAllocAsync(&pointer, (size_t)1 << 60, stream), CUDA_ERROR_OUT_OF_MEMORY);
    t_result(cuMemAllocAsync(&pointer, SIZE_MAX, stream), CUDA_ERROR_OUT_OF_MEMORY);
    t_equal(pointer, T_UNTOUCHED);
    t_equal(t_free(), before);

    /* A block that a failed free leaves is still known, and one that was freed is not. */
    pointer = t_draw(NULL, 1000, stream);
    t_cuda(cuMemFreeAsync(pointer, stream));
    t_cuda(cuStreamSynchronize(stream));
    t_result(cuMemFreeAsync(pointer, stream), CUDA_ERROR_INVALID_VALUE);
    t_at_rest(0);
}

/* A plain block may be freed in a stream. */
static void plain_in_stream(void)
{
    uint64_t before = t_free();
    CUdeviceptr pointer = t_alloc(10 << 20);

    t_cuda(cuMemFreeAsync(pointer, stream));
    t_cuda(cuStreamSynchronize(stream));
    t_equal(t_free(), before);
    t_at_rest(0);
}

/* A pool may hold no more than its creator said, whatever it is. */
static void bounded(void)
{
    CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                            .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0},
                            .maxSize = 64 << 20};
    CUmemoryPool pool;
    CUdeviceptr pointer;

    t_cuda(cuMemPoolCreate(&pool, &props));
    t_check((pointer = t_draw(pool, 60 << 20, stream)), "a pool was refused what fits");
    t_check(!t_draw(pool, 60 << 20, stream), "a pool exceeds its size");
    t_at_rest(0);
    t_cuda(cuMemFreeAsync(pointer, stream));
    t_cuda(cuMemPoolDestroy(pool));
    t_cuda(cuStreamSynchronize(stream));
    t_at_rest(0);
}

/* Memory on the host is not the GPU's. */
static void on_host(void)
{
    CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {.type = CU_MEM_LOCATION_TYPE_HOST_NUMA}};
    uint64_t before = t_free();
    CUdeviceptr pointer;
    CUmemoryPool pool;

    t_cuda(cuMemPoolCreate(&pool, &props));
    t_check((pointer = t_draw(pool, 3 * T_GIB, stream)), "memory on the host was refused");
    t_equal(t_free(), before);
    t_cuda(cuMemFreeAsync(pointer, stream));
    t_cuda(cuMemPoolDestroy(pool));
    t_cuda(cuStreamSynchronize(stream));
    t_equal(t_free(), before);
}

/* A pool is its GPU's, and outlives the contexts that draw from it. */
static void outlives(CUcontext context)
{
    CUmemoryPool pool = t_pool(0);
    CUdeviceptr one = t_draw(pool, 40 << 20, stream), two = t_draw(NULL, 40 << 20, stream);
    CUdevice device;

    t_check(one && two, "blocks that fit were refused");
    t_cuda(cuCtxDestroy(context));
    t_cuda(cuDeviceGet(&device, 0));
    t_cuda(cuDevicePrimaryCtxRetain(&context, device));
    t_cuda(cuCtxSetCurrent(context));
    t_at_rest(0);
    t_check(t_reserved(pool) >= 40 << 20, "a pool has ended with a context");
    t_cuda(cuMemFreeAsync(one, NULL));
    t_cuda(cuStreamSynchronize(NULL));
    t_at_rest(0);
    one = t_draw(pool, 80 << 20, NULL);
    t_at_rest(0);
    t_cuda(cuDevicePrimaryCtxReset(device)); /* what of pools that ends is the driver's to tell */
    t_cuda(cuDevicePrimaryCtxRetain(&context, device));
    t_cuda(cuCtxSetCurrent(context));
    t_at_rest(0);
}

int main(void)
{
    CUmemoryPool standard, current;
    CUcontext context = t_context(0);

    t_cuda(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    t_cuda(cuDeviceGetDefaultMemPool(&standard, 0));
    surprised();
    errors();
    fills(NULL);
    current = t_pool(0);
    fills(current);
    t_cuda(cuDeviceSetMemPool(0, current));
    fills(NULL);
    gives_back(current);
    own_room(current);
    CUdeviceptr pointer = t_draw(NULL, 1000, stream);
    t_check(t_reserved(current) && !t_reserved(standard), "the current pool was not used");
    t_at_rest(0);
    t_cuda(cuMemFreeAsync(pointer, stream));
    t_cuda(cuMemPoolDestroy(current));
    t_cuda(cuStreamSynchronize(stream));
    t_at_rest(0);
    pointer = t_draw(NULL, 1000, stream);
    t_check(t_reserved(standard), "the default pool is not current again");
    t_at_rest(0);
    t_cuda(cuMemFreeAsync(pointer, stream));
    t_cuda(cuStreamSynchronize(stream));
    t_at_rest(0);
    gives_back(standard);
    own_room(standard);
    destroyed();
    plain_in_stream();
    bounded();
    on_host();
    outlives(context);
    return 0;
}
