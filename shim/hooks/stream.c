/* SPDX-License-Identifier: Apache-2.0 */
/* Streams. At a synchronisation the driver gives back what its pools no longer use. */
#include "../guard.h"
#include "../meter.h"
#include "../real.h"

#define SYNCHRONIZE(symbol)                                                                                                        \
    CUresult symbol(CUstream hStream)                                                                                              \
    {                                                                                                                              \
        CUresult result = real.symbol(hStream);                                                                                    \
                                                                                                                                   \
        if (result == CUDA_SUCCESS && guard_acts(RESOLVE_VRAM))                                                                    \
            meters_read_released();                                                                                                \
        return result;                                                                                                             \
    }

SYNCHRONIZE(cuStreamSynchronize)
SYNCHRONIZE(cuStreamSynchronize_ptsz)
