/* SPDX-License-Identifier: Apache-2.0 */
/* headroom: allocations leave it free, and say so; what the driver takes by itself may use it, up to the limit. */
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_HEADROOM=200MiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_MODULE_BYTES=64M SOFTSIM_LAZY_BYTES=10M
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_HEADROOM=200MiB SOFTSLICE_TENANT=room SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_MODULE_BYTES=64M SOFTSIM_LAZY_BYTES=10M
#include "../cuda_helper.h"

static void small_ones(uint64_t bytes)
{
    CUdeviceptr p;

    for (uint64_t i = 0; i < bytes / T_MIB; i++)
        t_cuda(cuMemAlloc(&p, T_MIB));
}

int main(void)
{
    uint64_t limit = t_bytes("SOFTSLICE_VRAM", 0), headroom = 200 * T_MIB, context = t_bytes("SOFTSIM_CONTEXT_BYTES", 0);
    CUdeviceptr p = T_UNTOUCHED;
    CUmodule module, refused = (CUmodule)0x77;
    CUfunction function;

    t_context(0);
    t_equal(t_total(), limit);
    t_equal(t_free(), limit - headroom - context);
    t_check(!t_alloc(t_free() + T_MIB), "an allocation took the headroom");
    t_check(t_alloc(t_free() - 20 * T_MIB), "refused");
    small_ones(20 * T_MIB);
    t_equal(t_free(), 0);
    t_equal(t_used(0), limit - headroom);
    t_result(cuMemAlloc(&p, 2 * T_MIB), CUDA_ERROR_OUT_OF_MEMORY);
    t_result(cuMemAllocAsync(&p, T_MIB, NULL), CUDA_ERROR_OUT_OF_MEMORY);

    for (int i = 0; i < 3; i++)
        t_cuda(cuModuleLoadData(&module, "an image"));
    t_equal(t_used(0), limit - headroom + 192 * T_MIB);
    t_result(cuModuleLoadData(&refused, "an image"), CUDA_ERROR_OUT_OF_MEMORY);
    t_check(refused == (CUmodule)0x77, "a refused load wrote its output");
    t_equal(t_free(), 0);
    t_cuda(cuModuleUnload(module));
    t_result(cuMemAlloc(&p, 2 * T_MIB), CUDA_ERROR_OUT_OF_MEMORY);
    t_cuda(cuModuleLoadData(&module, "an image"));
    t_cuda(cuModuleGetFunction(&function, module, "f"));
    t_cuda(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
    t_equal(t_free(), 0);
    return 0;
}
