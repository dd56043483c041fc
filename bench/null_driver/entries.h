/* SPDX-License-Identifier: Apache-2.0 */
/* The null driver's functions, each a few instructions and the same at every call, so that what a benchmark sees is what stands in front
 * of them. Included twice, with two meanings of NAME, for a hooked and an unhooked set in separate objects. */
#include "state.h"

CUresult NAME(cuInit)(unsigned int flags)
{
    return flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult NAME(cuDriverGetVersion)(int *version)
{
    *version = 13000;
    return CUDA_SUCCESS;
}

CUresult NAME(cuGetProcAddress_v2)(const char *symbol, void **function, int version, cuuint64_t flags,
                                   CUdriverProcAddressQueryResult *status)
{
    (void)flags;
    *function = null_find(symbol, version);
    if (status)
        *status = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult NAME(cuGetProcAddress)(const char *symbol, void **function, int version, cuuint64_t flags)
{
    return NAME(cuGetProcAddress_v2)(symbol, function, version, flags, NULL);
}

CUresult NAME(cuDeviceGet)(CUdevice *device, int ordinal)
{
    *device = ordinal;
    return ordinal == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult NAME(cuDeviceGetCount)(int *count)
{
    *count = 1;
    return CUDA_SUCCESS;
}

CUresult NAME(cuDeviceGetUuid_v2)(CUuuid *uuid, CUdevice device)
{
    (void)device;
    *uuid = (CUuuid){.bytes = {'n', 'u', 'l', 'l'}};
    return CUDA_SUCCESS;
}

CUresult NAME(cuDeviceGetUuid)(CUuuid *uuid, CUdevice device)
{
    return NAME(cuDeviceGetUuid_v2)(uuid, device);
}

CUresult NAME(cuDeviceTotalMem_v2)(size_t *bytes, CUdevice device)
{
    (void)device;
    *bytes = NULL_MEMORY;
    return CUDA_SUCCESS;
}

CUresult NAME(cuCtxCreate_v2)(CUcontext *context, unsigned int flags, CUdevice device)
{
    (void)flags;
    (void)device;
    *context = null_context = null_new_context();
    return CUDA_SUCCESS;
}

CUresult NAME(cuCtxCreate_v4)(CUcontext *context, CUctxCreateParams *params, unsigned int flags, CUdevice device)
{
    (void)params;
    return NAME(cuCtxCreate_v2)(context, flags, device);
}

CUresult NAME(cuCtxDestroy_v2)(CUcontext context)
{
    if (null_context == context)
        null_context = NULL;
    return context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult NAME(cuCtxGetApiVersion)(CUcontext context, unsigned int *version)
{
    (void)context;
    *version = 3020;
    return CUDA_SUCCESS;
}

CUresult NAME(cuCtxGetCurrent)(CUcontext *context)
{
    *context = null_context;
    return CUDA_SUCCESS;
}

CUresult NAME(cuCtxGetDevice)(CUdevice *device)
{
    *device = 0;
    return null_context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult NAME(cuCtxSetCurrent)(CUcontext context)
{
    null_context = context;
    return CUDA_SUCCESS;
}

CUresult NAME(cuDevicePrimaryCtxGetState)(CUdevice device, unsigned int *flags, int *active)
{
    (void)device;
    *flags = 0;
    *active = null_primaries() > 0;
    return CUDA_SUCCESS;
}

CUresult NAME(cuDevicePrimaryCtxRelease_v2)(CUdevice device)
{
    (void)device;
    null_retain(-1);
    return CUDA_SUCCESS;
}

CUresult NAME(cuDevicePrimaryCtxRetain)(CUcontext *context, CUdevice device)
{
    (void)device;
    null_retain(1);
    *context = NULL_PRIMARY;
    return CUDA_SUCCESS;
}

CUresult NAME(cuMemAlloc_v2)(CUdeviceptr *pointer, size_t bytes)
{
    if (!bytes)
        return CUDA_ERROR_INVALID_VALUE;
    *pointer = bytes > NULL_SMALL ? null_address() : null_small_address(bytes);
    return CUDA_SUCCESS;
}

CUresult NAME(cuMemFree_v2)(CUdeviceptr pointer)
{
    return pointer % NULL_UNIT ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult NAME(cuMemGetAllocationGranularity)(size_t *granularity, const CUmemAllocationProp *prop,
                                             CUmemAllocationGranularity_flags option)
{
    (void)prop;
    (void)option;
    *granularity = NULL_ALIGNMENT;
    return CUDA_SUCCESS;
}

CUresult NAME(cuMemGetInfo_v2)(size_t *free_bytes, size_t *total)
{
    *free_bytes = *total = NULL_MEMORY;
    return CUDA_SUCCESS;
}

CUresult NAME(cuMemAllocAsync)(CUdeviceptr *pointer, size_t bytes, CUstream stream)
{
    (void)stream;
    return NAME(cuMemAlloc_v2)(pointer, bytes);
}

CUresult NAME(cuMemFreeAsync)(CUdeviceptr pointer, CUstream stream)
{
    (void)stream;
    return NAME(cuMemFree_v2)(pointer);
}

CUresult NAME(cuMemCreate)(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *prop,
                           unsigned long long flags)
{
    (void)prop;
    (void)flags;
    *handle = null_address();
    return size % NULL_ALIGNMENT ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult NAME(cuMemMap)(CUdeviceptr place, size_t size, size_t offset, CUmemGenericAllocationHandle handle,
                        unsigned long long flags)
{
    (void)offset;
    (void)handle;
    (void)flags;
    return (place | size) % NULL_ALIGNMENT ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult NAME(cuMemUnmap)(CUdeviceptr place, size_t size)
{
    return (place | size) % NULL_ALIGNMENT ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult NAME(cuMemRelease)(CUmemGenericAllocationHandle handle)
{
    return handle % NULL_UNIT ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

/* A pool that has all it will ever need. */
CUresult NAME(cuMemPoolGetAttribute)(CUmemoryPool pool, CUmemPool_attribute attribute, void *value)
{
    (void)pool;
    *(cuuint64_t *)value = attribute == CU_MEMPOOL_ATTR_USED_MEM_CURRENT ? 0 : NULL_POOL;
    return CUDA_SUCCESS;
}

CUresult NAME(cuDeviceGetMemPool)(CUmemoryPool *pool, CUdevice device)
{
    *pool = (CUmemoryPool)(uintptr_t)0x30000;
    return device == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult NAME(cuThreadExchangeStreamCaptureMode)(CUstreamCaptureMode *mode)
{
    CUstreamCaptureMode before = null_mode;

    null_mode = *mode;
    *mode = before;
    return CUDA_SUCCESS;
}

CUresult NAME(cuStreamIsCapturing)(CUstream stream, CUstreamCaptureStatus *status)
{
    (void)stream;
    *status = CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}

CUresult NAME(cuLaunchKernel)(CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
                              unsigned int block_x, unsigned int block_y, unsigned int block_z, unsigned int shared,
                              CUstream stream, void **params, void **extra)
{
    (void)grid_y, (void)grid_z, (void)block_x, (void)block_y, (void)block_z, (void)shared, (void)stream, (void)params, (void)extra;
    return function && !grid_x ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult NAME(cuLaunchKernelEx)(const CUlaunchConfig *config, CUfunction function, void **params, void **extra)
{
    (void)params, (void)extra;
    return function && !config->gridDimX ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult NAME(cuGraphLaunch)(CUgraphExec graph, CUstream stream)
{
    (void)stream;
    return graph ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult NAME(cuStreamCreate)(CUstream *stream, unsigned int flags)
{
    (void)flags;
    *stream = (CUstream)null_new_context();
    return CUDA_SUCCESS;
}

CUresult NAME(cuStreamDestroy_v2)(CUstream stream)
{
    return stream ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult NAME(cuStreamSynchronize)(CUstream stream)
{
    (void)stream;
    return CUDA_SUCCESS;
}

/* An event is the time of its last record: everything is done at once. */
CUresult NAME(cuEventCreate)(CUevent *event, unsigned int flags)
{
    (void)flags;
    *event = (CUevent)null_new_event();
    return *event ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult NAME(cuEventRecord)(CUevent event, CUstream stream)
{
    (void)stream;
    return null_record((struct null_event *)event);
}

CUresult NAME(cuEventQuery)(CUevent event)
{
    return event ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult NAME(cuEventElapsedTime_v2)(float *ms, CUevent begin, CUevent end)
{
    *ms = null_between((struct null_event *)begin, (struct null_event *)end);
    return CUDA_SUCCESS;
}

CUresult NAME(cuEventElapsedTime)(float *ms, CUevent begin, CUevent end)
{
    return NAME(cuEventElapsedTime_v2)(ms, begin, end);
}

CUresult NAME(cuEventDestroy_v2)(CUevent event)
{
    null_free_event((struct null_event *)event);
    return CUDA_SUCCESS;
}

/* A stack of one. */
CUresult NAME(cuCtxPushCurrent_v2)(CUcontext context)
{
    null_below = null_context;
    null_context = context;
    return CUDA_SUCCESS;
}

CUresult NAME(cuCtxPopCurrent_v2)(CUcontext *context)
{
    if (context)
        *context = null_context;
    null_context = null_below;
    return CUDA_SUCCESS;
}
