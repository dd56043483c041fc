/* SPDX-License-Identifier: Apache-2.0 */
/* Streams. At a synchronisation the driver gives back what its pools no longer use, and all work of the stream is done. */
#include "../gate.h"
#include "../meter.h"

#define SYNCHRONIZE(symbol, per_thread)                                                                                            \
    CUresult symbol(CUstream hStream)                                                                                              \
    {                                                                                                                              \
        uint64_t entered = gate_enters();                                                                                          \
        CUresult result = real.symbol(hStream);                                                                                    \
                                                                                                                                   \
        if (result == CUDA_SUCCESS)                                                                                                \
            gate_synchronised_stream(hStream, per_thread, entered);                                                                \
        if (result == CUDA_SUCCESS && guard_acts(RESOLVE_VRAM))                                                                    \
            meters_read_released();                                                                                                \
        return result;                                                                                                             \
    }

SYNCHRONIZE(cuStreamSynchronize, false)
SYNCHRONIZE(cuStreamSynchronize_ptsz, true)

#define QUERY(symbol, per_thread)                                                                                                  \
    CUresult symbol(CUstream hStream)                                                                                              \
    {                                                                                                                              \
        CUresult result = real.symbol(hStream);                                                                                    \
                                                                                                                                   \
        if (result == CUDA_ERROR_NOT_READY)                                                                                        \
            gate_unfinished_stream(hStream, per_thread);                                                                           \
        return result;                                                                                                             \
    }

QUERY(cuStreamQuery, false)
QUERY(cuStreamQuery_ptsz, true)

/* Its handle may be the next stream's, of another context. */
#define DESTROY(symbol)                                                                                                            \
    CUresult symbol(CUstream hStream)                                                                                              \
    {                                                                                                                              \
        gate_stream_ending(hStream);                                                                                               \
        return real.symbol(hStream);                                                                                               \
    }

DESTROY(cuStreamDestroy)
DESTROY(cuStreamDestroy_v2)

#define BEGIN_CAPTURE(symbol, parameters, arguments)                                                                               \
    CUresult symbol parameters                                                                                                     \
    {                                                                                                                              \
        CUresult result = real.symbol arguments;                                                                                   \
                                                                                                                                   \
        if (result == CUDA_SUCCESS)                                                                                                \
            gate_capture_begun();                                                                                                  \
        return result;                                                                                                             \
    }

BEGIN_CAPTURE(cuStreamBeginCapture, (CUstream hStream), (hStream))
BEGIN_CAPTURE(cuStreamBeginCapture_ptsz, (CUstream hStream), (hStream))
BEGIN_CAPTURE(cuStreamBeginCapture_v2, (CUstream hStream, CUstreamCaptureMode mode), (hStream, mode))
BEGIN_CAPTURE(cuStreamBeginCapture_v2_ptsz, (CUstream hStream, CUstreamCaptureMode mode), (hStream, mode))

#define TO_GRAPH_PARAMETERS                                                                                                        \
    CUstream hStream, CUgraph hGraph, const CUgraphNode *dependencies, const CUgraphEdgeData *dependencyData,                      \
        size_t numDependencies, CUstreamCaptureMode mode
#define TO_GRAPH_ARGUMENTS hStream, hGraph, dependencies, dependencyData, numDependencies, mode

BEGIN_CAPTURE(cuStreamBeginCaptureToGraph, (TO_GRAPH_PARAMETERS), (TO_GRAPH_ARGUMENTS))
BEGIN_CAPTURE(cuStreamBeginCaptureToGraph_ptsz, (TO_GRAPH_PARAMETERS), (TO_GRAPH_ARGUMENTS))
