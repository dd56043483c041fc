/* SPDX-License-Identifier: Apache-2.0 */
/* Copies to the host that return when they are done, and so is what was launched before them: many programs wait in no other way. */
#include "../gate.h"

#define BYTES_A_NS 3 /* that a copy takes by itself: to memory that is not pinned, no less */

#define COPY(symbol, parameters, arguments)                                                                                        \
    CUresult symbol parameters                                                                                                     \
    {                                                                                                                              \
        uint64_t entered = gate_enters();                                                                                          \
        CUresult result = real.symbol arguments;                                                                                   \
                                                                                                                                   \
        if (result == CUDA_SUCCESS)                                                                                                \
            gate_synchronised(entered ? entered + ByteCount / BYTES_A_NS : 0);                                                     \
        return result;                                                                                                             \
    }

COPY(cuMemcpyDtoH, (void *dstHost, CUdeviceptr_v1 srcDevice, unsigned int ByteCount), (dstHost, srcDevice, ByteCount))
COPY(cuMemcpyDtoH_v2, (void *dstHost, CUdeviceptr srcDevice, size_t ByteCount), (dstHost, srcDevice, ByteCount))
COPY(cuMemcpyDtoH_v2_ptds, (void *dstHost, CUdeviceptr srcDevice, size_t ByteCount), (dstHost, srcDevice, ByteCount))
