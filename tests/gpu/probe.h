/* SPDX-License-Identifier: Apache-2.0 */
/* What every probe of a real driver shares: the driver's functions, NVML's few, and how to report.
 *
 * A probe asks a question and prints what it saw, one tab-separated row a fact: probe, key, value.
 * It judges nothing, so that the same program can be run on a driver nobody has seen yet. */
#ifndef PROBE_H
#define PROBE_H

#define __CUDA_API_VERSION_INTERNAL     1 /* a name in our source is the name in the symbol table */
#define __CUDA_API_VERSION_INTERNAL_ODR 1
#include <cuda.h>
#include <stdint.h>
#include <stddef.h>
#include <sys/types.h>

#define PROBE_DRIVER(X)                                                                                                            \
    X(cuInit)                                                                                                                      \
    X(cuDriverGetVersion)                                                                                                          \
    X(cuDeviceGet)                                                                                                                 \
    X(cuDeviceGetName)                                                                                                             \
    X(cuDeviceGetUuid_v2)                                                                                                          \
    X(cuDeviceGetPCIBusId)                                                                                                         \
    X(cuDeviceGetAttribute)                                                                                                        \
    X(cuDeviceTotalMem)                                                                                                            \
    X(cuDeviceTotalMem_v2)                                                                                                         \
    X(cuDeviceGetDefaultMemPool)                                                                                                   \
    X(cuDeviceGetGraphMemAttribute)                                                                                                \
    X(cuDeviceGraphMemTrim)                                                                                                        \
    X(cuDevicePrimaryCtxRetain)                                                                                                    \
    X(cuDevicePrimaryCtxRelease_v2)                                                                                                \
    X(cuDevicePrimaryCtxGetState)                                                                                                  \
    X(cuCtxCreate_v2)                                                                                                              \
    X(cuCtxDestroy_v2)                                                                                                             \
    X(cuCtxSetCurrent)                                                                                                             \
    X(cuCtxGetCurrent)                                                                                                             \
    X(cuCtxGetDevice)                                                                                                              \
    X(cuCtxSynchronize)                                                                                                            \
    X(cuCtxSetLimit)                                                                                                               \
    X(cuCtxGetLimit)                                                                                                               \
    X(cuModuleLoadData)                                                                                                            \
    X(cuModuleUnload)                                                                                                              \
    X(cuModuleGetFunction)                                                                                                         \
    X(cuLaunchKernel)                                                                                                              \
    X(cuMemAlloc)                                                                                                                  \
    X(cuMemAlloc_v2)                                                                                                               \
    X(cuMemAllocPitch_v2)                                                                                                          \
    X(cuMemAllocManaged)                                                                                                           \
    X(cuMemFree_v2)                                                                                                                \
    X(cuMemGetInfo)                                                                                                                \
    X(cuMemGetInfo_v2)                                                                                                             \
    X(cuMemGetAllocationGranularity)                                                                                               \
    X(cuMemCreate)                                                                                                                 \
    X(cuMemRelease)                                                                                                                \
    X(cuMemAllocAsync)                                                                                                             \
    X(cuMemFreeAsync)                                                                                                              \
    X(cuMemPoolGetAttribute)                                                                                                       \
    X(cuMemPoolTrimTo)                                                                                                             \
    X(cuMemHostAlloc)                                                                                                              \
    X(cuMemFreeHost)                                                                                                               \
    X(cuPointerGetAttribute)                                                                                                       \
    X(cuStreamCreate)                                                                                                              \
    X(cuStreamDestroy_v2)                                                                                                          \
    X(cuStreamQuery)                                                                                                               \
    X(cuStreamSynchronize)                                                                                                         \
    X(cuStreamBeginCapture_v2)                                                                                                     \
    X(cuStreamEndCapture)                                                                                                          \
    X(cuStreamIsCapturing)                                                                                                         \
    X(cuThreadExchangeStreamCaptureMode)                                                                                           \
    X(cuEventCreate)                                                                                                               \
    X(cuEventDestroy_v2)                                                                                                           \
    X(cuEventQuery)                                                                                                                \
    X(cuEventRecord)                                                                                                               \
    X(cuEventSynchronize)                                                                                                          \
    X(cuGraphDestroy)                                                                                                              \
    X(cuGetProcAddress)                                                                                                            \
    X(cuGetProcAddress_v2)                                                                                                         \
    X(cuGetErrorName)

/* The driver's own functions, found by dlsym; one that it lacks is NULL. */
struct probe_driver {
#define X(name) __typeof__(&(name)) name;
    PROBE_DRIVER(X)
#undef X
};
extern struct probe_driver cu;
extern void *probe_libcuda;

/* NVML, as far as it is asked here. Layouts are those of its documentation. */
typedef struct nvmlDevice_st *nvml_device;
struct nvml_memory {
    unsigned long long total, free, used;
};
struct nvml_memory_v2 {
    unsigned int version;
    unsigned long long total, reserved, free, used;
};
struct nvml_process_v1 {
    unsigned int pid;
    unsigned long long used;
};
struct nvml_process_v2 {
    unsigned int pid;
    unsigned long long used;
    unsigned int gpu_instance, compute_instance;
};
struct probe_nvml {
    int (*init)(void);
    int (*driver_version)(char *, unsigned int);
    int (*by_pci)(const char *, nvml_device *);
    int (*memory)(nvml_device, struct nvml_memory *);
    int (*memory_v2)(nvml_device, struct nvml_memory_v2 *);
    int (*processes_v1)(nvml_device, unsigned int *, struct nvml_process_v1 *);
    int (*processes_v2)(nvml_device, unsigned int *, struct nvml_process_v2 *);
    int (*processes_v3)(nvml_device, unsigned int *, struct nvml_process_v2 *);
};
extern struct probe_nvml nv;
extern void *probe_libnvml;

#define PROBE_UNKNOWN UINT64_MAX
#define KIB           ((size_t)1 << 10)
#define MIB           ((size_t)1 << 20)
#define GIB           ((size_t)1 << 30)

/* Loads the driver and NVML (PROBE_LIBCUDA, PROBE_LIBNVML name other files) and sets the name that
 * starts each row. Exits with 77 and a reason when there is no driver. */
void probe_open(const char *probe);

/* cuInit and device 0; exits with 77 and a reason when there is no GPU. */
CUdevice probe_device(void);

/* The primary context of device 0, current on this thread. */
CUcontext probe_context(CUdevice dev);

/* A module with the kernels empty(), spin(ns) and deep(out, i): from PTX, else from PROBE_CUBIN. */
CUmodule probe_module(void);
CUfunction probe_kernel(CUmodule mod, const char *name);
CUresult probe_spin(CUfunction spin, CUstream stream, uint64_t ns);

/* The device 0 of probe_device() in NVML, and its figures; PROBE_UNKNOWN where there is none. */
nvml_device probe_nvml_device(void);
uint64_t probe_device_used(void);
uint64_t probe_process_used(pid_t pid);
uint64_t probe_free(void); /* cuMemGetInfo's, of the current context */

void probe_row(const char *key, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *probe_result(CUresult res); /* "CUDA_SUCCESS" and so on */
uint64_t probe_ns(void);
uint64_t probe_median(uint64_t *v, size_t n); /* sorts v */

/* Runs fn(arg) in a forked child, so that each question meets a driver that nobody has used yet;
 * reports under `key` a child that died. Call it before the first use of the driver. */
void probe_fork(const char *key, void (*fn)(void *), void *arg);

/* In a forked child: die with the parent, so that a probe that is stopped leaves nobody behind. */
void probe_die_with_parent(void);

#endif
