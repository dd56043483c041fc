/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemPoolCreate: R4, a pool takes nothing before its first block */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUmemPoolProps props = pool_on_gpu(0);
    CUmemoryPool pool;

    t_cuda(CALL(cuMemPoolCreate)(&pool, &props));
    EXPECT(0);
    t_cuda(cuMemPoolDestroy(pool));
    EXPECT(0);
}
