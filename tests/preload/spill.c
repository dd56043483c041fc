/* SPDX-License-Identifier: Apache-2.0 */
/* With spill = host, what the budget has no room for is had on the host: it works and is freed like any other block, takes no HBM, and is counted
 * apart; what cannot be had there is refused as ever. */
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_SPILL=host SOFTSIM_CONTEXT_BYTES=300M SOFTSLICE_TENANT=spill
// run: SOFTSLICE_VRAM=777MiB SOFTSLICE_SPILL=host SOFTSIM_CONTEXT_BYTES=301M SOFTSLICE_TENANT=spill SOFTSIM_GRANULARITY=64K
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_SPILL=host SOFTSIM_CONTEXT_BYTES=300M SOFTSLICE_TENANT=spill SOFTSIM_FAIL=cuMemAdvise:1+:101 -- refused
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_SPILL=host SOFTSIM_CONTEXT_BYTES=300M SOFTSLICE_TENANT=spill SOFTSIM_FAIL=cuMemAllocManaged:1+:801 -- refused
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSLICE_TENANT=spill -- refused
#include <fcntl.h>

#include "../cuda_helper.h"
#include "softslice/ledger.h"

enum { MOST = 8192 };

static CUdeviceptr held[MOST];
static size_t count;

/* What the ledger says that this tenant keeps on the host. */
static uint64_t spilled(void)
{
    int directory = open(getenv("SOFTSLICE_STATE_DIR"), O_RDONLY | O_DIRECTORY);
    static struct ledger_view view;

    t_check(directory >= 0 && ledger_read(directory, "spill", &view) == 0, "the ledger cannot be read");
    close(directory);
    t_equal(view.devices, 1);
    return view.device[0].spilled;
}

static bool managed(CUdeviceptr pointer)
{
    int is = 0;

    t_cuda(cuPointerGetAttribute(&is, CU_POINTER_ATTRIBUTE_IS_MANAGED, pointer));
    return is;
}

/* Fill the budget with plain memory. */
static void fill(void)
{
    while (t_free()) {
        t_check(count < MOST, "the budget is never full");
        t_check((held[count] = t_alloc(t_free() >= 4 * T_MIB ? 4 * T_MIB : t_granule())), "what is free was refused");
        t_check(!managed(held[count]), "a block on the host while the budget had room");
        count++;
    }
    t_equal(spilled(), 0);
    t_check(t_used(0) <= t_total(), "more is in use than the budget has");
}

static void empty(void)
{
    while (count)
        t_cuda(cuMemFree(held[--count]));
}

/* A block on the host can be used, and leaves nothing. */
static void use(CUdeviceptr pointer, size_t size)
{
    unsigned char bytes[64];

    t_check(managed(pointer), "a block on the GPU that the budget has no room for");
    t_cuda(cuMemsetD8(pointer, 0x5a, size));
    t_cuda(cuMemcpyDtoH(bytes, pointer + (size < 100 * T_MIB ? size : T_MIB) - sizeof(bytes), sizeof(bytes)));
    t_check(bytes[0] == 0x5a && bytes[63] == 0x5a, "the bytes that were set are not there");
}

static void one(size_t size)
{
    uint64_t used = t_used(0), before = spilled();
    CUdeviceptr pointer = t_alloc(size);
    CUipcMemHandle handle;

    t_check(pointer, "%zu bytes were refused", size);
    use(pointer, size);
    t_equal(t_used(0), used);
    t_equal(spilled(), before + size);
    t_equal(t_free(), 0);
    t_check(cuIpcGetMemHandle(&handle, pointer) != CUDA_SUCCESS, "an IPC handle of memory on the host");
    t_result(cuMemPrefetchAsync(pointer, size, (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_DEVICE}, 0, NULL),
             CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMemFree(pointer));
    t_check(cuMemFree(pointer) != CUDA_SUCCESS, "a second free of one block succeeded");
    t_equal(spilled(), before);
}

static void pitched(void)
{
    CUdeviceptr pointer;
    size_t pitch = 77;

    t_cuda(cuMemAllocPitch(&pointer, &pitch, 5000, 3000, 4));
    t_check(pitch >= 5000 && pitch % 512 == 0, "pitch %zu", pitch);
    use(pointer, pitch * 3000);
    t_equal(spilled(), pitch * 3000);
    t_cuda(cuMemFree(pointer));
    t_equal(spilled(), 0);
}

/* Neither what is impossible nor what is no plain memory goes to the host. */
static void refused(void)
{
    CUarray array = (CUarray)0x1230;
    CUdeviceptr pointer = T_UNTOUCHED;
    size_t pitch = 77;

    t_check(!t_alloc((size_t)1 << 63) && !t_alloc(SIZE_MAX), "an impossible size was granted");
    t_result(cuMemAllocPitch(&pointer, &pitch, (size_t)1 << 33, (size_t)1 << 33, 4), CUDA_ERROR_OUT_OF_MEMORY);
    t_result(cuMemAllocPitch(&pointer, &pitch, SIZE_MAX, 1, 4), CUDA_ERROR_OUT_OF_MEMORY);
    t_result(cuMemAllocManaged(&pointer, 64 * T_MIB, CU_MEM_ATTACH_GLOBAL), CUDA_ERROR_OUT_OF_MEMORY);
    t_result(cuArrayCreate(&array, &(CUDA_ARRAY_DESCRIPTOR){1024, 1024, CU_AD_FORMAT_FLOAT, 4}), CUDA_ERROR_OUT_OF_MEMORY);
    t_check(pointer == T_UNTOUCHED && pitch == 77 && array == (CUarray)0x1230, "a refused call wrote its output");
    t_equal(spilled(), 0);
}

int main(int argc, char **argv)
{
    CUcontext context = t_context(0);
    uint64_t with_context = t_used(0);

    (void)argv;
    fill();
    if (argc > 1) { /* it cannot be had on the host, or is not wanted there */
        t_check(!t_alloc(64 * T_MIB) && !t_alloc(4096 * 4096), "memory beyond the budget was granted");
        refused();
        t_equal(t_free(), 0);
        empty();
        t_equal(t_used(0), with_context);
        return 0;
    }
    one(100 * T_MIB);
    one(T_MIB + 1);
    one(4 * T_GIB);
    pitched();
    refused();

    /* Small blocks fill the granules that are there first. */
    t_cuda(cuMemFree(held[--count]));
    size_t before = count;
    while (count < MOST && (held[count] = t_alloc(4096)) && !managed(held[count]))
        count++;
    t_check(count < MOST && count > before, "small blocks");
    use(held[count++], 4096);
    t_equal(spilled(), 4096);

    /* When there is room again it is used. */
    empty();
    t_equal(spilled(), 0);
    t_equal(t_used(0), with_context);
    CUdeviceptr pointer = t_alloc(64 * T_MIB);
    t_check(pointer && !managed(pointer), "a block on the host while the budget has room");
    t_cuda(cuMemFree(pointer));

    /* The context's end takes it along. */
    fill();
    t_check(t_alloc(T_GIB) && t_alloc(64 * T_MIB), "refused");
    t_equal(spilled(), T_GIB + 64 * T_MIB);
    t_cuda(cuCtxDestroy(context));
    t_equal(spilled(), 0);
    t_equal(t_used(0), 0);
    return 0;
}
