/* SPDX-License-Identifier: Apache-2.0 */
/* Calls from atexit handlers, destructors and a thread that never ends, before and after the driver has shut itself down, get the driver's own
 * answers: no crash, no hang. */
// run: SOFTSLICE_VRAM=1GiB
// run: SOFTSLICE_VRAM=1GiB SOFTSLICE_COMPUTE=50%
#include <pthread.h>

#include "../cuda_helper.h"

static CUdeviceptr block[4];
static CUcontext context;

static void call_everything(const char *when, int number)
{
    CUdeviceptr p = T_UNTOUCHED;
    size_t free_bytes, total;
    CUresult result = cuMemFree(block[number]);

    t_check(result == CUDA_SUCCESS || result == CUDA_ERROR_DEINITIALIZED, "%s: cuMemFree returned %d", when, (int)result);
    result = cuMemAlloc(&p, 4096);
    t_check(result == CUDA_SUCCESS || result == CUDA_ERROR_DEINITIALIZED, "%s: cuMemAlloc returned %d", when, (int)result);
    result = cuMemGetInfo(&free_bytes, &total);
    t_check(result == CUDA_SUCCESS || result == CUDA_ERROR_DEINITIALIZED, "%s: cuMemGetInfo returned %d", when, (int)result);
    t_check(dlsym(RTLD_DEFAULT, "cuMemAlloc_v2"), "%s: dlsym found nothing", when);
}

static void early_handler(void) /* registered before the driver's own: runs after it */
{
    call_everything("a handler after the driver's", 0);
}

static void late_handler(void)
{
    call_everything("a handler before the driver's", 1);
}

__attribute__((destructor)) static void destructor(void)
{
    call_everything("a destructor", 2);
    cuCtxDestroy(context);
}

static void *allocate_for_ever(void *argument)
{
    (void)argument;
    cuCtxSetCurrent(context);
    for (;;) {
        CUdeviceptr p;
        if (cuMemAlloc(&p, 4096) == CUDA_SUCCESS)
            cuMemFree(p);
    }
    return NULL;
}

int main(void)
{
    pthread_t thread;

    atexit(early_handler);
    context = t_context(0);
    atexit(late_handler);
    for (int i = 0; i < 4; i++)
        t_check((block[i] = t_alloc(T_MIB)), "refused");
    t_check(!pthread_create(&thread, NULL, allocate_for_ever, NULL), "pthread_create");
    usleep(10000);
    return 0;
}
