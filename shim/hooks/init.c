/* SPDX-License-Identifier: Apache-2.0 */
/* cuInit: where limits that cannot be kept stop a program. */
#include "../arm.h"
#include "../guard.h"
#include "../process.h"
#include "softslice/log.h"

static CUresult refuse_unmapped(void)
{
    static uint32_t told;

    if (__atomic_exchange_n(&told, 1, __ATOMIC_RELAXED) == 0)
        log_error("this driver's cuGetProcAddress hands out a cuMemAlloc that softslice cannot map, so no budget would hold; "
                  "SOFTSLICE_ON_ERROR=open runs without limits");
    return CUDA_ERROR_OPERATING_SYSTEM;
}

CUresult cuInit(unsigned int flags)
{
    if (!guard_acts(RESOLVE_ANY))
        return real.cuInit(flags);
    const struct config *config = arm_config();
    bool closed = config->on_error == CONFIG_CLOSED;

    if (config->error[0] && closed)
        return CUDA_ERROR_OPERATING_SYSTEM;
    guard_enter();
    CUresult result = real.cuInit(flags);
    guard_leave();
    if (result != CUDA_SUCCESS)
        return result;
    if (closed && resolve_armed(RESOLVE_VRAM) && !resolve_can_hold())
        return refuse_unmapped();
    /* No device is nothing to limit: the program is told what the driver told it. */
    return process_attach() == CUDA_ERROR_OPERATING_SYSTEM ? CUDA_ERROR_OPERATING_SYSTEM : CUDA_SUCCESS;
}
