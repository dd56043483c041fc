/* SPDX-License-Identifier: Apache-2.0 */
/* cuCheckpointProcessCheckpoint: SLEEP, what a member held goes back to the tenant */
// preload: yes
// run: SOFTSLICE_VRAM=4GiB SOFTSIM_GPUS=2
#include "snippet.h"

static void snippet(void)
{
    CUdeviceptr block;

    t_cuda(cuMemAlloc_v2(&block, T_GIB));
    uint64_t all = charged_on(0);
    t_cuda(cuCheckpointProcessLock(getpid(), NULL));
    t_cuda(CALL(cuCheckpointProcessCheckpoint)(getpid(), NULL));
    t_equal(charged_on(0), 0);
    t_cuda(cuCheckpointProcessRestore(getpid(), NULL));
    t_cuda(cuCheckpointProcessUnlock(getpid(), NULL));
    t_equal(charged_on(0), all);
}
