/* SPDX-License-Identifier: Apache-2.0 */
/* Limits of several GPUs: by ordinal after CUDA_VISIBLE_DEVICES, by UUID, for all; what is taken on one is not missing on another. */
// unemulated: starts itself again, which needs the kernel to know the foreign architecture
// run: SOFTSIM_GPUS=3 SOFTSIM_MEM=8G SOFTSIM_CONTEXT_BYTES=100M
// run: SOFTSIM_GPUS=3 SOFTSIM_MEM=8G SOFTSIM_CONTEXT_BYTES=100M SOFTSLICE_TENANT=devices
#include "../cuda_helper.h"

enum { GPUS = 3 };

/* A setting and what it comes to; {n} stands for the UUID of GPU n, 0 for no limit. */
static const struct {
    const char *visible, *vram;
    unsigned gpus, gpu[GPUS], gib[GPUS];
} cases[] = {
    {NULL, "2GiB", 3, {0, 1, 2}, {2, 2, 2}},           {NULL, "25%", 3, {0, 1, 2}, {2, 2, 2}},
    {NULL, "0=1GiB,2=3GiB", 3, {0, 1, 2}, {1, 0, 3}},  {NULL, "2GiB,1=1GiB", 3, {0, 1, 2}, {2, 1, 2}},
    {NULL, "1GiB,{2}=3GiB", 3, {0, 1, 2}, {1, 1, 3}},  {NULL, "0=1GiB,{1}=25%", 3, {0, 1, 2}, {1, 2, 0}},
    {"1,0", "0=1GiB,1=2GiB", 2, {1, 0}, {1, 2}},       {"2,0", "{0}=1GiB,0=3GiB", 2, {2, 0}, {3, 1}},
    {"{2},{1}", "0=1GiB,{1}=2GiB", 2, {2, 1}, {1, 2}}, {"1", "0=2GiB", 1, {1}, {2}},
};

static char uuid[GPUS][64];

static void name_gpus(void)
{
    t_cuda(((int (*)(unsigned))t_real("cuInit"))(0));
    for (int gpu = 0; gpu < GPUS; gpu++) {
        unsigned char bytes[16];
        int length = snprintf(uuid[gpu], sizeof(uuid[gpu]), "GPU-");

        t_cuda(((int (*)(void *, int))t_real("cuDeviceGetUuid_v2"))(bytes, gpu));
        for (int i = 0; i < 16; i++)
            length += snprintf(uuid[gpu] + length, sizeof(uuid[gpu]) - (size_t)length, "%s%02x",
                               i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", bytes[i]);
    }
}

static void set(const char *variable, const char *text)
{
    char value[512];
    size_t length = 0;

    if (!text) {
        unsetenv(variable);
        return;
    }
    for (; *text; text++) {
        if (*text == '{') {
            length += (size_t)snprintf(value + length, sizeof(value) - length, "%s", uuid[text[1] - '0']);
            text += 2;
        } else {
            value[length++] = *text;
        }
    }
    value[length] = '\0';
    setenv(variable, value, 1);
}

static uint64_t limit_of(size_t number, unsigned ordinal)
{
    return cases[number].gib[ordinal] ? cases[number].gib[ordinal] * T_GIB : t_physical(cases[number].gpu[ordinal]);
}

/* In a process of its own, with the case's settings. */
static void check(size_t number)
{
    uint64_t cost = t_bytes("SOFTSIM_CONTEXT_BYTES", 0);
    CUdeviceptr last[GPUS] = {0};
    CUcontext context[GPUS];
    int count;

    t_cuda(cuInit(0));
    t_cuda(cuDeviceGetCount(&count));
    t_equal(count, cases[number].gpus);
    for (unsigned i = 0; i < cases[number].gpus; i++) {
        size_t total;
        t_cuda(cuDeviceTotalMem(&total, (CUdevice)i));
        t_equal(total, limit_of(number, i));
        t_cuda(cuCtxCreate(&context[i], NULL, 0, (CUdevice)i));
        t_equal(t_total(), limit_of(number, i));
        t_equal(t_free(), limit_of(number, i) - cost);
    }
    for (unsigned i = 0; i < cases[number].gpus; i++) {
        uint64_t blocks = 0;

        t_cuda(cuCtxSetCurrent(context[i]));
        t_equal(t_free(), limit_of(number, i) - cost); /* not less for what the others hold */
        for (CUdeviceptr p; (p = t_alloc(4 * T_MIB)); blocks++)
            last[i] = p;
        t_equal(blocks, (limit_of(number, i) - cost) / (4 * T_MIB));
        t_equal(t_used(cases[number].gpu[i]), cost + blocks * 4 * T_MIB);
    }
    /* Freed from another GPU's context, it is given back where it was taken. */
    for (unsigned i = 0; i < cases[number].gpus; i++)
        t_cuda(cuMemFree(last[i]));
    for (unsigned i = 0; i < cases[number].gpus; i++) {
        t_cuda(cuCtxSetCurrent(context[i]));
        t_check(t_alloc(4 * T_MIB), "what was freed from another context could not be had again");
        t_check(!t_alloc(4 * T_MIB), "a block beyond the budget was granted");
    }
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        check(strtoull(argv[1], NULL, 10));
        return 0;
    }
    name_gpus();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char number[16];

        snprintf(number, sizeof(number), "%zu", i);
        set("CUDA_VISIBLE_DEVICES", cases[i].visible);
        set("SOFTSLICE_VRAM", cases[i].vram);
        printf("CUDA_VISIBLE_DEVICES=%s SOFTSLICE_VRAM=%s\n", cases[i].visible ? getenv("CUDA_VISIBLE_DEVICES") : "",
               getenv("SOFTSLICE_VRAM"));
        t_join(t_again(number));
    }
    return 0;
}
