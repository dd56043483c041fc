/* SPDX-License-Identifier: Apache-2.0 */
/* Compiled, not run: every wrapper has the type that NVIDIA's cudaTypedefs.h gives for its name, CUDA version and default-stream variant, so
 * that a row of hooks.def with a wrong version or a wrapper of another ABI stops the build. */
#include <type_traits>

#define __CUDA_API_VERSION_INTERNAL     1
#define __CUDA_API_VERSION_INTERNAL_ODR 1
#include <cuda.h>
#include <cudaProfiler.h>
#include <cudaProfilerTypedefs.h>
#include <cudaTypedefs.h>

#define HOOK(home, body, arm, base, symbol, since, per_thread, ...) CHECK_##body(base, symbol, since, per_thread)
#define CHECK_FORWARD(base, symbol, since, per_thread)         /* no wrapper: jumps, whatever the prototype */
#define CHECK_WRAP(base, symbol, since, per_thread)                                                                                \
    static_assert(std::is_same<PFN_##per_thread(base, since), decltype(&symbol)>::value, #symbol " is not the ABI of " #since);
#define PFN_0(base, since) PFN_##base##_v##since
#define PFN_1(base, since) PFN_##base##_v##since##_ptsz
#define PFN_cuMemcpyDtoH_v7000_ptsz PFN_cuMemcpyDtoH_v7000_ptds /* so are those of copies called */
#include "../../shim/hooks.def"

int main()
{
    return 0;
}
