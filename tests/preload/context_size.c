/* SPDX-License-Identifier: Apache-2.0 */
/* A context that turns out larger than the budget is refused and leaves no trace; and what was in its figure beside it is no reason to refuse
 * those that come later. */
// run: SOFTSLICE_VRAM=2GiB SOFTSIM_CONTEXT_BYTES=300M
// run: SOFTSLICE_VRAM=2GiB SOFTSIM_CONTEXT_BYTES=300M SOFTSLICE_TENANT=sizes
#include "../cuda_helper.h"

int main(void)
{
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    CUmemGenericAllocationHandle handle;
    CUcontext context = t_context(0), untouched = (CUcontext)0x77, refused = untouched;

    /* Memory that is taken on a road that we do not see, and that outlives the context. */
    __typeof__(&cuMemCreate) create = (__typeof__(&cuMemCreate))t_real("cuMemCreate");
    __typeof__(&cuMemRelease) release = (__typeof__(&cuMemRelease))t_real("cuMemRelease");
    t_cuda(create(&handle, 3 * T_GIB, &prop, 0));
    t_cuda(cuCtxDestroy(context));
    t_result(cuCtxCreate(&refused, NULL, 0, 0), CUDA_ERROR_OUT_OF_MEMORY);
    t_check(refused == untouched, "a refused cuCtxCreate wrote its output");
    t_result(cuDevicePrimaryCtxRetain(&refused, 0), CUDA_ERROR_OUT_OF_MEMORY);
    t_check(refused == untouched, "a refused cuDevicePrimaryCtxRetain wrote its output");
    t_cuda(cuCtxGetCurrent(&refused));
    t_check(!refused, "a refused context is current");
    t_equal(t_used(0), 3 * T_GIB);

    t_cuda(release(handle));
    t_context(0);
    t_equal(t_total() - t_free(), t_bytes("SOFTSIM_CONTEXT_BYTES", 0));
    t_equal(t_used(0), t_bytes("SOFTSIM_CONTEXT_BYTES", 0));
    return 0;
}
