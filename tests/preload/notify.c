/* SPDX-License-Identifier: Apache-2.0 */
/* Who registered for over-budget notifications is told, once, each time that the tenant goes over its limit (by what the driver takes itself), with
 * by how much; not after it unregistered; and bad arguments get the driver's own answers. */
// run: SOFTSLICE_VRAM=200MiB SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_LAZY_BYTES=64M
// run: SOFTSLICE_VRAM=300MiB SOFTSLICE_TENANT=notify SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_LAZY_BYTES=64M -- tenant
// run: SOFTSIM_CONTEXT_BYTES=100M SOFTSIM_LAZY_BYTES=64M -- unlimited
#include <poll.h>
#include <sys/prctl.h>

#include "../cuda_helper.h"

#define SECONDS 60

typedef CUresult register_function(CUdevice, CUasyncCallback, void *, CUasyncCallbackHandle *);
typedef CUresult unregister_function(CUdevice, CUasyncCallbackHandle);

struct seen {
    CUasyncCallbackHandle handle;
    unsigned long long bytes;
    int times, permitted;
};
static struct seen first, second;
static CUdevice device;
static CUmodule module;

static int times(const struct seen *seen)
{
    return __atomic_load_n(&seen->times, __ATOMIC_ACQUIRE);
}

static void callback(CUasyncNotificationInfo *info, void *data, CUasyncCallbackHandle handle)
{
    struct seen *seen = data;
    CUasyncCallbackHandle another;

    t_equal(info->type, CU_ASYNC_NOTIFICATION_TYPE_OVER_BUDGET);
    t_check(handle == seen->handle, "told of another handle");
    seen->bytes = info->info.overBudget.bytesOverBudget;
    /* "Callbacks may not call cuDeviceRegisterAsyncNotification or cuDeviceUnregisterAsyncNotification." */
    if (cuDeviceRegisterAsyncNotification(device, callback, data, &another) != CUDA_ERROR_NOT_PERMITTED ||
        cuDeviceUnregisterAsyncNotification(device, handle) != CUDA_ERROR_NOT_PERMITTED)
        seen->permitted++;
    __atomic_add_fetch(&seen->times, 1, __ATOMIC_RELEASE);
}

/* The driver takes memory for a function that nobody used before. */
static void grow(const char *name)
{
    CUfunction function;

    t_cuda(cuModuleGetFunction(&function, module, name));
    t_cuda(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
}

static void expect(const struct seen *seen, int count, const char *when)
{
    uint64_t end = t_now_ms() + SECONDS * 1000;

    while (times(seen) < count && t_now_ms() < end)
        usleep(10000);
    t_check(times(seen) == count, "%s: told %d times, not %d", when, times(seen), count);
    t_equal(seen->permitted, 0);
}

static void look_at_errors(void)
{
    register_function *theirs = (register_function *)t_real("cuDeviceRegisterAsyncNotification");
    unregister_function *end = (unregister_function *)t_real("cuDeviceUnregisterAsyncNotification");
    CUasyncCallbackHandle handle = (CUasyncCallbackHandle)0x1234, same = handle;

    t_result(cuDeviceRegisterAsyncNotification(device, NULL, NULL, &handle), theirs(device, NULL, NULL, &same));
    t_result(cuDeviceRegisterAsyncNotification(device, callback, NULL, NULL), theirs(device, callback, NULL, NULL));
    t_result(cuDeviceRegisterAsyncNotification(99, callback, NULL, &handle), theirs(99, callback, NULL, &same));
    t_check(handle == same, "a refused registration wrote its handle");
    t_result(cuDeviceUnregisterAsyncNotification(device, NULL), end(device, NULL));
    t_result(cuDeviceUnregisterAsyncNotification(device, handle), end(device, handle));
    t_cuda(cuDeviceRegisterAsyncNotification(device, callback, &second, &handle));
    t_check(cuDeviceUnregisterAsyncNotification(99, handle) != CUDA_SUCCESS, "another device's registration was ended");
    t_cuda(cuDeviceUnregisterAsyncNotification(device, handle));
    t_check(cuDeviceUnregisterAsyncNotification(device, handle) != CUDA_SUCCESS, "a registration was ended twice");
}

/* Another process of the tenant goes over; both are told. */
static void be_member(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    t_cuda(cuModuleLoadData(&module, "an image"));
    grow("member_a");
    grow("member_b");
    poll(NULL, 0, SECONDS * 1000);
}

static void in_a_tenant(void)
{
    pid_t child = t_again("member");

    expect(&first, 1, "another member grew");
    t_check(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child, "the child");
}

int main(int argc, char **argv)
{
    bool unlimited = argc > 1 && strcmp(argv[1], "unlimited") == 0;

    t_context(0);
    t_cuda(cuCtxGetDevice(&device));
    if (argc > 1 && strcmp(argv[1], "member") == 0) {
        be_member();
        return 0;
    }
    look_at_errors();
    t_cuda(cuModuleLoadData(&module, "an image"));
    t_cuda(cuDeviceRegisterAsyncNotification(device, callback, &first, &first.handle));
    t_cuda(cuDeviceRegisterAsyncNotification(device, callback, &second, &second.handle));
    t_check(first.handle != second.handle, "two registrations have one handle");
    if (argc > 1 && !unlimited) {
        in_a_tenant();
        return 0;
    }
    CUdeviceptr block = t_alloc(32 * T_MIB);
    t_check(block, "an allocation was refused");
    grow("a"); /* 196 MiB of 200 */
    if (unlimited) {
        grow("b");
        grow("c");
        poll(NULL, 0, 2500);
        t_equal(times(&first), 0);
        return 0;
    }
    grow("b");
    expect(&first, 1, "over the limit");
    expect(&second, 1, "over the limit");
    t_equal(first.bytes, 60 * T_MIB);
    /* Further over is no further crossing. */
    grow("c");
    while (t_used(0) != 100 * T_MIB + 32 * T_MIB + 3 * 64 * T_MIB)
        usleep(1000);
    poll(NULL, 0, 2500);
    t_equal(times(&first), 1);
    t_cuda(cuDeviceUnregisterAsyncNotification(device, second.handle));
    /* Back within it: the module goes with its functions. Then over again. */
    t_cuda(cuModuleUnload(module));
    uint64_t end = t_now_ms() + SECONDS * 1000;
    while (t_free() == 0 && t_now_ms() < end)
        usleep(10000);
    poll(NULL, 0, 2500);
    t_cuda(cuModuleLoadData(&module, "an image"));
    grow("a");
    grow("b");
    expect(&first, 2, "over the limit once more");
    poll(NULL, 0, 1500);
    t_equal(times(&second), 1);
    t_cuda(cuDeviceUnregisterAsyncNotification(device, first.handle));
    return 0;
}
