/* SPDX-License-Identifier: Apache-2.0 */
/* A collective spins on one GPU until its part on the other one is launched. Its tenant is deep in debt by then: the part passes all the same, for what
 * waits for it costs more balance the longer it waits. */
// run: SOFTSLICE_COMPUTE=10% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 SOFTSIM_GPUS=2 -- meets
// unsanitized: virtual time is preloaded too
#include <time.h>

#include "gate_helper.h"

int main(void)
{
    CUcontext context[2];
    CUfunction kernel[2], meet[2];
    CUstream stream[2];
    uint64_t waited;

    for (int i = 0; i < 2; i++) {
        context[i] = t_context(i);
        kernel[i] = gate_kernel("k__20ms");
        meet[i] = gate_kernel("meet__pair__20us");
        stream[i] = gate_stream();
    }
    t_cuda(cuCtxSetCurrent(context[0]));
    gate_launch(kernel[0], stream[0]);
    gate_launch(meet[0], stream[0]);
    /* The kernel is done and costs ten times as much at this share; the first GPU spins. */
    nanosleep(&(struct timespec){.tv_nsec = 40 * MS}, NULL);
    t_cuda(cuCtxSetCurrent(context[1]));
    waited = gate_launch(meet[1], stream[1]);
    t_check(waited < 20 * MS, "its other part waited %llu us", (unsigned long long)(waited / US));
    t_cuda(cuStreamSynchronize(stream[1]));
    t_cuda(cuCtxSetCurrent(context[0]));
    t_cuda(cuStreamSynchronize(stream[0]));
    waited = gate_launch(kernel[0], stream[0]);
    t_check(waited > 100 * MS, "the debt was forgotten: the next launch waited %llu us only", (unsigned long long)(waited / US));
    return 0;
}
