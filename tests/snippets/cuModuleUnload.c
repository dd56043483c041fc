/* SPDX-License-Identifier: Apache-2.0 */
/* cuModuleUnload: R7, what it took is given back */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2 SOFTSIM_MODULE_BYTES=4M
#include "snippet.h"

static void snippet(void)
{
    CUmodule module;

    t_cuda(cuModuleLoadData(&module, "image"));
    t_cuda(CALL(cuModuleUnload)(module));
    EXPECT(0);
}
