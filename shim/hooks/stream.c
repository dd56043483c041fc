/* SPDX-License-Identifier: Apache-2.0 */
/* Streams. At a synchronisation the driver gives back what its pools no longer use, and all work of the stream is done. */
#include "../gate.h"
#include "../meter.h"

#define SYNCHRONIZE(symbol, per_thread)                                                                                            \
    CUresult symbol(CUstream hStream)                                                                                              \
    {                                                                                                                              \
        CUresult result = real.symbol(hStream);                                                                                    \
                                                                                                                                   \
        if (result == CUDA_SUCCESS && guard_acts(RESOLVE_VRAM))                                                                    \
            meters_read_released();                                                                                                \
        if (result == CUDA_SUCCESS)                                                                                                \
            gate_synchronised_stream(hStream, per_thread);                                                                         \
        return result;                                                                                                             \
    }

SYNCHRONIZE(cuStreamSynchronize, false)
SYNCHRONIZE(cuStreamSynchronize_ptsz, true)

/* Its handle may be the next stream's, of another context. */
#define DESTROY(symbol)                                                                                                            \
    CUresult symbol(CUstream hStream)                                                                                              \
    {                                                                                                                              \
        gate_stream_ending(hStream);                                                                                               \
        return real.symbol(hStream);                                                                                               \
    }

DESTROY(cuStreamDestroy)
DESTROY(cuStreamDestroy_v2)
