/* SPDX-License-Identifier: Apache-2.0 */
/* cuCheckpointProcessRestore: SLEEP, what it held is taken again */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUdeviceptr block;

    t_cuda(cuMemAlloc_v2(&block, T_GIB));
    uint64_t all = charged_on(0);
    t_cuda(cuCheckpointProcessLock(getpid(), NULL));
    t_cuda(cuCheckpointProcessCheckpoint(getpid(), NULL));
    t_cuda(CALL(cuCheckpointProcessRestore)(getpid(), NULL));
    t_equal(charged_on(0), all);
    t_cuda(cuCheckpointProcessUnlock(getpid(), NULL));
}
