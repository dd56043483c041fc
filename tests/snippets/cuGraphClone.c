/* SPDX-License-Identifier: Apache-2.0 */
/* cuGraphClone: R6, a graph with memory nodes cannot be cloned, as the driver answers */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUgraph clone;

    t_result(CALL(cuGraphClone)(&clone, memory_graph(8 * T_MIB)), CUDA_ERROR_INVALID_VALUE);
    EXPECT(0);
}
