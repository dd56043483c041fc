/* SPDX-License-Identifier: Apache-2.0 */
/* cuDeviceUnregisterAsyncNotification: STORY, once */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void told(CUasyncNotificationInfo *info, void *data, CUasyncCallbackHandle handle)
{
    (void)info, (void)data, (void)handle;
}

static void snippet(void)
{
    CUasyncCallbackHandle handle;

    t_cuda(cuDeviceRegisterAsyncNotification(0, told, NULL, &handle));
    t_cuda(CALL(cuDeviceUnregisterAsyncNotification)(0, handle));
    t_check(CALL(cuDeviceUnregisterAsyncNotification)(0, handle) != CUDA_SUCCESS, "unregistered twice");
}
