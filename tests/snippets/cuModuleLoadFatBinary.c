/* SPDX-License-Identifier: Apache-2.0 */
/* cuModuleLoadFatBinary: R7, what it takes is seen in the figure of the driver */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2 SOFTSIM_MODULE_BYTES=4M
#include "snippet.h"

static void snippet(void)
{
    CUmodule module;

    t_cuda(CALL(cuModuleLoadFatBinary)(&module, "image"));
    EXPECT(2 * GRANULE);
    t_cuda(cuModuleUnload(module));
    EXPECT(0);
}
