/* SPDX-License-Identifier: Apache-2.0 */
/* cuGraphDestroy: R6, the graph takes nothing */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUgraph graph = memory_graph(8 * T_MIB);

    t_cuda(CALL(cuGraphDestroy)(graph));
    EXPECT(0);
}
