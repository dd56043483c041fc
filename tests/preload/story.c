/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemGetInfo, cuDeviceTotalMem and NVML's two memory calls tell one story, in the process itself, in others of its tenant, and in one that
 * uses NVML alone; without a limit all of them tell the GPU's own figures. */
// unemulated: starts itself again, which needs the kernel to know the foreign architecture
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=story SOFTSIM_CONTEXT_BYTES=300M
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=300M
// run: SOFTSLICE_TENANT=story SOFTSIM_CONTEXT_BYTES=300M
// run: SOFTSIM_CONTEXT_BYTES=300M
// run: SOFTSLICE_VRAM=64GiB SOFTSIM_MEM=4G
#include "../cuda_helper.h"

struct memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

static uint64_t limit;

/* Of the budget, if that is less than what the GPU has left. */
static uint64_t left(uint64_t held)
{
    uint64_t budget = limit - held, physical = t_physical(0) - t_used(0);
    return budget < physical ? budget : physical;
}

/* What NVML tells this process, by a pointer looked up as programs do. `held` is what its tenant holds. */
static void nvml_tells(uint64_t held)
{
    uint64_t total = limit, used = limit - left(held);
    void *nvml = t_library("libnvidia-ml.so.1");
    unsigned long long v1[3];
    struct memory_v2 v2 = {.version = 0x02000028};
    void *device = t_nvml_device(0);

    t_result(((int (*)(void *, void *))dlsym(nvml, "nvmlDeviceGetMemoryInfo"))(device, v1), 0);
    t_equal(v1[0], total);
    t_equal(v1[2], used);
    t_equal(v1[1], total - used);
    t_result(((int (*)(void *, void *))dlsym(nvml, "nvmlDeviceGetMemoryInfo_v2"))(device, &v2), 0);
    t_equal(v2.total, total);
    t_equal(v2.free, v1[1]);
    t_equal(v2.free + v2.used + v2.reserved, total);
    t_check(((int (*)(void *, void *))dlsym(nvml, "nvmlDeviceGetMemoryInfo"))(device, NULL) ==
                ((int (*)(void *, void *))t_real_nvml("nvmlDeviceGetMemoryInfo"))(device, NULL),
            "nvmlDeviceGetMemoryInfo(NULL) differs from NVML's own");
    t_check(((int (*)(void *, void *))dlsym(nvml, "nvmlDeviceGetMemoryInfo"))((void *)0x1234, v1) ==
                ((int (*)(void *, void *))t_real_nvml("nvmlDeviceGetMemoryInfo"))((void *)0x1234, v1),
            "nvmlDeviceGetMemoryInfo of no device differs from NVML's own");
    v2.version = 77;
    t_check(((int (*)(void *, void *))dlsym(nvml, "nvmlDeviceGetMemoryInfo_v2"))(device, &v2) ==
                ((int (*)(void *, void *))t_real_nvml("nvmlDeviceGetMemoryInfo_v2"))(device, &v2),
            "nvmlDeviceGetMemoryInfo_v2 of a wrong version differs from NVML's own");
}

int main(int argc, char **argv)
{
    bool named = getenv("SOFTSLICE_TENANT"), limited = getenv("SOFTSLICE_VRAM");
    uint64_t physical = t_physical(0);

    limit = limited ? t_bytes("SOFTSLICE_VRAM", 0) : physical;
    limit = limit < physical ? limit : physical;
    if (argc > 1 && strcmp(argv[1], "nvml") == 0) { /* what the other process holds is seen where they are one tenant */
        nvml_tells(named || !limited ? t_used(0) : 0);
        return 0;
    }
    if (argc > 1) { /* the same with a context of its own, and CUDA's figures with it */
        t_context(0);
        uint64_t cost = t_bytes("SOFTSIM_CONTEXT_BYTES", 512 * T_MIB);
        uint64_t held = named || !limited ? t_used(0) : cost;
        nvml_tells(held);
        t_equal(t_free(), left(held));
        t_equal(t_total(), limit);
        return 0;
    }
    t_join(t_again("nvml")); /* before anybody has a context */
    t_context(0);
    CUdevice device;
    size_t total;
    t_cuda(cuDeviceGet(&device, 0));
    for (int step = 0; step < 5; step++) {
        t_cuda(cuDeviceTotalMem(&total, device));
        t_equal(total, limit);
        t_equal(t_total(), limit);
        /* A member that ended a moment ago may count until it was missed. */
        for (uint64_t end = t_now_ms() + 5000; t_now_ms() < end && t_free() != limit - t_used(0);)
            usleep(1000);
        t_equal(t_free(), limit - t_used(0));
        nvml_tells(t_used(0));
        t_join(t_again("nvml"));
        t_join(t_again("context"));
        t_check(t_alloc(step == 1 ? 100 : 30 * T_MIB), "an allocation was refused");
    }
    return 0;
}
