/* SPDX-License-Identifier: Apache-2.0 */
/* Number 6 of the ways in which HAMi-core failed: freeing a pointer that it had not recorded returned -1 and did not reach the driver. Here every
 * pointer reaches the driver, freed by the plain or by the stream-ordered function, and the driver's word is the program's. */
// run: SOFTSLICE_VRAM=1GiB
#include "../pool_helper.h"

static CUstream stream;

/* Freed once, by whichever function; a second time is what the driver says of that. */
static void freed(CUdeviceptr pointer, bool in_stream)
{
    uint64_t before = t_used(0);

    t_cuda(in_stream ? cuMemFreeAsync(pointer, stream) : cuMemFree(pointer));
    t_cuda(cuStreamSynchronize(stream));
    t_check(t_used(0) < before, "a freed block is still on the GPU");
    t_at_rest(0);
    t_result(in_stream ? cuMemFreeAsync(pointer, stream) : cuMemFree(pointer), CUDA_ERROR_INVALID_VALUE);
    t_at_rest(0);
}

int main(void)
{
    CUresult (*real_alloc)(CUdeviceptr *, size_t) = (CUresult(*)(CUdeviceptr *, size_t))t_real("cuMemAlloc_v2");
    CUresult (*real_draw)(CUdeviceptr *, size_t, CUstream) =
        (CUresult(*)(CUdeviceptr *, size_t, CUstream))t_real("cuMemAllocAsync");
    CUmemoryPool pool;
    CUdeviceptr pointer;
    CUgraphExec exec;
    CUgraph graph;

    t_context(0);
    t_cuda(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    pool = t_pool(0);
    for (int in_stream = 0; in_stream < 2; in_stream++) {
        freed(t_draw(NULL, 40 << 20, stream), in_stream);
        freed(t_draw(pool, 40 << 20, stream), in_stream);
        freed(t_alloc(40 << 20), in_stream);
        t_result(in_stream ? cuMemFreeAsync(0x1234, stream) : cuMemFree(0x1234), CUDA_ERROR_INVALID_VALUE);

        /* Never seen: taken behind the library's back. */
        uint64_t left = t_free();
        t_cuda(real_alloc(&pointer, 40 << 20));
        t_cuda(in_stream ? cuMemFreeAsync(pointer, stream) : cuMemFree(pointer));
        t_cuda(real_draw(&pointer, 40 << 20, stream));
        t_cuda(in_stream ? cuMemFreeAsync(pointer, stream) : cuMemFree(pointer));
        t_cuda(cuStreamSynchronize(stream));
        t_equal(t_free(), left);

        /* A block of a graph, freed outside of it. */
        t_cuda(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
        pointer = t_draw(NULL, 40 << 20, stream);
        t_cuda(cuStreamEndCapture(stream, &graph));
        t_cuda(cuGraphInstantiate(&exec, graph, 0));
        t_cuda(cuGraphLaunch(exec, stream));
        t_cuda(cuStreamSynchronize(stream));
        t_cuda(in_stream ? cuMemFreeAsync(pointer, stream) : cuMemFree(pointer));
        t_cuda(cuStreamSynchronize(stream));
        t_cuda(cuGraphExecDestroy(exec));
        t_cuda(cuGraphDestroy(graph));
        t_cuda(cuDeviceGraphMemTrim(0));
    }
    return 0;
}
