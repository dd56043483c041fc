/* SPDX-License-Identifier: Apache-2.0 */
/* The legacy stream is each context's own: with one context, with another beside it, in turn, and after the first one has ended, launches in it have the
 * share that was asked for, and all of their work is charged, on the device that it is on. The kernel is the same in all contexts, as a library's is:
 * what is known of it from one holds in the next. */
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 -- one
// run: SOFTSLICE_COMPUTE=50% SOFTSLICE_TENANT=gate LD_PRELOAD="$LIB $SIM/libvirtualtime.so" SOFTSIM_VIRTUAL=1 SOFTSIM_GPUS=2 -- two
// unsanitized: it is in virtual time
// unemulated: it is in virtual time
#include "gate_helper.h"

#define FOR    (500 * MS)
#define KERNEL (20 * US)
#define KNOWN  5 /* launches after which its time is */

static CUfunction kernel; /* a CUkernel */

/* As a library does that has its own ways to the driver. */
static CUcontext make_unseen(CUdevice device)
{
    CUresult (*create)(CUcontext *, unsigned, CUdevice) = (CUresult(*)(CUcontext *, unsigned, CUdevice))t_real("cuCtxCreate_v2");
    CUcontext context;

    t_cuda(create(&context, 0, device));
    return context;
}

static CUcontext make(CUdevice device)
{
    CUcontext context;

    t_cuda(cuCtxCreate(&context, NULL, 0, device));
    return context;
}

/* Launches in one place after the other, until their time is over and all is done. */
static void launch_in(const CUcontext *place, unsigned places)
{
    uint64_t before = gate_account(0).busy, begin = v_clock(CLOCK_MONOTONIC), launches = 0;

    while (v_clock(CLOCK_MONOTONIC) - begin < FOR) {
        t_cuda(cuCtxSetCurrent(place[launches++ % places]));
        gate_launch(kernel, NULL);
    }
    for (unsigned i = 0; i < places; i++) {
        t_cuda(cuCtxSetCurrent(place[i]));
        t_cuda(cuCtxSynchronize());
    }
    uint64_t elapsed = v_clock(CLOCK_MONOTONIC) - begin, work = launches * KERNEL;
    gate_percent(work, elapsed, 50, 3);
    usleep(100000); /* what ended is charged at the pacer's next look at the latest */
    uint64_t busy = gate_account(0).busy - before;
    gate_percent(busy, work, 100, 3);
}

/* Twice as much on the second device, and waits for both each time: it is always the first one's launches that ask. */
static void launch_on_both(const CUcontext place[2])
{
    uint64_t begin = v_clock(CLOCK_MONOTONIC), rounds = 0;

    while (v_clock(CLOCK_MONOTONIC) - begin < FOR) {
        rounds++;
        for (int i = 0; i < 3; i++) {
            t_cuda(cuCtxSetCurrent(place[i > 0]));
            gate_launch(kernel, NULL);
        }
        for (int i = 1; i >= 0; i--) {
            t_cuda(cuCtxSetCurrent(place[i]));
            t_cuda(cuCtxSynchronize());
        }
    }
    usleep(100000);
    for (unsigned i = 0; i < 2; i++)
        gate_percent(gate_account(i).busy, (i ? 2 * rounds : rounds + KNOWN) * 10 * KERNEL, 100, 3);
}

int main(int argc, char **argv)
{
    bool two = argc > 1 && !strcmp(argv[1], "two");
    CUcontext place[2];
    CUlibrary library;

    t_cuda(cuInit(0));
    place[0] = make(0);
    t_cuda(cuLibraryLoadData(&library, "any image", NULL, NULL, 0, NULL, NULL, 0));
    t_cuda(cuLibraryGetKernel((CUkernel *)&kernel, library, two ? "k__200us" : "k__20us"));
    if (two) {
        place[1] = make_unseen(1);
        t_cuda(cuCtxSetCurrent(place[0]));
        for (int i = 0; i < KNOWN; i++) {
            gate_launch(kernel, NULL);
            t_cuda(cuCtxSynchronize());
        }
        launch_on_both(place);
        return 0;
    }
    launch_in(place, 1);
    place[1] = make(0);
    launch_in(place, 1);
    launch_in(&place[1], 1);
    launch_in(place, 2);
    t_cuda(cuCtxDestroy(place[0]));
    launch_in(&place[1], 1);
    t_cuda(cuCtxDestroy(place[1]));
    place[0] = make(0);
    launch_in(place, 1);
    return 0;
}
