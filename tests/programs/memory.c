/* SPDX-License-Identifier: Apache-2.0 */
/* What a program is told and granted on each of its devices, one fact a line, for scripts to compare. Its argument: MiB to ask for. */
#include "../cuda_helper.h"

static void nvml(unsigned gpu)
{
    unsigned long long memory[3];
    void *library = t_library("libnvidia-ml.so.1");

    if (((int (*)(void *, void *))dlsym(library, "nvmlDeviceGetMemoryInfo"))(t_nvml_device(gpu), memory) == 0)
        printf("nvml %u total %llu free %llu\n", gpu, memory[0], memory[1]);
}

int main(int argc, char **argv)
{
    size_t bytes = (argc > 1 ? strtoull(argv[1], NULL, 10) : 1) << 20, free_bytes, total;
    int count = 0;

    printf("init %d\n", (int)cuInit(0));
    if (cuInit(0) != CUDA_SUCCESS) {
        nvml(0);
        CUdeviceptr p = T_UNTOUCHED;
        CUresult result = cuMemAlloc(&p, bytes);
        printf("alloc without init %d\n", (int)result);
        cuInit(0);
        return 0;
    }
    t_cuda(cuDeviceGetCount(&count));
    for (int i = 0; i < count; i++) {
        CUcontext context;
        CUresult result = cuCtxCreate(&context, NULL, 0, i);
        CUuuid uuid;

        t_cuda(cuDeviceGetUuid(&uuid, i));
        printf("uuid %d GPU-", i);
        for (int b = 0; b < 16; b++)
            printf("%s%02x", b == 4 || b == 6 || b == 8 || b == 10 ? "-" : "", (unsigned char)uuid.bytes[b]);
        printf("\n");
        if (result != CUDA_SUCCESS) {
            printf("context %d %d\n", i, (int)result);
            continue;
        }
        t_cuda(cuMemGetInfo(&free_bytes, &total));
        printf("cuda %d total %zu free %zu\n", i, total, free_bytes);
        CUdeviceptr p;
        printf("alloc %d %d\n", i, (int)cuMemAlloc(&p, bytes));
        nvml((unsigned)i);
    }
    return 0;
}
