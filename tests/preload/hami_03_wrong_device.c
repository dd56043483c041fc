/* SPDX-License-Identifier: Apache-2.0 */
/* A fault of other limiters: physical memory is charged to the device that happens to be current, and not to the one that it is on. Then with
 * one device current there is no end to the other one's memory. */
// run: SOFTSLICE_VRAM=0=1GiB,1=3GiB SOFTSIM_GPUS=2 SOFTSIM_MEM=8G SOFTSIM_CONTEXT_BYTES=100M
#include "vmm_helper.h"

int main(void)
{
    CUcontext context[2] = {t_context(0), t_context(1)};
    uint64_t blocks[2] = {0};

    for (int device = 0; device < 2; device++) {
        t_cuda(cuCtxSetCurrent(context[!device]));
        CUdeviceptr place = t_reserve(8 * T_GIB);
        while (blocks[device] < 500 && t_map(place + blocks[device] * 16 * T_MIB, device, 16 * T_MIB))
            blocks[device]++;
        t_equal(blocks[device], ((device ? 3 : 1) * T_GIB - 100 * T_MIB) / (16 * T_MIB));
        t_equal(t_used((unsigned)device), 100 * T_MIB + blocks[device] * 16 * T_MIB);
        /* Given back where it was taken, whatever is current. */
        t_cuda(cuMemUnmap(place, 16 * T_MIB));
        t_check(t_map(place, device, 16 * T_MIB), "what was unmapped could not be had again");
        t_check(!t_map(place + 7 * T_GIB, device, 16 * T_MIB), "a block beyond the budget was granted");
    }
    return 0;
}
