/* SPDX-License-Identifier: Apache-2.0 */
/* Over-budget notifications: who registers with the driver is told of our budget too (shim/notify.c). */
#include "../notify.h"
#include "../guard.h"

CUresult cuDeviceRegisterAsyncNotification(CUdevice device, CUasyncCallback callbackFunc, void *userData,
                                           CUasyncCallbackHandle *callback)
{
    if (!guard_acts(RESOLVE_VRAM))
        return real.cuDeviceRegisterAsyncNotification(device, callbackFunc, userData, callback);
    if (notify_telling())
        return CUDA_ERROR_NOT_PERMITTED;
    guard_enter();
    CUresult result = real.cuDeviceRegisterAsyncNotification(device, callbackFunc, userData, callback);
    guard_leave();
    if (result == CUDA_SUCCESS && callbackFunc && callback)
        notify_register(device, callbackFunc, userData, *callback);
    return result;
}

CUresult cuDeviceUnregisterAsyncNotification(CUdevice device, CUasyncCallbackHandle callback)
{
    if (!guard_acts(RESOLVE_VRAM))
        return real.cuDeviceUnregisterAsyncNotification(device, callback);
    if (notify_telling())
        return CUDA_ERROR_NOT_PERMITTED;
    struct notice *notice = notify_withdraw(device, callback);
    guard_enter();
    CUresult result = real.cuDeviceUnregisterAsyncNotification(device, callback);
    guard_leave();
    if (notice && (result == CUDA_SUCCESS || result == CUDA_ERROR_DEINITIALIZED))
        notify_forget(notice);
    else if (notice)
        notify_restore(notice);
    return result;
}
