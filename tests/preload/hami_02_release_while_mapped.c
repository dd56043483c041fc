/* SPDX-License-Identifier: Apache-2.0 */
/* A fault of other limiters: physical memory is given back to the limit when its handle is released, though a mapping still holds it. Then a
 * program that creates, maps and releases, as all allocators do, has the whole GPU. */
// run: SOFTSLICE_VRAM=1GiB SOFTSIM_MEM=8G SOFTSIM_CONTEXT_BYTES=100M
#include "vmm_helper.h"

int main(void)
{
    uint64_t blocks = 0;

    t_context(0);
    CUdeviceptr place = t_reserve(8 * T_GIB);
    while (blocks < 8 * T_GIB / (16 * T_MIB) && t_map(place + blocks * 16 * T_MIB, 0, 16 * T_MIB))
        blocks++;
    t_equal(blocks, (T_GIB - 100 * T_MIB) / (16 * T_MIB));
    t_equal(t_used(0), 100 * T_MIB + blocks * 16 * T_MIB);

    /* And it comes back with the mapping: as often as one likes. */
    for (unsigned i = 0; i < 200; i++) {
        t_cuda(cuMemUnmap(place, 16 * T_MIB));
        t_check(t_map(place, 0, 16 * T_MIB), "what was unmapped could not be had again");
        t_check(!t_map(place + 4 * T_GIB, 0, 16 * T_MIB), "a block beyond the budget was granted");
    }
    return 0;
}
