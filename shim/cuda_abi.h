/* SPDX-License-Identifier: Apache-2.0 */
/* The one place in shim/ that includes <cuda.h>.
 *
 * __CUDA_API_VERSION_INTERNAL makes cuda.h drop its renaming macros (cuMemAlloc -> cuMemAlloc_v2) and declare every name that the driver
 * exports, so a name in our source is the name in the symbol table. */
#ifndef SOFTSLICE_SHIM_CUDA_ABI_H
#define SOFTSLICE_SHIM_CUDA_ABI_H

#define __CUDA_API_VERSION_INTERNAL        1
#define __CUDA_API_VERSION_INTERNAL_ODR    1 /* but no *_MAX enumerators */
#define __CUDA_API_PUSH_VISIBILITY_DEFAULT 1 /* cu* stay visible under -fvisibility=hidden */
#include <cuda.h>

#if CUDA_VERSION < 12040
typedef struct CUasyncCallbackEntry_st *CUasyncCallbackHandle;
typedef enum { CU_ASYNC_NOTIFICATION_TYPE_OVER_BUDGET = 1 } CUasyncNotificationType;
typedef struct CUasyncNotificationInfo_st {
    CUasyncNotificationType type;
    union {
        struct {
            unsigned long long bytesOverBudget;
        } overBudget;
    } info;
} CUasyncNotificationInfo;
typedef void (*CUasyncCallback)(CUasyncNotificationInfo *info, void *userData, CUasyncCallbackHandle callback);
CUresult CUDAAPI cuDeviceRegisterAsyncNotification(CUdevice device, CUasyncCallback callbackFunc, void *userData,
                                                   CUasyncCallbackHandle *callback);
CUresult CUDAAPI cuDeviceUnregisterAsyncNotification(CUdevice device, CUasyncCallbackHandle callback);
#endif
#if CUDA_VERSION < 12080
typedef struct CUcheckpointCheckpointArgs_st CUcheckpointCheckpointArgs;
typedef struct CUcheckpointRestoreArgs_st CUcheckpointRestoreArgs;
typedef struct CUcheckpointUnlockArgs_st CUcheckpointUnlockArgs;
typedef enum { CU_PROCESS_STATE_CHECKPOINTED = 2 } CUprocessState;
CUresult CUDAAPI cuCheckpointProcessCheckpoint(int pid, CUcheckpointCheckpointArgs *args);
CUresult CUDAAPI cuCheckpointProcessRestore(int pid, CUcheckpointRestoreArgs *args);
CUresult CUDAAPI cuCheckpointProcessUnlock(int pid, CUcheckpointUnlockArgs *args);
CUresult CUDAAPI cuCheckpointProcessGetState(int pid, CUprocessState *state);
#endif
#if CUDA_VERSION < 13000
CUresult CUDAAPI cuMemSetMemPool(CUmemLocation *location, CUmemAllocationType type, CUmemoryPool pool);
CUresult CUDAAPI cuCtxSynchronize_v2(CUcontext ctx);
#endif

#endif
