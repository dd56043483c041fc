/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemAllocManaged: managed memory, charged in full unless the setting says otherwise */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUdeviceptr block;

    t_cuda(CALL(cuMemAllocManaged)(&block, 3 * T_MIB, CU_MEM_ATTACH_GLOBAL));
    EXPECT(2 * GRANULE);
    t_cuda(cuMemFree_v2(block));
    EXPECT(0);
}
