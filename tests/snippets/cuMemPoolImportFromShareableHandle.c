/* SPDX-License-Identifier: Apache-2.0 */
/* cuMemPoolImportFromShareableHandle: IMPORT, the exporter's charge */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUmemPoolProps props = pool_on_gpu(0);
    CUmemoryPool pool, imported;
    CUdeviceptr block;
    int fd;

    props.handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    t_cuda(cuMemPoolCreate(&pool, &props));
    t_cuda(cuMemAllocFromPoolAsync(&block, T_GIB, pool, NULL));
    EXPECT(T_GIB);
    t_cuda(cuMemPoolExportToShareableHandle(&fd, pool, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    t_cuda(CALL(cuMemPoolImportFromShareableHandle)(&imported, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    EXPECT(T_GIB);
}
