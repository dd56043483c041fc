/* SPDX-License-Identifier: Apache-2.0 */
/* A fault of other limiters: what was taken on one GPU was checked against another, for CUDA's numbers are not NVML's where CUDA_VISIBLE_DEVICES
 * names some, in another order, or by UUID. */
// unemulated: starts itself again, which needs the kernel to know the foreign architecture
// run: SOFTSIM_GPUS=3 SOFTSIM_MEM=8G SOFTSIM_CONTEXT_BYTES=100M
// run: SOFTSIM_GPUS=3 SOFTSIM_MEM=8G SOFTSIM_CONTEXT_BYTES=100M SOFTSLICE_TENANT=hami
#include "../cuda_helper.h"

enum { GPUS = 3 };

static char uuid[GPUS][64];

static void name_gpus(void)
{
    t_cuda(((int (*)(unsigned))t_real("cuInit"))(0));
    for (int gpu = 0; gpu < GPUS; gpu++) {
        unsigned char b[16];

        t_cuda(((int (*)(void *, int))t_real("cuDeviceGetUuid_v2"))(b, gpu));
        snprintf(uuid[gpu], sizeof(uuid[gpu]), "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
                 b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
    }
}

/* What NVML tells, by its own numbers, of a GPU with this budget and so much in use of it. */
static void nvml_tells(unsigned gpu, uint64_t limit, uint64_t used)
{
    void *nvml = t_library("libnvidia-ml.so.1");
    unsigned long long memory[3];

    t_result(((int (*)(void *, void *))dlsym(nvml, "nvmlDeviceGetMemoryInfo"))(t_nvml_device(gpu), memory), 0);
    t_equal(memory[0], limit);
    t_equal(memory[1], limit - used);
}

/* CUDA's device 0 is GPU `first` and has 1 GiB, its device 1 is `second` and has 2 GiB. */
static void check(unsigned first, unsigned second)
{
    CUcontext one, two;
    CUdeviceptr pointer;

    t_cuda(cuInit(0));
    t_cuda(cuCtxCreate(&one, NULL, 0, 0));
    t_cuda(cuCtxCreate(&two, NULL, 0, 1));
    t_equal(t_total(), 2 * T_GIB);
    t_check((pointer = t_alloc(1500 * T_MIB)), "1.5 of 2 GiB were refused");
    t_check(!t_alloc(500 * T_MIB), "2.1 of 2 GiB were granted");
    t_equal(t_used(second), 1600 * T_MIB);
    t_cuda(cuCtxSetCurrent(one));
    t_equal(t_total(), T_GIB);
    t_equal(t_free(), T_GIB - 100 * T_MIB); /* not less for what the other holds */
    t_check(!t_alloc(T_GIB), "1.1 of 1 GiB were granted");
    t_check(t_alloc(900 * T_MIB), "the whole of 1 GiB was refused");
    t_equal(t_used(first), 1000 * T_MIB);
    nvml_tells(first, T_GIB, 1000 * T_MIB);
    nvml_tells(second, 2 * T_GIB, 1600 * T_MIB);
    t_cuda(cuMemFree(pointer)); /* with the other's context current */
    nvml_tells(first, T_GIB, 1000 * T_MIB);
    nvml_tells(second, 2 * T_GIB, 100 * T_MIB);
}

int main(int argc, char **argv)
{
    static const unsigned pairs[][2] = {{0, 1}, {1, 0}, {2, 0}, {1, 2}};
    char visible[256], arguments[8];

    if (argc > 1) {
        check((unsigned)(argv[1][0] - '0'), (unsigned)(argv[1][1] - '0'));
        return 0;
    }
    name_gpus();
    setenv("SOFTSLICE_VRAM", "0=1GiB,1=2GiB", 1);
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        for (int by_uuid = 0; by_uuid < 2; by_uuid++) {
            unsigned first = pairs[i][0], second = pairs[i][1];

            if (by_uuid)
                snprintf(visible, sizeof(visible), "%s,%s", uuid[first], uuid[second]);
            else
                snprintf(visible, sizeof(visible), "%u,%u", first, second);
            setenv("CUDA_VISIBLE_DEVICES", visible, 1);
            snprintf(arguments, sizeof(arguments), "%u%u", first, second);
            t_join(t_again(arguments));
        }
    return 0;
}
