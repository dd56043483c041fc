/* SPDX-License-Identifier: Apache-2.0 */
/* cuDeviceRegisterAsyncNotification: STORY, registered with the driver too */
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

    t_cuda(CALL(cuDeviceRegisterAsyncNotification)(0, told, NULL, &handle));
    t_cuda(cuDeviceUnregisterAsyncNotification(0, handle));
}
