/* SPDX-License-Identifier: Apache-2.0 */
/* Which calls a program, or a monitor thread in it, may make while a stream is being captured: for
 * each capture mode, from the capturing thread and from another one, with and without a relaxed
 * interaction mode around the call: the call's result, and whether the capture survived. */
#include "probe.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

static CUdevice device;
static CUcontext context;
static CUstream captured, other;
static CUevent event, fresh;
static CUdeviceptr block;
static CUmemoryPool pool;
static CUfunction empty;
static CUdeviceptr made;

static CUresult c_mem_get_info(void)
{
    size_t f, t;
    return cu.cuMemGetInfo_v2(&f, &t);
}
static CUresult c_total_mem(void)
{
    size_t t;
    return cu.cuDeviceTotalMem_v2(&t, device);
}
static CUresult c_alloc(void)
{
    return cu.cuMemAlloc_v2(&made, 4 * MIB);
}
static CUresult c_alloc_small(void)
{
    return cu.cuMemAlloc_v2(&made, 512);
}
static CUresult c_pitch(void)
{
    size_t pitch;
    return cu.cuMemAllocPitch_v2(&made, &pitch, 1000, 1000, 4);
}
static CUresult c_managed(void)
{
    return cu.cuMemAllocManaged(&made, MIB, CU_MEM_ATTACH_GLOBAL);
}
static CUresult c_free(void)
{
    CUdeviceptr p = block;
    block = 0;
    return cu.cuMemFree_v2(p);
}
static CUresult c_host_alloc(void)
{
    void *p = NULL;
    CUresult res = cu.cuMemHostAlloc(&p, 4096, 0);
    if (res == CUDA_SUCCESS)
        res = cu.cuMemFreeHost(p);
    return res;
}
static CUresult c_create_handle(void)
{
    CUmemGenericAllocationHandle h;
    CUmemAllocationProp prop;
    memset(&prop, 0, sizeof(prop));
    prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    CUresult res = cu.cuMemCreate(&h, 2 * MIB, &prop, 0);
    if (res == CUDA_SUCCESS)
        res = cu.cuMemRelease(h);
    return res;
}
static CUresult c_alloc_async_captured(void)
{
    CUdeviceptr p;
    return cu.cuMemAllocAsync(&p, 2 * MIB, captured);
}
static CUresult c_alloc_async_other(void)
{
    CUdeviceptr p;
    CUresult res = cu.cuMemAllocAsync(&p, 2 * MIB, other);
    if (res == CUDA_SUCCESS)
        res = cu.cuMemFreeAsync(p, other);
    return res;
}
static CUresult c_pool_attribute(void)
{
    cuuint64_t v;
    return cu.cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &v);
}
static CUresult c_pool_trim(void)
{
    return cu.cuMemPoolTrimTo(pool, 0);
}
static CUresult c_graph_attribute(void)
{
    cuuint64_t v;
    return cu.cuDeviceGetGraphMemAttribute(device, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &v);
}
static CUresult c_graph_trim(void)
{
    return cu.cuDeviceGraphMemTrim(device);
}
static CUresult c_event_create(void)
{
    return cu.cuEventCreate(&fresh, CU_EVENT_DISABLE_TIMING);
}
static CUresult c_event_query(void)
{
    return cu.cuEventQuery(event);
}
static CUresult c_event_synchronize(void)
{
    return cu.cuEventSynchronize(event);
}
static CUresult c_event_record_other(void)
{
    return cu.cuEventRecord(event, other);
}
static CUresult c_event_record_legacy(void)
{
    return cu.cuEventRecord(event, NULL);
}
static CUresult c_stream_query_other(void)
{
    return cu.cuStreamQuery(other);
}
static CUresult c_stream_query_captured(void)
{
    return cu.cuStreamQuery(captured);
}
static CUresult c_stream_query_legacy(void)
{
    return cu.cuStreamQuery(NULL);
}
static CUresult c_stream_synchronize_other(void)
{
    return cu.cuStreamSynchronize(other);
}
static CUresult c_stream_create(void)
{
    CUstream s = NULL;
    CUresult res = cu.cuStreamCreate(&s, CU_STREAM_NON_BLOCKING);
    if (res == CUDA_SUCCESS)
        res = cu.cuStreamDestroy_v2(s);
    return res;
}
static CUresult c_is_capturing(void)
{
    CUstreamCaptureStatus s;
    return cu.cuStreamIsCapturing(captured, &s);
}
static CUresult c_context_synchronize(void)
{
    return cu.cuCtxSynchronize();
}
static CUresult c_current(void)
{
    CUcontext c;
    return cu.cuCtxGetCurrent(&c);
}
static CUresult c_get_device(void)
{
    CUdevice d;
    return cu.cuCtxGetDevice(&d);
}
static CUresult c_primary_state(void)
{
    unsigned int flags;
    int active;
    return cu.cuDevicePrimaryCtxGetState(device, &flags, &active);
}
static CUresult c_retain_release(void)
{
    CUcontext c;
    CUresult res = cu.cuDevicePrimaryCtxRetain(&c, device);
    if (res == CUDA_SUCCESS)
        res = cu.cuDevicePrimaryCtxRelease_v2(device);
    return res;
}
static CUresult c_context_create(void)
{
    CUcontext c = NULL;
    CUresult res = cu.cuCtxCreate_v2(&c, 0, device);
    if (res == CUDA_SUCCESS)
        res = cu.cuCtxDestroy_v2(c);
    return res;
}
static CUresult c_pointer_attribute(void)
{
    CUcontext c;
    return cu.cuPointerGetAttribute(&c, CU_POINTER_ATTRIBUTE_CONTEXT, block);
}
static CUresult c_module(void)
{
    CUmodule m = probe_module();
    return m ? cu.cuModuleUnload(m) : CUDA_ERROR_INVALID_IMAGE;
}
static CUresult c_launch_other(void)
{
    return empty ? cu.cuLaunchKernel(empty, 1, 1, 1, 1, 1, 1, 0, other, NULL, NULL) : CUDA_ERROR_NOT_FOUND;
}
static CUresult c_launch_legacy(void)
{
    return empty ? cu.cuLaunchKernel(empty, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL) : CUDA_ERROR_NOT_FOUND;
}
static CUresult c_launch_captured(void)
{
    return empty ? cu.cuLaunchKernel(empty, 1, 1, 1, 1, 1, 1, 0, captured, NULL, NULL) : CUDA_ERROR_NOT_FOUND;
}
static CUresult c_nothing(void)
{
    return CUDA_SUCCESS;
}

