/* SPDX-License-Identifier: Apache-2.0 */
/* What a memory pool holds is charged, cached bytes included: at rest the budget's story is the GPU's, nothing is granted beyond it, and a pool
 * that keeps what nobody uses gives it back before anybody is refused. */
// run: SOFTSLICE_VRAM=1GiB
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_POOL_CHUNK=2097152
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_POOL_CHUNK=134217728
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_GRANULARITY=64K
// run: SOFTSLICE_VRAM=777MiB SOFTSIM_CONTEXT_BYTES=300M
#include "../cuda_helper.h"

#define MOST 100000

static CUdeviceptr block[MOST];
static CUstream stream;

/* Nothing is on its way: what the program is told is what the GPU shows, and the GPU shows no more than the budget. */
static void at_rest(void)
{
    t_check(t_used(0) <= t_total(), "the GPU says %llu bytes are in use, the limit is %llu", (unsigned long long)t_used(0),
            (unsigned long long)t_total());
    t_equal(t_free(), t_total() - t_used(0));
}

static CUdeviceptr draw(CUmemoryPool pool, size_t size)
{
    CUdeviceptr pointer = T_UNTOUCHED;
    CUresult result = pool ? cuMemAllocFromPoolAsync(&pointer, size, pool, stream) : cuMemAllocAsync(&pointer, size, stream);

    if (result == CUDA_SUCCESS)
        return pointer;
    t_result(result, CUDA_ERROR_OUT_OF_MEMORY);
    t_check(pointer == T_UNTOUCHED, "a refused allocation wrote its output");
    return 0;
}

/* Blocks until one is refused; the pool then has no more than a chunk left in the budget. */
static size_t fill(CUmemoryPool pool, size_t size)
{
    size_t count = 0;

    while (count < MOST && (block[count] = draw(pool, size)))
        count++;
    t_check(count > 0 && count < MOST, "%zu blocks of %zu bytes were granted", count, size);
    at_rest();
    return count;
}

static void empty(size_t count)
{
    for (size_t i = 0; i < count; i++)
        t_cuda(cuMemFreeAsync(block[i], stream));
}

static uint64_t reserved(CUmemoryPool pool)
{
    cuuint64_t bytes;

    t_cuda(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &bytes));
    return bytes;
}

static void keep_all(CUmemoryPool pool)
{
    cuuint64_t all = UINT64_MAX;

    t_cuda(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &all));
}

static CUmemoryPool new_pool(void)
{
    CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
    CUmemoryPool pool;

    t_cuda(cuMemPoolCreate(&pool, &props));
    return pool;
}

static uint64_t chunk(void)
{
    return t_bytes("SOFTSIM_POOL_CHUNK", 32 * T_MIB);
}

/* From a pool that gives back at once. */
static void fills(CUmemoryPool pool)
{
    static const size_t sizes[] = {20000, 300000, 5000000, 64 << 20};
    uint64_t before = t_used(0);

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        size_t count = fill(pool, sizes[i]);
        uint64_t most = chunk() > 32 * T_MIB ? chunk() : 32 * T_MIB, left = t_total() - t_used(0);

        t_check(left < most + sizes[i], "%llu bytes were left when %zu were refused", (unsigned long long)left, sizes[i]);
        empty(count);
        t_cuda(cuStreamSynchronize(stream));
        at_rest();
        t_equal(t_used(0), before);
    }
}

/* From one that keeps everything: it is asked for it when a plain allocation, a context or another pool wants room. */
static void gives_back(CUmemoryPool pool)
{
    CUmemoryPool other = new_pool();
    uint64_t before = t_used(0);
    size_t half = (t_total() - before) / 2 / T_MIB * T_MIB;

    keep_all(pool);
    size_t count = fill(pool, 5000000);
    empty(count);
    t_cuda(cuStreamSynchronize(stream));
    at_rest();
    t_check(reserved(pool) > half, "the pool keeps %llu bytes only", (unsigned long long)reserved(pool));

    CUdeviceptr pointer = t_alloc(half);
    t_check(pointer, "a plain allocation was refused while a pool kept unused memory");
    at_rest();
    t_cuda(cuMemFree(pointer));

    count = fill(pool, 5000000);
    empty(count);
    t_cuda(cuStreamSynchronize(stream));
    pointer = t_alloc(1000);
    t_check(pointer, "a small allocation was refused while a pool kept unused memory");
    at_rest();
    t_cuda(cuMemFree(pointer));

    count = fill(pool, 5000000);
    empty(count);
    t_cuda(cuStreamSynchronize(stream));
    keep_all(other);
    pointer = draw(other, half);
    t_check(pointer, "a pool was refused while another kept unused memory");
    at_rest();

    /* What is in use is nobody's to give. */
    t_check(!t_alloc(t_total() - before - half + T_MIB), "a block beyond the budget was granted");
    t_cuda(cuMemFreeAsync(pointer, stream));
    t_cuda(cuStreamSynchronize(stream));
    t_cuda(cuMemPoolDestroy(other));
    t_cuda(cuMemPoolTrimTo(pool, 0));
    at_rest();
    t_equal(t_used(0), before);
}

