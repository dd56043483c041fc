/* SPDX-License-Identifier: Apache-2.0 */
/* Asynchronous notifications: programs register, and are never told anything, for the simulated driver keeps no budget for a process. */
#include "sim.h"

struct sim_notice {
    struct sim_object_head head;
    CUdevice device;
};

CUresult cuDeviceRegisterAsyncNotification(CUdevice device, CUasyncCallback callbackFunc, void *userData,
                                           CUasyncCallbackHandle *callback)
{
    struct sim_notice *notice;

    (void)userData;
    ENTER();
    SIM_GUARD();
    if (device < 0 || device >= sim->devices)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!callbackFunc || !callback)
        return CUDA_ERROR_INVALID_VALUE;
    notice = sim_handle_new(sizeof(*notice), SIM_NOTICE, NULL);
    if (!notice)
        return CUDA_ERROR_OUT_OF_MEMORY;
    notice->device = device;
    *callback = (CUasyncCallbackHandle)notice;
    return CUDA_SUCCESS;
}

CUresult cuDeviceUnregisterAsyncNotification(CUdevice device, CUasyncCallbackHandle callback)
{
    struct sim_notice *notice;

    ENTER();
    SIM_GUARD();
    if (device < 0 || device >= sim->devices)
        return CUDA_ERROR_INVALID_DEVICE;
    notice = sim_handle_find(callback, SIM_NOTICE);
    if (!notice || notice->device != device)
        return CUDA_ERROR_INVALID_VALUE;
    sim_handle_free(notice);
    return CUDA_SUCCESS;
}
