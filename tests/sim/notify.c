/* SPDX-License-Identifier: Apache-2.0 */
/* A process that takes more than its budget is told so, by how much, and no longer once it does not want to be. */
#include "helper.h"
#include <cuda.h>

static uint64_t calls, over; /* atomic */
static void *given;

static void told(CUasyncNotificationInfo *info, void *data, CUasyncCallbackHandle callback)
{
    CUasyncCallbackHandle other;
    size_t f;

    t_equal(info->type, CU_ASYNC_NOTIFICATION_TYPE_OVER_BUDGET);
    t_result(cuDeviceRegisterAsyncNotification(0, told, data, &other), CUDA_ERROR_NOT_PERMITTED);
    t_result(cuDeviceUnregisterAsyncNotification(0, callback), CUDA_ERROR_NOT_PERMITTED);
    t_result(cuMemGetInfo(&f, NULL), CUDA_ERROR_INVALID_CONTEXT); /* the driver can be called; nothing is current here */
    given = data;
    __atomic_store_n(&over, info->info.overBudget.bytesOverBudget, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
}

int main(void)
{
    CUasyncCallbackHandle h;
    CUdeviceptr p, q;
    CUcontext ctx;
    int data;

    setenv("SOFTSIM_MEM", "1G", 1);
    setenv("SOFTSIM_CONTEXT_BYTES", "100M", 1);
    setenv("SOFTSIM_DEVICE_BUDGET", "300M", 1);
    t_cuda(cuInit(0));
    t_result(cuDeviceRegisterAsyncNotification(1, told, NULL, &h), CUDA_ERROR_INVALID_DEVICE);
    t_result(cuDeviceRegisterAsyncNotification(0, NULL, NULL, &h), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuDeviceRegisterAsyncNotification(0, told, &data, &h));
    t_cuda(cuCtxCreate(&ctx, NULL, 0, 0));
    t_cuda(cuMemAlloc(&p, 200 * T_MIB));
    t_equal(__atomic_load_n(&calls, __ATOMIC_SEQ_CST), 0);
    t_cuda(cuMemAlloc(&q, 20 * T_MIB));
    for (uint64_t until = t_now_ms() + 10000; !__atomic_load_n(&calls, __ATOMIC_SEQ_CST);)
        t_check(t_now_ms() < until, "nobody was told");
    t_equal(__atomic_load_n(&over, __ATOMIC_SEQ_CST), 20 * T_MIB);
    t_check(given == &data, "not the data that were given");
    t_cuda(cuDeviceUnregisterAsyncNotification(0, h));
    t_result(cuDeviceUnregisterAsyncNotification(0, h), CUDA_ERROR_INVALID_VALUE);
    t_cuda(cuMemFree(q));
    t_cuda(cuMemAlloc(&q, 20 * T_MIB));
    t_equal(__atomic_load_n(&calls, __ATOMIC_SEQ_CST), 1);
    return 0;
}
