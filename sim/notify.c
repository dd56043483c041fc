/* SPDX-License-Identifier: Apache-2.0 */
/* Asynchronous notifications: that the process has more HBM than its budget (SOFTSIM_DEVICE_BUDGET). */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "sim.h"
#include "virtual.h"

#pragma weak virtual_leave

/* Of a callback: `due` until it has been called, `busy` while it runs. */
struct sim_notification {
    struct sim_object_head head;
    int dev;
    CUasyncCallback callback;
    void *data;
    bool due, busy;
    uint64_t bytes;
};

static pthread_mutex_t wake_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static bool woken, started;
static __thread bool inside;

static struct sim_notification *first_due(void)
{
    struct sim_notification *n = sim_handle_first(SIM_NOTIFICATION, NULL);

    while (n && !n->due)
        n = sim_handle_next(n);
    return n;
}

/* Callbacks run one after the other, and may call the driver. */
static void *notifier(void *arg)
{
    inside = true;
    /* It waits in real time. */
    if (virtual_leave)
        virtual_leave();
    for (;;) {
        struct sim_notification *n;

        pthread_mutex_lock(&wake_lock);
        while (!woken)
            pthread_cond_wait(&wake, &wake_lock);
        woken = false;
        pthread_mutex_unlock(&wake_lock);
        sim_lock();
        while ((n = first_due())) {
            CUasyncNotificationInfo info = {.type = CU_ASYNC_NOTIFICATION_TYPE_OVER_BUDGET,
                                            .info = {.overBudget = {.bytesOverBudget = n->bytes}}};

            n->due = false;
            n->busy = true;
            sim_unlock();
            n->callback(&info, n->data, (CUasyncCallbackHandle)n);
            sim_lock();
            n->busy = false;
        }
        sim_unlock();
    }
    return arg;
}

void sim_notify(int dev, uint64_t bytes)
{
    bool any = false;

    for (struct sim_notification *n = sim_handle_first(SIM_NOTIFICATION, NULL); n; n = sim_handle_next(n)) {
        if (n->dev != dev)
            continue;
        n->due = any = true;
        n->bytes = bytes;
    }
    if (!any)
        return;
    pthread_mutex_lock(&wake_lock);
    woken = true;
    pthread_cond_signal(&wake);
    pthread_mutex_unlock(&wake_lock);
}

static bool start(void)
{
    sigset_t all, before;
    pthread_t id;

    if (started)
        return true;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    started = pthread_create(&id, NULL, notifier, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started)
        pthread_detach(id);
    return started;
}

CUresult cuDeviceRegisterAsyncNotification(CUdevice device, CUasyncCallback callbackFunc, void *userData,
                                           CUasyncCallbackHandle *callback)
{
    struct sim_notification *n;

    ENTER();
    if (inside)
        return CUDA_ERROR_NOT_PERMITTED;
    SIM_GUARD();
    if (!sim_device_valid(device))
        return CUDA_ERROR_INVALID_DEVICE;
    if (!callbackFunc || !callback)
        return CUDA_ERROR_INVALID_VALUE;
    n = start() ? sim_handle_new(sizeof(*n), SIM_NOTIFICATION, NULL) : NULL;
    if (!n)
        return CUDA_ERROR_UNKNOWN;
    n->dev = device;
    n->callback = callbackFunc;
    n->data = userData;
    *callback = (CUasyncCallbackHandle)n;
    return CUDA_SUCCESS;
}

/* Waits for the callback when it runs just now (assumed). */
CUresult cuDeviceUnregisterAsyncNotification(CUdevice device, CUasyncCallbackHandle callback)
{
    struct sim_notification *n;

    ENTER();
    if (inside)
        return CUDA_ERROR_NOT_PERMITTED;
    SIM_GUARD();
    if (!sim_device_valid(device))
        return CUDA_ERROR_INVALID_DEVICE;
    while ((n = sim_handle_find(callback, SIM_NOTIFICATION)) && n->dev == device && n->busy)
        sim_stream_poll();
    if (!n || n->dev != device)
        return CUDA_ERROR_INVALID_VALUE;
    sim_handle_free(n);
    return CUDA_SUCCESS;
}
