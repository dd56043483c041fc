/* SPDX-License-Identifier: Apache-2.0 */
/* Number 7 of the ways in which HAMi-core failed: a stream-ordered allocation over the limit returned -1, which no framework knows how to retry.
 * Here a refusal is CUDA_ERROR_OUT_OF_MEMORY by every function, leaves the output alone, and is over when there is room again. */
// run: SOFTSLICE_VRAM=1GiB
#include "../pool_helper.h"

int main(void)
{
    CUdeviceptr pointer = T_UNTOUCHED, held;
    CUmemoryPool pool;
    CUstream stream;

    t_context(0);
    t_cuda(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    pool = t_pool(0);
    for (int round = 0; round < 3; round++) {
        t_cuda(cuMemAllocAsync(&held, 300 << 20, stream));
        t_result(cuMemAllocAsync(&pointer, 300 << 20, stream), 2);
        t_result(cuMemAllocFromPoolAsync(&pointer, 300 << 20, pool, stream), 2);
        t_result(cuMemAlloc(&pointer, 300 << 20), 2);
        t_result(cuMemAllocAsync(&pointer, 2 * T_GIB, stream), 2);
        t_result(cuMemAllocFromPoolAsync(&pointer, SIZE_MAX, pool, stream), 2);
        t_equal(pointer, T_UNTOUCHED);
        t_at_rest(0);
        t_cuda(cuMemFreeAsync(held, stream));
        t_cuda(cuStreamSynchronize(stream)); /* nothing of it stuck to the stream */
        t_cuda(cuMemAllocFromPoolAsync(&held, 300 << 20, pool, stream));
        t_cuda(cuMemFreeAsync(held, stream));
        t_cuda(cuStreamSynchronize(stream));
        t_at_rest(0);
    }
    return 0;
}