static const struct {
    const char *name;
    CUresult (*call)(void);
} calls[] = {{"nothing", c_nothing},
             {"cuMemGetInfo", c_mem_get_info},
             {"cuDeviceTotalMem", c_total_mem},
             {"cuMemAlloc_4MiB", c_alloc},
             {"cuMemAlloc_512", c_alloc_small},
             {"cuMemAllocPitch", c_pitch},
             {"cuMemAllocManaged", c_managed},
             {"cuMemFree", c_free},
             {"cuMemHostAlloc+Free", c_host_alloc},
             {"cuMemCreate+Release", c_create_handle},
             {"cuMemAllocAsync_captured", c_alloc_async_captured},
             {"cuMemAllocAsync_other", c_alloc_async_other},
             {"cuMemPoolGetAttribute", c_pool_attribute},
             {"cuMemPoolTrimTo", c_pool_trim},
             {"cuDeviceGetGraphMemAttribute", c_graph_attribute},
             {"cuDeviceGraphMemTrim", c_graph_trim},
             {"cuEventCreate", c_event_create},
             {"cuEventQuery", c_event_query},
             {"cuEventSynchronize", c_event_synchronize},
             {"cuEventRecord_other", c_event_record_other},
             {"cuEventRecord_legacy", c_event_record_legacy},
             {"cuStreamQuery_other", c_stream_query_other},
             {"cuStreamQuery_captured", c_stream_query_captured},
             {"cuStreamQuery_legacy", c_stream_query_legacy},
             {"cuStreamSynchronize_other", c_stream_synchronize_other},
             {"cuStreamCreate+Destroy", c_stream_create},
             {"cuStreamIsCapturing", c_is_capturing},
             {"cuCtxSynchronize", c_context_synchronize},
             {"cuCtxGetCurrent", c_current},
             {"cuCtxGetDevice", c_get_device},
             {"cuDevicePrimaryCtxGetState", c_primary_state},
             {"cuDevicePrimaryCtxRetain+Release", c_retain_release},
             {"cuCtxCreate+Destroy", c_context_create},
             {"cuPointerGetAttribute", c_pointer_attribute},
             {"cuModuleLoadData+Unload", c_module},
             {"cuLaunchKernel_other", c_launch_other},
             {"cuLaunchKernel_legacy", c_launch_legacy},
             {"cuLaunchKernel_captured", c_launch_captured}};

