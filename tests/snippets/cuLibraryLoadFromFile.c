/* SPDX-License-Identifier: Apache-2.0 */
/* cuLibraryLoadFromFile: R7, what it takes is seen in the figure of the driver */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2 SOFTSIM_MODULE_BYTES=4M
#include "snippet.h"

static void snippet(void)
{
    CUlibrary library;
    CUmodule module;

    t_cuda(CALL(cuLibraryLoadFromFile)(&library, "/proc/self/exe", NULL, NULL, 0, NULL, NULL, 0));
    t_cuda(cuLibraryGetModule(&module, library)); /* loaded into this context at the latest now, and seen at the next reading */
    for (uint64_t start = t_now_ms(); charged_on(0) - at_first[0] != 2 * GRANULE; usleep(10000))
        t_check(t_now_ms() - start < 20000, "%llu bytes are charged, the GPU has %llu in use", (unsigned long long)charged_on(0),
                (unsigned long long)t_used(0));
}
