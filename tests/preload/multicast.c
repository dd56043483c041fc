/* SPDX-License-Identifier: Apache-2.0 */
/* What is bound to a multicast object is held by it, after handle and mapping are gone, until it is unbound or the object ends. The object itself
 * costs nothing. */
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_GPUS=2 SOFTSIM_CONTEXT_BYTES=100M
#include "vmm_helper.h"

#define CONTEXT (100 * T_MIB)
#define SIZE    (64 * T_MIB)

static CUcontext context[2];

static void charged(uint64_t first, uint64_t second)
{
    uint64_t expected[2] = {first, second};

    for (int device = 0; device < 2; device++) {
        t_cuda(cuCtxSetCurrent(context[device]));
        t_equal(t_used((unsigned)device), CONTEXT + expected[device]);
        t_equal(t_free(), T_GIB - CONTEXT - expected[device]);
    }
}

static CUmemGenericAllocationHandle object(size_t size)
{
    CUmulticastObjectProp prop = {.numDevices = 2, .size = size, .handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR};
    CUmemGenericAllocationHandle handle;

    t_cuda(cuMulticastCreate(&handle, &prop));
    t_cuda(cuMulticastAddDevice(handle, 0));
    t_cuda(cuMulticastAddDevice(handle, 1));
    return handle;
}

static CUmemGenericAllocationHandle memory(int device)
{
    CUmemGenericAllocationHandle handle = t_create(device, SIZE);

    t_check(handle, "refused within the budget");
    return handle;
}

/* By handle; the last of binding, handle and mapping gives it back. */
static void bound_by_handle(void)
{
    CUmemGenericAllocationHandle team = object(2 * SIZE), handle[2] = {memory(0), memory(1)};
    CUdeviceptr place = t_reserve(SIZE);

    charged(SIZE, SIZE);
    for (int device = 0; device < 2; device++)
        t_cuda(cuMulticastBindMem(team, 0, handle[device], 0, SIZE, 0));
    t_cuda(cuMemMap(place, SIZE, 0, handle[0], 0));
    for (int device = 0; device < 2; device++)
        t_cuda(cuMemRelease(handle[device]));
    charged(SIZE, SIZE);
    t_cuda(cuMemUnmap(place, SIZE));
    charged(SIZE, SIZE);
    t_cuda(cuMulticastUnbind(team, 1, 0, SIZE));
    charged(SIZE, 0);
    t_check(cuMulticastUnbind(team, 1, 0, SIZE) != CUDA_SUCCESS, "a second unbinding");
    charged(SIZE, 0);
    t_cuda(cuMulticastUnbind(team, 0, 0, SIZE));
    charged(0, 0);

    /* The binding goes first. */
    handle[0] = memory(0);
    t_cuda(cuMulticastBindMem(team, 0, handle[0], 0, SIZE, 0));
    t_cuda(cuMulticastUnbind(team, 0, 0, SIZE));
    charged(SIZE, 0);
    t_cuda(cuMemRelease(handle[0]));
    charged(0, 0);
    t_cuda(cuMemRelease(team));
}

/* By address: whose handle is long gone. */
static void bound_by_address(void)
{
    CUmemGenericAllocationHandle team = object(2 * SIZE);
    CUdeviceptr place = t_reserve(SIZE);

    t_check(t_map(place, 0, SIZE), "refused within the budget");
    t_cuda(cuMulticastBindAddr(team, SIZE, place, SIZE, 0));
    t_cuda(cuMemUnmap(place, SIZE));
    charged(SIZE, 0);
    t_cuda(cuMulticastUnbind(team, 0, SIZE, SIZE));
    charged(0, 0);

    t_check(t_map(place, 0, SIZE), "refused within the budget");
    t_cuda(cuMulticastBindAddr(team, 0, place, SIZE, 0));
    t_cuda(cuMulticastUnbind(team, 0, 0, SIZE));
    charged(SIZE, 0);
    t_cuda(cuMemUnmap(place, SIZE));
    charged(0, 0);
    t_cuda(cuMemRelease(team));
}

