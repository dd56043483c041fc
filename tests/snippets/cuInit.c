/* SPDX-License-Identifier: Apache-2.0 */
/* cuInit: JOIN, again and again */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    t_cuda(CALL(cuInit)(0));
    EXPECT(0);
}
