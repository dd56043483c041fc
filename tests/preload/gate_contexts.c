/* SPDX-License-Identifier: Apache-2.0 */
/* The legacy stream is each context's own: with one context, with another beside it, in turn, and after the first one has ended, launches in it have the
 * share that was asked for, and all of their work is charged. */
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1
// unsanitized: it is in virtual time
// unemulated: it is in virtual time
#include "gate_helper.h"

#define FOR    (500 * MS)
#define KERNEL (20 * US)

struct place {
    CUcontext context;
    CUfunction kernel;
};

static struct place make(void)
{
    struct place place;

    t_cuda(cuCtxCreate(&place.context, NULL, 0, 0));
    place.kernel = gate_kernel("k__20us");
    return place;
}

/* Launches in one place after the other, until their time is over and all is done. */
static void launch_in(const struct place *place, unsigned places)
{
    uint64_t before = gate_account(0).busy, begin = v_clock(CLOCK_MONOTONIC), launches = 0;

    while (v_clock(CLOCK_MONOTONIC) - begin < FOR) {
        const struct place *here = &place[launches++ % places];

        t_cuda(cuCtxSetCurrent(here->context));
        gate_launch(here->kernel, NULL);
    }
    for (unsigned i = 0; i < places; i++) {
        t_cuda(cuCtxSetCurrent(place[i].context));
        t_cuda(cuCtxSynchronize());
    }
    uint64_t elapsed = v_clock(CLOCK_MONOTONIC) - begin, work = launches * KERNEL;
    gate_percent(work, elapsed, 50, 3);
    usleep(100000); /* what ended is charged at the pacer's next look at the latest */
    uint64_t busy = gate_account(0).busy - before;
    gate_percent(busy, work, 100, 3);
}

int main(void)
{
    struct place place[2];

    t_cuda(cuInit(0));
    place[0] = make();
    launch_in(place, 1);
    place[1] = make();
    launch_in(place, 1);
    launch_in(&place[1], 1);
    launch_in(place, 2);
    t_cuda(cuCtxDestroy(place[0].context));
    launch_in(&place[1], 1);
    t_cuda(cuCtxDestroy(place[1].context));
    place[0] = make();
    launch_in(place, 1);
    return 0;
}