/* The object ends with its handle and its mappings, and with it what is bound. */
static void ends_with_the_object(void)
{
    CUmemGenericAllocationHandle team = object(2 * SIZE), handle[3] = {memory(0), memory(1), memory(0)};
    CUdeviceptr place = t_reserve(2 * SIZE);

    t_cuda(cuMulticastBindMem(team, 0, handle[0], 0, SIZE, 0));
    t_cuda(cuMulticastBindMem(team, 0, handle[1], 0, SIZE, 0));
    t_cuda(cuMulticastBindMem(team, SIZE, handle[2], 0, SIZE, 0));
    for (int i = 0; i < 3; i++)
        t_cuda(cuMemRelease(handle[i]));
    charged(2 * SIZE, SIZE);
    t_cuda(cuMemMap(place, 2 * SIZE, 0, team, 0));
    t_cuda(cuMemRelease(team));
    charged(2 * SIZE, SIZE);
    t_cuda(cuMemUnmap(place, 2 * SIZE));
    charged(0, 0);
}

/* One block in two objects. */
static void bound_twice(void)
{
    CUmemGenericAllocationHandle team[2] = {object(SIZE), object(SIZE)}, handle = memory(0);

    for (int i = 0; i < 2; i++)
        t_cuda(cuMulticastBindMem(team[i], 0, handle, 0, SIZE, 0));
    t_cuda(cuMemRelease(handle));
    t_cuda(cuMemRelease(team[0]));
    charged(SIZE, 0);
    t_cuda(cuMulticastUnbind(team[1], 0, 0, SIZE));
    charged(0, 0);
    t_cuda(cuMemRelease(team[1]));
}

static void failing_calls(void)
{
    CUmulticastObjectProp none = {0};
    CUmemGenericAllocationHandle team = object(SIZE), handle[2] = {memory(0), memory(0)}, out = 0xdead;
    CUdeviceptr place = t_reserve(SIZE);

    t_result(cuMulticastCreate(&out, &none), CUDA_ERROR_INVALID_VALUE);
    t_equal(out, 0xdead);
    t_result(cuMulticastCreate(NULL, NULL), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMulticastBindMem(team, 0, handle[0], 0, SIZE, 1), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMulticastBindMem(team, SIZE, handle[0], 0, SIZE, 0), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMulticastBindMem(team, 0, 0x1230, 0, SIZE, 0), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMulticastBindMem(0x1230, 0, handle[0], 0, SIZE, 0), CUDA_ERROR_INVALID_VALUE);
    t_result(cuMulticastBindAddr(team, 0, place, SIZE, 0), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMemRelease(handle[0]));
    charged(SIZE, 0); /* nothing of it held the block */
    t_cuda(cuMulticastBindMem(team, 0, handle[1], 0, SIZE, 0));
    handle[0] = memory(0);
    t_result(cuMulticastBindMem(team, 0, handle[0], 0, SIZE, 0), CUDA_ERROR_INVALID_VALUE); /* that place is taken */
    t_cuda(cuMemRelease(handle[0]));
    charged(SIZE, 0);
    t_cuda(cuMemRelease(handle[1]));
    charged(SIZE, 0);
    t_result(cuMulticastUnbind(team, 0, SIZE, SIZE), CUDA_ERROR_INVALID_VALUE);
    charged(SIZE, 0);
    t_cuda(cuMemRelease(team));
    charged(0, 0);
}

/* Memory that this process exported and imported again costs once, however it is bound. */
static void imported(void)
{
    CUmemGenericAllocationHandle team = object(SIZE), handle = memory(0), again;
    int fd;

    t_cuda(cuMemExportToShareableHandle(&fd, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    t_cuda(cuMemImportFromShareableHandle(&again, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
    close(fd);
    charged(SIZE, 0);
    t_cuda(cuMulticastBindMem(team, 0, again, 0, SIZE, 0));
    t_cuda(cuMemRelease(again));
    charged(SIZE, 0);
    t_cuda(cuMulticastUnbind(team, 0, 0, SIZE));
    charged(SIZE, 0);
    t_cuda(cuMemRelease(handle));
    charged(0, 0);
    t_cuda(cuMemRelease(team));
}

int main(void)
{
    for (int device = 0; device < 2; device++)
        context[device] = t_context(device);
    for (unsigned i = 0; i < 3; i++) {
        bound_by_handle();
        bound_by_address();
        ends_with_the_object();
        bound_twice();
        failing_calls();
        imported();
        charged(0, 0);
    }
    return 0;
}
