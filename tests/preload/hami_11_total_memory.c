/* SPDX-License-Identifier: Apache-2.0 */
/* A fault of other limiters: cuDeviceTotalMem told 0 bytes where no limit was set, a limit above what the card has, and success for devices that do
 * not exist. */
// run: SOFTSLICE_TENANT=hami SOFTSIM_MEM=6G -- physical
// run: SOFTSIM_MEM=6G -- physical
// run: SOFTSLICE_VRAM=64GiB SOFTSIM_MEM=6G -- physical
// run: SOFTSLICE_VRAM=100% SOFTSIM_MEM=6G -- physical
// run: SOFTSLICE_VRAM=1=1GiB SOFTSIM_GPUS=2 SOFTSIM_MEM=6G -- physical
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_MEM=6G -- limited
#define __CUDA_API_VERSION_INTERNAL     1
#define __CUDA_API_VERSION_INTERNAL_ODR 1
#include "../helper.h"

#include <cuda.h>

#define REAL(symbol) ((__typeof__(&symbol))t_real(#symbol))

int main(int argc, char **argv)
{
    uint64_t expected = argc > 1 && *argv[1] == 'l' ? T_GIB : 6 * T_GIB;
    static const CUdevice wrong[] = {-1, 2, 99, 1 << 30};
    size_t bytes = 4711, free_bytes;
    unsigned first = 4711;
    CUcontext context;

    t_result(cuDeviceTotalMem_v2(&bytes, 0), REAL(cuDeviceTotalMem_v2)(&bytes, 0)); /* before cuInit */
    t_equal(bytes, 4711);
    t_cuda(cuInit(0));
    t_cuda(cuDeviceTotalMem_v2(&bytes, 0));
    t_equal(bytes, expected);
    t_cuda(cuDeviceTotalMem(&first, 0));
    t_equal(first, expected > UINT32_MAX ? UINT32_MAX : expected);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        bytes = 4711;
        t_result(cuDeviceTotalMem_v2(&bytes, wrong[i]), REAL(cuDeviceTotalMem_v2)(&bytes, wrong[i]));
        t_equal(bytes, 4711);
        t_result(cuDeviceTotalMem_v2(NULL, wrong[i]), REAL(cuDeviceTotalMem_v2)(NULL, wrong[i]));
    }
    t_result(cuDeviceTotalMem_v2(NULL, 0), REAL(cuDeviceTotalMem_v2)(NULL, 0));
    t_cuda(cuCtxCreate_v2(&context, 0, 0));
    t_cuda(cuMemGetInfo_v2(&free_bytes, &bytes));
    t_equal(bytes, expected);
    t_equal(free_bytes, expected - t_used(0));
    return 0;
}
