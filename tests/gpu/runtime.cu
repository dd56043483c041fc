/* SPDX-License-Identifier: Apache-2.0 */
/* A small CUDA runtime program that goes as far as it is told: set, malloc, launch, async, info,
 * properties, reset. Prints one line: what cudaMemGetInfo says at the end, and the last error. */
#include <cuda_runtime.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__global__ void fill(int *p, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);

    if (i < n)
        p[i] = i;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "launch";
    size_t bytes = argc > 2 ? strtoull(argv[2], nullptr, 0) : (size_t)4 << 20;
    size_t free_bytes = 0, total = 0;
    int *p = nullptr;
    cudaError_t res = cudaSetDevice(0);

    if (!strcmp(what, "malloc") || !strcmp(what, "launch"))
        res = cudaMalloc(&p, bytes);
    if (!strcmp(what, "async"))
        res = cudaMallocAsync(&p, bytes, nullptr);
    if (!res && !strcmp(what, "launch")) {
        fill<<<1, 32>>>(p, 32);
        res = cudaDeviceSynchronize();
    }
    if (!strcmp(what, "properties")) {
        cudaDeviceProp prop;
        res = cudaGetDeviceProperties(&prop, 0);
        total = prop.totalGlobalMem;
    }
    if (!strcmp(what, "reset"))
        res = cudaDeviceReset();
    if (strcmp(what, "set") && strcmp(what, "properties") && strcmp(what, "reset")) {
        cudaError_t info = cudaMemGetInfo(&free_bytes, &total);
        if (!res)
            res = info;
    }
    printf("runtime %s %zu: %s free %zu total %zu\n", what, bytes, cudaGetErrorName(res),
           free_bytes, total);
    return res == cudaSuccess ? 0 : res == cudaErrorMemoryAllocation ? 2 : 1;
}
