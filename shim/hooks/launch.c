/* SPDX-License-Identifier: Apache-2.0 */
/* Launches of kernels by all roads: each goes through the gate. */
#include "../gate.h"

#define SHAPE estimate_key(f, gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ)
#define SHAPE_PARAMETERS                                                                                                           \
    CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ, unsigned int blockDimX,                     \
        unsigned int blockDimY, unsigned int blockDimZ, unsigned int sharedMemBytes, CUstream hStream
#define SHAPE_ARGUMENTS f, gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes, hStream

GATE_LAUNCH(cuLaunchKernel, (SHAPE_PARAMETERS, void **kernelParams, void **extra), (SHAPE_ARGUMENTS, kernelParams, extra), hStream,
            false, SHAPE)
GATE_LAUNCH(cuLaunchKernel_ptsz, (SHAPE_PARAMETERS, void **kernelParams, void **extra), (SHAPE_ARGUMENTS, kernelParams, extra),
            hStream, true, SHAPE)
GATE_LAUNCH(cuLaunchCooperativeKernel, (SHAPE_PARAMETERS, void **kernelParams), (SHAPE_ARGUMENTS, kernelParams), hStream, false,
            SHAPE)
GATE_LAUNCH(cuLaunchCooperativeKernel_ptsz, (SHAPE_PARAMETERS, void **kernelParams), (SHAPE_ARGUMENTS, kernelParams), hStream, true,
            SHAPE)

/* A configuration that is NULL is the driver's to refuse. */
static inline uint64_t config_key(const CUlaunchConfig *config, CUfunction f)
{
    return config ? estimate_key(f, config->gridDimX, config->gridDimY, config->gridDimZ, config->blockDimX, config->blockDimY,
                                 config->blockDimZ)
                  : estimate_key_of(f);
}

static inline CUstream config_stream(const CUlaunchConfig *config)
{
    return config ? config->hStream : NULL;
}

GATE_LAUNCH(cuLaunchKernelEx, (const CUlaunchConfig *config, CUfunction f, void **kernelParams, void **extra),
            (config, f, kernelParams, extra), config_stream(config), false, config_key(config, f))
GATE_LAUNCH(cuLaunchKernelEx_ptsz, (const CUlaunchConfig *config, CUfunction f, void **kernelParams, void **extra),
            (config, f, kernelParams, extra), config_stream(config), true, config_key(config, f))

GATE_LAUNCH(cuLaunch, (CUfunction f), (f), NULL, false, estimate_key_of(f))
GATE_LAUNCH(cuLaunchGrid, (CUfunction f, int grid_width, int grid_height), (f, grid_width, grid_height), NULL, false,
            estimate_key(f, (uint32_t)grid_width, (uint32_t)grid_height, 1, 0, 0, 0))
GATE_LAUNCH(cuLaunchGridAsync, (CUfunction f, int grid_width, int grid_height, CUstream hStream),
            (f, grid_width, grid_height, hStream), hStream, false,
            estimate_key(f, (uint32_t)grid_width, (uint32_t)grid_height, 1, 0, 0, 0))

/* One kernel on several devices, in streams of as many contexts. */
CUresult cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS *launchParamsList, unsigned int numDevices, unsigned int flags)
{
    struct gate_launch launch[QUOTA_DEVICES];
    unsigned count = launchParamsList && numDevices <= QUOTA_DEVICES ? numDevices : 0; /* more is the driver's to refuse */
    CUresult result;

    if (!guard_acts(RESOLVE_COMPUTE))
        return real.cuLaunchCooperativeKernelMultiDevice(launchParamsList, numDevices, flags);
    for (unsigned i = 0; i < count; i++)
        gate_begin(&launch[i], launchParamsList[i].hStream, false, estimate_key_of(launchParamsList[i].function));
    result = real.cuLaunchCooperativeKernelMultiDevice(launchParamsList, numDevices, flags);
    for (unsigned i = 0; i < count; i++)
        gate_end(&launch[i], launchParamsList[i].hStream, false, result);
    return result;
}
