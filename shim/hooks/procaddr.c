/* SPDX-License-Identifier: Apache-2.0 */
/* Driver entry point access: the driver chooses the version, then its choice is swapped for our wrapper of that very function. */
#include "../resolve.h"

CUresult cuGetProcAddress(const char *symbol, void **pfn, int version, cuuint64_t flags)
{
    CUresult result = real.cuGetProcAddress(symbol, pfn, version, flags);

    if (result == CUDA_SUCCESS && pfn)
        *pfn = resolve_proc_address(symbol, *pfn, version, flags);
    return result;
}

CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int version, cuuint64_t flags, CUdriverProcAddressQueryResult *status)
{
    CUresult result = real.cuGetProcAddress_v2(symbol, pfn, version, flags, status);

    if (result == CUDA_SUCCESS && pfn)
        *pfn = resolve_proc_address(symbol, *pfn, version, flags);
    return result;
}