/* A caching pool has room of its own when the budget has none, and need not be emptied for that. */
static void own_room(CUmemoryPool pool)
{
    keep_all(pool);
    size_t count = fill(pool, 1 << 20);
    uint64_t before = reserved(pool);

    empty(count);
    t_cuda(cuStreamSynchronize(stream));
    for (size_t i = 0; i < count; i++)
        t_check((block[i] = draw(pool, 1 << 20)), "the pool has room for %zu blocks of which the budget refuses number %zu", count,
                i);
    t_equal(reserved(pool), before);
    at_rest();
    empty(count);
    t_cuda(cuStreamSynchronize(stream));
    t_cuda(cuMemPoolTrimTo(pool, 0));
    at_rest();
}

/* A destroyed pool's memory is charged until its last block is gone, and then not any more. */
static void destroyed(void)
{
    uint64_t before = t_used(0), left = t_total() - before;
    CUmemoryPool pool = new_pool();

    keep_all(pool);
    CUdeviceptr a = draw(pool, 40 << 20), b = draw(pool, 100 << 20), c = draw(pool, 1000);
    t_check(a && b && c, "blocks that fit were refused");
    t_cuda(cuMemFreeAsync(a, stream));
    t_cuda(cuStreamSynchronize(stream));
    t_cuda(cuMemPoolDestroy(pool));
    at_rest();
    t_check(t_used(0) >= before + (100 << 20), "the blocks are gone with their pool");
    t_check(!t_alloc(left), "a block was granted that a destroyed pool still uses");
    t_cuda(cuMemFree(b)); /* by the plain function */
    t_check(t_free() < left, "a destroyed pool gave its charge back before its last block");
    t_cuda(cuMemFreeAsync(c, stream));
    t_cuda(cuStreamSynchronize(stream));
    at_rest();
    t_equal(t_used(0), before);

    /* Its address is used again. */
    for (int i = 0; i < 50; i++) {
        pool = new_pool();
        a = draw(pool, 40 << 20);
        t_check(a, "pool number %d was refused its block", i);
        at_rest();
        t_cuda(cuMemFreeAsync(a, stream));
        t_cuda(cuStreamSynchronize(stream));
        t_cuda(cuMemPoolDestroy(pool));
        at_rest();
    }
    t_equal(t_used(0), before);
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
    pointer = draw(NULL, 1000);
    t_cuda(cuMemFreeAsync(pointer, stream));
    t_cuda(cuStreamSynchronize(stream));
    t_result(cuMemFreeAsync(pointer, stream), CUDA_ERROR_INVALID_VALUE);
    at_rest();
}

/* A plain block may be freed in a stream. */
static void plain_in_stream(void)
{
    uint64_t before = t_free();
    CUdeviceptr pointer = t_alloc(10 << 20);

    t_cuda(cuMemFreeAsync(pointer, stream));
    t_cuda(cuStreamSynchronize(stream));
    t_equal(t_free(), before);
    at_rest();
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
    t_check((pointer = draw(pool, 60 << 20)), "a pool was refused what fits");
    t_check(!draw(pool, 60 << 20), "a pool exceeds its size");
    at_rest();
    t_cuda(cuMemFreeAsync(pointer, stream));
    t_cuda(cuMemPoolDestroy(pool));
    t_cuda(cuStreamSynchronize(stream));
    at_rest();
}

/* Memory on the host is not the GPU's. */
static void on_host(void)
{
    CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {.type = CU_MEM_LOCATION_TYPE_HOST_NUMA}};
    uint64_t before = t_free();
    CUdeviceptr pointer;
    CUmemoryPool pool;

    t_cuda(cuMemPoolCreate(&pool, &props));
    t_check((pointer = draw(pool, 3 * T_GIB)), "memory on the host was refused");
    t_equal(t_free(), before);
    t_cuda(cuMemFreeAsync(pointer, stream));
    t_cuda(cuMemPoolDestroy(pool));
    t_cuda(cuStreamSynchronize(stream));
    t_equal(t_free(), before);
}

int main(void)
{
    CUmemoryPool standard, current;

    t_context(0);
    t_cuda(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    t_cuda(cuDeviceGetDefaultMemPool(&standard, 0));
    errors();
    fills(NULL);
    current = new_pool();
    fills(current);
    t_cuda(cuDeviceSetMemPool(0, current));
    fills(NULL);
    gives_back(current);
    own_room(current);
    CUdeviceptr pointer = draw(NULL, 1000);
    t_check(reserved(current) && !reserved(standard), "the current pool was not used");
    at_rest();
    t_cuda(cuMemFreeAsync(pointer, stream));
    t_cuda(cuMemPoolDestroy(current));
    t_cuda(cuStreamSynchronize(stream));
    at_rest();
    pointer = draw(NULL, 1000);
    t_check(reserved(standard), "the default pool is not current again");
    at_rest();
    t_cuda(cuMemFreeAsync(pointer, stream));
    t_cuda(cuStreamSynchronize(stream));
    at_rest();
    gives_back(standard);
    own_room(standard);
    destroyed();
    plain_in_stream();
    bounded();
    on_host();
    return 0;
}
