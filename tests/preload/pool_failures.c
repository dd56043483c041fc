/* SPDX-License-Identifier: Apache-2.0 */
/* The driver fails in the middle of the work with pools: its error is the program's, what it did not do is not charged, what it did not undo
 * stays charged, and what it does not tell the size of is not handed out. */
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_FAIL=cuMemAllocAsync:2:999,cuMemAllocAsync:3:2 -- alloc
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_FAIL=cuMemFreeAsync:1:999,cuMemFree_v2:1:999 -- free
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_FAIL=cuMemPoolGetAttribute:1+:999 -- untold
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_FAIL=cuMemPoolDestroy:1:999,cuDeviceSetMemPool:1:999 -- destroy
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_FAIL=cuMemPoolTrimTo:1+:999 -- trim
// run: SOFTSLICE_VRAM=1GiB -- many
#include "../pool_helper.h"

static CUstream stream;

static void alloc_fails(void)
{
    CUdeviceptr first = t_draw(NULL, 40 << 20, stream), pointer = T_UNTOUCHED;
    uint64_t left = t_free();

    t_result(cuMemAllocAsync(&pointer, 40 << 20, stream), 999);
    t_equal(t_free(), left);
    t_result(cuMemAllocAsync(&pointer, 40 << 20, stream), 2); /* of a GPU that is full */
    t_equal(t_free(), left);
    t_equal(pointer, T_UNTOUCHED);
    t_check(t_draw(NULL, 40 << 20, stream), "the third error was expected to be the last");
    t_at_rest(0);
    t_cuda(cuMemFreeAsync(first, stream));
}

/* A block that could not be freed is still known: with it goes a destroyed pool's charge. */
static void free_fails(void)
{
    uint64_t before = t_free();
    CUmemoryPool pool = t_pool(0);
    CUdeviceptr pointer = t_draw(pool, 40 << 20, stream);

    t_cuda(cuMemPoolDestroy(pool));
    uint64_t left = t_free();
    t_result(cuMemFreeAsync(pointer, stream), 999);
    t_equal(t_free(), left);
    t_result(cuMemFree(pointer), 999);
    t_equal(t_free(), left);
    t_at_rest(0);
    t_cuda(cuMemFreeAsync(pointer, stream));
    t_cuda(cuStreamSynchronize(stream));
    t_equal(t_free(), before);
    t_at_rest(0);
}

static void untold(void)
{
    CUdeviceptr pointer = T_UNTOUCHED;

    t_result(cuMemAllocAsync(&pointer, 1000, stream), CUDA_ERROR_OUT_OF_MEMORY);
    t_equal(pointer, T_UNTOUCHED);
    t_check(t_alloc(1000), "a plain allocation was refused");
}

static void destroy_fails(void)
{
    uint64_t before = t_free();
    CUmemoryPool pool = t_pool(0);
    CUdeviceptr pointer = t_draw(pool, 40 << 20, stream);

    t_result(cuMemPoolDestroy(pool), 999);
    uint64_t left = t_free();
    t_check(left < before, "a pool that was not destroyed is not charged any more");
    t_at_rest(0);
    t_result(cuDeviceSetMemPool(0, pool), 999);
    CUdeviceptr more = t_draw(pool, 40 << 20, stream);
    t_check(more && t_free() < left, "a pool that was not destroyed grows without charge");
    t_at_rest(0);
    t_cuda(cuMemFreeAsync(pointer, stream));
    t_cuda(cuMemFreeAsync(more, stream));
    t_cuda(cuStreamSynchronize(stream));
    t_cuda(cuMemPoolDestroy(pool));
    t_equal(t_free(), before);
}

static void trim_fails(void)
{
    CUmemoryPool pool = t_pool(0);

    t_keep_all(pool);
    CUdeviceptr pointer = t_draw(pool, 300 << 20, stream);
    t_cuda(cuMemFreeAsync(pointer, stream));
    t_cuda(cuStreamSynchronize(stream));
    t_check(!t_alloc(400 << 20), "a block was granted although the pool gave nothing back");
    t_at_rest(0);
    t_check(t_draw(pool, 300 << 20, stream), "the pool has room");
    t_at_rest(0);
}

/* More pools than can be charged: what comes from the last ones is refused until others end. */
static void many(void)
{
    enum { MOST = 1030 };
    static CUmemoryPool pool[MOST];
    uint64_t before = t_free();

    for (int i = 0; i < MOST; i++)
        pool[i] = t_pool(0);
    t_check(t_draw(pool[0], 1000, stream), "the first pool's block was refused");
    t_check(!t_draw(pool[MOST - 1], 1000, stream), "a block was granted that cannot be charged");
    t_at_rest(0);
    for (int i = 1; i < 20; i++)
        t_cuda(cuMemPoolDestroy(pool[i]));
    t_check(t_draw(pool[MOST - 1], 1000, stream), "a block was refused though there is a place for its pool now");
    t_at_rest(0);
    t_check(t_free() < before, "two pools are not charged");
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "many";

    t_context(0);
    t_cuda(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    if (*what == 'a')
        alloc_fails();
    else if (*what == 'f')
        free_fails();
    else if (*what == 'u')
        untold();
    else if (*what == 'd')
        destroy_fails();
    else if (*what == 't')
        trim_fails();
    else
        many();
    return 0;
}
