/* SPDX-License-Identifier: Apache-2.0 */
/* In a stream that captures, an allocation is a node of a graph: nothing is charged, whatever its size, and no question of ours spoils anybody's
 * capture. In all other streams allocations go on as ever, while this or another thread captures. Per-thread streams are streams too. */
// run: SOFTSLICE_VRAM=1GiB
#include <pthread.h>

#include "../pool_helper.h"

static CUcontext context;
static CUstream stream, other;
static pthread_barrier_t barrier;

static size_t nodes(CUgraph graph)
{
    size_t count = 0;

    t_cuda(cuGraphGetNodes(graph, NULL, &count));
    return count;
}

/* Fill and empty a pool that gives back, all that asks the driver most. */
static void use_pools(CUstream used)
{
    CUdeviceptr block[100];
    size_t count = 0;

    while (count < 100 && (block[count] = t_draw(NULL, 30 << 20, used)))
        count++;
    t_check(count > 10 && count < 100, "%zu blocks were granted", count);
    for (size_t i = 0; i < count; i++)
        t_cuda(cuMemFreeAsync(block[i], used));
}

static void captures(CUstreamCaptureMode mode)
{
    uint64_t before = t_free();
    CUdeviceptr first, second;
    CUgraph graph;

    t_cuda(cuStreamBeginCapture(stream, mode));
    t_check((first = t_draw(NULL, 100 << 20, stream)), "an allocation node was refused");
    t_check((second = t_draw(NULL, 100 << 20, stream)), "an allocation node was refused");
    t_cuda(cuMemFreeAsync(first, stream));
    use_pools(other);
    t_cuda(cuMemFreeAsync(second, stream));
    t_cuda(cuStreamEndCapture(stream, &graph));
    t_equal(nodes(graph), 4);
    t_cuda(cuGraphDestroy(graph));
    t_cuda(cuStreamSynchronize(other));
    t_equal(t_free(), before);
    t_at_rest(0);
}

static void *capturer(void *unused)
{
    CUgraph graph;

    (void)unused;
    t_cuda(cuCtxSetCurrent(context));
    t_cuda(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    CUdeviceptr pointer = t_draw(NULL, 3 * T_GIB, stream); /* more than the budget, if it ever ran */
    t_check(pointer, "an allocation node was refused");
    t_cuda(cuMemFreeAsync(pointer, stream));
    t_cuda(cuStreamEndCapture(stream, &graph));
    t_equal(nodes(graph), 2);
    t_cuda(cuGraphDestroy(graph));
    return NULL;
}

/* While another thread captures. */
static void beside(void)
{
    pthread_t thread;

    pthread_barrier_init(&barrier, NULL, 2);
    pthread_create(&thread, NULL, capturer, NULL);
    pthread_barrier_wait(&barrier);
    use_pools(other);
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
    t_cuda(cuStreamSynchronize(other));
    t_at_rest(0);
}

/* The functions that a program built for per-thread default streams calls, in its own default stream. */
static void per_thread(void)
{
    CUresult (*alloc)(CUdeviceptr *, size_t, CUstream) =
        (CUresult(*)(CUdeviceptr *, size_t, CUstream))t_wrapper("cuMemAllocAsync_ptsz");
    CUresult (*draw)(CUdeviceptr *, size_t, CUmemoryPool, CUstream) =
        (CUresult(*)(CUdeviceptr *, size_t, CUmemoryPool, CUstream))t_wrapper("cuMemAllocFromPoolAsync_ptsz");
    CUresult (*release)(CUdeviceptr, CUstream) = (CUresult(*)(CUdeviceptr, CUstream))t_wrapper("cuMemFreeAsync_ptsz");
    CUresult (*synchronize)(CUstream) = (CUresult(*)(CUstream))t_wrapper("cuStreamSynchronize_ptsz");
    CUdeviceptr one, two, three = T_UNTOUCHED;
    uint64_t before = t_free();
    CUmemoryPool pool = t_pool(0);
    CUgraph graph;

    t_cuda(alloc(&one, 100 << 20, NULL));
    t_cuda(draw(&two, 100 << 20, pool, NULL));
    t_at_rest(0);
    t_check(t_free() + (200 << 20) <= before, "two blocks are not charged");
    t_result(alloc(&three, T_GIB, NULL), CUDA_ERROR_OUT_OF_MEMORY);
    t_result(draw(&three, T_GIB, pool, NULL), CUDA_ERROR_OUT_OF_MEMORY);
    t_equal(three, T_UNTOUCHED);
    t_cuda(release(one, NULL));
    t_cuda(release(two, NULL));
    t_cuda(synchronize(NULL));
    t_equal(t_free(), before);
    t_cuda(cuMemPoolDestroy(pool));

    t_cuda(cuStreamBeginCapture(CU_STREAM_PER_THREAD, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    t_cuda(alloc(&one, 3 * T_GIB, NULL));
    t_cuda(release(one, NULL));
    t_cuda(cuStreamEndCapture(CU_STREAM_PER_THREAD, &graph));
    t_equal(nodes(graph), 2);
    t_cuda(cuGraphDestroy(graph));
    t_equal(t_free(), before);
}

int main(void)
{
    context = t_context(0);
    t_cuda(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    t_cuda(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    use_pools(other); /* so that the questions have been asked once */
    t_cuda(cuStreamSynchronize(other));
    captures(CU_STREAM_CAPTURE_MODE_RELAXED);
    captures(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    captures(CU_STREAM_CAPTURE_MODE_GLOBAL);
    beside();
    per_thread();
    return 0;
}
