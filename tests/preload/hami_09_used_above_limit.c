/* SPDX-License-Identifier: Apache-2.0 */
/* Two faults of other limiters: where more is in use than the limit (it was lowered), NVML's free memory underflowed to 17 TB, and cuMemGetInfo
 * failed or wrote through NULL pointers. Here free is 0, nothing fails, and what is told comes right again. */
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_TENANT=hami SOFTSIM_CONTEXT_BYTES=100M
#include <fcntl.h>

#include "../cuda_helper.h"
#include "softslice/ledger.h"

static struct ledger ledger;
static int device;

/* As an administrator's command does it: from beside the tenant's processes. */
static void set_limit(uint64_t bytes)
{
    if (!ledger.file) {
        int directory = open(getenv("SOFTSLICE_STATE_DIR"), O_RDONLY | O_DIRECTORY);
        CUuuid uuid;

        t_cuda(cuDeviceGetUuid(&uuid, 0));
        t_check(ledger_attach(&ledger, directory, "hami") == 0, "%s", ledger.error);
        device = ledger_add_device(&ledger, (const uint8_t *)uuid.bytes, LEDGER_NO_LIMIT);
        t_check(device >= 0, "%s", ledger.error);
        close(directory);
    }
    ledger_set_limit(&ledger, (unsigned)device, bytes);
}

struct memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

static void told(uint64_t total, uint64_t free_bytes)
{
    unsigned long long v1[3];
    struct memory_v2 v2 = {.version = 0x02000028};
    void *nvml = t_library("libnvidia-ml.so.1"), *gpu = t_nvml_device(0);
    size_t seen_free = 1, seen_total = 1;

    t_result(((int (*)(void *, void *))dlsym(nvml, "nvmlDeviceGetMemoryInfo"))(gpu, v1), 0);
    t_equal(v1[0], total);
    t_equal(v1[1], free_bytes);
    t_equal(v1[2], total - free_bytes);
    t_result(((int (*)(void *, void *))dlsym(nvml, "nvmlDeviceGetMemoryInfo_v2"))(gpu, &v2), 0);
    t_equal(v2.total, total);
    t_equal(v2.free, free_bytes);
    t_equal(v2.used + v2.reserved, total - free_bytes);
    t_cuda(cuMemGetInfo(&seen_free, &seen_total));
    t_equal(seen_free, free_bytes);
    t_equal(seen_total, total);
    seen_free = seen_total = 1;
    t_cuda(cuMemGetInfo(&seen_free, NULL));
    t_equal(seen_free, free_bytes);
    t_cuda(cuMemGetInfo(NULL, &seen_total));
    t_equal(seen_total, total);
    t_cuda(cuMemGetInfo(NULL, NULL));
    t_cuda(cuDeviceTotalMem(&seen_total, 0));
    t_equal(seen_total, total);
}

int main(void)
{
    uint64_t cost = t_bytes("SOFTSIM_CONTEXT_BYTES", 0);
    CUdeviceptr pointer;

    t_context(0);
    told(T_GIB, T_GIB - cost);
    pointer = t_alloc(600 * T_MIB);
    t_check(pointer, "refused");
    set_limit(256 * T_MIB);
    told(256 * T_MIB, 0);
    t_check(!t_alloc(2 * T_MIB) && !t_alloc(512), "memory was granted with more in use than the limit");
    set_limit(cost + 600 * T_MIB); /* all of it, to the byte */
    told(cost + 600 * T_MIB, 0);
    set_limit(1);
    told(1, 0);
    set_limit(0);
    told(0, 0);
    t_cuda(cuMemFree(pointer));
    set_limit(256 * T_MIB);
    told(256 * T_MIB, 256 * T_MIB - cost);
    set_limit(T_GIB);
    told(T_GIB, T_GIB - cost);
    t_check(t_alloc(700 * T_MIB), "refused after the limit was raised");
    return 0;
}
