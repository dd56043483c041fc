/* SPDX-License-Identifier: Apache-2.0 */
/* cuLibraryLoadData: R7, what it takes is seen in the figure of the driver */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2 SOFTSIM_MODULE_BYTES=4M
#include "snippet.h"

static void snippet(void)
{
    CUlibrary library;
    CUmodule module;

    t_cuda(CALL(cuLibraryLoadData)(&library, "image", NULL, NULL, 0, NULL, NULL, 0));
    t_cuda(cuLibraryGetModule(&module, library)); /* loaded into this context at the latest now */
    t_equal(charged_on(0), t_used(0));
}
