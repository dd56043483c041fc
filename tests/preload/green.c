/* SPDX-License-Identifier: Apache-2.0 */
/* A green context retains the primary context: charged like it, once, together with what it takes itself; refused with everything as it was; and
 * given back with its last holder. Its own CUcontext is no further full context. */
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=300M
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSIM_GREEN_BYTES=50M
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSIM_NVML_PIDS=none
#include "../cuda_helper.h"

static CUdevResourceDesc desc;
static bool known;

static CUresult create(CUgreenCtx *green)
{
    return cuGreenCtxCreate(green, desc, 0, CU_GREEN_CTX_DEFAULT_STREAM);
}

static CUcontext enter(CUgreenCtx green)
{
    CUcontext context;

    t_cuda(cuCtxFromGreenCtx(&context, green));
    t_cuda(cuCtxSetCurrent(context));
    return context;
}

/* In the current context. Without a figure a context is charged with 512 MiB, whatever it takes. */
static void holds(uint64_t contexts, uint64_t blocks)
{
    t_equal(t_used(0), contexts + blocks);
    t_equal(t_total() - t_free(), (known ? contexts : 512 * T_MIB) + blocks);
}

int main(void)
{
    uint64_t context_bytes = t_bytes("SOFTSIM_CONTEXT_BYTES", 0), green_bytes = t_bytes("SOFTSIM_GREEN_BYTES", 0);
    CUgreenCtx a, b, refused = (CUgreenCtx)0x77;
    CUdevResource resource;
    CUcontext primary;
    CUdeviceptr block;

    known = !getenv("SOFTSIM_NVML_PIDS");
    t_cuda(cuInit(0));
    t_cuda(cuDeviceGetDevResource(0, &resource, CU_DEV_RESOURCE_TYPE_SM));
    t_cuda(cuDevResourceGenerateDesc(&desc, &resource, 1));
    t_check(cuGreenCtxCreate(NULL, desc, 0, CU_GREEN_CTX_DEFAULT_STREAM) != CUDA_SUCCESS, "created into NULL");
    t_check(cuGreenCtxCreate(&refused, desc, 99, CU_GREEN_CTX_DEFAULT_STREAM) != CUDA_SUCCESS, "created on no device");
    t_check(cuGreenCtxDestroy(refused) != CUDA_SUCCESS, "garbage was destroyed");

    for (int round = 0; round < 2; round++) {
        t_cuda(create(&a));
        enter(a);
        holds(context_bytes + green_bytes, 0);
        t_cuda(create(&b));
        holds(context_bytes + 2 * green_bytes, 0);
        block = t_alloc(64 * T_MIB);
        t_cuda(cuDevicePrimaryCtxRetain(&primary, 0));
        holds(context_bytes + 2 * green_bytes, 64 * T_MIB);
        enter(b);
        t_cuda(cuGreenCtxDestroy(a)); /* with the block in it */
        holds(context_bytes + green_bytes, 0);
        t_check(cuMemFree(block) != CUDA_SUCCESS, "a block outlived its context");
        if (round == 0) {
            t_cuda(cuGreenCtxDestroy(b));
            t_cuda(cuCtxSetCurrent(primary));
            holds(context_bytes, 0);
            t_cuda(cuDevicePrimaryCtxRelease(0));
        } else {
            t_cuda(cuDevicePrimaryCtxRelease(0));
            holds(context_bytes + green_bytes, 0);
            t_cuda(cuGreenCtxDestroy(b));
        }
        t_equal(t_used(0), 0);
    }

    /* Not even the context that it stands on fits; then that fits, and it does not. */
    CUcontext own = t_context(0);
    holds(context_bytes, 0);
    t_check(t_alloc(t_free() & ~(2 * T_MIB - 1)), "refused");
    uint64_t used = t_used(0);
    if (known && green_bytes) {
        t_result(create(&refused), CUDA_ERROR_OUT_OF_MEMORY);
        t_equal(t_used(0), used);
        t_equal(t_total() - t_free(), used);
    }
    t_cuda(cuCtxDestroy(own));
    t_equal(t_used(0), 0);
    return 0;
}
