/* SPDX-License-Identifier: Apache-2.0 */
/* cuLibraryUnload: R7, what it took is given back */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2 SOFTSIM_MODULE_BYTES=4M
#include "snippet.h"

static void snippet(void)
{
    CUlibrary library;

    t_cuda(cuLibraryLoadData(&library, "image", NULL, NULL, 0, NULL, NULL, 0));
    t_cuda(CALL(cuLibraryUnload)(library));
    EXPECT(0);
}