struct question {
    CUresult (*call)(void);
    int relaxed;
    CUresult answer;
};

static void *ask(void *arg)
{
    struct question *q = arg;
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;

    cu.cuCtxSetCurrent(context);
    if (q->relaxed)
        cu.cuThreadExchangeStreamCaptureMode(&mode);
    q->answer = q->call();
    if (q->relaxed)
        cu.cuThreadExchangeStreamCaptureMode(&mode);
    return NULL;
}

static const char *const mode_name[] = {"global", "thread_local", "relaxed"};

static void try_call(size_t i, int mode, int elsewhere, int relaxed)
{
    struct question q = {calls[i].call, relaxed, CUDA_ERROR_UNKNOWN};
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    CUgraph graph = NULL;
    pthread_t thread;
    char key[128];

    if (!block)
        cu.cuMemAlloc_v2(&block, 4 * MIB);
    made = 0;
    fresh = NULL;
    cu.cuEventRecord(event, other);
    cu.cuCtxSynchronize();
    CUresult begin = cu.cuStreamBeginCapture_v2(captured, (CUstreamCaptureMode)mode);
    if (!elsewhere)
        ask(&q);
    else if (!pthread_create(&thread, NULL, ask, &q))
        pthread_join(thread, NULL);
    cu.cuStreamIsCapturing(captured, &status);
    CUresult end = cu.cuStreamEndCapture(captured, &graph);
    if (graph)
        cu.cuGraphDestroy(graph);
    if (made)
        cu.cuMemFree_v2(made);
    if (fresh)
        cu.cuEventDestroy_v2(fresh);
    snprintf(key, sizeof(key), "%s.%s.%s.%s", mode_name[mode], elsewhere ? "other" : "same", relaxed ? "bracketed" : "plain",
             calls[i].name);
    probe_row(key, "%s, capture %s, end %s%s%s", probe_result(q.answer),
              status == CU_STREAM_CAPTURE_STATUS_ACTIVE        ? "active"
              : status == CU_STREAM_CAPTURE_STATUS_INVALIDATED ? "invalidated"
                                                               : "none",
              probe_result(end), begin == CUDA_SUCCESS ? "" : ", begin ", begin == CUDA_SUCCESS ? "" : probe_result(begin));
}

int main(void)
{
    probe_open("capture");
    device = probe_device();
    context = probe_context(device);
    empty = probe_kernel(probe_module(), "empty");
    cu.cuStreamCreate(&captured, CU_STREAM_NON_BLOCKING);
    cu.cuStreamCreate(&other, CU_STREAM_NON_BLOCKING);
    cu.cuEventCreate(&event, CU_EVENT_DISABLE_TIMING);
    cu.cuDeviceGetDefaultMemPool(&pool, device);
    for (int mode = 0; mode < 3; mode++) {
        for (int k = 0; k < 4; k++) {
            for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
                try_call(i, mode, k & 1, k >> 1);
        }
    }
    return 0;
}
