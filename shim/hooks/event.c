/* SPDX-License-Identifier: Apache-2.0 */
/* Events. At a synchronisation the driver gives back what its pools no longer use, and work may be done. */
#include "../gate.h"
#include "../meter.h"

CUresult cuEventSynchronize(CUevent hEvent)
{
    uint64_t entered = gate_enters();
    CUresult result = real.cuEventSynchronize(hEvent);

    if (result == CUDA_SUCCESS)
        gate_synchronised(entered);
    if (result == CUDA_SUCCESS && guard_acts(RESOLVE_VRAM))
        meters_read_released();
    return result;
}

CUresult cuEventQuery(CUevent hEvent)
{
    CUresult result = real.cuEventQuery(hEvent);

    if (result == CUDA_ERROR_NOT_READY)
        gate_unfinished();
    return result;
}
