/* SPDX-License-Identifier: Apache-2.0 */
/* Where the driver fails at virtual memory, the program gets its error byte for byte, and what is charged is what the GPU has given. */
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_FAIL=cuMemCreate:1:2,cuMemCreate:2:719,cuMemCreate:3:800 -- create
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_FAIL=cuMemMap:1:2,cuMemUnmap:1:719,cuMemRelease:1:999,cuMemRetainAllocationHandle:1:719 -- hold
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_FAIL=cuMulticastBindMem:1:2,cuMulticastBindAddr:1:719,cuMulticastUnbind:1:719 -- multicast
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_MEM=500M -- physical
#include "vmm_helper.h"

#define CONTEXT (100 * T_MIB)
#define SIZE    (64 * T_MIB)

static void charged(uint64_t bytes)
{
    t_equal(t_used(0), CONTEXT + bytes);
    t_equal(t_free(), t_bytes("SOFTSLICE_VRAM", 0) - CONTEXT - bytes);
}

static void create(void)
{
    static const CUresult errors[] = {CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_LAUNCH_FAILED, CUDA_ERROR_NOT_PERMITTED};
    CUmemAllocationProp prop = t_prop(0);

    for (unsigned i = 0; i < 3; i++) {
        CUmemGenericAllocationHandle handle = 0xdead;

        t_result(cuMemCreate(&handle, SIZE, &prop, 0), errors[i]);
        t_equal(handle, 0xdead);
        charged(0);
    }
    t_check(t_create(0, SIZE), "refused within the budget");
    charged(SIZE);
}

static void hold(void)
{
    CUmemGenericAllocationHandle handle = t_create(0, SIZE), again = 0xdead;
    CUdeviceptr place = t_reserve(SIZE);

    t_result(cuMemMap(place, SIZE, 0, handle, 0), CUDA_ERROR_OUT_OF_MEMORY);
    t_result(cuMemRelease(handle), CUDA_ERROR_UNKNOWN);
    charged(SIZE); /* still there, and known by its handle */
    t_cuda(cuMemMap(place, SIZE, 0, handle, 0));
    t_result(cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)place), CUDA_ERROR_LAUNCH_FAILED);
    t_equal(again, 0xdead);
    t_cuda(cuMemRelease(handle));
    t_result(cuMemUnmap(place, SIZE), CUDA_ERROR_LAUNCH_FAILED);
    charged(SIZE);
    t_cuda(cuMemUnmap(place, SIZE));
    charged(0);
}

static void multicast(void)
{
    CUmulticastObjectProp prop = {.numDevices = 1, .size = SIZE};
    CUmemGenericAllocationHandle team, handle = t_create(0, SIZE);
    CUdeviceptr place = t_reserve(SIZE);

    t_cuda(cuMulticastCreate(&team, &prop));
    t_cuda(cuMulticastAddDevice(team, 0));
    t_cuda(cuMemMap(place, SIZE, 0, handle, 0));
    t_result(cuMulticastBindMem(team, 0, handle, 0, SIZE, 0), CUDA_ERROR_OUT_OF_MEMORY);
    t_result(cuMulticastBindAddr(team, 0, place, SIZE, 0), CUDA_ERROR_LAUNCH_FAILED);
    t_cuda(cuMemUnmap(place, SIZE));
    t_cuda(cuMemRelease(handle));
    charged(0);
    handle = t_create(0, SIZE);
    t_cuda(cuMulticastBindMem(team, 0, handle, 0, SIZE, 0));
    t_cuda(cuMemRelease(handle));
    t_result(cuMulticastUnbind(team, 0, 0, SIZE), CUDA_ERROR_LAUNCH_FAILED);
    charged(SIZE);
    t_cuda(cuMulticastUnbind(team, 0, 0, SIZE));
    charged(0);
}

/* The GPU ends before the budget does. */
static void physical(void)
{
    uint64_t blocks = 0;

    while (t_create(0, SIZE))
        blocks++;
    t_equal(blocks, (500 * T_MIB - CONTEXT) / SIZE);
    t_equal(t_used(0), CONTEXT + blocks * SIZE);
    t_equal(t_free(), 500 * T_MIB - CONTEXT - blocks * SIZE);
    t_check(t_create(0, 2 * T_MIB), "refused what the GPU has and the budget, too");
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    t_context(0);
    if (!strcmp(what, "create"))
        create();
    else if (!strcmp(what, "hold"))
        hold();
    else if (!strcmp(what, "multicast"))
        multicast();
    else
        physical();
    return 0;
}
