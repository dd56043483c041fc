/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemImportFromShareableHandle: IMPORT, the exporter's charge */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUmemAllocationProp prop = on_gpu(1);
    CUmemGenericAllocationHandle handle, imported;
    int fd;

    t_cuda(cuMemCreate(&handle, 2 * GRANULE, &prop, 0));
    t_cuda(cuMemExportToShareableHandle(&fd, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    t_cuda(CALL(cuMemImportFromShareableHandle)(&imported, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
    EXPECT_ON(1, 2 * GRANULE);
    t_cuda(cuMemRelease(imported));
    EXPECT_ON(1, 2 * GRANULE);
}
