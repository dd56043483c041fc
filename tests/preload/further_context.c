/* SPDX-License-Identifier: Apache-2.0 */
/* A further context of a process shares what the first one took, so it is not refused for want of room for another first one. */
// run: SOFTSLICE_VRAM=900MiB SOFTSIM_CONTEXT_BYTES=500M
#include "../cuda_helper.h"

int main(void)
{
    CUcontext first, further[20];
    CUdevice device;

    first = t_context(0);
    t_cuda(cuDeviceGet(&device, 0));
    for (unsigned i = 0; i < 20; i++)
        t_cuda(cuCtxCreate(&further[i], NULL, 0, device));
    t_equal(t_free(), 900 * T_MIB - t_used(0));
    for (unsigned i = 0; i < 20; i++)
        t_cuda(cuCtxDestroy(further[i]));
    t_cuda(cuCtxSetCurrent(first));
    t_equal(t_free(), 900 * T_MIB - t_used(0));
    return 0;
}
