/* SPDX-License-Identifier: Apache-2.0 */
/* A limit that MPS or the driver keeps counts where it is the smaller one: for what is granted, and for what is told, in every place. */
// run: SOFTSLICE_VRAM=2GiB SOFTSLICE_TENANT=native CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=1=512M,0=1G
// run: SOFTSLICE_VRAM=768MiB SOFTSLICE_TENANT=native CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=1G
// run: SOFTSLICE_VRAM=2GiB SOFTSIM_DRIVER_VERSION=13040 SOFTSIM_MEMORY_LIMITS=0:1073741824
// run: SOFTSLICE_VRAM=768MiB SOFTSIM_DRIVER_VERSION=13040 SOFTSIM_MEMORY_LIMITS=0:1073741824
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_DRIVER_VERSION=13000 SOFTSIM_MEMORY_LIMITS=0:536870912
#include <limits.h>
#include <sys/stat.h>

#include "../cuda_helper.h"

static unsigned long long nvml_total(void)
{
    unsigned long long memory[3];

    t_result(((int (*)(void *, void *))dlsym(t_library("libnvidia-ml.so.1"), "nvmlDeviceGetMemoryInfo"))(t_nvml_device(0), memory),
             0);
    return memory[0];
}

static void story(uint64_t limit)
{
    unsigned long long memory[3];
    size_t total;
    CUdevice device;

    t_cuda(cuCtxGetDevice(&device));
    t_cuda(cuDeviceTotalMem(&total, device));
    t_equal(total, limit);
    t_equal(t_total(), limit);
    t_result(((int (*)(void *, void *))dlsym(t_library("libnvidia-ml.so.1"), "nvmlDeviceGetMemoryInfo"))(t_nvml_device(0), memory),
             0);
    t_equal(memory[0], limit);
    t_equal(memory[1], t_free());
}

int main(void)
{
    bool mps = getenv("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT");
    uint64_t own = t_bytes("SOFTSLICE_VRAM", 0), native = T_GIB, limit, taken = 0;

    if (!mps && strcmp(getenv("SOFTSIM_DRIVER_VERSION"), "13040") != 0)
        native = UINT64_MAX; /* a driver without limits of its own */
    if (mps) {               /* without a daemon the variable means nothing, to the driver or to us */
        char directory[PATH_MAX], pipe_name[PATH_MAX + 16];

        snprintf(directory, sizeof(directory), "%s/mps-%d", getenv("TEST_TMP"), (int)getpid());
        t_check(mkdir(directory, 0700) == 0, "mkdir %s: %s", directory, strerror(errno));
        t_check(setenv("CUDA_MPS_PIPE_DIRECTORY", directory, 1) == 0, "setenv");
        if (getenv("TEST_AGAIN") == NULL) {
            setenv("TEST_AGAIN", "1", 1);
            pid_t child = t_fork();
            if (child == 0) {
                t_context(0);
                story(own);
                _exit(0);
            }
            t_join(child);
        }
        snprintf(pipe_name, sizeof(pipe_name), "%s/control", directory);
        t_check(mkfifo(pipe_name, 0600) == 0, "mkfifo: %s", strerror(errno));
    }
    limit = own < native ? own : native;
    t_context(0);
    story(limit);
    while (t_alloc(32 * T_MIB))
        taken += 32 * T_MIB;
    t_check(taken < limit && t_free() < 32 * T_MIB, "%llu bytes were granted under %llu", (unsigned long long)taken,
            (unsigned long long)limit);
    story(limit);
    if (native != T_GIB || mps)
        return 0;
    /* The driver's may be changed while it runs: softslice's own is what is left. */
    setenv("SOFTSIM_MEMORY_LIMITS", "0:18446744073709551615", 1);
    for (uint64_t end = t_now_ms() + 10000; t_now_ms() < end && nvml_total() != own; usleep(10000))
        ;
    story(own);
    return 0;
}
